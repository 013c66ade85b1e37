//! The telemetry's journal: a line counts whole or not at all, and a day of it is bounded.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use clawgress::core::telemetry::{Baseline, ChainCount, Counted, Counts, Tally};
use clawgress::store::telemetry::{Books, Entry, Journal};

/// A quarter of an hour, milliseconds: what one file has.
const SPAN: i64 = 900_000;
/// When the first line is written, milliseconds since 1970; a file begins here.
const START: i64 = 1_800_000_000_000;

fn entry(at: i64, bytes: u64, counter: u64, all: bool) -> Entry {
    let mut tally = Tally::default();
    let counts = Counts { bytes_up: bytes, packets_up: 1, ..Counts::default() };
    tally.count(&"a".into(), Some(&"api.example.com".into()), &counts);
    tally.reasons.insert("no-lease".into(), 1);
    let baselines = vec![Baseline { of: Counted::SentUp, class: 7, packets: 1, bytes: counter }];
    Entry { at, tally, baselines, chains: vec![("b_lease".into(), ChainCount { handle: 3, packets: counter })], all }
}

/// What all lines come to: octets, the counter of the class, bad lines.
fn read(dir: &tempfile::TempDir) -> (u64, u64, usize) {
    let (mut bytes, mut books) = (0, Books::default());
    let (_, bad) = Journal::open(dir.path(), |entry| {
        bytes += entry.tally.hosts.get("a").map_or(0, |counts| counts.bytes_up);
        books.take(&entry);
    })
    .expect("it can be read");
    let (baselines, _) = books.finish();
    (bytes, baselines.first().map_or(0, |own| own.bytes), bad)
}

fn files(dir: &tempfile::TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.path().join("telemetry")).expect("the directory is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn journal(dir: &tempfile::TempDir) -> Journal {
    Journal::open(dir.path(), drop).expect("it opens").0
}

#[test]
fn what_is_written_is_read_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut written = journal(&dir);
    assert!(written.begins(START));
    let lines = [entry(START, 10, 10, true), entry(START + 5000, 20, 30, false)];
    for line in &lines {
        written.append(line).expect("there is room");
    }
    assert!(!written.begins(START + 5000) && written.begins(START + SPAN));
    let mut found = Vec::new();
    Journal::open(dir.path(), |entry| found.push(entry)).expect("it opens");
    assert_eq!(found, lines);
}

#[test]
fn a_line_cut_short_is_as_if_nothing_had_been_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut written = journal(&dir);
    written.append(&entry(START, 10, 10, true)).expect("there is room");
    written.append(&entry(START + 5000, 20, 30, false)).expect("there is room");
    drop(written);
    let path = files(&dir).remove(0);
    let whole = fs::read(&path).expect("the file");
    let first = whole.iter().position(|octet| *octet == b'\n').expect("a line") + 1;
    for cut in first..whole.len() {
        fs::write(&path, &whole[..cut]).expect("there is room");
        assert_eq!(read(&dir), (10, 10, 0), "cut at {cut}: what was counted and the counter go together");
    }
    // Whoever goes on does not write into the rest of a line.
    journal(&dir).append(&entry(START + 10_000, 25, 35, true)).expect("there is room");
    assert_eq!(read(&dir), (35, 35, 0));
}

#[test]
fn damage_costs_its_line_and_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut written = journal(&dir);
    for turn in 0..3 {
        written.append(&entry(START + turn * 5000, 10, 10 * (turn as u64 + 1), turn == 0)).expect("there is room");
    }
    drop(written);
    let path = files(&dir).remove(0);
    let text = fs::read_to_string(&path).expect("text");
    let mut lines: Vec<&str> = text.lines().collect();
    lines[1] = "{\"v\":1,\"at\":\"x\"}";
    fs::write(&path, lines.join("\n") + "\n").expect("there is room");
    assert_eq!(read(&dir), (20, 30, 1));
}

#[test]
fn a_day_is_kept_and_old_files_are_short() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut written = journal(&dir);
    let mut counter = 0;
    for span in 0..120 {
        for line in 0..4 {
            counter += 10;
            let at = START + span * SPAN + line * 5000;
            let all = written.begins(at);
            assert_eq!(all, line == 0);
            written.append(&entry(at, 10, counter, all)).expect("there is room");
        }
    }
    let files = files(&dir);
    assert_eq!(files.len(), 97);
    let lines = |path: &PathBuf| fs::read_to_string(path).expect("text").lines().count();
    assert!(files[..92].iter().all(|path| lines(path) == 1), "a quarter of an hour each");
    assert!(files[92..].iter().all(|path| lines(path) == 4), "the last hour line by line");
    assert_eq!(read(&dir), (97 * 40, counter, 0), "shortening loses nothing of the day");
    // Files of others are left alone.
    let mut other =
        OpenOptions::new().create(true).append(true).open(dir.path().join("telemetry/notes.txt")).expect("room");
    other.write_all(b"x").expect("there is room");
    assert_eq!(read(&dir).2, 0);
}

#[test]
fn a_file_that_grows_too_long_becomes_one_line_and_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut written = journal(&dir);
    let mut wide = entry(START, 10, 10, true);
    for number in 0..4000 {
        let counts = Counts { denies: 1, ..Counts::default() };
        wide.tally.domains.insert(("a".into(), format!("n{number}.elsewhere.example").into()), counts);
    }
    for turn in 0..60 {
        written.append(&Entry { at: START + turn * 5000, all: turn == 0, ..wide.clone() }).expect("there is room");
    }
    let length = fs::metadata(&files(&dir)[0]).expect("the file").len();
    assert!(length < 9 << 20, "{length} octets");
    assert_eq!(read(&dir), (600, 10, 0));
}
