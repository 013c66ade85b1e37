//! From the octets of a file to its lines, and from lines to rules.

use super::contents::Contents;
use super::report::Fault;
use super::zone::Zone;
use super::{adblock, plain};
use crate::policy::domain;
use crate::policy::model::ListFormat;
use crate::policy::name::Pattern;

/// The longest file that is read, octets: the largest lists in use have a tenth of that.
pub const MAX_BYTES: u64 = 256 << 20;
/// The most rules that all lists of a policy may have together.
pub const MAX_RULES: usize = 5_000_000;
/// The longest line, octets. No record of a zone and no rule about a name comes near.
pub const MAX_LINE: usize = 1 << 16;
/// Octets of a file for each rule that a table is made ready for; too few only costs growing.
const OCTETS_PER_RULE: u64 = 24;

/// Why a file is not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is longer than [`MAX_BYTES`].
    #[error("it is longer than {} MiB", MAX_BYTES >> 20)]
    TooLong,
    /// Together with the lists before it, it has more rules than [`MAX_RULES`].
    #[error("the lists of a policy may have {MAX_RULES} rules together, and with this file they have more")]
    TooMany,
    /// It is no text.
    #[error("it is {0}")]
    NoText(&'static str),
}

/// How much is read.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    bytes: u64,
}

impl Bounds {
    const FILE: Self = Self { bytes: MAX_BYTES };
    /// A copy has a line's number in front of each rule, and `||x^` is two.
    pub const COPY: Self = Self { bytes: 4 * MAX_BYTES };
}

/// Cuts octets into lines, whatever pieces they come in.
pub(super) struct Lines {
    bounds: Bounds,
    read: u64,
    number: u32,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    /// The line is too long; what is left of it is passed over.
    over: bool,
}

impl Lines {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, read: 0, number: 0, begun: Vec::new(), over: false }
    }

    /// Hands on each line that has ended, without its line feed and a carriage return before it; `None`: it was too long.
    pub fn feed(&mut self, octets: &[u8], line: &mut impl FnMut(u32, Option<&str>)) -> Result<(), Refused> {
        if let (0, Some(what)) = (self.read, no_text(octets)) {
            return Err(Refused::NoText(what));
        }
        self.read += octets.len() as u64;
        if self.read > self.bounds.bytes {
            return Err(Refused::TooLong);
        }
        let mut rest = octets;
        while let Some(end) = rest.iter().position(|octet| *octet == b'\n') {
            let (text, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            if self.begun.is_empty() && !self.over && text.len() <= MAX_LINE {
                self.number += 1;
                whole(self.number, text, line);
                continue;
            }
            self.extend(text);
            self.end(line);
        }
        self.extend(rest);
        Ok(())
    }

    /// Hands on the last line, if it has no line feed; gives the number of lines.
    pub fn finish(&mut self, line: &mut impl FnMut(u32, Option<&str>)) -> u32 {
        if !self.begun.is_empty() || self.over {
            self.end(line);
        }
        self.number
    }

    fn extend(&mut self, text: &[u8]) {
        if self.begun.len() + text.len() > MAX_LINE {
            self.over = true;
            self.begun.clear();
        }
        if !self.over {
            self.begun.extend_from_slice(text);
        }
    }

    fn end(&mut self, line: &mut impl FnMut(u32, Option<&str>)) {
        self.number += 1;
        if std::mem::take(&mut self.over) {
            line(self.number, None);
        } else {
            whole(self.number, &self.begun, line);
        }
        self.begun.clear();
    }
}

fn whole(number: u32, text: &[u8], line: &mut impl FnMut(u32, Option<&str>)) {
    let text = if number == 1 { text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text) } else { text };
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    // Comments are in whatever encoding; no name survives a replaced character.
    line(number, Some(&String::from_utf8_lossy(text)));
}

/// What octets are that can be no list, by their beginning.
fn no_text(octets: &[u8]) -> Option<&'static str> {
    match octets {
        [0x1f, 0x8b, ..]
        | [b'P', b'K', 3, 4, ..]
        | [0xfd, b'7', b'z', b'X', b'Z', ..]
        | [0x28, 0xb5, 0x2f, 0xfd, ..]
        | [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..]
        | [b'7', b'z', 0xbc, 0xaf, ..] => Some("compressed; unpack it"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("a text in UTF-16; save it as UTF-8"),
        _ => None,
    }
}

/// Reads a file of one format.
pub struct Reader {
    lines: Lines,
    contents: Contents,
    zone: Zone,
    room: usize,
}

impl Reader {
    /// For a file of `bytes` octets, as far as known. `room`: how many rules it may have ([`MAX_RULES`] less those of
    /// other lists).
    pub fn new(format: ListFormat, bytes: u64, room: usize) -> Self {
        let rules = usize::try_from(bytes.min(MAX_BYTES) / OCTETS_PER_RULE).unwrap_or(0).min(room);
        Self { lines: Lines::new(Bounds::FILE), contents: Contents::new(format, rules), zone: Zone::default(), room }
    }

    /// The next octets of the file.
    ///
    /// # Errors
    /// The file is too long, has too many rules, or is no text.
    pub fn feed(&mut self, octets: &[u8]) -> Result<(), Refused> {
        let Self { lines, contents, zone, room } = self;
        lines.feed(octets, &mut |number, text| one(contents, zone, number, text))?;
        if contents.len() > *room { Err(Refused::TooMany) } else { Ok(()) }
    }

    /// The end of the file.
    ///
    /// # Errors
    /// As [`Reader::feed`].
    pub fn finish(mut self) -> Result<Contents, Refused> {
        let Self { lines, contents, zone, room } = &mut self;
        let count = lines.finish(&mut |number, text| one(contents, zone, number, text));
        zone.finish(contents);
        contents.report_mut().lines = count;
        if contents.len() > *room { Err(Refused::TooMany) } else { Ok(self.contents.finish()) }
    }
}

fn one(contents: &mut Contents, zone: &mut Zone, number: u32, text: Option<&str>) {
    let Some(text) = text else { return contents.reject(number, Fault::LongLine) };
    match contents.format() {
        ListFormat::Domains => plain::domains(contents, number, text),
        ListFormat::Hosts => plain::hosts(contents, number, text),
        ListFormat::Rpz => zone.line(contents, number, text),
        ListFormat::Adblock => adblock::line(contents, number, text),
    }
}

/// A name or wildcard, by the rules of the policy.
pub(super) fn pattern(text: &str) -> Result<Pattern, Fault> {
    domain::pattern(text).map_err(|_| fault(text))
}

/// What is wrong with a text that is no pattern.
fn fault(text: &str) -> Fault {
    const LABEL: usize = 63;
    const NAME: usize = 253;
    let bare = text.strip_suffix('.').unwrap_or(text);
    if bare == "*" {
        return Fault::EveryName;
    }
    if bare.parse::<std::net::IpAddr>().is_ok() {
        return Fault::Address;
    }
    if bare.len() > NAME || bare.split('.').any(|label| label.len() > LABEL) {
        return Fault::TooLong;
    }
    match bare.strip_prefix("*.") {
        Some(apex) if domain::name(apex).is_ok_and(|apex| apex.as_str().len() + 2 <= NAME) => Fault::PublicSuffix,
        Some(apex) if domain::name(apex).is_ok() => Fault::TooLong,
        Some(apex) if !apex.contains('*') => Fault::NotAName,
        _ if bare.contains('*') => Fault::Wildcard,
        _ => Fault::NotAName,
    }
}
