//! The netlink socket: one `sendmsg` per transaction, and the kernel's answers.
//!
//! The kernel works on a request inside `sendmsg`, so every answer is queued when that returns; nothing here waits.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{MsgFlags, NetlinkAddr, SetSockOpt, recv, sendmsg, setsockopt, sockopt};
use nix::{setsockopt_impl, sockopt_impl};

use super::error::KernelError;
use super::message::{Attrs, Message, Messages, word};

/// Octets of the largest transaction. The kernel copies it whole; a million elements are about 64 MiB.
const MAX_BATCH: usize = 256 << 20;
/// Octets the send buffer has from the start: enough for a revision of a usual policy.
const FIRST_SEND_BUFFER: usize = 1 << 20;
/// Octets of answers that may wait: one refusal takes about 1 KiB, and every message of a batch can be refused.
const RECEIVE_BUFFER: usize = 32 << 20;
/// Octets of one answer: the kernel fills dumps to 32 KiB at most.
const ANSWER: usize = 64 << 10;
/// `NLM_F_CAPPED` of an error message: the refused request is not repeated in it.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS` of an error message: attributes follow.
const WITH_ATTRIBUTES: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`.
const ATTR_MESSAGE: u16 = 1;
/// `NLM_F_DUMP_INTR`: the ruleset changed while it was dumped.
const INTERRUPTED: u16 = libc::NLM_F_DUMP_INTR as u16;

sockopt_impl!(
    /// Errors do not repeat the request, else the answer to a large refused batch is lost (`ENOBUFS`).
    CapAck,
    SetOnly,
    libc::SOL_NETLINK,
    libc::NETLINK_CAP_ACK,
    bool
);
sockopt_impl!(
    /// Errors come with the kernel's words.
    ExtAck,
    SetOnly,
    libc::SOL_NETLINK,
    libc::NETLINK_EXT_ACK,
    bool
);
sockopt_impl!(
    /// Receives events of a group.
    Membership,
    SetOnly,
    libc::SOL_NETLINK,
    libc::NETLINK_ADD_MEMBERSHIP,
    u32
);

/// A netlink socket of the netfilter bus.
pub(super) struct Socket {
    inner: mnl::Socket,
    send_buffer: usize,
    answer: Vec<u8>,
}

// SAFETY: the C object behind `mnl::Socket` is a file descriptor and its address in plain memory, without any tie to a
// thread; `Socket` is not `Sync`, so only one thread uses it at a time.
unsafe impl Send for Socket {}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("port", &self.port()).finish_non_exhaustive()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as `inner` lives, and the result borrows `self`.
        unsafe { BorrowedFd::borrow_raw(self.inner.as_raw_fd()) }
    }
}

/// A message that the kernel refused.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) sequence: u32,
    pub(super) errno: Errno,
    pub(super) hint: Option<String>,
}

/// The outcome of a transaction.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    /// Never empty; in the order of the messages.
    Refused(Vec<Refusal>),
}

impl Socket {
    pub(super) fn open() -> Result<Self, KernelError> {
        let doing = "open a netlink socket to the kernel's packet filter";
        let inner = mnl::Socket::new(mnl::Bus::Netfilter)
            .map_err(|error| KernelError::socket(doing, Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))))?;
        let mut socket = Self { inner, send_buffer: 0, answer: vec![0; ANSWER] };
        // The kernel gives some things (a table, an NFLOG group) back when the last descriptor is closed.
        fcntl(socket.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
            .map_err(|errno| KernelError::socket(doing, errno))?;
        socket.option(CapAck, &true, doing)?;
        socket.option(ExtAck, &true, doing)?;
        Ok(socket)
    }

    /// Raises the buffers above the system's limits, which takes CAP_NET_ADMIN.
    pub(super) fn enlarge(&mut self) -> Result<(), KernelError> {
        self.option(sockopt::RcvBufForce, &RECEIVE_BUFFER, "enlarge the receive buffer of the netlink socket")?;
        self.allow(FIRST_SEND_BUFFER)
    }

    /// Lets so many octets wait to be received.
    pub(super) fn hold(&mut self, octets: usize) -> Result<(), KernelError> {
        self.option(sockopt::RcvBufForce, &octets, "enlarge the receive buffer of the netlink socket")
    }

    /// Lets the kernel leave out events that the socket with that port caused, before they take room in the buffer:
    /// loading a large set must not look like lost events.
    pub(super) fn ignore(&mut self, port: u32) -> Result<(), KernelError> {
        /// Where `struct nlmsghdr` has the port.
        const PORT: u32 = 12;
        let code = |code: u32| code as u16;
        let load = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
        let equal = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
        let end = code(libc::BPF_RET | libc::BPF_K);
        let mut program = [
            libc::sock_filter { code: load, jt: 0, jf: 0, k: PORT },
            // The filter loads in network byte order.
            libc::sock_filter { code: equal, jt: 0, jf: 1, k: u32::from_be_bytes(port.to_ne_bytes()) },
            libc::sock_filter { code: end, jt: 0, jf: 0, k: 0 },
            libc::sock_filter { code: end, jt: 0, jf: 0, k: u32::MAX },
        ];
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: the kernel copies the program, whose length is the one given, before the call returns.
        let result = unsafe {
            libc::setsockopt(
                self.inner.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const filter).cast(),
                size_of_val(&filter) as libc::socklen_t,
            )
        };
        Errno::result(result)
            .map(drop)
            .map_err(|errno| KernelError::socket("filter events of the packet filter", errno))
    }

    /// Subscribes to a group of events.
    pub(super) fn join(&mut self, group: u32) -> Result<(), KernelError> {
        self.option(Membership, &group, "subscribe to changes of the packet filter")
    }

    /// The address of this socket; the kernel puts it into events that its requests cause.
    pub(super) fn port(&self) -> u32 {
        self.inner.portid()
    }

    fn option<O: SetSockOpt>(&mut self, option: O, value: &O::Val, doing: &str) -> Result<(), KernelError> {
        setsockopt(&self.as_fd(), option, value).map_err(|errno| KernelError::socket(doing, errno))
    }

    /// Makes room for one message of that many octets.
    fn allow(&mut self, octets: usize) -> Result<(), KernelError> {
        if octets <= self.send_buffer {
            return Ok(());
        }
        if octets > MAX_BATCH {
            return Err(KernelError::socket("send the changes to the kernel", Errno::EMSGSIZE));
        }
        self.option(sockopt::SndBufForce, &octets, "enlarge the send buffer of the netlink socket")?;
        self.send_buffer = octets;
        Ok(())
    }

    fn send(&mut self, octets: &[u8]) -> Result<(), KernelError> {
        self.allow(octets.len())?;
        let kernel = NetlinkAddr::new(0, 0);
        loop {
            match sendmsg(self.inner.as_raw_fd(), &[IoSlice::new(octets)], &[], MsgFlags::empty(), Some(&kernel)) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(KernelError::socket("send the changes to the kernel", errno)),
            }
        }
    }

    /// The next waiting datagram; `None`: there is none.
    pub(super) fn receive(&mut self) -> Result<Option<&[u8]>, Errno> {
        loop {
            match recv(self.inner.as_raw_fd(), &mut self.answer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => return Ok(Some(&self.answer[..length.min(ANSWER)])),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Throws away answers left over by an earlier error.
    fn drain(&mut self) {
        while !matches!(self.receive(), Ok(None)) {}
    }

    /// Sends a batch and reads the answers; `begin` is the number of its first message, `last` of the message that asks
    /// for an answer, behind which only the batch's end stands. `event` gets the events that the batch caused, as far as
    /// it asked for them, and `None` if some were lost.
    pub(super) fn transact(
        &mut self,
        octets: &[u8],
        begin: u32,
        last: u32,
        mut event: impl FnMut(Option<&Message<'_>>),
    ) -> Result<Outcome, KernelError> {
        self.send(octets)?;
        let mut refusals = Vec::new();
        let mut done = false;
        let mut lost = false;
        loop {
            let datagram = match self.receive() {
                Ok(None) => break,
                Ok(Some(datagram)) => datagram,
                Err(Errno::ENOBUFS) => {
                    lost = true;
                    continue;
                }
                Err(errno) => return Err(KernelError::socket("read the kernel's answer", errno)),
            };
            for message in Messages(datagram) {
                // Events of elements have no number.
                if message.nft().is_some() {
                    event(Some(&message));
                    continue;
                }
                // Not an answer to an earlier question that was given up.
                if message.sequence.wrapping_sub(begin) > last.wrapping_sub(begin) + 1 {
                    continue;
                }
                match answer(&message) {
                    Some(Ok(())) => done |= message.sequence == last,
                    Some(Err(refusal)) => refusals.push(refusal),
                    None => {}
                }
            }
        }
        if lost {
            event(None);
        }
        if !refusals.is_empty() {
            return Ok(Outcome::Refused(refusals));
        }
        if done {
            return Ok(Outcome::Done);
        }
        Err(KernelError::unknown(if lost {
            "the kernel's answer was lost; read the table again"
        } else {
            "the kernel did not answer; read the table again"
        }))
    }

    /// Sends a question and passes every message of the answer on. `Ok(false)`: the ruleset changed meanwhile, ask
    /// again.
    pub(super) fn ask(
        &mut self,
        octets: &[u8],
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<Result<bool, Refusal>, KernelError> {
        let doing = "read the packet filter";
        self.drain();
        self.send(octets)?;
        let mut whole = true;
        loop {
            let datagram = match self.receive() {
                Ok(Some(datagram)) => datagram,
                Ok(None) => return Err(KernelError::unknown("the kernel did not answer; try again")),
                Err(errno) => return Err(KernelError::socket(doing, errno)),
            };
            for message in Messages(datagram) {
                whole &= message.flags & INTERRUPTED == 0;
                if i32::from(message.kind) == libc::NLMSG_DONE {
                    let code = word(message.payload, 0).unwrap_or(0) as i32;
                    let errno = Errno::from_raw(code.wrapping_neg());
                    let refusal = Refusal { sequence: message.sequence, errno, hint: None };
                    return Ok(if code < 0 { Err(refusal) } else { Ok(whole) });
                }
                match answer(&message) {
                    Some(Ok(())) => return Ok(Ok(whole)),
                    Some(Err(refusal)) => return Ok(Err(refusal)),
                    None => each(&message),
                }
            }
        }
    }
}

/// Reads `struct nlmsgerr`; `None`: the message is none.
pub(super) fn answer(message: &Message<'_>) -> Option<Result<(), Refusal>> {
    if i32::from(message.kind) != libc::NLMSG_ERROR {
        return None;
    }
    let code = word(message.payload, 0)? as i32;
    if code == 0 {
        return Some(Ok(()));
    }
    // Behind the error number stands the header of the request, or the request whole.
    let request = if message.flags & CAPPED != 0 { 16 } else { (word(message.payload, 4)? as usize).min(ANSWER) };
    let hint = (message.flags & WITH_ATTRIBUTES != 0)
        .then(|| message.payload.get(4usize.saturating_add(request.next_multiple_of(4))..))
        .flatten()
        .and_then(|attributes| Attrs(attributes).text(ATTR_MESSAGE))
        .map(str::to_owned);
    Some(Err(Refusal { sequence: message.sequence, errno: Errno::from_raw(code.wrapping_neg()), hint }))
}
