//! Noticing that somebody else changes the table.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::error::KernelError;
use super::message::{INET, Message, Messages};
use super::socket::Socket;
use super::uapi::{generation, msg, object, table};
use crate::plan::ir::{Ident, TABLE};

/// What happened to the table, one per transaction, and quotas that are used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process changed something in it.
    Changed(Process),
    /// A process removed it.
    Deleted(Process),
    /// A quota of the table is used up to the last octet or beyond; told once each time its limit is set.
    UsedUp(Ident),
    /// Events were lost because they came faster than they were read: the table may have changed.
    Lost,
}

/// Who did it, as the kernel says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// The first 15 octets of its name; any process can choose it.
    pub name: String,
    /// Its number in the kernel's first PID namespace.
    pub pid: u32,
}

/// Listens to changes of the packet filter.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
    seen: Seen,
    waiting: std::collections::VecDeque<Event>,
}

/// What the messages of the transaction said so far; its end is a message of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    Change,
    Deletion,
}

impl Watch {
    /// Listens to everybody but the writer with that port ([`super::Kernel::port`]; 0: also to that one).
    ///
    /// # Errors
    /// [`super::ErrorKind::NotPermitted`] without CAP_NET_ADMIN.
    pub fn open(writer: u32) -> Result<Self, KernelError> {
        let mut socket = Socket::open()?;
        socket.enlarge()?;
        socket.ignore(writer)?;
        socket.join(libc::NFNLGRP_NFTABLES as u32)?;
        Ok(Self { socket, seen: Seen::Nothing, waiting: std::collections::VecDeque::new() })
    }

    /// Waits for an event as long as it takes.
    ///
    /// # Errors
    /// The socket's; it is of no use then.
    pub fn wait(&mut self) -> Result<Event, KernelError> {
        loop {
            if let Some(event) = self.wait_for(PollTimeout::NONE)? {
                return Ok(event);
            }
        }
    }

    /// Waits for an event, but not longer than that.
    ///
    /// # Errors
    /// As [`Watch::wait`].
    pub fn wait_for(&mut self, timeout: impl Into<PollTimeout>) -> Result<Option<Event>, KernelError> {
        if let Some(event) = self.try_next()? {
            return Ok(Some(event));
        }
        let mut descriptors = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut descriptors, timeout.into()) {
            Ok(_) | Err(Errno::EINTR) => self.try_next(),
            Err(errno) => Err(KernelError::socket("wait for changes of the packet filter", errno)),
        }
    }

    /// The next event if there is one; use it when the descriptor is readable, until it gives `None`.
    ///
    /// # Errors
    /// As [`Watch::wait`].
    pub fn try_next(&mut self) -> Result<Option<Event>, KernelError> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            match self.socket.receive() {
                Ok(None) => return Ok(None),
                Ok(Some(datagram)) => {
                    for message in Messages(datagram) {
                        self.waiting.extend(take(&mut self.seen, &message));
                    }
                }
                Err(Errno::ENOBUFS) => {
                    self.seen = Seen::Nothing;
                    return Ok(Some(Event::Lost));
                }
                Err(errno) => return Err(KernelError::socket("listen to changes of the packet filter", errno)),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn take(seen: &mut Seen, message: &Message<'_>) -> Option<Event> {
    let kind = message.nft()?;
    let attrs = message.attrs();
    if kind == msg::NEW_GENERATION {
        let process = Process {
            name: attrs.text(generation::PROCESS_NAME).unwrap_or_default().to_owned(),
            pid: attrs.u32(generation::PROCESS).unwrap_or(0),
        };
        return match std::mem::replace(seen, Seen::Nothing) {
            Seen::Nothing => None,
            Seen::Change => Some(Event::Changed(process)),
            Seen::Deletion => Some(Event::Deleted(process)),
        };
    }
    if let Some(name) = used_up(message) {
        return Some(Event::UsedUp(name));
    }
    // The table's name is attribute 1 of every kind.
    if message.family() != INET || attrs.text(table::NAME) != Some(TABLE) {
        return None;
    }
    *seen = match kind {
        msg::DEL_TABLE => Seen::Deletion,
        // Made again in the same transaction: all in it is gone nevertheless.
        _ if *seen == Seen::Deletion => Seen::Deletion,
        _ => Seen::Change,
    };
    None
}

/// The quota that the packet path says is used up. Such a message has no process behind it (no netlink port), and names
/// the family of the packet that met the limit, not of the table.
fn used_up(message: &Message<'_>) -> Option<Ident> {
    let attrs = message.attrs();
    let ours = message.nft() == Some(msg::NEW_OBJECT) && attrs.text(object::TABLE) == Some(TABLE);
    let packet = message.port == 0 && message.sequence == 0;
    let quota = attrs.u32(object::TYPE) == Some(object::QUOTA);
    (ours && packet && quota).then(|| attrs.text(object::NAME).map(Ident::from)).flatten()
}
