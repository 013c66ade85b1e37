//! A client's packet: dropped, refused for its form, or a question.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name as WireName, RecordType};

use crate::policy::name::Name;

/// The largest UDP answer, in octets: fits every path without fragments (DNS flag day 2020).
pub(super) const MAX_UDP_ANSWER: usize = 1232;
/// The largest UDP answer to a client without EDNS, in octets (RFC 1035 section 4.2.1).
pub(super) const PLAIN_UDP_ANSWER: usize = 512;
/// Octets of a DNS header (RFC 1035 section 4.1.1).
pub(super) const HEADER: usize = 12;

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// One datagram; the answer must fit one.
    Udp,
    /// A stream.
    Tcp,
}

/// What the client said in its OPT record (RFC 6891), as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientEdns {
    /// The client wants DNSSEC records.
    pub dnssec_ok: bool,
}

/// One well-formed question of class IN.
#[derive(Clone, Debug)]
pub(super) struct Query {
    /// The client's id.
    pub id: u16,
    /// The name in the client's spelling, which the answer repeats.
    pub name: WireName,
    /// The type asked for.
    pub kind: RecordType,
    /// The client's RD bit, repeated.
    pub recursion_desired: bool,
    /// The client's CD bit, repeated.
    pub checking_disabled: bool,
    /// Present if the client speaks EDNS; only then may the answer.
    pub edns: Option<ClientEdns>,
    /// The largest answer that the client takes, in octets.
    pub limit: usize,
    /// How it came.
    pub transport: Transport,
}

impl Query {
    /// The name as the policy knows names; `None`: no policy can write it.
    pub fn policy_name(&self) -> Option<Name> {
        policy_name(&self.name)
    }

    /// Whether the client wants DNSSEC records.
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }
}

/// A name from the wire as the policy knows names.
pub(super) fn policy_name(name: &WireName) -> Option<Name> {
    Name::from_wire_labels(name.iter())
}

/// What to do with a packet before any policy is asked.
pub(super) enum Parsed {
    /// Not worth an answer: too short, or an answer itself (answering those makes loops).
    Drop,
    /// The form is wrong: only a header goes back.
    Malformed(Vec<u8>),
    /// A question that is refused whoever asks.
    Refused(Query, ResponseCode),
    /// A question.
    Query(Query),
}

/// Reads one packet.
pub(super) fn parse(packet: &[u8], transport: Transport) -> Parsed {
    let Some(header) = packet.first_chunk::<HEADER>() else { return Parsed::Drop };
    if header[2] & 0x80 != 0 {
        return Parsed::Drop;
    }
    if (header[2] >> 3) & 0x0f != 0 {
        return Parsed::Malformed(bare(header, ResponseCode::NotImp));
    }
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if (count(4), count(6), count(8)) != (1, 0, 0) {
        return Parsed::Malformed(bare(header, ResponseCode::FormErr));
    }
    let Ok(message) = Message::from_vec(packet) else {
        return Parsed::Malformed(bare(header, ResponseCode::FormErr));
    };
    let Some(question) = message.queries.first() else {
        return Parsed::Malformed(bare(header, ResponseCode::FormErr));
    };
    let edns = message.edns.as_ref();
    let query = Query {
        transport,
        id: message.metadata.id,
        name: question.name.clone(),
        kind: question.query_type,
        recursion_desired: message.metadata.recursion_desired,
        checking_disabled: message.metadata.checking_disabled,
        edns: edns.map(|edns| ClientEdns { dnssec_ok: edns.flags().dnssec_ok }),
        limit: match (transport, edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, None) => PLAIN_UDP_ANSWER,
            (Transport::Udp, Some(edns)) => usize::from(edns.max_payload()).clamp(PLAIN_UDP_ANSWER, MAX_UDP_ANSWER),
        },
    };
    if edns.is_some_and(|edns| edns.version() > 0) {
        return Parsed::Refused(query, ResponseCode::BADVERS);
    }
    if question.query_class != DNSClass::IN {
        return Parsed::Refused(query, ResponseCode::Refused);
    }
    Parsed::Query(query)
}

/// An answer of nothing but a header: id, opcode and RD of the query, and a code below 16.
fn bare(header: &[u8; HEADER], code: ResponseCode) -> Vec<u8> {
    let mut answer = vec![0; HEADER];
    answer[..2].copy_from_slice(&header[..2]);
    answer[2] = 0x80 | (header[2] & 0x79);
    answer[3] = 0x80 | code.low();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01A\x02cD\x00\x00\x01\x00\x01".to_vec();
        change(&mut bytes);
        bytes
    }

    fn code(parsed: Parsed) -> u8 {
        match parsed {
            Parsed::Malformed(bytes) => {
                assert_eq!((bytes.len(), &bytes[..2], bytes[2] & 0x80), (12, &b"\x12\x34"[..], 0x80));
                bytes[3] & 0x0f
            }
            _ => panic!("the packet was taken"),
        }
    }

    #[test]
    fn a_plain_question_keeps_its_spelling() {
        let Parsed::Query(query) = parse(&packet(|_| {}), Transport::Udp) else { panic!("refused") };
        assert_eq!((query.id, query.kind, query.limit), (0x1234, RecordType::A, 512));
        assert_eq!(query.name.to_ascii(), "A.cD.");
        assert_eq!(query.policy_name().map(|name| name.to_string()).as_deref(), Some("a.cd"));
    }

    #[test]
    fn wrong_forms_get_the_code_of_the_rfc() {
        assert!(matches!(parse(&packet(|p| p.truncate(11)), Transport::Udp), Parsed::Drop));
        assert!(matches!(parse(&packet(|p| p[2] |= 0x80), Transport::Udp), Parsed::Drop));
        assert_eq!(code(parse(&packet(|p| p[2] |= 0x20), Transport::Udp)), 4, "NOTIFY");
        assert_eq!(code(parse(&packet(|p| p[5] = 0), Transport::Udp)), 1, "no question");
        assert_eq!(code(parse(&packet(|p| p[5] = 2), Transport::Udp)), 1, "two questions");
        assert_eq!(code(parse(&packet(|p| p[7] = 1), Transport::Udp)), 1, "an answer in a question");
        assert_eq!(code(parse(&packet(|p| p.truncate(18)), Transport::Udp)), 1, "cut off");
        let chaos = parse(&packet(|p| *p.last_mut().unwrap() = 3), Transport::Udp);
        assert!(matches!(chaos, Parsed::Refused(_, ResponseCode::Refused)));
    }

    #[test]
    fn edns_sizes_and_versions() {
        let opt = |size: u16, version: u8| {
            packet(|p| {
                p[11] = 1;
                p.extend([0, 0, 41]);
                p.extend(size.to_be_bytes());
                p.extend([0, version, 0x80, 0, 0, 0]);
            })
        };
        let limit = |size| match parse(&opt(size, 0), Transport::Udp) {
            Parsed::Query(query) => {
                assert!(query.dnssec_ok());
                query.limit
            }
            _ => panic!("refused"),
        };
        assert_eq!((limit(100), limit(900), limit(4096)), (512, 900, 1232));
        assert!(matches!(parse(&opt(1232, 1), Transport::Udp), Parsed::Refused(_, ResponseCode::BADVERS)));
    }
}
