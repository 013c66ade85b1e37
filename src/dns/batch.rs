//! Datagrams by the batch: one system call takes or sends up to [`BATCH`] of them (recvmmsg(2), sendmmsg(2)).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

use super::datagram::{Head, answer, info4, info6, read_head};

/// Datagrams of one system call at most.
pub(super) const BATCH: usize = 64;
/// The largest query read, in octets; what is longer is no query.
const MAX_QUERY: usize = 4096;
/// Room for one query. Not a power of two: the beginnings of all of them would fall on the same lines of the cache.
const STRIDE: usize = MAX_QUERY + 64;
/// Room for an answer as it is written; larger ones make their own.
const USUAL_ANSWER: usize = 512;

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

/// Answers that go together.
pub(super) struct Answers {
    v4: MultiHeaders<SockaddrStorage>,
    v6: MultiHeaders<SockaddrStorage>,
    heads: Vec<Head>,
    rooms: Vec<Vec<u8>>,
}

impl Answers {
    pub fn new() -> Self {
        Self {
            v4: MultiHeaders::preallocate(BATCH, Some(nix::cmsg_space!(libc::in_pktinfo))),
            v6: MultiHeaders::preallocate(BATCH, Some(nix::cmsg_space!(libc::in6_pktinfo))),
            heads: Vec::with_capacity(BATCH),
            rooms: (0..BATCH).map(|_| Vec::with_capacity(USUAL_ANSWER)).collect(),
        }
    }

    /// Room for the next answer. It goes only if [`Answers::take`] is called next.
    pub fn room(&mut self) -> &mut Vec<u8> {
        let at = self.heads.len();
        if at == self.rooms.len() {
            self.rooms.push(Vec::with_capacity(USUAL_ANSWER));
        }
        self.rooms[at].clear();
        &mut self.rooms[at]
    }

    /// The answer written into [`Answers::room`] goes to the sender of the datagram with `head`.
    pub fn take(&mut self, head: Head) {
        self.heads.push(head);
    }

    /// Sends all of them; what the kernel has no room for is lost, as any datagram may be: the client asks again.
    pub fn send(&mut self, socket: &impl AsRawFd) {
        let mut from = 0;
        while from < self.heads.len() {
            let first = &self.heads[from];
            let alike = self.heads[from..].iter().take(BATCH).take_while(|head| same_way(first, head)).count();
            self.send_alike(socket, from, from + alike);
            from += alike;
        }
        self.heads.clear();
    }

    /// Sends answers that leave from the same address.
    fn send_alike(&mut self, socket: &impl AsRawFd, from: usize, to: usize) {
        let head = self.heads[from];
        let (way4, way6);
        let (headers, control) = match (head.peer, head.local) {
            _ if to - from == 1 => return log(&head, answer(socket, &head, &self.rooms[from])),
            (SocketAddr::V4(_), Some(IpAddr::V4(local))) => {
                way4 = info4(local);
                (&mut self.v4, [ControlMessage::Ipv4PacketInfo(&way4)])
            }
            (SocketAddr::V6(_), Some(IpAddr::V6(local))) => {
                way6 = info6(local, head.interface);
                (&mut self.v6, [ControlMessage::Ipv6PacketInfo(&way6)])
            }
            _ => {
                for (head, bytes) in self.heads[from..to].iter().zip(&self.rooms[from..to]) {
                    log(head, answer(socket, head, bytes));
                }
                return;
            }
        };
        let mut at = from;
        while at < to {
            let parts: [[IoSlice<'_>; 1]; BATCH] =
                std::array::from_fn(|index| [IoSlice::new(self.rooms.get(at + index).map_or(&[], Vec::as_slice))]);
            let peers: [Option<SockaddrStorage>; BATCH] =
                std::array::from_fn(|index| self.heads.get(at + index).map(|head| SockaddrStorage::from(head.peer)));
            let count = to - at;
            let sent = sendmmsg(
                socket.as_raw_fd(),
                headers,
                &parts[..count],
                &peers[..count],
                &control[..],
                MsgFlags::MSG_DONTWAIT,
            );
            match sent {
                Ok(sent) => at += sent.count().max(1),
                // It is about the first one; the others are no worse for it.
                Err(error) => {
                    log(&self.heads[at], Err(error.into()));
                    at += 1;
                }
            }
        }
    }
}

/// Whether two answers may share what the kernel is told about their way.
fn same_way(one: &Head, other: &Head) -> bool {
    one.local == other.local && one.interface == other.interface
}

fn log(head: &Head, sent: io::Result<()>) {
    if let Err(error) = sent {
        tracing::debug!(%error, peer = %head.peer, "an answer was not sent");
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::dns::datagram::report_destination;

    /// More than one batch, asked at two addresses, comes back from where it was asked, each to its own client.
    #[test]
    fn batches_find_their_way() {
        for (any, locals) in [("0.0.0.0:0", ["127.0.0.1", "127.0.0.2"]), ("[::]:0", ["::1", "::1"])] {
            let socket = socket2::Socket::from(UdpSocket::bind(any).unwrap());
            report_destination(&socket, any.starts_with('[')).unwrap();
            let server = UdpSocket::from(socket);
            let port = server.local_addr().unwrap().port();
            let clients: Vec<UdpSocket> = locals
                .iter()
                .map(|local| {
                    let client = UdpSocket::bind(any).unwrap();
                    client.connect((local.parse::<IpAddr>().unwrap(), port)).unwrap();
                    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                    client
                })
                .collect();
            let count = BATCH as u8 + 10;
            for number in 0..count {
                clients[usize::from(number % 3 == 0)].send(&[number, 7]).unwrap();
            }
            let (mut queries, mut answers, mut seen) = (Queries::new(), Answers::new(), 0);
            while seen < usize::from(count) {
                queries.receive(server.as_raw_fd(), || false).unwrap();
                for (head, packet) in queries.iter() {
                    answers.room().extend([packet[0], 9]);
                    answers.take(head);
                    seen += 1;
                }
                answers.send(&server);
            }
            for number in 0..count {
                let mut bytes = [0; 8];
                // A connected socket takes nothing that comes from another address.
                let length = clients[usize::from(number % 3 == 0)].recv(&mut bytes).unwrap();
                assert_eq!(bytes[..length], [number, 9]);
            }
        }
    }
}
