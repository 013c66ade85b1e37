//! Questions as they go out, and the check of what comes back.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{DNSClass, Name as WireName};
use rustls::crypto::ring;

use super::{Failure, Lookup};
use crate::dns::query::MAX_UDP_ANSWER;

/// Fills `bytes` with what nobody can guess.
pub(super) fn random(bytes: &mut [u8]) -> Result<(), Failure> {
    let source = ring::default_provider().secure_random;
    source.fill(bytes).map_err(|_| Failure::Network("the system gives no random numbers".to_owned()))
}

/// An id that nobody can guess.
pub(super) fn random_id() -> Result<u16, Failure> {
    let mut bytes = [0; 2];
    random(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

/// The question, with the name in the spelling given.
pub(super) fn question(lookup: &Lookup, name: &WireName, id: u16) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.queries.push(Query::query(name.clone(), lookup.kind));
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_UDP_ANSWER as u16);
    edns.set_dnssec_ok(lookup.dnssec_ok);
    message.edns = Some(edns);
    message
}

/// The name with the case of every letter thrown by coin: one more thing that a forger has to guess.
pub(super) fn scrambled(name: &WireName) -> Result<WireName, Failure> {
    let mut coins = [0_u8; 32];
    random(&mut coins)?;
    let mut at = 0;
    let labels: Vec<Vec<u8>> = name
        .iter()
        .map(|label| {
            let spell = |&letter: &u8| {
                let up = coins[at / 8 % coins.len()] >> (at % 8) & 1 == 1;
                at += 1;
                if up { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
            };
            label.iter().map(spell).collect()
        })
        .collect();
    let mut scrambled = WireName::from_labels(labels).unwrap_or_else(|_| name.clone());
    scrambled.set_fqdn(true);
    Ok(scrambled)
}

/// How an answer's question compares with ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// Letter for letter.
    Exact,
    /// But for the case of letters.
    Spelling,
    /// Not ours.
    No,
}

/// Whether `message` answers `question`.
pub(super) fn compare(question: &Message, message: &Message) -> Match {
    let head = message.metadata.message_type == MessageType::Response
        && message.metadata.op_code == OpCode::Query
        && message.metadata.id == question.metadata.id;
    match (question.queries.as_slice(), message.queries.as_slice()) {
        ([asked], [told])
            if head
                && told.query_type == asked.query_type
                && told.query_class == DNSClass::IN
                && told.name == asked.name =>
        {
            if told.name.eq_case(&asked.name) {
                Match::Exact
            } else {
                Match::Spelling
            }
        }
        _ => Match::No,
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::RecordType;

    use super::*;

    #[test]
    fn scrambling_changes_the_spelling_only() {
        let name = WireName::from_ascii("a-long_enough.label.example.com.").unwrap();
        let (one, two) = (scrambled(&name).unwrap(), scrambled(&name).unwrap());
        assert!(one == name && two == name);
        assert!(!one.eq_case(&two), "25 coins fell the same way twice");
    }

    #[test]
    fn an_answer_must_repeat_the_question() {
        let name = WireName::from_ascii("a.example.").unwrap();
        let lookup = Lookup { name: name.clone(), kind: RecordType::A, dnssec_ok: true };
        let asked = question(&lookup, &name, 7);
        let mut told = asked.clone();
        assert_eq!(compare(&asked, &told), Match::No, "a question is no answer");
        told.metadata.message_type = MessageType::Response;
        assert_eq!(compare(&asked, &told), Match::Exact);
        told.queries[0].name = WireName::from_ascii("A.example.").unwrap();
        assert_eq!(compare(&asked, &told), Match::Spelling);
        told.metadata.id = 8;
        assert_eq!(compare(&asked, &told), Match::No);
    }
}
