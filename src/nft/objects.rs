//! Quotas and counters as messages.

use super::Kernel;
use super::error::KernelError;
use super::message::{ACK, Attrs, CREATE, DUMP, INET, Message, Writer};
use super::uapi::{counter, msg, object, quota, table};
use crate::plan::ir::{Ident, Object, ObjectKind, TABLE};

/// An object as the kernel holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldObject {
    /// A quota that a rule meets when it is over.
    Quota {
        /// Octets.
        limit: u64,
        /// Octets charged; the kernel says no more than the limit.
        used: u64,
    },
    /// A counter.
    Counter {
        /// Packets.
        packets: u64,
        /// Octets of IP packets; a merged packet's headers once.
        bytes: u64,
    },
    /// Something that the language does not know.
    Strange,
}

fn kind_number(kind: ObjectKind) -> u32 {
    match kind {
        ObjectKind::Quota => object::QUOTA,
        ObjectKind::Counter => object::COUNTER,
    }
}

fn head(writer: &mut Writer, kind: i32, flags: u16, name: &str, of: ObjectKind) {
    writer.begin(kind, flags, INET);
    writer.text(object::TABLE, TABLE);
    writer.text(object::NAME, name);
    writer.u32(object::TYPE, kind_number(of));
}

/// `NFT_MSG_NEWOBJ`.
pub(super) fn add(writer: &mut Writer, name: &str, what: &Object) {
    head(writer, msg::NEW_OBJECT, CREATE | libc::NLM_F_EXCL as u16, name, what.kind());
    let data = writer.open(object::DATA);
    match what {
        Object::Quota { limit, used } => {
            writer.u64(quota::BYTES, *limit);
            writer.u32(quota::FLAGS, quota::OVER);
            writer.u64(quota::CONSUMED, *used);
        }
        Object::Counter { packets, bytes } => {
            writer.u64(counter::BYTES, *bytes);
            writer.u64(counter::PACKETS, *packets);
        }
    }
    writer.close(data);
    writer.end();
}

/// `NFT_MSG_NEWOBJ` for a quota that is there: the kernel takes the limit and keeps what was charged.
pub(super) fn set_quota(writer: &mut Writer, name: &str, limit: u64) {
    head(writer, msg::NEW_OBJECT, CREATE, name, ObjectKind::Quota);
    let data = writer.open(object::DATA);
    writer.u64(quota::BYTES, limit);
    writer.u32(quota::FLAGS, quota::OVER);
    writer.close(data);
    writer.end();
}

/// `NFT_MSG_DELOBJ`.
pub(super) fn remove(writer: &mut Writer, name: &str, kind: ObjectKind) {
    head(writer, msg::DEL_OBJECT, 0, name, kind);
    writer.end();
}

/// The name and content of an object in a message of the kernel's.
pub(super) fn read(attrs: Attrs<'_>) -> Option<(&str, HeldObject)> {
    let name = attrs.text(object::NAME)?;
    let data = attrs.nested(object::DATA).unwrap_or(Attrs(&[]));
    let held = match attrs.u32(object::TYPE)? {
        object::QUOTA if data.u32(quota::FLAGS).unwrap_or(0) & quota::OVER != 0 => {
            HeldObject::Quota { limit: data.u64(quota::BYTES)?, used: data.u64(quota::CONSUMED).unwrap_or(0) }
        }
        object::COUNTER => {
            HeldObject::Counter { packets: data.u64(counter::PACKETS)?, bytes: data.u64(counter::BYTES)? }
        }
        _ => HeldObject::Strange,
    };
    Some((name, held))
}

impl Kernel {
    /// One object of the table; `None`: it is not there.
    ///
    /// # Errors
    /// The socket's.
    pub fn object(&mut self, name: &str, kind: ObjectKind) -> Result<Option<HeldObject>, KernelError> {
        let mut found = None;
        self.question(
            |writer| {
                head(writer, msg::GET_OBJECT, ACK, name, kind);
                writer.end();
            },
            |message| found = found.or(read(message.attrs()).map(|(_, held)| held)),
        )?;
        Ok(found)
    }

    /// All objects of the table with what they hold now. Not as of one moment.
    ///
    /// # Errors
    /// The socket's.
    pub fn objects(&mut self) -> Result<Vec<(Ident, HeldObject)>, KernelError> {
        let mut all = Vec::new();
        self.question(dump, |message| {
            if is_ours(message)
                && let Some((name, held)) = read(message.attrs())
            {
                all.push((name.into(), held));
            }
        })?;
        Ok(all)
    }
}

/// Asks for all objects of the table.
pub(super) fn dump(writer: &mut Writer) {
    writer.begin(msg::GET_OBJECT, DUMP, INET);
    writer.text(object::TABLE, TABLE);
    writer.end();
}

fn is_ours(message: &Message<'_>) -> bool {
    // The table's name is attribute 1 of every kind.
    message.family() == INET && message.attrs().text(table::NAME) == Some(TABLE)
}
