//! Quotas and counters: what the kernel keeps beside rules and sets.

/// A stateful object: rules name it, and it outlives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// `quota … { over LIMIT bytes used USED bytes }`. Packets beyond the limit are charged too.
    Quota {
        /// Octets of IP packets.
        limit: u64,
        /// Octets charged so far; never above the limit in what is written or read.
        used: u64,
    },
    /// `counter … { packets … bytes … }`.
    Counter {
        /// Packets counted.
        packets: u64,
        /// Octets of IP packets counted; a merged packet's headers once.
        bytes: u64,
    },
}

/// The kind of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// A quota.
    Quota,
    /// A counter.
    Counter,
}

impl Object {
    /// A counter that has counted nothing.
    pub const COUNTER: Object = Object::Counter { packets: 0, bytes: 0 };

    /// What it is.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Quota { .. } => ObjectKind::Quota,
            Self::Counter { .. } => ObjectKind::Counter,
        }
    }
}
