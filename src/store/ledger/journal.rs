//! The text of the ledger: a header, then a line for each entry.
//!
//! ```text
//! {"ledger":1}
//! {"sum":"9f86d081884c7d65","number":1,"host":"agent-1","domain":"api.example.com","period":"hour", and more}
//! ```
//!
//! `sum` is over the sum of the line before and everything behind the sum, and the rest of a line is fixed. So no octet
//! can change, and no line can go or come or move, without the next reader seeing it; only lines at the very end can be
//! missing. A write that a crash cut short leaves a last line without its line feed, because the line feed goes last.
//! Whatever has its line feed was written in full, so if it does not agree with its sum, it was changed.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::policy::model::Period;

/// The version of the format, and the first line.
const VERSION: u64 = 1;
/// The first line, which holds the version.
pub(super) const HEADER: &str = "{\"ledger\":1}\n";
/// The longest line, octets, with its line feed. With the longest host name and domain a line has less than 700.
const LONGEST: usize = 4096;
/// Digits of a sum: 64 bits, where one in 2^64 changes goes unseen.
const DIGITS: usize = 16;
const OPENING: &str = "{\"sum\":\"";
const MIDDLE: &str = "\",";

/// What is known of one cap in one period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The number of the cap, by which the kernel knows it. Below 2^32 - 1.
    pub number: u32,
    /// The host block.
    pub host: String,
    /// The domain, as the policy's normal form writes it.
    pub domain: String,
    /// The period.
    #[serde(with = "word")]
    pub period: Period,
    /// When the period began; kept to the second.
    #[serde(with = "crate::store::seconds")]
    pub start: DateTime<Utc>,
    /// Bytes granted in this period; never less than the use.
    pub granted: u64,
    /// Bytes used in the period before the kernel's counters began.
    pub carried: u64,
    /// The kernel's counter of what passed, bytes, when the period began.
    pub passed: u64,
    /// The kernel's counter of what is charged to several caps, IPv4, bytes, when the period began.
    pub merged4: u64,
    /// The same for IPv6.
    pub merged6: u64,
}

/// Periods as policies write them.
mod word {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::policy::model::Period;

    pub(super) fn serialize<S: Serializer>(period: &Period, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(period.word())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Period, D::Error> {
        let text = String::deserialize(from)?;
        let found = Period::ALL.into_iter().find(|period| period.word() == text);
        found.ok_or_else(|| D::Error::custom("no period"))
    }
}

/// The sum in a line, as digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum([u8; DIGITS]);

impl Sum {
    /// What stands for the line before where there is none.
    pub const FIRST: Self = Self([b'0'; DIGITS]);

    /// The sum of a line with `rest` behind its sum, when the line before has this one.
    pub fn after(self, rest: &[u8]) -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let digest = Sha256::new().chain_update(self.0).chain_update(rest).finalize();
        let digits = digest.iter().flat_map(|octet| [octet >> 4, octet & 15]).map(|digit| HEX[usize::from(digit)]);
        let mut out = Self::FIRST;
        out.0.iter_mut().zip(digits).for_each(|(place, digit)| *place = digit);
        out
    }

    /// The digits as they stand in the line.
    pub fn digits(&self) -> &[u8] {
        &self.0
    }
}

/// What a journal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The last entry of each host and domain. Where there is damage they are not to be trusted.
    pub entries: BTreeMap<(String, String), Entry>,
    /// The highest number of an entry; 0: there is none.
    pub highest: u32,
    /// How long the header and the whole lines are, octets.
    pub length: u64,
    /// How many entries there are, those that later ones replace included.
    pub records: usize,
    /// The sum of the last line.
    pub sum: Sum,
    /// What is wrong: a sentence about "it".
    pub damage: Option<String>,
}

/// Reads a journal.
///
/// # Errors
/// The source cannot be read.
pub fn read(mut from: impl BufRead) -> io::Result<Reading> {
    let mut reading =
        Reading { entries: BTreeMap::new(), highest: 0, length: 0, records: 0, sum: Sum::FIRST, damage: None };
    let mut line = Vec::new();
    next_line(&mut from, &mut line)?;
    if line != HEADER.as_bytes() {
        reading.damage = Some(head_complaint(&line));
        return Ok(reading);
    }
    reading.length = HEADER.len() as u64;
    for number in 2_u64.. {
        next_line(&mut from, &mut line)?;
        let Some(text) = line.strip_suffix(b"\n") else {
            // Torn, unless there is more than a crash leaves.
            if line.len() > LONGEST {
                reading.complain(format!("line {number} has no end"));
            } else if line.split_last().is_some_and(|(_, text)| open(text, reading.sum).is_ok()) {
                reading.complain(format!("the line feed behind line {number} was changed"));
            }
            break;
        };
        match open(text, reading.sum) {
            Ok((entry, sum)) => {
                reading.sum = sum;
                reading.highest = reading.highest.max(entry.number);
                reading.records += 1;
                reading.length += line.len() as u64;
                reading.entries.insert((entry.host.clone(), entry.domain.clone()), entry);
            }
            Err(what) => {
                reading.complain(format!("line {number} {what}"));
                // The lines behind it still tell which numbers are taken.
                reading.sum = split(text).map_or(reading.sum, |(sum, _)| sum);
            }
        }
    }
    Ok(reading)
}

impl Reading {
    fn complain(&mut self, what: String) {
        self.damage.get_or_insert(what);
    }
}

/// The next line with its line feed; no more than one octet above [`LONGEST`].
fn next_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<()> {
    line.clear();
    from.take(LONGEST as u64 + 1).read_until(b'\n', line).map(drop)
}

fn head_complaint(line: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Head {
        ledger: u64,
    }
    match serde_json::from_slice::<Head>(line) {
        Ok(head) if head.ledger != VERSION => {
            format!("it is of version {}, and this clawgress reads version {VERSION}", head.ledger)
        }
        _ if line.is_empty() => "it is empty".to_owned(),
        _ => "its first line does not say what it is".to_owned(),
    }
}

/// The sum and what is behind it, where a line has the form of an entry's.
fn split(text: &[u8]) -> Option<(Sum, &[u8])> {
    let (sum, rest) = text.strip_prefix(OPENING.as_bytes())?.split_first_chunk()?;
    Some((Sum(*sum), rest))
}

/// The entry in a line, and the line's sum; or what is wrong with the line.
fn open(text: &[u8], before: Sum) -> Result<(Entry, Sum), &'static str> {
    let changed = "is not as it was written";
    let Some((sum, rest)) = split(text) else {
        return Err(if text == HEADER.trim_end().as_bytes() { "is a second first line" } else { changed });
    };
    let fields = rest.strip_prefix(MIDDLE.as_bytes()).ok_or(changed)?;
    if before.after(rest) != sum {
        return Err(changed);
    }
    let entry: Result<Entry, _> = serde_json::from_slice(&[b"{", fields].concat());
    match entry {
        Ok(entry) if entry.number < u32::MAX && entry.start.timestamp_subsec_nanos() == 0 => Ok((entry, sum)),
        _ => Err("is of a kind that this clawgress does not know"),
    }
}

/// The lines of entries that follow a line with the sum `before`, and the sum of the last.
///
/// # Errors
/// An entry is one that [`read`] would not take.
pub fn write(entries: &[Entry], before: Sum) -> io::Result<(Vec<u8>, Sum)> {
    let mut out = Vec::new();
    let mut sum = before;
    for entry in entries {
        if entry.number == u32::MAX {
            return Err(io::Error::other("all numbers of caps are used up"));
        }
        let fields = serde_json::to_vec(entry)?;
        let rest = [MIDDLE.as_bytes(), fields.get(1..).unwrap_or_default()].concat();
        sum = sum.after(&rest);
        let line = [OPENING.as_bytes(), &sum.0, &rest, b"\n"].concat();
        if line.len() > LONGEST {
            return Err(io::Error::other(format!("the entry of {} is too long", entry.domain)));
        }
        out.extend(line);
    }
    Ok((out, sum))
}
