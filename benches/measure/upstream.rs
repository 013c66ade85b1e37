//! An upstream that answers every question of type A at once, so that what is measured is the server in front of it.

use std::net::UdpSocket;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::{first_in_line, pin_this_thread};

/// `o…` gets a private address, which only `allow.ips` can open, every other name one to be leased.
pub struct Upstream {
    /// When the last reply was sent, nanoseconds since [`epoch`].
    pub sent: AtomicU64,
    /// It takes questions and says nothing.
    pub silent: AtomicBool,
}

/// The beginning of the benchmark's clock.
pub fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// Where it listens in the lab's internet.
pub const ADDRESS: &str = "45.60.255.2:5300";

/// Has the lab's settings name it as the only upstream, and no budget of queries; `more`: further lines of `[dns]`.
pub fn name_in(file: &Path, more: &str) {
    let text = std::fs::read_to_string(file).expect("the lab has written it");
    let lines = format!("upstreams = [\"{ADDRESS}\"]\nqueries_per_second = 0\n{more}");
    let text = text.replace(r#"upstreams = ["9.9.9.9"]"#, &lines);
    assert!(text.contains(ADDRESS), "the lab's settings have another form now");
    std::fs::write(file, text).expect("the temporary directory is writable");
}

impl Upstream {
    /// Serves a socket from a thread of its own on one processor.
    pub fn start(socket: UdpSocket, cpu: usize) -> Arc<Self> {
        epoch();
        let this = Arc::new(Self { sent: AtomicU64::new(0), silent: AtomicBool::new(false) });
        let theirs = this.clone();
        std::thread::spawn(move || theirs.serve(&socket, cpu));
        this
    }

    fn serve(&self, socket: &UdpSocket, cpu: usize) {
        pin_this_thread(cpu);
        first_in_line();
        let mut packet = [0; 1024];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            if self.silent.load(Ordering::Relaxed) {
                continue;
            }
            let answer = answer(&packet[..length]);
            // Noted before it goes, because the agent may be faster than this thread.
            self.sent.store(epoch().elapsed().as_nanos() as u64, Ordering::Release);
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// Header and question of the query, and one A record that depends on the number in the first label. Questions for
/// another type get none.
fn answer(query: &[u8]) -> Vec<u8> {
    let mut end = 12;
    while query[end] != 0 {
        end += usize::from(query[end]) + 1;
    }
    let mut out = query[..end + 5].to_vec();
    let address = query[end + 1..end + 3] == [0, 1];
    out[2] = 0x84 | query[2] & 1;
    out[3] = 0x80;
    out[4..12].copy_from_slice(&[0, 1, 0, u8::from(address), 0, 0, 0, 0]);
    let label = &query[13..13 + usize::from(query[12])];
    let number = label
        .iter()
        .filter(|octet| octet.is_ascii_digit())
        .fold(0_u32, |sum, digit| sum.wrapping_mul(10).wrapping_add(u32::from(digit - b'0')));
    let [_, _, high, low] = number.to_be_bytes();
    let told = if label.first().is_some_and(|first| first.eq_ignore_ascii_case(&b'o')) {
        [10, 66, high, low]
    } else {
        [151, 101, high, low]
    };
    if address {
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4]);
        out.extend(told);
    }
    out
}

/// A question for a name, type A, without EDNS.
pub fn question(id: u16, name: &str) -> Vec<u8> {
    let mut out = [id.to_be_bytes(), [1, 0], [0, 1], [0, 0], [0, 0], [0, 0]].concat();
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).expect("labels are short"));
        out.extend(label.as_bytes());
    }
    out.extend([0, 0, 1, 0, 1]);
    out
}

/// Asks by one socket, so many questions under way at a time, until each is answered or none is for half a second: how long
/// that took, and how many had an answer with an address. `question`: the question with a number; its id may be any.
pub fn closed_loop(
    socket: &UdpSocket,
    window: u32,
    mut numbers: Range<u32>,
    question: impl Fn(u32) -> Vec<u8>,
) -> (Duration, u32) {
    const PATIENCE: Duration = Duration::from_millis(500);
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout is legal");
    let count = numbers.len() as u32;
    let ask = |number| {
        socket.send(&question(number)).expect("a question can be sent");
    };
    let start = Instant::now();
    numbers.by_ref().take(window as usize).for_each(ask);
    let (mut answered, mut buffer) = (0, [0; 1024]);
    while answered < count {
        let Ok(length) = socket.recv(&mut buffer) else { return (start.elapsed() - PATIENCE, answered) };
        assert!(buffer[3] & 15 == 0 && length > 40, "a fresh name should have an address");
        answered += 1;
        numbers.next().into_iter().for_each(ask);
    }
    (start.elapsed(), answered)
}
