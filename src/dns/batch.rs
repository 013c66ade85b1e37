//! Datagrams by the batch: one system call takes up to [`BATCH`] of them (recvmmsg(2)).

use std::io::{self, IoSliceMut};
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};

use super::datagram::{Head, read_head};

/// Datagrams of one system call at most.
pub(super) const BATCH: usize = 64;
/// The largest query read, in octets; what is longer is no query.
const MAX_QUERY: usize = 4096;
/// Room for one query. Not a power of two: the beginnings of all of them would fall on the same lines of the cache.
const STRIDE: usize = MAX_QUERY + 64;

/// The queries of one batch.
pub(super) struct Queries {
    headers: MultiHeaders<SockaddrStorage>,
    room: Vec<u8>,
    heads: Vec<Option<Head>>,
}

impl Queries {
    pub fn new() -> Self {
        let report = nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo);
        Self {
            headers: MultiHeaders::preallocate(BATCH, Some(report)),
            room: vec![0; BATCH * STRIDE],
            heads: Vec::with_capacity(BATCH),
        }
    }

    /// Waits for at least one datagram and takes what is there. Ok with none at all: look whether the end has come.
    pub fn receive(&mut self, fd: RawFd, ended: impl Fn() -> bool) -> io::Result<()> {
        self.heads.clear();
        let mut rooms = self.room.chunks_exact_mut(STRIDE);
        let mut parts: [[IoSliceMut<'_>; 1]; BATCH] =
            std::array::from_fn(|_| [IoSliceMut::new(rooms.next().map_or(&mut [][..], |room| &mut room[..MAX_QUERY]))]);
        let got = match recvmmsg(fd, &mut self.headers, parts.iter_mut(), MsgFlags::MSG_WAITFORONE, None) {
            Ok(got) => got,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // A socket that was shut down reports a datagram that is none.
        if !ended() {
            self.heads.extend(got.map(|message| read_head(&message).ok()));
        }
        Ok(())
    }

    /// What was taken, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Head, &[u8])> {
        let all = self.heads.iter().zip(self.room.chunks_exact(STRIDE));
        all.filter_map(|(head, room)| head.map(|head| (head, &room[..head.length])))
    }
}
