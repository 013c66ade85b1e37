//! The plain question, read in place.
//!
//! Plain: one question of class IN for a name of letters, digits, `-` and `_`; no option of EDNS. Everything else, and
//! everything that looks odd, is left to the full reader ([`crate::dns::query`]), so nothing is refused here.

use crate::dns::query::{HEADER, MAX_UDP_ANSWER, PLAIN_UDP_ANSWER};
use crate::dns::upstream::KEY_HEAD;

/// Octets of a name on the wire at most (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 255;
/// Octets of a label at most.
const MAX_LABEL: usize = 63;
/// Octets of an OPT record without options (RFC 6891 section 6.1.2).
pub(super) const OPT: usize = 11;
/// The last label of the names in a refusal's SOA: the writer of those would refer to it.
const OWN_SUFFIX: &[u8] = b"invalid";

/// A question.
pub(in crate::dns) struct Question<'p> {
    /// The client's number.
    pub id: [u8; 2],
    /// The client's RD bit.
    pub recursion_desired: bool,
    /// The client's CD bit.
    pub checking_disabled: bool,
    /// The question section as it came: name, type, class.
    pub section: &'p [u8],
    /// The type asked for.
    pub kind: u16,
    /// Whether DNSSEC records are wanted; `None`: the client does not speak EDNS.
    pub edns: Option<bool>,
    /// The largest answer that the client takes, in octets.
    pub limit: usize,
    /// The name is spelled in lower case.
    pub lower: bool,
    /// The name ends like names of our own.
    pub own_suffix: bool,
}

/// Room for a name in its two forms.
pub(in crate::dns) struct Spelling {
    key: [u8; KEY_HEAD + MAX_NAME],
    key_length: usize,
    text: [u8; MAX_NAME],
    text_length: usize,
}

impl Default for Spelling {
    fn default() -> Self {
        Self { key: [0; KEY_HEAD + MAX_NAME], key_length: 0, text: [0; MAX_NAME], text_length: 0 }
    }
}

impl Spelling {
    /// The key of the answer in the cache (see [`crate::dns::upstream::Lookup::key`]).
    pub fn key(&self) -> &[u8] {
        &self.key[..self.key_length]
    }

    /// The name in lower case, without the dot at its end.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.text[..self.text_length]).unwrap_or_default()
    }
}

impl<'p> Question<'p> {
    /// Reads a packet; `None`: it is not plain.
    pub fn read(packet: &'p [u8], spelling: &mut Spelling) -> Option<Self> {
        let (header, rest) = packet.split_first_chunk::<HEADER>()?;
        // Nothing but RD, AD and CD may be set: QR, opcode, AA, TC; RA, Z, code.
        if header[2] & 0xfe != 0 || header[3] & 0xcf != 0 {
            return None;
        }
        let [.., 0, 1, 0, 0, 0, 0, 0, additional @ (0 | 1)] = *header else { return None };
        let (lower, own_suffix, length) = read_name(rest, spelling)?;
        let (section, rest) = rest.split_at_checked(length + 4)?;
        let [high, low, 0, 1] = section[length..] else { return None };
        let (edns, limit) = match (additional, rest) {
            (0, []) => (None, PLAIN_UDP_ANSWER),
            // Root, OPT, size, code 0, version 0, DO, no options.
            (1, [0, 0, 41, size_high, size_low, 0, 0, flags, 0, 0, 0]) if flags & 0x7f == 0 => {
                let size = usize::from(u16::from_be_bytes([*size_high, *size_low]));
                (Some(flags & 0x80 != 0), size.clamp(PLAIN_UDP_ANSWER, MAX_UDP_ANSWER))
            }
            _ => return None,
        };
        spelling.key[..KEY_HEAD].copy_from_slice(&[edns.unwrap_or(false).into(), high, low]);
        Some(Self {
            id: [header[0], header[1]],
            recursion_desired: header[2] & 1 != 0,
            checking_disabled: header[3] & 0x10 != 0,
            section,
            kind: u16::from_be_bytes([high, low]),
            edns,
            limit,
            lower,
            own_suffix,
        })
    }
}

/// Reads a name into `spelling`: whether it is in lower case, whether it ends like ours, and its length on the wire.
fn read_name(octets: &[u8], spelling: &mut Spelling) -> Option<(bool, bool, usize)> {
    let (mut at, mut lower, mut last) = (0, true, 0);
    loop {
        let length = usize::from(*octets.get(at)?);
        if length == 0 {
            break;
        }
        if length > MAX_LABEL || at + 1 + length >= MAX_NAME {
            return None;
        }
        last = at;
        let label = octets.get(at + 1..=at + length)?;
        // The full writer spells this one in another way.
        if label[0] == b'-' {
            return None;
        }
        // The text has a dot where the wire has the length of the next label.
        if at > 0 {
            spelling.text[at - 1] = b'.';
        }
        spelling.key[KEY_HEAD + at] = length as u8;
        let key = &mut spelling.key[KEY_HEAD + at + 1..][..length];
        for (place, octet) in key.iter_mut().zip(label) {
            let small = SMALL[usize::from(*octet)];
            if small == 0 {
                return None;
            }
            lower &= small == *octet;
            *place = small;
        }
        spelling.text[at..at + length].copy_from_slice(key);
        at += 1 + length;
    }
    // The root is no name of a policy.
    if at == 0 {
        return None;
    }
    spelling.key[KEY_HEAD + at] = 0;
    spelling.key_length = KEY_HEAD + at + 1;
    spelling.text_length = at - 1;
    Some((lower, &spelling.text[last..at - 1] == OWN_SUFFIX, at + 1))
}

/// Each octet of a plain name in lower case; 0: it is in no plain name.
const SMALL: [u8; 256] = {
    let mut table = [0; 256];
    let mut octet = 0;
    while octet < table.len() {
        let small = (octet as u8).to_ascii_lowercase();
        if small.is_ascii_lowercase() || small.is_ascii_digit() || small == b'-' || small == b'_' {
            table[octet] = small;
        }
        octet += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(name: &[u8], rest: &[u8]) -> Vec<u8> {
        [&b"\x12\x34\x01\x10\x00\x01\x00\x00\x00\x00\x00\x00"[..], name, rest].concat()
    }

    #[test]
    fn a_plain_question_is_read_in_both_forms() {
        let mut spelling = Spelling::default();
        let bytes = packet(b"\x03aPi\x07exAmple\0", b"\0\x1c\0\x01");
        let question = Question::read(&bytes, &mut spelling).unwrap();
        assert_eq!((question.id, question.kind, question.edns, question.limit), ([0x12, 0x34], 28, None, 512));
        assert!(question.recursion_desired && question.checking_disabled && !question.lower && !question.own_suffix);
        assert_eq!(spelling.text(), "api.example");
        assert_eq!(spelling.key(), b"\0\0\x1c\x03api\x07example\0");
        let mut bytes = packet(b"\x01a\x07invalid\0", b"\0\x01\0\x01\0\0\x29\x04\0\0\0\x80\0\0\0");
        bytes[11] = 1;
        let question = Question::read(&bytes, &mut spelling).unwrap();
        assert_eq!((question.edns, question.limit, question.own_suffix), (Some(true), 1024, true));
        assert_eq!(spelling.key(), b"\x01\0\x01\x01a\x07invalid\0");
    }

    #[test]
    fn the_longest_name_is_read_and_a_longer_one_is_not() {
        let name = |last: usize| {
            let mut name = [&[63][..], &[b'a'; 63]].concat().repeat(3);
            name.extend([&[last as u8][..], &vec![b'b'; last], &[0]].concat());
            name
        };
        let mut spelling = Spelling::default();
        assert_eq!(name(61).len(), MAX_NAME);
        assert!(Question::read(&packet(&name(61), b"\0\x01\0\x01"), &mut spelling).is_some());
        assert_eq!(spelling.text().len(), 253);
        assert!(Question::read(&packet(&name(62), b"\0\x01\0\x01"), &mut spelling).is_none());
    }

    #[test]
    fn what_is_odd_is_left_to_the_full_reader() {
        let plain = packet(b"\x01a\0", b"\0\x01\0\x01");
        assert!(Question::read(&plain, &mut Spelling::default()).is_some());
        for (at, value) in [
            (2, 0x81),
            (2, 0x09),
            (2, 3),
            (3, 0x80),
            (3, 1),
            (3, 0x40),
            (5, 2),
            (7, 1),
            (11, 1),
            (13, b'*'),
            (13, b'-'),
            (18, 3),
        ] {
            let mut odd = plain.clone();
            odd[at] = value;
            assert!(Question::read(&odd, &mut Spelling::default()).is_none(), "octet {at} is {value}");
        }
        let longer = [&plain[..], &[0]].concat();
        let root = packet(b"\0", b"\0\x01\0\x01");
        for odd in [&plain[..plain.len() - 1], &longer, &root, &plain[..11]] {
            assert!(Question::read(odd, &mut Spelling::default()).is_none());
        }
    }
}
