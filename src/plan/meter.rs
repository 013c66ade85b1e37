//! Meters: what the packets of a class pass on their way out, before they are accepted.

use std::collections::BTreeSet;

use super::ids::HostId;
use super::ir::{Ident, Verdict};
use super::table::names;

/// The number of an exfil cap; the kernel's objects are named by it. Never used twice, so that what the kernel counted
/// for one cap is never taken for another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CapId(pub u32);

/// What a class meets besides its verdict. Classes with equal meters share a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Meter {
    /// The bucket of this host.
    pub rate: Option<HostId>,
    /// The bucket of all egress in scope.
    pub all: bool,
    /// Every cap that is charged.
    pub caps: BTreeSet<CapId>,
    /// Judged again at each packet by this host's rules.
    pub recheck: Option<HostId>,
}

impl Meter {
    /// Whether there is nothing to measure.
    pub fn is_free(&self) -> bool {
        self.rate.is_none() && !self.all && self.caps.is_empty()
    }

    /// Where the packets of the class go.
    pub fn verdict(&self) -> Verdict {
        match self.recheck {
            _ if !self.is_free() => Verdict::Goto(self.chain()),
            Some(host) => Verdict::Goto(names::recheck(host)),
            None => Verdict::Accept,
        }
    }

    /// `meter_…`: the chain, named by a digest of what it does (FNV-1a).
    pub fn chain(&self) -> Ident {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut eat = |number: u32| {
            for octet in number.to_be_bytes() {
                hash = (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        eat(self.rate.map_or(0, |host| u32::from(host.0) + 1));
        eat(u32::from(self.all));
        eat(self.recheck.map_or(0, |host| u32::from(host.0) + 1));
        self.caps.iter().for_each(|cap| eat(cap.0));
        Ident::from(format!("{}{hash:016x}", names::METER))
    }
}

/// What the table has to know of a cap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapState {
    /// The kernel's first limit: octets since the objects were made. Packets beyond it still pass, up to `rest`, so that
    /// there is time to grant more.
    pub limit: u64,
    /// The second one: octets that came beyond the first since the objects were made.
    pub rest: u64,
    /// Nothing more is granted in this period: a packet beyond both is refused. Otherwise it is dropped, and comes again
    /// when more was granted.
    pub last: bool,
    /// Nothing is enforced on the host: what is beyond the limits is noted at most.
    pub lenient: bool,
}

/// What the kernel counts for a cap, octets since the objects were made: values, or the names of the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapCounters<T> {
    /// Passed.
    pub passed: T,
    /// Charged and not passed.
    pub spilled: T,
    /// Came beyond the first limit, whether or not it passed.
    pub over: T,
    /// Of what passed, IPv4 packets that were several in one.
    pub merged4: T,
    /// The same of IPv6.
    pub merged6: T,
}

impl<T> CapCounters<T> {
    /// All of them, in an order that [`CapCounters::from_array`] knows: what errs against the agent when it is older
    /// comes first.
    pub fn into_array(self) -> [T; 5] {
        [self.spilled, self.over, self.passed, self.merged4, self.merged6]
    }

    /// Back from [`CapCounters::into_array`].
    pub fn from_array([spilled, over, passed, merged4, merged6]: [T; 5]) -> Self {
        Self { passed, spilled, over, merged4, merged6 }
    }
}
