//! Questions to a DNS server, as an agent's resolver library would ask them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt::EdnsOption;

use super::agent::Agent;
use super::netns::Address;
use super::outcome::Outcome;
use super::resolver::fqdn;

/// Longer than the gateway's own budget for an upstream (2 s), so that its SERVFAIL is seen.
const ANSWER: Duration = Duration::from_secs(3);
/// EDNS payload that the lab's clients offer, bytes.
const PAYLOAD: u16 = 1232;
/// EDNS option code of Extended DNS Errors (RFC 8914).
const EDE: u16 = 15;

/// How a question travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// One datagram.
    Udp,
    /// A connection.
    Tcp,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// As it came.
    pub message: Message,
    /// Since the question.
    pub after: Duration,
}

impl Reply {
    /// The addresses in the answer section, in order.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.message.answers.iter().filter_map(|record| record.data.ip_addr()).collect()
    }

    /// The response code as `dig` writes it.
    pub fn code(&self) -> String {
        match self.message.metadata.response_code {
            ResponseCode::NoError => "NOERROR".to_owned(),
            ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
            ResponseCode::ServFail => "SERVFAIL".to_owned(),
            ResponseCode::Refused => "REFUSED".to_owned(),
            other => format!("{other:?}").to_uppercase(),
        }
    }

    /// The first Extended DNS Error: code and text.
    pub fn ede(&self) -> Option<(u16, String)> {
        self.message.edns.as_ref()?.options().as_ref().iter().find_map(|(_, option)| match option {
            EdnsOption::Unknown(EDE, data) if data.len() >= 2 => {
                Some((u16::from_be_bytes([data[0], data[1]]), String::from_utf8_lossy(&data[2..]).into_owned()))
            }
            _ => None,
        })
    }

    /// The lowest TTL in the answer section, seconds.
    pub fn ttl(&self) -> Option<u32> {
        self.message.answers.iter().map(|record| record.ttl).min()
    }
}

/// A question with EDNS, in wire form.
pub fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(fqdn(name), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD);
    question.set_edns(edns);
    question.to_vec().expect("a question has a wire form")
}

impl Agent {
    /// Asks `server`; `Err` is what came instead of an answer.
    pub fn dig(&self, name: &str, kind: RecordType, server: impl Address, over: Over) -> Result<Reply, Outcome> {
        self.dig_wire(&question(name, kind), server, over)
    }

    /// [`Agent::dig`] for a question in wire form, whatever it may contain.
    pub fn dig_wire(&self, wire: &[u8], server: impl Address, over: Over) -> Result<Reply, Outcome> {
        let to = SocketAddr::new(server.address(), 53);
        let start = Instant::now();
        let answer = self.netns.enter(|| match over {
            Over::Udp => ask_udp(to, wire),
            Over::Tcp => ask_tcp(to, wire),
        });
        let after = start.elapsed();
        match answer {
            Ok(bytes) => match Message::from_vec(&bytes) {
                Ok(message) => Ok(Reply { message, after }),
                Err(e) => panic!("{to} answers with bytes that are no DNS message: {e}"),
            },
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => Err(Outcome::Refused { after }),
            Err(_) => Err(Outcome::TimedOut),
        }
    }

    /// Asks the router over UDP, which is what agents do unless a test says otherwise.
    pub fn lookup(&self, name: &str, kind: RecordType) -> Result<Reply, Outcome> {
        self.dig(name, kind, self.router4, Over::Udp)
    }

    /// The IPv4 addresses that the router gives for a name; panics where it gives none.
    #[track_caller]
    pub fn addresses(&self, name: &str) -> Vec<IpAddr> {
        match self.lookup(name, RecordType::A) {
            Ok(reply) if !reply.addresses().is_empty() => reply.addresses(),
            Ok(reply) => panic!("{name} should have addresses, got {} {:?}", reply.code(), reply.ede()),
            Err(outcome) => panic!("{name} should have addresses, got {outcome}"),
        }
    }

    /// Resolves a name with the router, over IPv4 addresses, and connects to the first address at once.
    pub fn reach(&self, name: &str, port: u16) -> Outcome {
        self.resolve_and(name, RecordType::A, |address| self.tcp(address, port))
    }

    /// [`Agent::reach`] over IPv6 addresses.
    pub fn reach6(&self, name: &str, port: u16) -> Outcome {
        self.resolve_and(name, RecordType::AAAA, |address| self.tcp(address, port))
    }

    /// Resolves a name with the router and does something with the first address.
    pub fn resolve_and(&self, name: &str, kind: RecordType, action: impl FnOnce(IpAddr) -> Outcome) -> Outcome {
        match self.lookup(name, kind) {
            Ok(reply) => match reply.addresses().first() {
                Some(&address) => action(address),
                None => Outcome::Unresolved { after: Some(reply.after), code: reply.code(), ede: reply.ede() },
            },
            Err(_) => Outcome::Unresolved { after: None, code: "no answer".to_owned(), ede: None },
        }
    }
}

fn ask_udp(to: SocketAddr, wire: &[u8]) -> std::io::Result<Vec<u8>> {
    let here: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((here, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(ANSWER))?;
    socket.send(wire)?;
    let mut buffer = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut buffer)?;
        // The identifier tells our answer from a late one to another question.
        if buffer[..length].starts_with(&wire[..2]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

fn ask_tcp(to: SocketAddr, wire: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&to, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let length = u16::try_from(wire.len()).expect("a question is short");
    stream.write_all(&[&length.to_be_bytes()[..], wire].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
