//! Answers that go together.
//!
//! Those for one port of one client go as one packet for the network stack, which cuts it where it leaves the machine or
//! where it is read (`UDP_SEGMENT`, udp(7)): most of what an answer costs is its way through the stack. Resolvers ask for
//! both families of a name from one port, and forwarders ask for many names. All others go by one system call
//! (sendmmsg(2)), and so do those that leave by an interface where nobody cuts ([`Carriers`]).

use std::cmp::Ordering;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};

use super::batch::BATCH;
use super::carriers::Carriers;
use super::datagram::{Head, answer, info4, info6, send};

/// Room for an answer as it is written; larger ones make their own.
const USUAL_ANSWER: usize = 512;
/// Answers in one packet at most (`UDP_MAX_SEGMENTS` of older kernels), and their octets.
const MOST_SEGMENTS: usize = 64;
const MOST_OCTETS: usize = 60_000;
/// Where the network refuses such packets (IPsec, a route with a small MTU), so many batches go without.
const APART: u32 = 4096;

/// Answers that go together.
pub(super) struct Answers {
    v4: MultiHeaders<SockaddrStorage>,
    v6: MultiHeaders<SockaddrStorage>,
    heads: Vec<Head>,
    rooms: Vec<Vec<u8>>,
    /// The order in which they go.
    order: Vec<usize>,
    /// Those that go by themselves.
    single: Vec<usize>,
    apart: u32,
    carriers: Carriers,
}

impl Answers {
    pub fn new() -> Self {
        Self {
            v4: MultiHeaders::preallocate(BATCH, Some(nix::cmsg_space!(libc::in_pktinfo))),
            v6: MultiHeaders::preallocate(BATCH, Some(nix::cmsg_space!(libc::in6_pktinfo))),
            heads: Vec::with_capacity(BATCH),
            rooms: (0..BATCH).map(|_| Vec::with_capacity(USUAL_ANSWER)).collect(),
            order: Vec::with_capacity(BATCH),
            single: Vec::with_capacity(BATCH),
            apart: 0,
            carriers: Carriers::default(),
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
        match &self.heads[..] {
            [] => return,
            [head] => {
                log(head, answer(socket, head, &self.rooms[0]));
                return self.heads.clear();
            }
            _ => {}
        }
        let (heads, rooms) = (&self.heads, &self.rooms);
        self.order.clear();
        self.order.extend(0..heads.len());
        // The longest first: only the last one of a packet may be shorter than the others.
        let longest = |one: usize, other: usize| rooms[other].len().cmp(&rooms[one].len());
        self.order
            .sort_unstable_by(|one, other| by_way(&heads[*one], &heads[*other]).then_with(|| longest(*one, *other)));
        self.single.clear();
        let mut rest = &self.order[..];
        let mut refused = false;
        let now = Instant::now();
        while let Some(first) = rest.first() {
            let may = self.apart == 0 && self.carriers.cut(heads[*first].interface, now);
            let count = if may { segments(heads, rooms, rest) } else { 1 };
            let (group, others) = rest.split_at(count);
            rest = others;
            if count == 1 {
                self.single.push(*first);
            } else if let Err(error) = send_together(socket, &heads[*first], group, rooms) {
                refused |= matches!(error, Errno::EINVAL | Errno::EIO | Errno::EMSGSIZE);
                self.single.extend(group);
            }
        }
        self.apart = if refused { APART } else { self.apart.saturating_sub(1) };
        let single = std::mem::take(&mut self.single);
        let mut rest = &single[..];
        while let Some(first) = rest.first() {
            let alike = rest.iter().take(BATCH);
            let alike = alike.take_while(|at| same_way(&self.heads[*first], &self.heads[**at])).count();
            self.send_each(socket, &rest[..alike]);
            rest = &rest[alike..];
        }
        self.single = single;
        self.heads.clear();
    }

    /// Sends answers that leave from the same address, each for itself.
    fn send_each(&mut self, socket: &impl AsRawFd, batch: &[usize]) {
        let Some(head) = batch.first().map(|first| self.heads[*first]) else { return };
        let (way4, way6);
        let (headers, control) = match (head.peer, head.local) {
            (SocketAddr::V4(_), Some(IpAddr::V4(local))) if batch.len() > 1 => {
                way4 = info4(local);
                (&mut self.v4, [ControlMessage::Ipv4PacketInfo(&way4)])
            }
            (SocketAddr::V6(_), Some(IpAddr::V6(local))) if batch.len() > 1 => {
                way6 = info6(local, head.interface);
                (&mut self.v6, [ControlMessage::Ipv6PacketInfo(&way6)])
            }
            _ => {
                for at in batch {
                    log(&self.heads[*at], answer(socket, &self.heads[*at], &self.rooms[*at]));
                }
                return;
            }
        };
        let mut rest = batch;
        while !rest.is_empty() {
            let parts: [[IoSlice<'_>; 1]; BATCH] =
                std::array::from_fn(|index| [IoSlice::new(rest.get(index).map_or(&[], |at| &self.rooms[*at][..]))]);
            let peers: [Option<SockaddrStorage>; BATCH] =
                std::array::from_fn(|index| rest.get(index).map(|at| SockaddrStorage::from(self.heads[*at].peer)));
            let count = rest.len();
            let sent = sendmmsg(
                socket.as_raw_fd(),
                headers,
                &parts[..count],
                &peers[..count],
                &control[..],
                MsgFlags::MSG_DONTWAIT,
            );
            let done = match sent {
                Ok(sent) => sent.count().max(1),
                // It is about the first one; the others are no worse for it.
                Err(error) => {
                    log(&self.heads[rest[0]], Err(error.into()));
                    1
                }
            };
            rest = &rest[done..];
        }
    }
}

/// How many of the first answers of `order` can go as one packet.
fn segments(heads: &[Head], rooms: &[Vec<u8>], order: &[usize]) -> usize {
    let Some(first) = order.first() else { return 0 };
    let (head, size) = (&heads[*first], rooms[*first].len());
    let (mut count, mut octets) = (1, size);
    for at in order[1..].iter().take(MOST_SEGMENTS - 1) {
        octets += rooms[*at].len();
        if octets > MOST_OCTETS || by_way(&heads[*at], head) != Ordering::Equal {
            break;
        }
        count += 1;
        if rooms[*at].len() < size {
            break;
        }
    }
    count
}

/// Sends answers for one client as one packet.
fn send_together(socket: &impl AsRawFd, head: &Head, group: &[usize], rooms: &[Vec<u8>]) -> nix::Result<()> {
    let mut parts = [IoSlice::new(&[]); MOST_SEGMENTS];
    for (part, at) in parts.iter_mut().zip(group) {
        *part = IoSlice::new(&rooms[*at]);
    }
    let size = group.first().and_then(|at| u16::try_from(rooms[*at].len()).ok()).ok_or(Errno::EMSGSIZE)?;
    send(socket, head, &parts[..group.len()], Some(size))
}

/// Whether two answers may share what the kernel is told about their way.
fn same_way(one: &Head, other: &Head) -> bool {
    one.local == other.local && one.interface == other.interface
}

/// Equal: from the same address to the same port.
fn by_way(one: &Head, other: &Head) -> Ordering {
    let ways = || (one.local, one.interface).cmp(&(other.local, other.interface));
    ways().then_with(|| one.peer.port().cmp(&other.peer.port())).then_with(|| one.peer.cmp(&other.peer))
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

    use nix::sys::socket::{ControlMessageOwned, recvmsg, setsockopt, sockopt};
    use nix::{setsockopt_impl, sockopt_impl};

    use super::*;
    use crate::dns::batch::Queries;
    use crate::dns::datagram::report_destination;

    sockopt_impl!(
        /// UDP without checksums, which the kernel does not cut packets for.
        NoChecksum,
        SetOnly,
        libc::SOL_SOCKET,
        libc::SO_NO_CHECK,
        bool
    );

    /// A server on a wildcard address, and clients that each ask it at one.
    fn server(any: &str, locals: &[&str]) -> (UdpSocket, Vec<UdpSocket>) {
        let socket = socket2::Socket::from(UdpSocket::bind(any).unwrap());
        report_destination(&socket, any.starts_with('[')).unwrap();
        let server = UdpSocket::from(socket);
        let port = server.local_addr().unwrap().port();
        let client = |local: &&str| {
            let client = UdpSocket::bind(any).unwrap();
            client.connect((local.parse::<IpAddr>().unwrap(), port)).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            client
        };
        let clients = locals.iter().map(client).collect();
        (server, clients)
    }

    /// Answers so many questions, each with so many octets as its second one says.
    fn serve(server: &UdpSocket, answers: &mut Answers, count: usize) {
        let (mut queries, mut seen) = (Queries::new(), 0);
        while seen < count {
            queries.receive(server.as_raw_fd(), || false).unwrap();
            for (head, packet) in queries.iter() {
                let room = answers.room();
                room.push(packet[0]);
                room.resize(usize::from(packet[1]), packet[0]);
                answers.take(head);
                seen += 1;
            }
            answers.send(server);
        }
    }

    /// The numbers of the answers of a client, each of which must be whole.
    fn taken(client: &UdpSocket, count: usize) -> Vec<u8> {
        let take = |_| {
            let mut bytes = [0; 512];
            // A connected socket takes nothing that comes from another address.
            let length = client.recv(&mut bytes).unwrap();
            assert!(bytes[..length].iter().all(|octet| *octet == bytes[0]), "{:?}", &bytes[..length]);
            assert_eq!(length, usize::from(size(bytes[0])));
            bytes[0]
        };
        let mut numbers: Vec<u8> = (0..count).map(take).collect();
        numbers.sort_unstable();
        numbers
    }

    fn size(number: u8) -> u8 {
        100 + number % 3 * 50
    }

    const ANY: [(&str, [&str; 2]); 2] = [("0.0.0.0:0", ["127.0.0.1", "127.0.0.2"]), ("[::]:0", ["::1", "::1"])];

    /// More than one batch, asked at two addresses, comes back from where it was asked, each to its own client and as a
    /// datagram of its own.
    #[test]
    fn batches_find_their_way() {
        for (any, locals) in ANY {
            let (server, clients) = server(any, &locals);
            let count = BATCH as u8 + 10;
            for number in 0..count {
                clients[usize::from(number % 4 == 0)].send(&[number, size(number)]).unwrap();
            }
            let mut answers = Answers::new();
            serve(&server, &mut answers, usize::from(count));
            for (place, client) in clients.iter().enumerate() {
                let own: Vec<u8> = (0..count).filter(|number| usize::from(number % 4 == 0) == place).collect();
                assert_eq!(taken(client, own.len()), own);
            }
            assert_eq!(answers.apart, 0, "nothing was refused");
        }
    }

    /// What a client sees that lets the kernel put the packets together again: lengths of packets, and of the answers in
    /// each.
    #[test]
    fn answers_to_one_port_are_one_packet() {
        for (any, locals) in ANY {
            let (server, clients) = server(any, &locals[..1]);
            setsockopt(&clients[0], sockopt::UdpGroSegment, &true).unwrap();
            for number in 0..9 {
                clients[0].send(&[number, size(number)]).unwrap();
            }
            serve(&server, &mut Answers::new(), 9);
            let mut seen = Vec::new();
            for _ in 0..3 {
                let (mut bytes, mut room) = ([0; 2048], nix::cmsg_space!(i32));
                let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
                let got =
                    recvmsg::<()>(clients[0].as_raw_fd(), &mut parts, Some(&mut room), MsgFlags::empty()).unwrap();
                let segment = got.cmsgs().unwrap().find_map(|message| match message {
                    ControlMessageOwned::UdpGroSegments(size) => Some(size),
                    _ => None,
                });
                seen.push((got.bytes, segment));
            }
            assert_eq!(seen, [(3 * 200 + 150, Some(200)), (2 * 150 + 100, Some(150)), (2 * 100, Some(100))]);
        }
    }

    /// A socket without checksums stands for all ways on which the kernel refuses such packets.
    #[test]
    fn what_cannot_go_together_goes_one_by_one() {
        let (any, locals) = ANY[0];
        let (server, clients) = server(any, &locals);
        setsockopt(&server, NoChecksum, &true).unwrap();
        let mut answers = Answers::new();
        for _ in 0..2 {
            for number in 0..20 {
                clients[usize::from(number % 2)].send(&[number, size(number)]).unwrap();
            }
            serve(&server, &mut answers, 20);
            for (place, client) in clients.iter().enumerate() {
                let own: Vec<u8> = (0..20).filter(|number| usize::from(number % 2) == place).collect();
                assert_eq!(taken(client, own.len()), own);
            }
            assert!(answers.apart > 0, "it is not tried again at once");
        }
    }
}
