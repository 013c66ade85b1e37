//! The sockets that ask upstreams.
//!
//! Each is connected, so that the kernel drops what comes from elsewhere and says if nobody is there, and has a port that
//! the kernel chose at random. A forger has to guess port, id and spelling (RFC 5452). A socket for each question would
//! cost more than all the rest of a look-up, so a few dozen are open under load, each question takes one of them by
//! chance, and each is given up after a few questions or seconds. Where questions are few, hardly two share one.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, Protocol, Socket, Type};

use super::flight::Number;
use crate::dns::upstream::{Asked, Failure, Randomness};

/// Sockets among which a question chooses; a power of two.
const CHOICE: usize = 64;
/// Questions that one socket asks at most.
const MOST_QUESTIONS: u32 = 64;
/// For how long one socket asks questions.
const LONGEST: Duration = Duration::from_secs(5);

/// A question that is under way: on which socket, under which id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    slot: usize,
    id: u16,
}

struct Port {
    socket: Socket,
    /// The questions whose answers are awaited.
    waiting: Vec<(u16, Number)>,
    questions: u32,
    since: Instant,
    /// No question takes it any more.
    retired: bool,
}

/// What came by a socket.
pub(super) enum Received {
    /// A datagram of so many octets.
    Datagram(usize),
    /// Nothing (any more).
    Nothing,
    /// Nobody is there, or so: see [`Ports::broken`].
    Broken,
}

/// The sockets of one thread, by upstream.
pub(super) struct Ports {
    slots: Vec<Option<Port>>,
    free: Vec<usize>,
    /// For each upstream the sockets that questions may take.
    choice: Vec<Vec<usize>>,
    random: Randomness,
    /// Those whose sockets turned out to lead nowhere when somebody else wanted to use them.
    broken: Vec<(Errno, Number)>,
    next_look: Instant,
}

impl Ports {
    pub fn new(upstreams: usize, now: Instant) -> Self {
        let choice = vec![Vec::new(); upstreams];
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            choice,
            random: Randomness::default(),
            broken: Vec::new(),
            next_look: now + LONGEST,
        }
    }

    /// Coins and ids.
    pub fn random(&mut self) -> &mut Randomness {
        &mut self.random
    }

    /// Sends a question. A datagram that the kernel has no room for is lost, as any may be.
    pub fn send(
        &mut self,
        epoll: &Epoll,
        (upstream, address): (usize, SocketAddr),
        asked: &mut Asked,
        flight: Number,
        now: Instant,
    ) -> Result<Result<Place, io::Error>, Failure> {
        let slot = match self.choose(epoll, upstream, address, now)? {
            Ok(slot) => slot,
            Err(error) => return Ok(Err(error)),
        };
        let Some(port) = &mut self.slots[slot] else { return Ok(Err(ErrorKind::NotConnected.into())) };
        let id = loop {
            let id = self.random.number()?;
            if port.waiting.iter().all(|(taken, _)| *taken != id) {
                break id;
            }
        };
        match port.socket.send(asked.under(id)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // That is about an earlier question, and told once only.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && port.questions > 0 => {
                self.broken.extend(port.waiting.drain(..).map(|(_, flight)| (Errno::ECONNREFUSED, flight)));
                self.retire(slot);
                return self.send(epoll, (upstream, address), asked, flight, now);
            }
            Err(error) => return Ok(Err(error)),
        }
        port.questions += 1;
        port.waiting.push((id, flight));
        Ok(Ok(Place { slot, id }))
    }

    /// A socket, chosen by chance; a new one while there are few.
    fn choose(
        &mut self,
        epoll: &Epoll,
        upstream: usize,
        address: SocketAddr,
        now: Instant,
    ) -> Result<io::Result<usize>, Failure> {
        let place = usize::from(self.random.number()?) % CHOICE;
        if let Some(&slot) = self.choice[upstream].get(place)
            && let Some(port) = &mut self.slots[slot]
        {
            port.retired = port.questions >= MOST_QUESTIONS || now.duration_since(port.since) >= LONGEST;
            if !port.retired {
                return Ok(Ok(slot));
            }
            self.choice[upstream].swap_remove(place);
            self.close_if_idle(slot);
        }
        Ok(self.open(epoll, upstream, address, now).or_else(|error| {
            // Who has no descriptor left asks by a socket that is there, or not at all.
            let none_left = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
            let open = &self.choice[upstream];
            let slot = open.get(place % open.len().max(1)).filter(|_| none_left);
            slot.copied().ok_or(error)
        }))
    }

    fn open(&mut self, epoll: &Epoll, upstream: usize, address: SocketAddr, now: Instant) -> io::Result<usize> {
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        socket.bind(&any.into())?;
        socket.connect(&address.into())?;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, slot as u64)).inspect_err(|_| self.free.push(slot))?;
        self.slots[slot] = Some(Port { socket, waiting: Vec::new(), questions: 0, since: now, retired: false });
        self.choice[upstream].push(slot);
        Ok(slot)
    }

    /// Reads a socket.
    pub fn receive(&mut self, slot: usize, buffer: &mut [u8]) -> Received {
        let Some(port) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return Received::Nothing };
        match recv(port.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(length) => Received::Datagram(length),
            Err(Errno::EAGAIN | Errno::EINTR) => Received::Nothing,
            Err(error) => {
                self.broken.extend(port.waiting.drain(..).map(|(_, flight)| (error, flight)));
                self.retire(slot);
                Received::Broken
            }
        }
    }

    /// Those who wait for nothing any more, and why; each is told once.
    pub fn broken(&mut self) -> Vec<(Errno, Number)> {
        std::mem::take(&mut self.broken)
    }

    /// Who waits on a socket for the answer with an id.
    pub fn awaited(&self, slot: usize, id: u16) -> Option<(Place, Number)> {
        let port = self.slots.get(slot)?.as_ref()?;
        let (id, flight) = *port.waiting.iter().find(|(taken, _)| *taken == id)?;
        Some((Place { slot, id }, flight))
    }

    /// Whether the answer to a question may still come.
    pub fn awaits(&self, place: Place, flight: Number) -> bool {
        self.slots[place.slot].as_ref().is_some_and(|port| port.waiting.contains(&(place.id, flight)))
    }

    /// Nobody waits for that answer any more.
    pub fn leave(&mut self, place: Place, flight: Number) {
        if let Some(port) = &mut self.slots[place.slot] {
            port.waiting.retain(|waiting| *waiting != (place.id, flight));
            if port.retired {
                self.close_if_idle(place.slot);
            }
        }
    }

    /// Closes sockets that nobody has needed for a while.
    pub fn look(&mut self, now: Instant) {
        if now < self.next_look {
            return;
        }
        self.next_look = now + LONGEST;
        for slot in 0..self.slots.len() {
            let old = |port: &Port| port.retired || now.duration_since(port.since) >= LONGEST;
            if self.slots[slot].as_ref().is_some_and(old) {
                self.retire(slot);
            }
        }
    }

    /// When to look again; `None`: no socket is open.
    pub fn next_look(&self) -> Option<Instant> {
        (self.free.len() < self.slots.len()).then_some(self.next_look)
    }

    fn retire(&mut self, slot: usize) {
        for choice in &mut self.choice {
            choice.retain(|chosen| *chosen != slot);
        }
        if let Some(port) = &mut self.slots[slot] {
            port.retired = true;
        }
        self.close_if_idle(slot);
    }

    /// Closing takes it out of the epoll set, too.
    fn close_if_idle(&mut self, slot: usize) {
        if self.slots[slot].as_ref().is_some_and(|port| port.waiting.is_empty()) {
            self.slots[slot] = None;
            self.free.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::UdpSocket;

    use hickory_proto::rr::{Name, RecordType};
    use nix::sys::epoll::EpollCreateFlags;

    use super::*;
    use crate::dns::upstream::Lookup;

    struct Harbour {
        epoll: Epoll,
        ports: Ports,
        upstream: UdpSocket,
        start: Instant,
    }

    impl Harbour {
        fn new() -> Self {
            let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
            upstream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let (epoll, start) = (Epoll::new(EpollCreateFlags::empty()).unwrap(), Instant::now());
            Self { epoll, ports: Ports::new(1, start), upstream, start }
        }

        /// Sends a question; where it is, and the upstream's view of it: the port and the id.
        fn ask(&mut self, flight: Number, after: Duration) -> (Place, u16, u16) {
            let lookup =
                Lookup { name: Name::from_ascii("a.example.").unwrap(), kind: RecordType::A, dnssec_ok: false };
            let mut asked = Asked::new(&lookup.key(), None).unwrap();
            let to = (0, self.upstream.local_addr().unwrap());
            let place = self.ports.send(&self.epoll, to, &mut asked, flight, self.start + after).unwrap().unwrap();
            let mut octets = [0; 64];
            let (_, from) = self.upstream.recv_from(&mut octets).unwrap();
            (place, from.port(), u16::from_be_bytes([octets[0], octets[1]]))
        }

        fn open(&self) -> usize {
            self.ports.slots.iter().flatten().count()
        }
    }

    #[test]
    fn many_questions_share_some_sockets_and_none_for_long() {
        let mut harbour = Harbour::new();
        let mut uses = std::collections::HashMap::<u16, u32>::new();
        let mut places = HashSet::new();
        for flight in 0..6000 {
            let (place, port, _) = harbour.ask(flight, Duration::ZERO);
            *uses.entry(port).or_default() += 1;
            assert!(places.insert((place.slot, place.id)) && harbour.ports.awaits(place, flight));
        }
        let most = uses.values().max().copied().unwrap();
        assert!(uses.len() >= 6000 / MOST_QUESTIONS as usize && uses.len() < 600, "{} ports", uses.len());
        assert_eq!(most, MOST_QUESTIONS);
    }

    #[test]
    fn a_socket_ends_when_it_is_old_and_nobody_waits() {
        let mut harbour = Harbour::new();
        let places: Vec<Place> = (0..200).map(|flight| harbour.ask(flight, Duration::ZERO).0).collect();
        let open = harbour.open();
        assert!(open > CHOICE / 2 && open <= CHOICE, "{open}");
        (1..).zip(&places[1..]).for_each(|(flight, place)| harbour.ports.leave(*place, flight));
        assert_eq!(harbour.open(), open, "they may ask more");
        harbour.ports.look(harbour.start + LONGEST);
        assert_eq!(harbour.open(), 1, "one is waited for");
        harbour.ports.leave(places[0], 1);
        assert_eq!(harbour.open(), 1, "that was somebody else's");
        harbour.ports.leave(places[0], 0);
        assert_eq!((harbour.open(), harbour.ports.next_look()), (0, None));
    }

    #[test]
    fn few_questions_have_ports_of_their_own() {
        let mut harbour = Harbour::new();
        let ports: HashSet<u16> = (0..60)
            .map(|second| {
                let after = Duration::from_secs(second);
                harbour.ports.look(harbour.start + after);
                let (place, port, _) = harbour.ask(second, after);
                harbour.ports.leave(place, second);
                port
            })
            .collect();
        assert!(ports.len() > 40, "{} ports for 60 questions", ports.len());
        assert!(harbour.open() < 12, "{} are open", harbour.open());
    }

    #[test]
    fn who_waits_where_nobody_is_hears_of_it_once() {
        let mut harbour = Harbour::new();
        let (place, ..) = harbour.ask(7, Duration::ZERO);
        let address = harbour.upstream.local_addr().unwrap();
        // The upstream goes; the kernel says so to the next question on the same socket.
        harbour.upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = harbour.ports.slots[place.slot].as_ref().unwrap();
        port.socket.send(b"?").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert_ne!(harbour.upstream.local_addr().unwrap(), address);
        assert!(matches!(harbour.ports.receive(place.slot, &mut [0; 64]), Received::Broken));
        let broken = harbour.ports.broken();
        assert_eq!(broken, [(Errno::ECONNREFUSED, 7)]);
        assert!(!harbour.ports.awaits(place, 7) && harbour.ports.broken().is_empty());
        assert_eq!(harbour.open(), 0, "it is not used again");
    }
}
