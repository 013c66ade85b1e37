//! Other name servers on the loopback interface: found, started with zones from files or from a primary, asked. And an
//! upstream for them that knows every name.

pub mod start;

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long one answer may take before the query counts as lost.
const ANSWER: Duration = Duration::from_millis(500);
/// Questions under way at once.
const UNDER_WAY: usize = 64;

/// Where a program is; `None`, said loudly: it is not installed. With `CI=true` that is a failure, but where it is
/// `optional`: a package whose service takes port 53 cannot be on every machine.
pub fn program(name: &str, package: &str, optional: bool) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut places = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/bin"]);
    let found = places.find_map(|place| Some(Path::new(place).join(name)).filter(|file| file.is_file()));
    if found.is_none() {
        let may_miss = optional || std::env::var("CI").as_deref() != Ok("true");
        assert!(may_miss, "{name} is missing: apt-get install {package}");
        eprintln!("SKIP: {name} is not installed (apt-get install {package}), so its part is not tested");
    }
    found
}

/// A port that is free now, for UDP and TCP.
pub fn free_port() -> u16 {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// An upstream that knows every name: one address, whoever asks.
pub fn upstream() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut packet = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            let Some(end) = question_end(&packet[..length]) else { continue };
            let asks_for_address = packet[end - 4..end - 2] == [0, 1];
            let mut answer = packet[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x85, 0x80, 0, 1, 0, u8::from(asks_for_address), 0, 0, 0, 0]);
            if asks_for_address {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 93, 184, 216, 34]);
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    port
}

/// Where the question section of a message with one question ends.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = 12;
    while *message.get(at)? > 0 {
        at += usize::from(message[at]) + 1;
    }
    Some(at + 5).filter(|end| *end <= message.len())
}

/// A question for the address of a name.
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut query = [id.to_be_bytes(), [1, 0], [0, 1], [0, 0], [0, 0], [0, 0]].concat();
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// What came of a question for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Address,
    NoName,
    /// Another answer, or none in time.
    Other,
}

fn read(answer: &[u8]) -> Asked {
    match (answer[3] & 15, answer[7] > 0) {
        (0, true) => Asked::Address,
        (3, false) => Asked::NoName,
        _ => Asked::Other,
    }
}

/// A running resolver, ended with the test.
pub struct Peer {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Peer {
    fn start(mut command: Command, port: u16, dir: tempfile::TempDir) -> Self {
        let out = std::fs::File::create(dir.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        Self { child: command.spawn().unwrap(), port, dir }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Fails where it does not run any more.
    #[track_caller]
    pub fn must_run(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!("the peer ended ({status}):\n{}", self.log());
        }
    }

    /// Asks for the address of a name.
    pub fn ask(&self, name: &str) -> Asked {
        self.ask_all(Ipv4Addr::LOCALHOST, &[name])[0]
    }

    /// Asks for the addresses of many names, from an address; at most 65 536. Capitals are as they are given.
    pub fn ask_all(&self, from: Ipv4Addr, names: &[&str]) -> Vec<Asked> {
        let socket = UdpSocket::bind(SocketAddrV4::new(from, 0)).unwrap();
        socket.connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        socket.set_read_timeout(Some(ANSWER)).unwrap();
        let mut out = vec![None; names.len()];
        let (mut next, mut open) = (0, 0);
        let mut packet = [0; 1500];
        loop {
            while open < UNDER_WAY && next < names.len() {
                // Nobody listens yet: what is lost counts as such.
                let _ = socket.send(&question(u16::try_from(next).unwrap(), names[next]));
                (next, open) = (next + 1, open + 1);
            }
            if open == 0 {
                return out.into_iter().map(|answer| answer.unwrap_or(Asked::Other)).collect();
            }
            let Ok(length) = socket.recv(&mut packet) else {
                // Nothing for so long: all that were under way are lost.
                open = 0;
                continue;
            };
            let place = usize::from(u16::from_be_bytes([packet[0], packet[1]]));
            if length <= 12 || place >= next || out[place].is_some() {
                continue;
            }
            out[place] = Some(read(&packet[..length]));
            open -= usize::from(open > 0);
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
