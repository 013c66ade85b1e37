//! The kept copy of a list: one line for each rule, so that a revision can be enforced again when the file is gone.
//!
//! ```text
//! clawgress list 1 hosts            what it is, and the format that it was read as
//! 12 example.com                    the line in the file, and the name
//! 14 -*.example.net                 an exception
//! 20 192.0.2.0/24                   an address trigger
//! =rejected 3                       the counts of the report
//! =told 17 not-a-name
//! ```

use std::io::{self, Write};

use ipnet::IpNet;
use sha2::{Digest as _, Sha256};

use super::contents::Contents;
use super::reader::{Bounds, Lines, Refused};
use super::report::{Aside, Fault, Report};
use crate::policy::model::ListFormat;
use crate::policy::name::Pattern;
use crate::policy::normal::{Hash, hexadecimal};

/// How a copy begins; the format follows.
pub const COPY_LINE: &str = "clawgress list 1 ";

impl Contents {
    /// Writes the copy.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_copy(&self, to: &mut impl Write) -> io::Result<()> {
        writeln!(to, "{COPY_LINE}{}", self.format().word())?;
        for entry in self.entries() {
            let sign = if entry.exception { "-" } else { "" };
            writeln!(to, "{} {sign}{}", entry.line, entry.pattern)?;
        }
        for network in self.networks() {
            let sign = if network.exception { "-" } else { "" };
            writeln!(to, "{} {sign}{}", network.line, network.net)?;
        }
        let Report { lines, duplicates, skipped, asides, rejected, told, .. } = self.report();
        for (word, count) in
            [("lines", lines), ("duplicates", duplicates), ("skipped", skipped), ("rejected", rejected)]
        {
            writeln!(to, "={word} {count}")?;
        }
        for (aside, (count, first)) in asides {
            writeln!(to, "=aside {} {count} {first}", aside.word())?;
        }
        for (line, fault) in told {
            writeln!(to, "=told {line} {}", fault.word())?;
        }
        Ok(())
    }

    pub(super) fn copy_digest(&self) -> String {
        // A hash takes everything, so this cannot fail. Lines are short, and hashing prefers long pieces.
        let mut to = io::BufWriter::with_capacity(1 << 16, Hash(Sha256::new()));
        let _ = self.write_copy(&mut to).and_then(|()| to.flush());
        to.into_inner().map(|hash| hexadecimal(&hash.0.finalize())).unwrap_or_default()
    }
}

/// Reads a copy. What is not as it was written is found by the digest.
pub struct CopyReader {
    lines: Lines,
    contents: Option<Contents>,
    report: Report,
    good: bool,
}

impl Default for CopyReader {
    fn default() -> Self {
        Self { lines: Lines::new(Bounds::COPY), contents: None, report: Report::default(), good: true }
    }
}

impl CopyReader {
    /// The next octets.
    ///
    /// # Errors
    /// There are more than any copy has.
    pub fn feed(&mut self, octets: &[u8]) -> Result<(), Refused> {
        let Self { lines, contents, report, good } = self;
        lines.feed(octets, &mut |_, text| {
            let read = text.is_some_and(|text| read_line(contents, report, text).is_some());
            *good = *good && read;
        })
    }

    /// The list, if the octets are the copy with this digest.
    pub fn finish(mut self, digest: &str) -> Option<Contents> {
        let Self { lines, contents, report, good } = &mut self;
        lines.finish(&mut |_, text| {
            let read = text.is_some_and(|text| read_line(contents, report, text).is_some());
            *good = *good && read;
        });
        let mut contents = self.contents.filter(|_| self.good)?;
        let Report { names, exceptions, networks, .. } = *contents.report();
        *contents.report_mut() = Report { names, exceptions, networks, ..self.report };
        Some(contents.finish()).filter(|contents| contents.digest() == digest)
    }
}

/// `None`: no line of a copy.
fn read_line(contents: &mut Option<Contents>, report: &mut Report, text: &str) -> Option<()> {
    let Some(contents) = contents else {
        let format = ListFormat::from_word(text.strip_prefix(COPY_LINE)?)?;
        *contents = Some(Contents::new(format, 0));
        return Some(());
    };
    if let Some(count) = text.strip_prefix('=') {
        return read_count(report, count);
    }
    let (line, rule) = text.split_once(' ')?;
    let line = line.parse().ok()?;
    let (rule, exception) = rule.strip_prefix('-').map_or((rule, false), |rule| (rule, true));
    if rule.contains('/') {
        contents.add_network(rule.parse::<IpNet>().ok()?, line, exception);
    } else {
        contents.add(&Pattern::from_record(rule)?, line, exception);
    }
    Some(())
}

fn read_count(report: &mut Report, text: &str) -> Option<()> {
    let words: Vec<&str> = text.split(' ').collect();
    let number = |index: usize| words.get(index)?.parse::<u32>().ok();
    match words.as_slice() {
        ["lines", _] => report.lines = number(1)?,
        ["duplicates", _] => report.duplicates = number(1)?,
        ["skipped", _] => report.skipped = number(1)?,
        ["rejected", _] => report.rejected = number(1)?,
        ["aside", word, _, _] => drop(report.asides.insert(Aside::from_word(word)?, (number(2)?, number(3)?))),
        ["told", _, word] => report.told.push((number(1)?, Fault::from_word(word)?)),
        _ => return None,
    }
    Some(())
}
