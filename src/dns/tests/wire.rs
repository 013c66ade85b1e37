//! Messages as tests write them.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

pub fn n(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

pub fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x4242, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.queries.push(Query::query(n(name), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.edns = Some(edns);
    message
}

pub fn plain_question(name: &str, kind: RecordType) -> Message {
    let mut message = question(name, kind);
    message.edns = None;
    message
}

/// The answer of an upstream that plays by the rules.
pub fn reply(asked: &Message, records: Vec<Record>) -> Message {
    let mut message = Message::response(asked.metadata.id, OpCode::Query);
    message.metadata.recursion_available = true;
    message.queries = asked.queries.clone();
    message.answers = records;
    message
}

pub fn record(owner: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(n(owner), ttl, data)
}

pub fn a(owner: &str, ttl: u32, address: &str) -> Record {
    record(owner, ttl, RData::A(A(address.parse().unwrap())))
}

pub fn aaaa(owner: &str, ttl: u32, address: &str) -> Record {
    record(owner, ttl, RData::AAAA(AAAA(address.parse().unwrap())))
}

pub fn cname(owner: &str, ttl: u32, target: &str) -> Record {
    record(owner, ttl, RData::CNAME(CNAME(n(target))))
}

pub fn soa(owner: &str, ttl: u32, minimum: u32) -> Record {
    record(owner, ttl, RData::SOA(SOA::new(n("ns.example"), n("host.example"), 7, 1, 1, 1, minimum)))
}

/// The Extended DNS Error of an answer.
pub fn ede(message: &Message) -> Option<(u16, String)> {
    message.edns.as_ref()?.options().options.iter().find_map(|(_, option)| match option {
        EdnsOption::Unknown(15, data) => {
            Some((u16::from_be_bytes([data[0], data[1]]), String::from_utf8(data[2..].to_vec()).unwrap()))
        }
        _ => None,
    })
}

pub fn told(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}
