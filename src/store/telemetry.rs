//! The telemetry's journal: what was counted, and how far the kernel's counters had come with it.
//!
//! ```text
//! state_dir/telemetry/1800000000.jsonl   a quarter of an hour each, named by its first second; the last MAX_FILES
//! ```
//!
//! A line has both what was counted since the line before and where the counters stood then. So a line that a crash cut
//! short is as if the time since the line before had not been read yet: the counters are in the kernel, and the next
//! reading has all of it. The first line of a file has all counters, the others those that changed. When a file is an
//! hour old it is made one line. Lines are not synced one by one: a power cut, after which the kernel's counters begin
//! anew, takes the last seconds.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::atomic::{self, Staged};
use crate::core::telemetry::{Baseline, ChainCount, Counted, Counts, Tally};

/// Seconds of one file.
const SPAN: i64 = 900;
/// Files that are kept: a day, and the one that it begins in.
const MAX_FILES: usize = 97;
/// Files whose lines are kept one by one: the last hour.
const FINE: usize = 5;
/// Octets of a file beyond which its lines are made one, at the cost of telling when in it things were counted.
const MAX_FILE: u64 = 8 << 20;
/// The longest line that is read, octets.
const MAX_LINE: u64 = 64 << 20;
/// The version of the format.
const VERSION: u32 = 1;

/// A line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// When, milliseconds since 1970.
    pub at: i64,
    /// What was counted since the line before.
    pub tally: Tally,
    /// Counters of elements: those that changed, or all.
    pub baselines: Vec<Baseline>,
    /// Counters of chains, likewise.
    pub chains: Vec<(Arc<str>, ChainCount)>,
    /// They are all there are.
    pub all: bool,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    v: u32,
    at: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    all: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<(Arc<str>, [u64; 7])>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    domains: Vec<(Arc<str>, Arc<str>, [u64; 7])>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<(Arc<str>, u64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    elements: Vec<(Arc<str>, u32, u64, u64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    chains: Vec<(Arc<str>, u64, u64)>,
}

fn numbers(counts: &Counts) -> [u64; 7] {
    let Counts { bytes_up, bytes_down, packets_up, packets_down, queries, allows, denies } = *counts;
    [bytes_up, bytes_down, packets_up, packets_down, queries, allows, denies]
}

fn counts([bytes_up, bytes_down, packets_up, packets_down, queries, allows, denies]: [u64; 7]) -> Counts {
    Counts { bytes_up, bytes_down, packets_up, packets_down, queries, allows, denies }
}

impl Entry {
    fn line(&self) -> io::Result<Vec<u8>> {
        let line = Line {
            v: VERSION,
            at: self.at,
            all: self.all,
            hosts: self.tally.hosts.iter().map(|(host, own)| (Arc::clone(host), numbers(own))).collect(),
            domains: (self.tally.domains.iter())
                .map(|((host, domain), own)| (Arc::clone(host), Arc::clone(domain), numbers(own)))
                .collect(),
            reasons: self.tally.reasons.iter().map(|(reason, count)| (Arc::clone(reason), *count)).collect(),
            elements: (self.baselines.iter())
                .map(|own| (own.of.map().into(), own.class, own.packets, own.bytes))
                .collect(),
            chains: self.chains.iter().map(|(chain, own)| (Arc::clone(chain), own.handle, own.packets)).collect(),
        };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        Ok(text)
    }

    fn read(text: &[u8]) -> Option<Self> {
        // The line feed goes last: without it the line is not whole.
        let line: Line = serde_json::from_slice(text.strip_suffix(b"\n")?).ok()?;
        if line.v != VERSION {
            return None;
        }
        let elements = line.elements.into_iter().filter_map(|(map, class, packets, bytes)| {
            Some(Baseline { of: Counted::of(&map)?, class, packets, bytes })
        });
        let tally = Tally {
            hosts: line.hosts.into_iter().map(|(host, own)| (host, counts(own))).collect(),
            domains: line.domains.into_iter().map(|(host, domain, own)| ((host, domain), counts(own))).collect(),
            reasons: line.reasons.into_iter().collect(),
        };
        let chains = line.chains.into_iter().map(|(chain, handle, packets)| (chain, ChainCount { handle, packets }));
        Some(Self { at: line.at, tally, baselines: elements.collect(), chains: chains.collect(), all: line.all })
    }
}

/// The journal.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    file: Option<Current>,
}

/// The file at work.
#[derive(Debug)]
struct Current {
    start: i64,
    file: File,
    length: u64,
    /// Beyond so many octets its lines are made one.
    most: u64,
}

impl Journal {
    /// Opens it and passes each line to `each`, oldest first. Lines that are no good are left out; gives how many.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(state_dir: &Path, each: impl FnMut(Entry)) -> io::Result<(Self, usize)> {
        let dir = state_dir.join("telemetry");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let _ = atomic::sweep(&dir, "");
        let journal = Self { dir, file: None };
        let bad = journal.replay(each)?;
        Ok((journal, bad))
    }

    fn replay(&self, mut each: impl FnMut(Entry)) -> io::Result<usize> {
        let mut bad = 0;
        for start in self.files()? {
            let (entries, wrong) = read(&self.path(start))?;
            bad += wrong;
            entries.into_iter().for_each(&mut each);
        }
        Ok(bad)
    }

    /// Appends a line. It must have all counters where [`Journal::begins`] says that it begins a file.
    ///
    /// # Errors
    /// The disk is full and the like: nothing of the line is there.
    pub fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let line = entry.line()?;
        let start = first_second(entry.at);
        if self.begins(entry.at) {
            self.turn(start)?;
        }
        let Some(current) = &mut self.file else { return Err(io::Error::other("there is no file")) };
        if let Err(error) = current.file.write_all(&line) {
            // A part of a line would be read as one with the next line.
            if current.file.set_len(current.length).is_err() {
                self.file = None;
            }
            return Err(error);
        }
        current.length += line.len() as u64;
        if current.length > current.most {
            self.file = None;
            compact(&self.path(start))?;
            self.enter(start)?;
        }
        Ok(())
    }

    /// Whether the next line at this instant begins a file.
    pub fn begins(&self, at: i64) -> bool {
        self.file.as_ref().is_none_or(|current| current.start != first_second(at))
    }

    /// What was written is on the disk when this returns.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |current| current.file.sync_data())
    }

    /// Begins the file of a span; older ones are made short, or go.
    fn turn(&mut self, start: i64) -> io::Result<()> {
        let _ = self.sync();
        self.file = None;
        self.enter(start)?;
        let files = self.files()?;
        for old in &files[..files.len().saturating_sub(MAX_FILES)] {
            fs::remove_file(self.path(*old))?;
        }
        let kept = &files[files.len().saturating_sub(MAX_FILES)..];
        let coarse = &kept[..kept.len().saturating_sub(FINE)];
        // Those before were made short when it was their turn.
        for old in coarse.iter().rev().take_while(|old| has_lines(&self.path(**old))) {
            compact(&self.path(*old))?;
        }
        Ok(())
    }

    /// Opens a file behind its last whole line.
    fn enter(&mut self, start: i64) -> io::Result<()> {
        let path = self.path(start);
        let mut file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(&path)?;
        let length = whole_length(&mut file)?;
        file.set_len(length)?;
        self.file = Some(Current { start, file, length, most: MAX_FILE.max(2 * length) });
        Ok(())
    }

    fn path(&self, start: i64) -> PathBuf {
        self.dir.join(format!("{start}.jsonl"))
    }

    /// The first seconds of the files, ascending.
    fn files(&self) -> io::Result<Vec<i64>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            files.extend(name.to_str().and_then(|name| name.strip_suffix(".jsonl")?.parse::<i64>().ok()));
        }
        files.sort_unstable();
        Ok(files)
    }
}

fn first_second(at: i64) -> i64 {
    at.div_euclid(1000 * SPAN) * SPAN
}

/// The lines of a file that are good, and how many are not.
fn read(path: &Path) -> io::Result<(Vec<Entry>, usize)> {
    let mut reader = BufReader::new(File::open(path)?);
    let (mut entries, mut bad, mut line) = (Vec::new(), 0, Vec::new());
    loop {
        line.clear();
        if (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok((entries, bad));
        }
        match Entry::read(&line) {
            Some(entry) => entries.push(entry),
            // What a crash cut short; nothing was counted by it.
            None if !line.ends_with(b"\n") => {}
            None => bad += 1,
        }
    }
}

/// How long the whole lines of a file are.
fn whole_length(file: &mut File) -> io::Result<u64> {
    let (mut reader, mut whole, mut line) = (BufReader::new(file), 0, Vec::new());
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)?;
        if length == 0 || !line.ends_with(b"\n") {
            return Ok(whole);
        }
        whole += length as u64;
    }
}

fn has_lines(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    BufReader::new(file).split(b'\n').take(2).count() > 1
}

/// Makes one line of all, with the counters that they come to.
fn compact(path: &Path) -> io::Result<()> {
    let (entries, _) = read(path)?;
    let Some(last) = entries.last() else { return Ok(()) };
    let mut sum = Entry { at: last.at, all: entries.iter().any(|entry| entry.all), ..Entry::default() };
    let mut books = Books::default();
    for entry in &entries {
        sum.tally.add(&entry.tally);
        books.take(entry);
    }
    (sum.baselines, sum.chains) = books.finish();
    let staged = Staged::write(path, &[&sum.line()?]).map_err(io::Error::other)?;
    staged.commit().map_err(io::Error::other)
}

/// Where the counters stand after some lines.
#[derive(Debug, Default)]
pub struct Books {
    elements: std::collections::BTreeMap<(Counted, u32), Baseline>,
    chains: std::collections::BTreeMap<Arc<str>, ChainCount>,
}

impl Books {
    /// One more line.
    pub fn take(&mut self, entry: &Entry) {
        if entry.all {
            self.elements.clear();
            self.chains.clear();
        }
        for own in &entry.baselines {
            self.elements.insert((own.of, own.class), *own);
        }
        self.chains.extend(entry.chains.iter().cloned());
    }

    /// The counters.
    pub fn finish(self) -> (Vec<Baseline>, Vec<(Arc<str>, ChainCount)>) {
        let elements = self.elements.into_values().filter(|own| own.packets > 0 || own.bytes > 0);
        (elements.collect(), self.chains.into_iter().collect())
    }
}
