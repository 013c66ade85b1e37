//! The records on disk: files of lines, `decisions-000001.jsonl` and so on, the last of which is being written.
//!
//! A file is closed at an eighth of the room that all may take or of the time that they are kept, and the oldest go
//! when room or time is up. A crash can tear the last line; it is cut off at the next start. Nothing is synced: what a
//! power cut takes are the last seconds.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::record::Record;

const PREFIX: &str = "decisions-";
const SUFFIX: &str = ".jsonl";
/// The parts that room and time are cut into: so much of either goes at once.
const PARTS: u32 = 8;
/// No line is longer: names have 253 octets at most, host names and labels less, paths a few hundred.
const MAX_LINE: u64 = 16 << 10;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Octets on disk.
    pub bytes: u64,
    /// Since a record was written.
    pub age: Duration,
}

/// One file.
#[derive(Debug)]
struct Part {
    number: u64,
    bytes: u64,
    /// When it was written last.
    touched: SystemTime,
}

/// The files, for the one that writes them.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    keep: Keep,
    /// Oldest first.
    parts: VecDeque<Part>,
    /// The last part, open, and when it was begun.
    current: Option<(File, SystemTime)>,
    next: u64,
}

impl Files {
    /// Looks at the directory, makes it if it is not there, and mends what a crash left. Gives the number of the last
    /// record as well; 0: there is none.
    pub fn open(dir: &Path, keep: Keep) -> io::Result<(Self, u64)> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut parts = VecDeque::new();
        for number in numbers(dir)? {
            let data = fs::metadata(path(dir, number))?;
            parts.push_back(Part { number, bytes: data.len(), touched: data.modified()? });
        }
        if let Some(last) = parts.back_mut() {
            last.bytes = mend(&path(dir, last.number))?;
        }
        let next = parts.back().map_or(1, |part| part.number + 1);
        let current = match parts.back() {
            Some(part) => {
                let file = OpenOptions::new().append(true).open(path(dir, part.number))?;
                Some((file, part.touched))
            }
            None => None,
        };
        let mut last = 0;
        for part in parts.iter().rev().filter(|part| part.bytes > 0).take(1) {
            let lines = Lines::open(&path(dir, part.number))?;
            last = lines.filter_map(Result::ok).map(|record| record.id).max().unwrap_or(0);
        }
        Ok((Self { dir: dir.to_owned(), keep, parts, current, next }, last))
    }

    /// Octets on disk.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// Appends whole lines. A write that fails leaves no half line.
    pub fn append(&mut self, lines: &[u8], now: SystemTime) -> io::Result<()> {
        self.expire(lines.len() as u64, now)?;
        let share = self.keep.bytes / u64::from(PARTS);
        let full = self.parts.back().is_none_or(|part| part.bytes > 0 && part.bytes + lines.len() as u64 > share);
        let old = self.current.as_ref().is_none_or(|(_, begun)| since(*begun, now) > self.keep.age / PARTS);
        if full || old {
            self.begin(now)?;
        }
        let (Some((file, _)), Some(part)) = (&mut self.current, self.parts.back_mut()) else { return Ok(()) };
        if let Err(error) = file.write_all(lines) {
            // What was written of it goes again, or the next line would be joined to its half.
            let cut = file.set_len(part.bytes).and_then(|()| file.seek(SeekFrom::End(0)));
            if cut.is_err() {
                self.current = None;
            }
            return Err(error);
        }
        part.bytes += lines.len() as u64;
        part.touched = now;
        Ok(())
    }

    /// Removes what is over the bounds, with room for so many octets more.
    pub fn expire(&mut self, coming: u64, now: SystemTime) -> io::Result<()> {
        while let Some(oldest) = self.parts.front() {
            let over = self.bytes() + coming > self.keep.bytes && self.parts.len() > 1;
            if !over && since(oldest.touched, now) <= self.keep.age {
                return Ok(());
            }
            if self.parts.len() == 1 {
                self.current = None;
            }
            match fs::remove_file(path(&self.dir, oldest.number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => self.parts.pop_front(),
            };
        }
        Ok(())
    }

    fn begin(&mut self, now: SystemTime) -> io::Result<()> {
        self.current = None;
        let number = self.next;
        let file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(path(&self.dir, number))?;
        self.next += 1;
        self.current = Some((file, now));
        self.parts.push_back(Part { number, bytes: 0, touched: now });
        Ok(())
    }
}

fn since(then: SystemTime, now: SystemTime) -> Duration {
    // A clock that was set back makes nothing old.
    now.duration_since(then).unwrap_or_default()
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{number:06}{SUFFIX}"))
}

/// The numbers of the files, ascending.
fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX));
        out.extend(stem.and_then(|stem| stem.parse::<u64>().ok()));
    }
    out.sort_unstable();
    Ok(out)
}

/// Cuts off a line without end; gives the length that is left.
fn mend(path: &Path) -> io::Result<u64> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let tail = length.min(MAX_LINE);
    file.seek(SeekFrom::Start(length - tail))?;
    let mut octets = Vec::new();
    file.read_to_end(&mut octets)?;
    let torn = octets.iter().rev().take_while(|octet| **octet != b'\n').count() as u64;
    if torn > 0 {
        file.set_len(length - torn)?;
    }
    Ok(length - torn)
}

/// The records of one file.
struct Lines {
    from: BufReader<File>,
}

impl Lines {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { from: BufReader::with_capacity(64 << 10, File::open(path)?) })
    }
}

impl Iterator for Lines {
    /// `Err`: a line that is no record.
    type Item = Result<Record, ()>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::with_capacity(512);
        match (&mut self.from).take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(1..) => Some(serde_json::from_slice(&line).map_err(|_| ())),
            Ok(0) | Err(_) => None,
        }
    }
}

/// All records on disk, oldest first.
#[derive(Default)]
pub struct Reading {
    paths: VecDeque<PathBuf>,
    lines: Option<Lines>,
    damaged: u64,
}

/// Reads the records of a directory; none where it cannot be read. Files that go meanwhile are left out.
pub fn read(dir: &Path) -> Reading {
    let numbers = numbers(dir).unwrap_or_default();
    Reading { paths: numbers.into_iter().map(|number| path(dir, number)).collect(), ..Reading::default() }
}

impl Reading {
    /// How many lines were no records.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }
}

impl Iterator for Reading {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        loop {
            let Some(lines) = &mut self.lines else {
                self.lines = Lines::open(&self.paths.pop_front()?).ok();
                continue;
            };
            match lines.next() {
                Some(Ok(record)) => return Some(record),
                Some(Err(())) => self.damaged += 1,
                None => self.lines = None,
            }
        }
    }
}
