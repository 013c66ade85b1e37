//! What the elements of a map have counted, and what they had counted when they were removed: the kernel tells it with
//! the removal, so nothing falls between the last reading and the end.
//!
//! Who owns the table is the only one who removes anything, and has the kernel tell it just that
//! (docs/decisions/0022). Where anybody may, all changes are listened to.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::error::KernelError;
use super::held::{HeldElement, marked};
use super::message::{INET, Message, Messages};
use super::socket::Socket;
use super::uapi::{list, msg, table};
use crate::plan::ir::TABLE;

/// Removals that may wait for who takes them in; more than twice as many as there are elements that count.
const MOST: usize = 1 << 20;

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

/// Where removals are heard of.
#[derive(Debug)]
pub struct Removals(Ears);

#[derive(Debug)]
enum Ears {
    /// The kernel, whoever changes something.
    All(Socket),
    /// The writer of this process.
    Own(Arc<Board>),
}

/// Tells what a writer removed; see [`super::Kernel::tell`].
#[derive(Clone, Debug)]
pub struct Teller(Arc<Board>);

/// What was told and is not taken in yet.
#[derive(Debug)]
struct Board {
    bell: EventFd,
    told: Mutex<Vec<Removal>>,
    /// The kernel may have removed something that is not told yet.
    untold: AtomicBool,
}

impl Removals {
    /// Listens from now on to what anybody removes; what happens waits in the kernel until it is taken in.
    ///
    /// # Errors
    /// [`super::ErrorKind::NotPermitted`] without CAP_NET_ADMIN.
    pub fn of_anybody() -> Result<Self, KernelError> {
        let mut socket = Socket::open()?;
        socket.enlarge()?;
        socket.join(libc::NFNLGRP_NFTABLES as u32)?;
        Ok(Self(Ears::All(socket)))
    }

    /// Listens to what one writer removes, which must be the only one there is.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn of_writer() -> Result<(Self, Teller), KernelError> {
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| KernelError::socket("make a bell for what is removed", errno))?;
        let board = Arc::new(Board { bell, told: Mutex::default(), untold: AtomicBool::default() });
        Ok((Self(Ears::Own(Arc::clone(&board))), Teller(board)))
    }

    /// Whether all that a reading missed that ended before this call can be taken in now. If not, it is on its way.
    #[must_use]
    pub fn are_settled(&self) -> bool {
        match &self.0 {
            // The kernel's messages are there when the transaction is.
            Ears::All(_) => true,
            Ears::Own(board) => !board.untold.load(Ordering::SeqCst),
        }
    }

    /// Takes in all that happened.
    ///
    /// # Errors
    /// The socket's; it is of no use then.
    pub fn take(&mut self, mut each: impl FnMut(Removal)) -> Result<(), KernelError> {
        let socket = match &mut self.0 {
            Ears::All(socket) => socket,
            Ears::Own(board) => {
                // First the bell: what is told from now on rings again.
                let _ = board.bell.read();
                let told = std::mem::take(&mut *board.told.lock().unwrap_or_else(PoisonError::into_inner));
                told.into_iter().for_each(each);
                return Ok(());
            }
        };
        loop {
            match socket.receive() {
                Ok(None) => return Ok(()),
                Ok(Some(datagram)) => {
                    Messages(datagram).filter_map(|message| removal(&message)).flatten().for_each(&mut each)
                }
                Err(Errno::ENOBUFS) => each(Removal::Lost),
                Err(errno) => return Err(KernelError::socket("listen to changes of the packet filter", errno)),
            }
        }
    }
}

impl AsFd for Removals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Ears::All(socket) => socket.as_fd(),
            Ears::Own(board) => board.bell.as_fd(),
        }
    }
}

impl Teller {
    /// A transaction begins that may remove something; [`Teller::tell`] must follow.
    pub(super) fn begin(&self) {
        self.0.untold.store(true, Ordering::SeqCst);
    }

    /// Tells what a transaction removed.
    pub(super) fn tell(&self, removals: Vec<Removal>) {
        if !removals.is_empty() {
            self.write(removals);
        }
        self.0.untold.store(false, Ordering::SeqCst);
    }

    fn write(&self, mut removals: Vec<Removal>) {
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() + removals.len() > MOST {
            // Nobody takes anything in: the disk hangs, say.
            removals = if told.last() == Some(&Removal::Lost) { Vec::new() } else { vec![Removal::Lost] };
        }
        told.append(&mut removals);
        drop(told);
        let _ = self.0.bell.write(1);
    }
}

/// What a message says of removals.
pub(super) fn removal(message: &Message<'_>) -> Option<Vec<Removal>> {
    let attrs = message.attrs();
    // The table's name is attribute 1 of every kind.
    if message.family() != INET || attrs.text(table::NAME) != Some(TABLE) {
        return None;
    }
    match message.nft()? {
        msg::DEL_TABLE => Some(vec![Removal::Table]),
        msg::DEL_ELEMENTS => {
            let map = attrs.text(list::SET)?;
            let element = |(mark, element)| Removal::Element { map: map.to_owned(), mark, element };
            Some(marked(attrs).map(element).collect())
        }
        _ => None,
    }
}
