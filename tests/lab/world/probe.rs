//! A packet each millisecond, numbered, on a thread of its own: what was lost or leaked meanwhile.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::agent::{Agent, PATIENCE};
use super::netns::Address;

/// Between two packets.
const PERIOD: Duration = Duration::from_millis(1);
/// How long the last answers may take after the end.
const DRAIN: Duration = Duration::from_millis(500);
/// A numbered message, bytes.
const MESSAGE: usize = 8;

/// What a probe saw.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Messages sent.
    pub sent: u64,
    /// Messages whose echo came back.
    pub answered: u64,
    /// The numbers of those that never came back.
    pub lost: Vec<u64>,
    /// Errors that the agent saw, each with the time since the start; a TCP probe ends with its first.
    pub errors: Vec<(Duration, String)>,
}

impl Report {
    /// Panics unless every message came back.
    #[track_caller]
    pub fn must_be_whole(&self) {
        let first = &self.lost[..self.lost.len().min(10)];
        assert!(
            self.sent > 0 && self.lost.is_empty() && self.errors.is_empty(),
            "an allowed flow lost {} of {} messages (first: {first:?}) with {} errors (first: {:?})",
            self.lost.len(),
            self.sent,
            self.errors.len(),
            self.errors.iter().take(10).collect::<Vec<_>>()
        );
    }

    /// Panics unless no message came back.
    #[track_caller]
    pub fn must_be_dead(&self) {
        assert!(
            self.sent > 0 && self.answered == 0,
            "a denied flow got {} of {} messages through",
            self.answered,
            self.sent
        );
    }
}

/// A running probe.
pub struct Probe {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Report>,
}

impl Probe {
    /// Ends the probe, waits for the last answers, and tells.
    pub fn stop(self) -> Report {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("probes do not panic")
    }
}

impl Agent {
    /// A probe over one TCP connection, which is opened before this returns; panics where it is refused.
    #[track_caller]
    pub fn probe_tcp(&self, address: impl Address, port: u16) -> Probe {
        let stream = self.flow(address, port).stream;
        start(move |over| tcp(stream, &over))
    }

    /// A probe of datagrams, all from one source port.
    pub fn probe_udp(&self, address: impl Address, port: u16) -> Probe {
        let to = SocketAddr::new(address.address(), port);
        let here: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = self.netns.enter(|| {
            let socket = UdpSocket::bind((here, 0))?;
            socket.connect(to)?;
            socket.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(socket)
        });
        let socket = socket.unwrap_or_else(|e| panic!("the agent cannot open a socket to {to}: {e}"));
        start(move |over| udp(&socket, &over))
    }
}

fn start(work: impl FnOnce(Arc<AtomicBool>) -> Report + Send + 'static) -> Probe {
    let over = Arc::new(AtomicBool::new(false));
    let theirs = over.clone();
    Probe { over, thread: std::thread::spawn(move || work(theirs)) }
}

fn tcp(mut stream: TcpStream, over: &AtomicBool) -> Report {
    let mut report = Report::default();
    let start = Instant::now();
    let prepared = stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true));
    prepared.expect("an open connection takes options");
    let (mut back, mut buffer) = (0_u64, [0; 4096]);
    // `false` when the connection is over.
    let mut collect = |stream: &mut TcpStream, report: &mut Report| loop {
        match stream.read(&mut buffer) {
            Ok(0) => {
                report.errors.push((start.elapsed(), "closed by the other side".to_owned()));
                return false;
            }
            Ok(n) => {
                back += n as u64;
                report.answered = back / MESSAGE as u64;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
            Err(e) => {
                report.errors.push((start.elapsed(), e.to_string()));
                return false;
            }
        }
    };
    let mut next = Instant::now();
    let mut open = true;
    while open && !over.load(Ordering::Relaxed) {
        match stream.write(&report.sent.to_be_bytes()) {
            Ok(MESSAGE) => report.sent += 1,
            // Part of eight bytes fits only where the window is full: the flow has been stuck for long.
            Ok(n) => report.errors.push((start.elapsed(), format!("only {n} bytes were taken"))),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => report.errors.push((start.elapsed(), e.to_string())),
        }
        open = report.errors.is_empty() && collect(&mut stream, &mut report);
        pause(&mut next);
    }
    let end = Instant::now() + DRAIN.max(PATIENCE);
    while open && report.answered < report.sent && Instant::now() < end {
        open = collect(&mut stream, &mut report);
        std::thread::sleep(PERIOD);
    }
    report.lost = (report.answered..report.sent).collect();
    report
}

fn udp(socket: &UdpSocket, over: &AtomicBool) -> Report {
    let mut report = Report::default();
    let start = Instant::now();
    let mut open: BTreeSet<u64> = BTreeSet::new();
    let collect = |open: &mut BTreeSet<u64>, report: &mut Report| loop {
        let mut buffer = [0; MESSAGE];
        match socket.recv(&mut buffer) {
            Ok(MESSAGE) => report.answered += u64::from(open.remove(&u64::from_be_bytes(buffer))),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return,
            Err(e) => report.errors.push((start.elapsed(), e.to_string())),
        }
    };
    let mut next = Instant::now();
    while !over.load(Ordering::Relaxed) {
        // An ICMP error of an earlier packet can come out here: the packet itself is sent with the second try.
        let message = report.sent.to_be_bytes();
        if let Err(e) = socket.send(&message).or_else(|_| socket.send(&message)) {
            report.errors.push((start.elapsed(), e.to_string()));
        }
        open.insert(report.sent);
        report.sent += 1;
        collect(&mut open, &mut report);
        pause(&mut next);
    }
    let end = Instant::now() + DRAIN;
    while !open.is_empty() && Instant::now() < end {
        collect(&mut open, &mut report);
        std::thread::sleep(PERIOD);
    }
    report.lost = open.into_iter().collect();
    report
}

fn pause(next: &mut Instant) {
    *next += PERIOD;
    // After a stall the missed packets are not sent in a burst: the probe measures time, not load.
    let now = Instant::now();
    if *next < now {
        *next = now;
    }
    std::thread::sleep(*next - now);
}
