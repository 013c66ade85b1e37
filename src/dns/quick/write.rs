//! Answers written octet by octet, as hickory's writer writes them (a property test holds them together).

use std::fmt::{self, Write};

use super::question::{OPT, Question};
use crate::dns::query::{HEADER, MAX_UDP_ANSWER};
use crate::dns::reply::{EDE_OPTION, Ede, MAX_TEXT, REFUSAL_TTL};
use crate::dns::words::Refusal;

/// NXDOMAIN (RFC 1035 section 4.1.1).
const NXDOMAIN: u8 = 3;
/// `clawgress.invalid.`, the master of a refusal's zone.
const MASTER: &[u8] = b"\x09clawgress\x07invalid\0";
/// `hostmaster`, before a pointer to [`MASTER`].
const HOSTMASTER: &[u8] = b"\x0ahostmaster";
/// A pointer to the name asked for.
const ASKED: [u8; 2] = [0xc0, HEADER as u8];
/// Octets of the five numbers of an SOA.
const NUMBERS: usize = 20;
/// The serial of a refusal's zone.
const SERIAL: u32 = 1;
/// When it would expire, in seconds.
const EXPIRE: u32 = 86_400;

/// Header and question of an answer: the client's id, RD and CD, RA, the code, and the numbers of records.
pub(super) fn head(question: &Question<'_>, code: u8, [answers, authorities]: [u16; 2], out: &mut Vec<u8>) {
    let flags = [0x80 | u8::from(question.recursion_desired), 0x80 | u8::from(question.checking_disabled) << 4 | code];
    let counts = [1, answers, authorities, question.edns.is_some().into()].map(u16::to_be_bytes);
    out.extend_from_slice(&question.id);
    out.extend_from_slice(&flags);
    out.extend_from_slice(counts.as_flattened());
    out.extend_from_slice(question.section);
}

/// Our OPT record, if the client speaks EDNS.
pub(super) fn opt(question: &Question<'_>, out: &mut Vec<u8>) {
    let Some(dnssec_ok) = question.edns else { return };
    let [high, low] = (MAX_UDP_ANSWER as u16).to_be_bytes();
    let record: [u8; OPT] = [0, 0, 41, high, low, 0, 0, u8::from(dnssec_ok) << 7, 0, 0, 0];
    out.extend_from_slice(&record);
}

/// NXDOMAIN that is forgotten soon, with the policy's reason. False: it must be written in another way.
pub(super) fn blocked(question: &Question<'_>, reason: &Refusal<'_>, out: &mut Vec<u8>) -> bool {
    // The full writer would refer to the question for the names of the SOA.
    if question.own_suffix {
        return false;
    }
    head(question, NXDOMAIN, [0, 1], out);
    let ttl = REFUSAL_TTL.to_be_bytes();
    out.extend_from_slice(&ASKED);
    out.extend_from_slice(&[0, 6, 0, 1]);
    out.extend_from_slice(&ttl);
    let data = MASTER.len() + HOSTMASTER.len() + ASKED.len() + NUMBERS;
    out.extend_from_slice(&(data as u16).to_be_bytes());
    let master = 0xc000 | out.len() as u16;
    out.extend_from_slice(MASTER);
    out.extend_from_slice(HOSTMASTER);
    out.extend_from_slice(&master.to_be_bytes());
    for number in [SERIAL, REFUSAL_TTL, REFUSAL_TTL, EXPIRE, REFUSAL_TTL] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    if question.edns.is_some() {
        opt(question, out);
        explain(Ede::Blocked, reason, out);
    }
    out.len() <= question.limit
}

/// Puts an Extended DNS Error into the OPT record that was written last.
fn explain(error: Ede, reason: &Refusal<'_>, out: &mut Vec<u8>) {
    let option = out.len();
    out.extend_from_slice(&EDE_OPTION.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&(error as u16).to_be_bytes());
    // It never fails: what does not fit is left out.
    let _ = write!(Line { room: MAX_TEXT, out }, "{reason}");
    let lengths = [(option - 2, out.len() - option), (option + 2, out.len() - option - 4)];
    for (place, length) in lengths {
        out[place..place + 2].copy_from_slice(&(length as u16).to_be_bytes());
    }
}

/// The beginning of a text, whole characters only.
struct Line<'o> {
    room: usize,
    out: &'o mut Vec<u8>,
}

impl Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut end = text.len();
        if end > self.room {
            end = self.room;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            self.room = end;
        }
        self.room -= end;
        self.out.extend_from_slice(&text.as_bytes()[..end]);
        Ok(())
    }
}
