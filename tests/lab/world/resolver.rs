//! A scriptable DNS server of the lab's internet: answers what the test says, writes down what it was asked.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Edns, Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::svcb::{EchConfigList, IpHint, SVCB, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HTTPS, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::netns::{Address, Netns};
use super::servers::IDLE;

/// Largest answer over UDP to a client that sent no EDNS (RFC 1035 section 4.2.1), bytes.
const PLAIN_UDP: usize = 512;
/// Longest CNAME chain that is followed inside the zone.
const CHAIN: usize = 16;
/// TTL of records whose test does not care, seconds.
pub const TTL: u32 = 300;

/// What a name has for one type; called with the number of earlier questions for it.
type Script = Box<dyn Fn(usize) -> Vec<Record> + Send>;

/// One question that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Lower case, no trailing dot.
    pub name: String,
    /// The type asked for.
    pub kind: RecordType,
    /// Over TCP.
    pub tcp: bool,
    /// Who asked.
    pub from: IpAddr,
    /// EDNS options of the question, by code.
    pub options: Vec<u16>,
}

#[derive(Default)]
struct Zone {
    scripts: BTreeMap<(Name, RecordType), (usize, Script)>,
    asked: Vec<Asked>,
    silent: bool,
    failing: bool,
}

/// One resolver; ends with the value.
pub struct Resolver {
    zone: Arc<Mutex<Zone>>,
    over: Arc<AtomicBool>,
}

impl Resolver {
    /// Serves UDP and TCP port 53 of each address, from when this returns.
    pub fn start(netns: &Netns, addresses: &[&str]) -> Self {
        let this = Self { zone: Arc::default(), over: Arc::default() };
        for address in addresses {
            let at = SocketAddr::new(address.address(), 53);
            let sockets = netns.enter(|| Ok::<_, std::io::Error>((UdpSocket::bind(at)?, TcpListener::bind(at)?)));
            let (udp, tcp) = sockets.unwrap_or_else(|e| panic!("the lab cannot serve DNS on {at}: {e}"));
            udp.set_read_timeout(Some(IDLE)).expect("a timeout is legal");
            socket2::SockRef::from(&tcp).set_read_timeout(Some(IDLE)).expect("a timeout is legal");
            let (zone, over) = (this.zone.clone(), this.over.clone());
            std::thread::spawn(move || serve_udp(&udp, &zone, &over));
            let (zone, over) = (this.zone.clone(), this.over.clone());
            std::thread::spawn(move || serve_tcp(&tcp, &zone, &over));
        }
        this
    }

    /// The general case: `script` makes the records of `name`, given how often it was asked before.
    pub fn script(&self, name: &str, kind: RecordType, script: impl Fn(usize) -> Vec<Record> + Send + 'static) {
        self.zone().scripts.insert((fqdn(name), kind), (0, Box::new(script)));
    }

    /// Addresses of a name, both families in one list, with [`TTL`].
    pub fn host(&self, name: &str, addresses: &[&str]) {
        self.host_for(name, addresses, TTL);
    }

    /// Addresses of a name with a TTL in seconds.
    pub fn host_for(&self, name: &str, addresses: &[&str], ttl: u32) {
        let all: Vec<Record> = addresses.iter().map(|text| address_record(name, text.address(), ttl)).collect();
        for kind in [RecordType::A, RecordType::AAAA] {
            let records: Vec<Record> = all.iter().filter(|record| record.record_type() == kind).cloned().collect();
            self.script(name, kind, move |_| records.clone());
        }
    }

    /// One address an answer, the next one the next time, with a TTL in seconds.
    pub fn rotate(&self, name: &str, addresses: Vec<IpAddr>, ttl: u32) {
        assert!(!addresses.is_empty(), "a rotation needs an address");
        for kind in [RecordType::A, RecordType::AAAA] {
            let records: Vec<Record> = addresses
                .iter()
                .map(|&address| address_record(name, address, ttl))
                .filter(|record| record.record_type() == kind)
                .collect();
            self.script(name, kind, move |turn| {
                records.get(turn % records.len().max(1)).cloned().into_iter().collect()
            });
        }
    }

    /// An alias.
    pub fn alias(&self, name: &str, target: &str) {
        let record = Record::from_rdata(fqdn(name), TTL, RData::CNAME(CNAME(fqdn(target))));
        self.script(name, RecordType::CNAME, move |_| vec![record.clone()]);
    }

    /// A TXT record.
    pub fn text(&self, name: &str, text: &str) {
        let record = Record::from_rdata(fqdn(name), TTL, RData::TXT(TXT::new(vec![text.to_owned()])));
        self.script(name, RecordType::TXT, move |_| vec![record.clone()]);
    }

    /// An HTTPS record in service mode for the name itself, with address hints and an `ech` value.
    pub fn https(&self, name: &str, hints: &[&str]) {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for hint in hints {
            match hint.address() {
                IpAddr::V4(a) => v4.push(A::from(a)),
                IpAddr::V6(a) => v6.push(AAAA::from(a)),
            }
        }
        let mut parameters = vec![(SvcParamKey::Port, SvcParamValue::Port(443))];
        if !v4.is_empty() {
            parameters.push((SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(v4))));
        }
        parameters.push((SvcParamKey::EchConfigList, SvcParamValue::EchConfigList(EchConfigList(vec![0xab; 8]))));
        if !v6.is_empty() {
            parameters.push((SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(v6))));
        }
        let data = HTTPS(SVCB::new(1, Name::root(), parameters));
        let record = Record::from_rdata(fqdn(name), TTL, RData::HTTPS(data));
        self.script(name, RecordType::HTTPS, move |_| vec![record.clone()]);
    }

    /// From now on: no answer at all (questions are still written down).
    pub fn silent(&self, silent: bool) {
        self.zone().silent = silent;
    }

    /// From now on: SERVFAIL to everything.
    pub fn failing(&self, failing: bool) {
        self.zone().failing = failing;
    }

    /// Every question so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.zone().asked.clone()
    }

    /// How often this name was asked for, any type.
    pub fn times_asked(&self, name: &str) -> usize {
        self.zone().asked.iter().filter(|asked| asked.name == name).count()
    }

    fn zone(&self) -> std::sync::MutexGuard<'_, Zone> {
        self.zone.lock().expect("scripts do not panic")
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Zone {
    fn answer(&mut self, request: &[u8], from: IpAddr, tcp: bool) -> Option<Vec<u8>> {
        let request = Message::from_vec(request).ok()?;
        let query = request.queries.first()?.clone();
        let edns = request.edns.as_ref();
        self.asked.push(Asked {
            name: query.name.to_ascii().trim_end_matches('.').to_ascii_lowercase(),
            kind: query.query_type,
            tcp,
            from,
            options: edns
                .map(|e| e.options().as_ref().iter().map(|(code, _)| u16::from(*code)).collect())
                .unwrap_or_default(),
        });
        if self.silent {
            return None;
        }
        let mut reply = Message::response(request.metadata.id, OpCode::Query);
        reply.metadata.recursion_desired = request.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.queries = request.queries.clone();
        if edns.is_some() {
            let mut ours = Edns::new();
            ours.set_max_payload(1232);
            reply.edns = Some(ours);
        }
        if self.failing {
            reply.metadata.response_code = ResponseCode::ServFail;
        } else {
            self.look_up(&mut reply, query.name.to_lowercase(), query.query_type);
        }
        let limit = edns.map_or(PLAIN_UDP, |e| usize::from(e.max_payload()).max(PLAIN_UDP));
        let wire = reply.to_vec().ok()?;
        if tcp || wire.len() <= limit { Some(wire) } else { reply.truncate().to_vec().ok() }
    }

    fn look_up(&mut self, reply: &mut Message, mut name: Name, kind: RecordType) {
        for _ in 0..CHAIN {
            let found = self.call(&name, kind);
            if !found.is_empty() {
                reply.answers.extend(found);
                return;
            }
            let alias = self.call(&name, RecordType::CNAME);
            let Some(RData::CNAME(target)) = alias.first().map(|record| record.data.clone()) else { break };
            reply.answers.extend(alias);
            name = target.0.to_lowercase();
        }
        if !self.scripts.keys().any(|(owner, _)| *owner == name) {
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        let soa = SOA::new(fqdn("ns.lab"), fqdn("root.lab"), 1, 3600, 600, 86400, 60);
        reply.authorities.push(Record::from_rdata(name.base_name(), 60, RData::SOA(soa)));
    }

    fn call(&mut self, name: &Name, kind: RecordType) -> Vec<Record> {
        let Some((turn, script)) = self.scripts.get_mut(&(name.clone(), kind)) else { return Vec::new() };
        *turn += 1;
        script(*turn - 1)
    }
}

fn serve_udp(socket: &UdpSocket, zone: &Mutex<Zone>, over: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !over.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let answer = zone.lock().expect("scripts do not panic").answer(&buffer[..length], from.ip(), false);
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn serve_tcp(listener: &TcpListener, zone: &Arc<Mutex<Zone>>, over: &Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        let Ok((stream, from)) = listener.accept() else { continue };
        let (zone, over) = (zone.clone(), over.clone());
        // The stream has no read timeout: such a thread ends with its connection, at the latest with the world.
        std::thread::spawn(move || while !over.load(Ordering::Relaxed) && one_over_tcp(&stream, from.ip(), &zone) {});
    }
}

fn one_over_tcp(mut stream: &TcpStream, from: IpAddr, zone: &Mutex<Zone>) -> bool {
    let mut length = [0; 2];
    if stream.read_exact(&mut length).is_err() {
        return false;
    }
    let mut request = vec![0; usize::from(u16::from_be_bytes(length))];
    if stream.read_exact(&mut request).is_err() {
        return false;
    }
    let Some(answer) = zone.lock().expect("scripts do not panic").answer(&request, from, true) else { return true };
    let framed = [&u16::try_from(answer.len()).unwrap_or(u16::MAX).to_be_bytes()[..], &answer].concat();
    stream.write_all(&framed).is_ok()
}

/// A name as hickory wants it; panics where the test's text is none.
pub fn fqdn(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap_or_else(|e| panic!("the test says {text:?} where a name is due: {e}"));
    name.set_fqdn(true);
    name.to_lowercase()
}

/// An A or AAAA record.
pub fn address_record(name: &str, address: IpAddr, ttl: u32) -> Record {
    let data = match address {
        IpAddr::V4(a) => RData::A(A::from(a)),
        IpAddr::V6(a) => RData::AAAA(AAAA::from(a)),
    };
    Record::from_rdata(fqdn(name), ttl, data)
}
