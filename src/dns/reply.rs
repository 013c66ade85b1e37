//! Answers in wire form.
//!
//! An answer that tells addresses is encoded from an [`Answer`], and an [`Answer`] with leased addresses cannot be made
//! without the kernel's [`Acked`](crate::core::lease::Acked) (see [`super::filter::Filtered::release`]).

use hickory_proto::op::{Edns, Message, OpCode, Query as WireQuery, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{HINFO, SOA};
use hickory_proto::rr::{Name as WireName, RData, Record, RecordType};

use super::filter::Answer;
use super::query::{MAX_UDP_ANSWER, Query};
use super::quick::is_served;

/// For how long a refusal may be remembered, in seconds: short, so that a new policy works at once.
pub(super) const REFUSAL_TTL: u32 = 10;
/// For how long the minimal answer to ANY may be remembered, in seconds.
const ANY_TTL: u32 = 3600;
/// The option code of Extended DNS Errors (RFC 8914 section 2).
pub(super) const EDE_OPTION: u16 = 15;
/// Octets of explanation at most: one line, and room for the rest in 512 octets.
pub(super) const MAX_TEXT: usize = 200;

/// The Extended DNS Errors in use (RFC 8914 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Ede {
    /// None of the others.
    Other = 0,
    /// An answer that has ended, because no upstream gives another (RFC 8767).
    Stale = 3,
    /// The server is not ready to answer (no policy, kernel busy).
    NotReady = 14,
    /// Refused by the operator's policy.
    Blocked = 15,
    /// The client may not ask here.
    Prohibited = 18,
    /// The query is of a kind that is not served.
    NotSupported = 21,
    /// No upstream answered in time.
    NoReachableAuthority = 22,
    /// An upstream, or the kernel, could not be talked to.
    NetworkError = 23,
}

/// An answer that says only `code`, with the reason for clients that understand one.
pub(super) fn failure(query: &Query, code: ResponseCode, ede: Ede, text: &str) -> Vec<u8> {
    seal(query, base(query, code), Some((ede, text)))
}

/// An answer with no more than a code.
pub(super) fn plain(query: &Query, code: ResponseCode) -> Vec<u8> {
    let mut message = base(query, code);
    if code.high() > 0 && message.edns.is_none() {
        message.metadata.response_code = ResponseCode::FormErr;
    }
    seal(query, message, None)
}

/// NXDOMAIN that is forgotten soon, with the policy's reason.
pub(super) fn blocked(query: &Query, text: &str) -> Vec<u8> {
    let mut message = base(query, ResponseCode::NXDomain);
    message.authorities.push(refusal_soa(&query.name));
    seal(query, message, Some((Ede::Blocked, text)))
}

/// The name exists, but has nothing of the type asked for.
pub(super) fn no_data(query: &Query) -> Vec<u8> {
    let mut message = base(query, ResponseCode::NoError);
    message.authorities.push(refusal_soa(&query.name));
    seal(query, message, None)
}

/// The minimal answer to ANY (RFC 8482 section 4.2).
pub(super) fn any(query: &Query) -> Vec<u8> {
    let mut message = base(query, ResponseCode::NoError);
    let data = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
    message.answers.push(Record::from_rdata(query.name.clone(), ANY_TTL, data));
    seal(query, message, None)
}

/// The refusal of types that are served to nobody: zone transfers, and NULL, which carries nothing but tunnels.
pub(super) fn not_served(query: &Query) -> Option<Vec<u8>> {
    matches!(query.kind, RecordType::AXFR | RecordType::IXFR | RecordType::NULL)
        .then(|| failure(query, ResponseCode::Refused, Ede::NotSupported, "this type of query is not served"))
}

/// The answer for types that no upstream is asked for where a policy is enforced: ANY is minimal, and what is not listed
/// here does not exist.
pub(super) fn without_upstream(query: &Query) -> Option<Vec<u8>> {
    match query.kind {
        kind if is_served(kind) => None,
        RecordType::ANY => Some(any(query)),
        _ => Some(no_data(query)),
    }
}

/// What upstream said, as far as it may be told. `stale`: it said so a while ago, and now every upstream is silent or
/// fails.
pub(super) fn answer(query: &Query, answer: Answer, stale: bool) -> Vec<u8> {
    let mut message = base(query, answer.code);
    message.answers = answer.records;
    message.authorities = answer.authorities;
    seal(query, message, stale.then_some((Ede::Stale, "no upstream has an answer now")))
}

fn base(query: &Query, code: ResponseCode) -> Message {
    let mut message = Message::response(query.id, OpCode::Query);
    message.metadata.recursion_desired = query.recursion_desired;
    message.metadata.checking_disabled = query.checking_disabled;
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.queries.push(WireQuery::query(query.name.clone(), query.kind));
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP_ANSWER as u16);
        edns.set_dnssec_ok(query.dnssec_ok());
        message.edns = Some(edns);
    }
    message
}

fn refusal_soa(owner: &WireName) -> Record {
    let name = |text: &str| WireName::from_ascii(text).unwrap_or_default();
    let ttl = REFUSAL_TTL;
    let seconds = REFUSAL_TTL as i32;
    let soa =
        SOA::new(name("clawgress.invalid."), name("hostmaster.clawgress.invalid."), 1, seconds, seconds, 86400, ttl);
    Record::from_rdata(owner.clone(), ttl, RData::SOA(soa))
}

/// Encodes within the client's limit: the explanation goes first, then every record (TC: ask again by TCP).
fn seal(query: &Query, mut message: Message, reason: Option<(Ede, &str)>) -> Vec<u8> {
    let explain = |edns: &mut Edns, ede: Ede, text: &str| {
        let mut data = (ede as u16).to_be_bytes().to_vec();
        data.extend(shorten(text).as_bytes());
        edns.options_mut().options.clear();
        edns.options_mut().insert(EdnsOption::Unknown(EDE_OPTION, data));
    };
    let texts = reason.map_or([None, None], |(ede, text)| [Some((ede, text)), Some((ede, ""))]);
    for text in texts {
        if let (Some(edns), Some((ede, text))) = (&mut message.edns, text) {
            explain(edns, ede, text);
        }
        match message.to_vec() {
            Ok(bytes) if bytes.len() <= query.limit => return bytes,
            Ok(_) => {}
            // Records that cannot be written, whatever the room: TCP would not help.
            Err(_) => {
                message.metadata.response_code = ResponseCode::ServFail;
                return bare(message, false);
            }
        }
    }
    bare(message, true)
}

/// The message without records.
fn bare(mut message: Message, truncated: bool) -> Vec<u8> {
    message.answers.clear();
    message.authorities.clear();
    message.metadata.truncation = truncated;
    message.to_vec().unwrap_or_default()
}

fn shorten(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
