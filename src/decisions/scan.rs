//! Running through the files when only what is alike matters: ten million records are a matter of seconds, because a line
//! is taken apart by its layout, and read as JSON only where somebody wants to know more.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDate, Utc};

use super::files::{MAX_LINE, numbers, path};
use super::record::Record;

/// Octets that are read at once.
const BUFFER: usize = 256 << 10;
/// `2027-01-15T08:00:00.005Z`
const TIME: usize = 24;
const HEAD: &[u8] = b"{\"time\":\"";
const ID: &[u8] = b"\",\"id\":";
const TAIL: &[u8] = b",\"suppressed\":";

/// A record as it stands in the file.
#[derive(Clone, Copy, Debug)]
pub struct Line<'l> {
    time: &'l [u8],
    /// All that says what was decided and why: everything but time, number and count. What is alike is equal here.
    pub kind: &'l [u8],
    /// How many more decisions it stands for.
    pub suppressed: u64,
    whole: &'l [u8],
}

impl<'l> Line<'l> {
    /// Takes a line apart that was written by [`Record::line`]; `None`: it has another layout.
    fn split(whole: &'l [u8]) -> Option<Self> {
        let rest = whole.strip_prefix(HEAD)?;
        let (time, rest) = rest.split_at_checked(TIME)?;
        let rest = rest.strip_prefix(ID)?;
        let digits = rest.iter().take_while(|octet| octet.is_ascii_digit()).count();
        let rest = rest[digits..].strip_suffix(b"}\n")?;
        let count = rest.iter().rev().take_while(|octet| octet.is_ascii_digit()).count();
        let (kind, count) = rest.split_at(rest.len() - count);
        let kind = kind.strip_suffix(TAIL)?;
        let suppressed = std::str::from_utf8(count).ok()?.parse().ok()?;
        Some(Self { time, kind, suppressed, whole })
    }

    /// When, to the second.
    pub fn time(&self) -> Option<DateTime<Utc>> {
        let number = |range: std::ops::Range<usize>| {
            self.time[range]
                .iter()
                .try_fold(0u32, |number, octet| octet.is_ascii_digit().then(|| number * 10 + u32::from(octet - b'0')))
        };
        let date = NaiveDate::from_ymd_opt(i32::try_from(number(0..4)?).ok()?, number(5..7)?, number(8..10)?)?;
        Some(date.and_hms_opt(number(11..13)?, number(14..16)?, number(17..19)?)?.and_utc())
    }

    /// The second that [`Line::time`] reads: equal for equal seconds.
    pub fn second(&self) -> &'l [u8] {
        &self.time[..19]
    }

    /// The whole record.
    pub fn record(&self) -> Option<Record> {
        serde_json::from_slice(self.whole).ok()
    }
}

/// The files that may have records since then, oldest first.
pub fn parts(dir: &Path, since: DateTime<Utc>) -> Vec<PathBuf> {
    let paths = numbers(dir).unwrap_or_default().into_iter().map(|number| path(dir, number));
    let fresh = |path: &PathBuf| {
        let written = fs::metadata(path).and_then(|data| data.modified());
        written.map_or(true, |written| DateTime::<Utc>::from(written) >= since)
    };
    paths.filter(fresh).collect()
}

/// Runs through one file. Gives the number of lines that are no records.
///
/// # Errors
/// The file cannot be read.
pub fn scan(path: &Path, since: DateTime<Utc>, mut each: impl FnMut(&Line<'_>)) -> io::Result<u64> {
    let since = since.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let mut from = BufReader::with_capacity(BUFFER, File::open(path)?);
    let mut text = Vec::with_capacity(1024);
    let mut damaged = 0;
    let mut take = |line: Line<'_>| {
        if line.time >= since.as_bytes() {
            each(&line);
        }
    };
    loop {
        text.clear();
        if (&mut from).take(MAX_LINE).read_until(b'\n', &mut text)? == 0 {
            return Ok(damaged);
        }
        if let Some(line) = Line::split(&text) {
            take(line);
            continue;
        }
        // Edited by somebody, or by another version.
        let again = serde_json::from_slice::<Record>(&text).map(|record| record.line()).unwrap_or_default();
        match Line::split(&again) {
            Some(line) => take(line),
            None => damaged += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Action, Layer};
    use super::*;
    use crate::policy::decision::Reason;

    fn record(seconds: i64) -> Record {
        let time = DateTime::from_timestamp_millis(seconds * 1000 + 5).unwrap();
        let mut record = Record::new(time, 7, Action::Block, Layer::Dns, Reason::Denied);
        (record.id, record.suppressed) = (seconds.unsigned_abs(), 12);
        record.domain = Some("a.example.com".into());
        record
    }

    #[test]
    fn a_line_is_taken_apart_as_it_is_written() {
        let (text, other) = (record(1_800_000_000).line(), record(1_800_000_001).line());
        let (line, other) = (Line::split(&text).unwrap(), Line::split(&other).unwrap());
        assert_eq!(line.kind, other.kind);
        assert_ne!(line.second(), other.second());
        assert_eq!(line.suppressed, 12);
        assert_eq!(line.time(), DateTime::from_timestamp(1_800_000_000, 0));
        assert_eq!(line.record().unwrap(), record(1_800_000_000));
    }

    #[test]
    fn lines_of_another_layout_are_read_too_and_what_is_no_record_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("decisions-000001.jsonl");
        let mut text = Vec::new();
        for seconds in 1_800_000_000..1_800_000_004 {
            text.extend(record(seconds).line());
        }
        let edited = String::from_utf8(record(1_800_000_004).line()).unwrap().replace("\":", "\": ");
        text.extend_from_slice(edited.as_bytes());
        text.extend_from_slice(b"{\"time\":\"\n{}\nnothing\n\n");
        fs::write(&file, text).unwrap();
        let mut seen = Vec::new();
        let since = DateTime::from_timestamp(1_800_000_002, 0).unwrap();
        let damaged = scan(&file, since, |line| seen.push(line.record().unwrap().id)).unwrap();
        assert_eq!((seen, damaged), (vec![1_800_000_002, 1_800_000_003, 1_800_000_004], 4));
        assert_eq!(parts(dir.path(), since - chrono::TimeDelta::days(9000)), [file]);
        assert_eq!(parts(dir.path(), Utc::now() + chrono::TimeDelta::days(1)), [""; 0].map(PathBuf::from));
    }
}
