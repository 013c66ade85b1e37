//! Takes in the copies of packets ([`super::nflog`]), and counts what was lost on the way.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::error::{ErrorKind, KernelError};
use super::message::{ACK, Writer};
use super::nflog::{Copied, parse};
use super::socket::Socket;

/// `NFNL_SUBSYS_ULOG` in the upper octet of a message type, and `NFULNL_MSG_CONFIG` in the lower.
const CONFIG: u16 = ((libc::NFNL_SUBSYS_ULOG as u16) << 8) | 1;
// `NFULA_CFG_*`.
const COMMAND: u16 = 1;
const MODE: u16 = 2;
const TIMEOUT: u16 = 4;
const THRESHOLD: u16 = 5;
const FLAGS: u16 = 6;
/// `NFULNL_CFG_CMD_BIND`.
const BIND: u8 = 1;
/// `NFULNL_COPY_PACKET`; the rule says how much of it.
const COPY_PACKET: u8 = 2;
/// `NFULNL_CFG_F_SEQ`: copies are numbered.
const NUMBERED: u16 = 1;
/// Copies that the kernel may hold back to send them together.
const TOGETHER: u32 = 32;
/// For how long it may, in hundredths of a second.
const HELD_BACK: u32 = 2;
/// Octets of copies that may wait: some ten thousand. What comes on top is lost, and counted.
const WAITING: usize = 4 << 20;
/// Octets of a packet at most that a copy has, if a rule does not say.
const COPIED: u32 = 128;

/// Listens to one NFLOG group.
#[derive(Debug)]
pub struct Receiver {
    socket: Socket,
    /// The number of the next copy.
    next: u32,
    lost: u64,
}

impl Receiver {
    /// Binds the group; the kernel gives it to one program at a time.
    ///
    /// # Errors
    /// Another program has the group, the process lacks CAP_NET_ADMIN, or the kernel has no NFLOG.
    pub fn bind(group: u16) -> Result<Self, KernelError> {
        let mut socket = Socket::open()?;
        socket.hold(WAITING)?;
        let mut writer = Writer::new(1);
        writer.begin_other(CONFIG, ACK, group);
        writer.attr(COMMAND, &[BIND]);
        // `struct nfulnl_msg_config_mode`: how much, what, and a filler.
        writer.attr(MODE, &[&COPIED.to_be_bytes()[..], &[COPY_PACKET, 0]].concat());
        writer.u32(TIMEOUT, HELD_BACK);
        writer.u32(THRESHOLD, TOGETHER);
        writer.attr(FLAGS, &NUMBERED.to_be_bytes());
        writer.end();
        match socket.ask(&writer.octets, |_| {})? {
            Ok(_) => Ok(Self { socket, next: 0, lost: 0 }),
            Err(refusal) => {
                let doing = format!("bind NFLOG group {group}");
                let mut error = KernelError::refused(None, &doing, refusal.errno, refusal.hint.as_deref());
                match refusal.errno {
                    Errno::EPERM | Errno::EBUSY => {
                        error.what = format!(
                            "cannot {doing}: another program listens to it (see /proc/net/netfilter/nfnetlink_log), or CAP_NET_ADMIN is missing"
                        );
                    }
                    Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOENT => {
                        error.kind = ErrorKind::NoPacketLog;
                        error.what =
                            format!("cannot {doing}: this kernel has no nfnetlink_log; load or enable that module");
                    }
                    _ => {}
                }
                Err(error)
            }
        }
    }

    /// Waits until there is something, or as long as that. True: there may be something.
    ///
    /// # Errors
    /// The socket's; it is of no use then.
    pub fn wait(&self, milliseconds: u16) -> Result<bool, KernelError> {
        let mut descriptors = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut descriptors, PollTimeout::from(milliseconds)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(KernelError::socket("wait for copies of packets", errno)),
        }
    }

    /// Passes on what waits, until nothing does or `most` datagrams are through. True: more may wait.
    ///
    /// # Errors
    /// As [`Receiver::wait`].
    pub fn take(&mut self, most: usize, mut each: impl FnMut(Copied)) -> Result<bool, KernelError> {
        for _ in 0..most {
            match self.socket.receive() {
                Ok(None) => return Ok(false),
                Ok(Some(datagram)) => {
                    for (number, copied) in parse(datagram) {
                        self.lost += u64::from(number.wrapping_sub(self.next));
                        self.next = number.wrapping_add(1);
                        copied.into_iter().for_each(&mut each);
                    }
                }
                // The numbers tell how many.
                Err(Errno::ENOBUFS) => {}
                Err(errno) => return Err(KernelError::socket("read copies of packets", errno)),
            }
        }
        Ok(true)
    }

    /// How many copies the kernel made that did not arrive, as far as the numbers tell: those lost since the last copy
    /// that did arrive are not known yet.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }
}
