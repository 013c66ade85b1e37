//! The kernel driver: writes [`crate::plan::ops`] into nf_tables over netlink, reads back, watches.
//!
//! One [`Kernel`] is the one writer of the table. A commit is one datagram: the kernel takes all of it or none.

mod elements;
mod encode;
mod error;
mod exprs;
mod flows;
mod foreign;
mod held;
mod library;
mod message;
pub mod nflog;
mod objects;
mod pieces;
mod read;
mod receiver;
mod socket;
mod tally;
mod uapi;
mod usage;
mod watch;

use nix::errno::Errno;

pub use self::error::{ErrorKind, KernelError};
pub use self::flows::{Left, Tracked, flows, reclassify};
pub use self::foreign::Flowtable;
pub use self::held::{Held, HeldChain, HeldElement, HeldRule, HeldSet};
pub use self::library::{give_back_memory, set_up_allocator};
pub use self::objects::HeldObject;
pub use self::receiver::Receiver;
pub use self::tally::{Count, Tally};
pub use self::usage::{Removal, Removals, Teller};
pub use self::watch::{Event, Process, Watch};

use self::encode::{Absent, Batch, Dialect, Origin};
use self::error::describe;
use self::library::Library;
use self::message::{ACK, INET, Message, Writer};
use self::socket::{Outcome, Refusal, Socket};
use self::uapi::{generation, msg, set, table};
use crate::plan::ops::Op;

/// How often a transaction for a kernel without "destroy" is tried: each refusal names the elements that were gone,
/// and only elements that expire in between need one more try.
const TRIES: usize = 16;

/// Octets that the kernel may need to say what all elements with marks had counted: at most 524 288 (four maps of
/// [`crate::core::classes`]' numbers), some 370 octets each.
const ROOM_FOR_REMOVALS: usize = 256 << 20;

/// Octets of a transaction of some dozens of leases.
const USUAL: usize = 64 << 10;

/// How to use the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Own the table, where the kernel can: nobody else changes or flushes it, and it outlives this process. A later
    /// process takes it over with [`Op::AddTable`]; until then anybody can change it.
    pub own_table: bool,
    /// Do without what only newer kernels have, to look for faults and to test.
    pub old_kernel: bool,
}

/// What the kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Removing an element that is not there is no error (Linux 6.3). Without it, putting elements takes a second try
    /// when one is absent.
    pub destroy: bool,
    /// A table can have an owner and outlive it (Linux 6.9).
    pub owner: bool,
}

/// The writer.
pub struct Kernel {
    socket: Socket,
    library: Library,
    options: Options,
    features: Features,
    sequence: u32,
    teller: Option<Teller>,
    /// Room for the next transaction.
    room: Vec<u8>,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("socket", &self.socket).field("features", &self.features).finish_non_exhaustive()
    }
}

impl Kernel {
    /// Opens the writer and finds out what the kernel can do; changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotPermitted`] without CAP_NET_ADMIN in the network namespace, [`ErrorKind::NoNfTables`] when the
    /// kernel has no nf_tables.
    pub fn open(options: Options) -> Result<Self, KernelError> {
        let mut socket = Socket::open()?;
        socket.enlarge()?;
        let features = Features { destroy: false, owner: false };
        let mut kernel =
            Self { socket, library: Library::new(), options, features, sequence: 1, teller: None, room: Vec::new() };
        kernel.generation()?;
        if !options.old_kernel {
            kernel.features = Features { destroy: kernel.probe_destroy()?, owner: kernel.probe_owner()? };
        }
        Ok(kernel)
    }

    /// What the kernel can do.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    /// The netlink port of this writer, by which a [`Watch`] tells own changes from foreign ones.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// From now on tells what elements with marks as keys had counted when this writer removed them, and when it removed
    /// the table. Other writers must not be able to: nobody tells of theirs.
    ///
    /// # Errors
    /// [`ErrorKind::NotPermitted`] without CAP_NET_ADMIN.
    pub fn tell(&mut self, teller: Teller) -> Result<(), KernelError> {
        self.socket.hold(ROOM_FOR_REMOVALS)?;
        self.teller = Some(teller);
        Ok(())
    }

    /// Does all operations at once, or none.
    ///
    /// # Errors
    /// Names the operation that the kernel refused. [`ErrorKind::NotAdoptable`]: [`Op::AddTable`] found a table without
    /// owner although [`Options::own_table`] is set. [`ErrorKind::Unknown`] only if answers were lost.
    pub fn commit(&mut self, ops: &[Op]) -> Result<(), KernelError> {
        let own = self.options.own_table && self.features.owner;
        let dialect = Dialect { destroy: self.features.destroy, own, report: self.teller.is_some() };
        let mut absent = Absent::new();
        for _ in 0..TRIES {
            let room = std::mem::take(&mut self.room);
            let mut batch = encode::encode(ops, dialect, &absent, &mut self.library, self.sequence, room)?;
            if batch.is_empty() {
                return Ok(());
            }
            let begin = std::mem::replace(&mut self.sequence, batch.next);
            let mut removals = Vec::new();
            let hear = |message: Option<&Message<'_>>| match message {
                Some(message) => removals.extend(usage::removal(message).into_iter().flatten()),
                None => removals.push(Removal::Lost),
            };
            if let Some(teller) = self.teller.as_ref().filter(|_| batch.reports) {
                teller.begin();
            }
            let outcome = self.socket.transact(&batch.octets, begin, batch.last, hear);
            // What single leases need; more is given back.
            if batch.octets.capacity() <= USUAL {
                self.room = std::mem::take(&mut batch.octets);
            }
            if let Some(teller) = &self.teller {
                if matches!(outcome, Ok(Outcome::Done)) && ops.contains(&Op::DelTable) {
                    removals.push(Removal::Table);
                }
                teller.tell(removals);
            }
            let refusals = match outcome? {
                Outcome::Done => return Ok(()),
                Outcome::Refused(refusals) => refusals,
            };
            let known = absent.len();
            absent.extend(refusals.iter().filter_map(|refusal| gone(&batch, refusal)));
            if absent.len() == known {
                return Err(self.explain(ops, &batch, &refusals));
            }
        }
        Err(KernelError::unknown("elements kept expiring while they were replaced; try again"))
    }

    /// The first refusal is the cause; later ones follow from it.
    fn explain(&self, ops: &[Op], batch: &Batch, refusals: &[Refusal]) -> KernelError {
        let Some(refusal) = refusals.first() else {
            return KernelError::unknown("the kernel refused the change without a reason");
        };
        let hint = refusal.hint.as_deref();
        let Some(Origin { op, .. }) = batch.origin(refusal.sequence) else {
            return KernelError::refused(None, "take the change as a whole", refusal.errno, hint);
        };
        let doing = ops.get(op).map(describe).unwrap_or_default();
        let mut error = KernelError::refused(Some(op), &doing, refusal.errno, hint);
        if ops.get(op) == Some(&Op::AddTable) && refusal.errno == Errno::EOPNOTSUPP {
            error.kind = ErrorKind::NotAdoptable;
            error.what = format!(
                "the kernel refused to {doing}: it is there without an owner and cannot be taken over; \
                 remove it, or go on without owning it"
            );
        }
        error
    }

    /// The number of the ruleset's state; every transaction of anybody raises it.
    ///
    /// # Errors
    /// As [`Kernel::open`].
    pub fn generation(&mut self) -> Result<u32, KernelError> {
        let mut writer = Writer::new(self.sequence);
        writer.begin(msg::GET_GENERATION, ACK, INET);
        writer.end();
        self.sequence = writer.next_sequence();
        let mut found = None;
        let answer = self.socket.ask(&writer.octets, |message| {
            if message.nft() == Some(msg::NEW_GENERATION) {
                found = message.attrs().u32(generation::ID);
            }
        })?;
        if let Err(refusal) = answer {
            let mut error =
                KernelError::refused(None, "say the state of the ruleset", refusal.errno, refusal.hint.as_deref());
            if matches!(refusal.errno, Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOENT) {
                error.kind = ErrorKind::NoNfTables;
                error.what = "this kernel has no nf_tables; load or enable the module nf_tables".to_owned();
            }
            return Err(error);
        }
        found.ok_or_else(|| KernelError::unknown("the kernel did not say the state of the ruleset"))
    }

    /// Sends messages that are refused in any case, and returns the error of each; nothing changes.
    fn probe(&mut self, write: impl FnOnce(&mut Writer)) -> Result<Vec<Refusal>, KernelError> {
        let mut writer = Writer::new(self.sequence);
        writer.batch_mark(libc::NFNL_MSG_BATCH_BEGIN);
        write(&mut writer);
        writer.acknowledge_last();
        let last = writer.next_sequence().wrapping_sub(1);
        writer.batch_mark(libc::NFNL_MSG_BATCH_END);
        let begin = std::mem::replace(&mut self.sequence, writer.next_sequence());
        match self.socket.transact(&writer.octets, begin, last, |_| ())? {
            Outcome::Done => Ok(Vec::new()),
            Outcome::Refused(refusals) => Ok(refusals),
        }
    }

    /// A kernel that knows the message says that the table is not there; an older one that the message is not.
    fn probe_destroy(&mut self) -> Result<bool, KernelError> {
        let refusals = self.probe(|writer| {
            writer.begin(msg::DESTROY_ELEMENTS, 0, INET);
            writer.text(set::TABLE, PROBE);
            writer.text(set::NAME, PROBE);
            writer.end();
        })?;
        permitted(&refusals)?;
        Ok(refusals.iter().all(|refusal| refusal.errno == Errno::ENOENT))
    }

    /// Makes a table with an owner in a transaction that fails at its second message.
    fn probe_owner(&mut self) -> Result<bool, KernelError> {
        let first = self.sequence.wrapping_add(1);
        let refusals = self.probe(|writer| {
            writer.begin(msg::NEW_TABLE, message::CREATE, INET);
            writer.text(table::NAME, PROBE);
            writer.u32(table::FLAGS, table::OWNER | table::PERSIST);
            writer.end();
            writer.begin(msg::DEL_CHAIN, 0, INET);
            writer.text(uapi::chain::TABLE, PROBE);
            writer.text(uapi::chain::NAME, PROBE);
            writer.end();
        })?;
        permitted(&refusals)?;
        Ok(refusals.iter().all(|refusal| refusal.sequence != first))
    }
}

/// The name of things that are asked for only to learn what the kernel can do.
const PROBE: &str = "clawgress_probe";

fn permitted(refusals: &[Refusal]) -> Result<(), KernelError> {
    match refusals.iter().find(|refusal| refusal.errno == Errno::EPERM) {
        Some(refusal) => Err(KernelError::refused(None, "change the packet filter", refusal.errno, None)),
        None => Ok(()),
    }
}

/// The element that the kernel did not find when it was to be removed.
fn gone(batch: &Batch, refusal: &Refusal) -> Option<(usize, usize)> {
    let origin = batch.origin(refusal.sequence)?;
    (refusal.errno == Errno::ENOENT).then_some((origin.op, origin.removes?))
}
