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
pub(super) const MAX_LINE: u64 = 16 << 10;

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

pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{number:06}{SUFFIX}"))
}

/// The numbers of the files, ascending.
pub(super) fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
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

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::super::record::{Action, Layer};
    use super::*;
    use crate::policy::decision::Reason;

    const HOUR: Duration = Duration::from_secs(3600);

    fn keep(bytes: u64) -> Keep {
        Keep { bytes, age: HOUR * 80 }
    }

    fn line(id: u64) -> Vec<u8> {
        let mut record = Record::new(DateTime::UNIX_EPOCH, 1, Action::Block, Layer::Dns, Reason::Denied);
        record.id = id;
        record.line()
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + HOUR * 500_000
    }

    fn ids(dir: &Path) -> Vec<u64> {
        read(dir).map(|record| record.id).collect()
    }

    fn disk(dir: &Path) -> u64 {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }

    #[test]
    fn the_oldest_go_when_room_is_used_up() {
        let dir = tempfile::tempdir().unwrap();
        let room = 40 * line(100).len() as u64;
        let (mut files, last) = Files::open(dir.path(), keep(room)).unwrap();
        assert_eq!(last, 0);
        for id in 100..400 {
            files.append(&line(id), now()).unwrap();
            assert!(disk(dir.path()) <= room, "after {id}");
            assert_eq!(disk(dir.path()), files.bytes());
        }
        let left = ids(dir.path());
        assert!(left.len() >= 34, "an eighth goes at a time: {left:?}");
        assert_eq!(left, (400 - left.len() as u64..400).collect::<Vec<_>>());
    }

    #[test]
    fn the_oldest_go_when_their_time_is_up() {
        let dir = tempfile::tempdir().unwrap();
        let (mut files, _) = Files::open(dir.path(), keep(1 << 20)).unwrap();
        for hour in 0..200 {
            files.append(&line(u64::from(hour) + 1), now() + HOUR * hour).unwrap();
        }
        let left = ids(dir.path());
        assert_eq!(left.last(), Some(&200));
        assert!((79..=91).contains(&left.len()), "of 200 hours 80 are kept, in files of ten: {}", left.len());
        // A gateway at which nothing happens forgets as well.
        files.expire(0, now() + HOUR * 400).unwrap();
        assert_eq!((ids(dir.path()), files.bytes()), (vec![], 0));
        files.append(&line(201), now() + HOUR * 400).unwrap();
        assert_eq!(ids(dir.path()), [201]);
    }

    #[test]
    fn a_start_goes_on_where_the_last_run_ended() {
        let dir = tempfile::tempdir().unwrap();
        for run in 0..50 {
            let (mut files, last) = Files::open(dir.path(), keep(1 << 20)).unwrap();
            assert_eq!(last, run);
            files.append(&line(run + 1), SystemTime::now()).unwrap();
        }
        assert_eq!(ids(dir.path()), (1..=50).collect::<Vec<_>>());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "many starts are no reason for many files");
    }

    #[test]
    fn a_damaged_line_costs_itself() {
        let dir = tempfile::tempdir().unwrap();
        let text = [&line(1)[..], b"{\"time\":\"2027", b"\n\xff\xfe\n\n", &line(2)].concat();
        fs::write(path(dir.path(), 7), text).unwrap();
        fs::write(dir.path().join("decisions-notes.txt"), "somebody else's").unwrap();
        let mut reading = read(dir.path());
        assert_eq!(reading.by_ref().map(|record| record.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(reading.damaged(), 3);
        assert_eq!(read(&dir.path().join("nowhere")).count(), 0);
    }

    proptest! {
        /// A crash at whatever octet: the whole lines are there, the half one is not, and writing goes on.
        #[test]
        fn a_torn_line_is_cut_off(records in 1u64..8, cut in 0usize..3000) {
            let dir = tempfile::tempdir().unwrap();
            let whole: Vec<u8> = (1..=records).flat_map(line).collect();
            let cut = cut.min(whole.len());
            let complete = whole[..cut].iter().filter(|octet| **octet == b'\n').count() as u64;
            fs::write(path(dir.path(), 3), &whole[..cut]).unwrap();
            let (mut files, last) = Files::open(dir.path(), keep(1 << 20)).unwrap();
            prop_assert_eq!(last, complete);
            files.append(&line(complete + 1), SystemTime::now()).unwrap();
            let mut reading = read(dir.path());
            prop_assert_eq!(reading.by_ref().map(|record| record.id).collect::<Vec<_>>(), (1..=complete + 1).collect::<Vec<_>>());
            prop_assert_eq!(reading.damaged(), 0);
        }
    }
}
