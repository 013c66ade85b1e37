//! What the elements of a map have counted, and what they had counted when they were removed: the kernel tells it with
//! the removal, so nothing falls between the last reading and the end.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::error::KernelError;
use super::held::{HeldElement, marked};
use super::message::{INET, Message, Messages};
use super::socket::Socket;
use super::uapi::{list, msg, table};
use crate::plan::ir::TABLE;

/// What happened to counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// An element with a mark as key was removed, with what it had counted. Its time left is not told.
    Element {
        /// The map.
        map: String,
        /// The key.
        mark: u32,
        /// The element.
        element: HeldElement,
    },
    /// The table was removed, with all that its elements had counted.
    Table,
    /// Removals were lost because they came faster than they were taken in.
    Lost,
}

/// Listens to removals.
#[derive(Debug)]
pub struct Removals {
    socket: Socket,
}

impl Removals {
    /// Listens from now on; what happens waits in the kernel until it is taken in.
    ///
    /// # Errors
    /// [`super::ErrorKind::NotPermitted`] without CAP_NET_ADMIN.
    pub fn open() -> Result<Self, KernelError> {
        let mut socket = Socket::open()?;
        socket.enlarge()?;
        socket.join(libc::NFNLGRP_NFTABLES as u32)?;
        Ok(Self { socket })
    }

    /// Takes in all that happened.
    ///
    /// # Errors
    /// The socket's; it is of no use then.
    pub fn take(&mut self, mut each: impl FnMut(Removal)) -> Result<(), KernelError> {
        loop {
            match self.socket.receive() {
                Ok(None) => return Ok(()),
                Ok(Some(datagram)) => Messages(datagram).for_each(|message| one(&message, &mut each)),
                Err(Errno::ENOBUFS) => each(Removal::Lost),
                Err(errno) => return Err(KernelError::socket("listen to changes of the packet filter", errno)),
            }
        }
    }
}

impl AsFd for Removals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn one(message: &Message<'_>, each: &mut impl FnMut(Removal)) {
    let attrs = message.attrs();
    // The table's name is attribute 1 of every kind.
    if message.family() != INET || attrs.text(table::NAME) != Some(TABLE) {
        return;
    }
    match message.nft() {
        Some(msg::DEL_TABLE) => each(Removal::Table),
        Some(msg::DEL_ELEMENTS) => {
            let Some(map) = attrs.text(list::SET) else { return };
            for (mark, element) in marked(attrs) {
                each(Removal::Element { map: map.to_owned(), mark, element });
            }
        }
        _ => {}
    }
}
