//! Questions as they go out, and the check of what comes back.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{DNSClass, Name as WireName};

use super::random::{Randomness, fill};
use super::{Failure, Lookup};
use crate::dns::query::{HEADER, MAX_UDP_ANSWER};

/// An id that nobody can guess.
pub(super) fn random_id() -> Result<u16, Failure> {
    let mut bytes = [0; 2];
    fill(&mut bytes)?;
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

/// A question as octets, written from a [`Lookup::key`]. The id is written by whoever sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dns) struct Asked {
    octets: Box<[u8]>,
    /// Where the question section ends.
    end: usize,
}

impl Asked {
    /// The question. With `coins`, the case of every letter is thrown by one: one more thing that a forger has to guess.
    ///
    /// # Errors
    /// There are no coins.
    pub fn new(key: &[u8], coins: Option<&mut Randomness>) -> Result<Self, Failure> {
        let [dnssec_ok, high, low, name @ ..] = key else {
            return Err(Failure::Network("the question has no name".to_owned()));
        };
        let mut octets = Vec::with_capacity(HEADER + name.len() + 4 + OPT.len());
        // RD; one question, one additional record (RFC 1035 section 4.1.1).
        octets.extend([0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        octets.extend(name);
        if let Some(coins) = coins {
            scramble(&mut octets[HEADER..], coins.octets()?);
        }
        octets.extend([*high, *low, 0, 1]);
        let end = octets.len();
        octets.extend(OPT);
        octets[end + DNSSEC_OK] |= dnssec_ok << 7;
        Ok(Self { octets: octets.into(), end })
    }

    /// All of it, under an id.
    pub fn under(&mut self, id: u16) -> &[u8] {
        self.octets[..2].copy_from_slice(&id.to_be_bytes());
        &self.octets
    }

    /// As [`Asked::under`] was called last.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// Whether a datagram that bears our id answers this.
    pub fn answered(&self, datagram: &[u8]) -> Match {
        let question = &self.octets[HEADER..self.end];
        let (Some(head), Some(told)) = (datagram.first_chunk::<HEADER>(), datagram.get(HEADER..self.end)) else {
            return Match::No;
        };
        // QR, and the opcode of a query; one question.
        let ours = head[..2] == self.octets[..2] && head[2] & 0xf8 == 0x80 && head[4..6] == [0, 1];
        let (name, kind) = question.split_at(question.len() - 4);
        let (told_name, told_kind) = told.split_at(name.len());
        match ours && kind == told_kind && name.eq_ignore_ascii_case(told_name) {
            true if name == told_name => Match::Exact,
            true => Match::Spelling,
            false => Match::No,
        }
    }
}

/// Our OPT record (RFC 6891 section 6.1.2): root, type, the largest answer, no extended code, version 0, flags, no options.
const OPT: [u8; 11] = {
    let [high, low] = (MAX_UDP_ANSWER as u16).to_be_bytes();
    [0, 0, 41, high, low, 0, 0, 0, 0, 0, 0]
};
/// Where in [`OPT`] the flag DO is the highest bit.
const DNSSEC_OK: usize = 7;

/// Throws a coin for each letter. Lengths of labels are no letters: they are below 64.
fn scramble(name: &mut [u8], coins: [u8; 32]) {
    let letters = name.iter_mut().filter(|octet| octet.is_ascii_alphabetic());
    for (at, letter) in letters.enumerate() {
        *letter ^= (coins[at / 8 % coins.len()] >> (at % 8) & 1) << 5;
    }
}

/// How an answer's question compares with ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dns) enum Match {
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

    fn lookup(name: &str, dnssec_ok: bool) -> Lookup {
        Lookup { name: WireName::from_ascii(name).unwrap(), kind: RecordType::AAAA, dnssec_ok }
    }

    #[test]
    fn octets_are_what_the_library_would_write() {
        for (name, dnssec_ok) in [("a-b_c.example.com.", false), ("x.", true), ("1.2.3.in-addr.arpa.", true)] {
            let lookup = lookup(name, dnssec_ok);
            let mut asked = Asked::new(&lookup.key(), None).unwrap();
            assert_eq!(asked.under(0x1234), question(&lookup, &lookup.name, 0x1234).to_vec().unwrap());
        }
    }

    #[test]
    fn scrambling_changes_the_spelling_only() {
        let lookup = lookup("a-long_enough.label.0-9_.example.com.", false);
        let mut coins = Randomness::default();
        let mut throw = || Asked::new(&lookup.key(), Some(&mut coins)).unwrap();
        let (one, two) = (throw(), throw());
        let read = |asked: &Asked| Message::from_vec(asked.octets()).unwrap().queries[0].name.clone();
        assert!(read(&one) == lookup.name && read(&two) == lookup.name);
        assert!(one != two, "25 coins fell the same way twice");
    }

    #[test]
    fn a_datagram_must_repeat_the_question() {
        let lookup = lookup("a.example.", true);
        let mut asked = Asked::new(&lookup.key(), None).unwrap();
        asked.under(7);
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut octets = asked.octets().to_vec();
            octets[2] |= 0x80;
            change(&mut octets);
            asked.answered(&octets)
        };
        assert_eq!(asked.answered(asked.octets()), Match::No, "a question is no answer");
        assert_eq!(with(&|_| ()), Match::Exact);
        assert_eq!(with(&|octets| octets[HEADER + 1] = b'A'), Match::Spelling);
        let end = asked.end;
        type Change<'c> = &'c dyn Fn(&mut Vec<u8>);
        let wrong: [Change<'_>; 8] = [
            &|octets| octets[1] = 8,
            &|octets| octets[2] |= 0x10,
            &|octets| octets[5] = 0,
            &|octets| octets[5] = 2,
            &|octets| octets[HEADER + 1] = b'b',
            &|octets| octets[end - 3] = 1,
            &|octets| octets[end - 1] = 3,
            &|octets| octets.truncate(end - 1),
        ];
        for (number, change) in wrong.into_iter().enumerate() {
            assert_eq!(with(change), Match::No, "change {number}");
        }
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
