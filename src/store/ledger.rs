//! The use of caps, written ahead: a grant is on the disk before the kernel gets it.
//!
//! `state_dir/ledger` is a journal. Entries are appended and synced; now and then it is written anew with the last entry
//! of each cap, whole beside its place and renamed into it. Where it is damaged nothing in it is believed, nothing is
//! written to it, and it is kept aside when a new one begins. [`journal`] tells the form.

pub mod journal;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, ErrorKind};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

pub use journal::Entry;
use journal::{HEADER, Reading, Sum};

use super::atomic::{self, Staged};
use super::error::{StoreError, words};

/// A journal with fewer lines is never written anew: reading it takes a few milliseconds.
const FEW_RECORDS: usize = 1024;
/// A journal is written anew when it has so many lines for each cap.
const RECORDS_A_CAP: usize = 4;

/// What the ledger said when it was opened.
#[derive(Debug)]
pub struct Loaded {
    /// The last entry of each host and domain, in their order. Empty where there is damage.
    pub entries: Vec<Entry>,
    /// Above the number of every entry that could be read, also of a damaged ledger.
    pub next: u32,
    /// Why the ledger is not believed: a sentence for the user.
    pub damage: Option<String>,
    /// There was none, and one was made.
    pub fresh: bool,
}

/// The ledger of one daemon, which holds the lock of the state directory ([`super::Store::open`]).
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    journal: Result<Journal, Shut>,
}

/// Why nothing can be appended.
#[derive(Debug)]
enum Shut {
    /// The file is no good.
    Damaged(String),
    /// The file was replaced, perhaps; after a power cut it could be the old one again.
    Unsure,
}

#[derive(Debug)]
struct Journal {
    file: File,
    /// What of the file counts, octets. More is the rest of a write that failed.
    length: u64,
    records: usize,
    /// The domains of each host that have an entry.
    caps: BTreeMap<String, BTreeSet<String>>,
    sum: Sum,
}

impl Ledger {
    /// Reads the ledger, or makes one where there is none. What a crash left of an entry at the end is cut off. All that
    /// is told is on the disk, also if the process that wrote it was killed before it knew.
    ///
    /// # Errors
    /// There is no ledger and none can be made; the disk does not take what was read. A ledger that is no good or cannot
    /// be read is [`Loaded::damage`], not an error.
    pub fn open(state_dir: &Path) -> Result<(Self, Loaded), StoreError> {
        let path = state_dir.join("ledger");
        let (file, reading) = match existing(&path) {
            Ok(Some((file, reading))) => (file, reading),
            Ok(None) => {
                let mut ledger = Self { path, journal: Err(Shut::Unsure) };
                ledger.replace(&[])?;
                return Ok((ledger, Loaded { entries: Vec::new(), next: 1, damage: None, fresh: true }));
            }
            Err(what) => return Ok(Self::damaged(path, what, 1)),
        };
        if let Some(what) = reading.damage {
            return Ok(Self::damaged(path, what, reading.highest + 1));
        }
        // Whoever wrote this may have been killed between the write and the sync, and what is told from here on is
        // relied on.
        let cut = |file: &File| {
            if file.metadata()?.len() > reading.length {
                file.set_len(reading.length)?;
            }
            file.sync_data()
        };
        cut(&file).map_err(|e| StoreError::io("sync", &path, e))?;
        atomic::sync_dir(state_dir)?;
        let loaded = Loaded {
            entries: reading.entries.values().cloned().collect(),
            next: reading.highest + 1,
            damage: None,
            fresh: false,
        };
        Ok((Self { path, journal: Ok(Journal::of(file, &reading)) }, loaded))
    }

    fn damaged(path: PathBuf, what: String, next: u32) -> (Self, Loaded) {
        let shut = Shut::Damaged(what);
        let damage = Some(shut.told(&path).to_string());
        (Self { path, journal: Err(shut) }, Loaded { entries: Vec::new(), next, damage, fresh: false })
    }

    /// Adds entries; when it returns they are on the disk. No entries: does nothing.
    ///
    /// # Errors
    /// The disk is full and the like; the ledger is damaged and not yet set aside; the last [`Ledger::compact`] failed
    /// half-way. None of the entries counts then, though a crash soon after may leave some of them.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        match &mut self.journal {
            Ok(journal) => journal.append(entries, &self.path),
            Err(shut) => Err(shut.told(&self.path)),
        }
    }

    /// Whether the journal has so many lines that [`Ledger::compact`] is worth its while.
    pub fn should_compact(&self) -> bool {
        self.journal.as_ref().is_ok_and(|journal| {
            let live: usize = journal.caps.values().map(BTreeSet::len).sum();
            journal.records > FEW_RECORDS.max(RECORDS_A_CAP * live)
        })
    }

    /// Writes the ledger anew with these entries: each cap's last, those of caps whose period still runs included, and
    /// the one with the highest number, or that number may be given again after the next start.
    ///
    /// # Errors
    /// The disk is full and the like: the old ledger goes on. If it failed half-way, nothing can be appended until
    /// another try succeeds. A damaged ledger is refused: see [`Ledger::set_aside`].
    pub fn compact(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        match &self.journal {
            Err(shut @ Shut::Damaged(_)) => Err(shut.told(&self.path)),
            Ok(_) | Err(Shut::Unsure) => self.replace(entries),
        }
    }

    /// Keeps the file there is as `ledger.broken-<seconds>` and begins a new one with these entries. The new one takes
    /// the place in one step: until then the next start finds the damage again. So give entries that close what the
    /// damage closes. Returns the name of the kept file.
    ///
    /// # Errors
    /// The system refuses; the damaged ledger is still in its place.
    pub fn set_aside(&mut self, seconds: i64, entries: &[Entry]) -> Result<PathBuf, StoreError> {
        let names = (1_u32..).map(|turn| {
            let turn = if turn == 1 { String::new() } else { format!(".{turn}") };
            self.path.with_file_name(format!("ledger.broken-{seconds}{turn}"))
        });
        for aside in names {
            match fs::hard_link(&self.path, &aside) {
                Ok(()) => {
                    let replaced = self.replace(entries);
                    if replaced.is_err() && matches!(self.journal, Err(Shut::Damaged(_))) {
                        // Still in its place. Tries on a full disk shall not each leave a name behind.
                        let _ = fs::remove_file(&aside);
                    }
                    return replaced.map(|()| aside);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(StoreError::io("keep aside", &self.path, error)),
            }
        }
        Err(StoreError::io("keep aside", &self.path, ErrorKind::AlreadyExists.into()))
    }

    fn replace(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let failed = |e| StoreError::io("write", &self.path, e);
        let (text, sum) = journal::write(entries, Sum::FIRST).map_err(failed)?;
        let staged = Staged::write(&self.path, &[HEADER.as_bytes(), &text])?;
        let file = staged.handle()?;
        let length = (HEADER.len() + text.len()) as u64;
        let mut journal = Journal { file, length, records: entries.len(), caps: BTreeMap::new(), sum };
        journal.note(entries);
        self.journal = Err(Shut::Unsure);
        staged.commit()?;
        self.journal = Ok(journal);
        Ok(())
    }
}

impl Journal {
    fn of(file: File, reading: &Reading) -> Self {
        let mut caps: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (host, domain) in reading.entries.keys() {
            caps.entry(host.clone()).or_default().insert(domain.clone());
        }
        Self { file, length: reading.length, records: reading.records, caps, sum: reading.sum }
    }

    fn append(&mut self, entries: &[Entry], path: &Path) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let failed = |e| StoreError::io("write", path, e);
        let (text, sum) = journal::write(entries, self.sum).map_err(failed)?;
        let found = self.file.metadata().map_err(failed)?.len();
        if found < self.length {
            let what = "something made it shorter while it was in use; start clawgress again".to_owned();
            return Err(StoreError::Damaged { path: path.to_owned(), what });
        }
        if found > self.length {
            self.file.set_len(self.length).map_err(failed)?;
        }
        let written = self.file.write_all_at(&text, self.length).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // To give the room back; if this fails, the next call does it or fails too.
            let _ = self.file.set_len(self.length);
            return Err(failed(error));
        }
        self.length += text.len() as u64;
        self.records += entries.len();
        self.sum = sum;
        self.note(entries);
        Ok(())
    }

    fn note(&mut self, entries: &[Entry]) {
        for entry in entries {
            match self.caps.get_mut(&entry.host) {
                Some(domains) if domains.contains(&entry.domain) => {}
                Some(domains) => drop(domains.insert(entry.domain.clone())),
                None => drop(self.caps.insert(entry.host.clone(), [entry.domain.clone()].into())),
            }
        }
    }
}

impl Shut {
    fn told(&self, path: &Path) -> StoreError {
        match self {
            Self::Damaged(what) => StoreError::Damaged { path: path.to_owned(), what: what.clone() },
            Self::Unsure => {
                let what = "the disk may not have kept its last version; start clawgress again";
                StoreError::io("write", path, io::Error::other(what))
            }
        }
    }
}

/// The file and what it says; `None`: there is none. An error is a sentence about "it".
fn existing(path: &Path) -> Result<Option<(File, Reading)>, String> {
    let unreadable = |e: io::Error| format!("it cannot be read: {}", words(&e));
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => return Err("it is not a regular file".to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    }
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path);
    let file = file.map_err(unreadable)?;
    let reading = journal::read(BufReader::new(&file)).map_err(unreadable)?;
    Ok(Some((file, reading)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_doubtful_replacement_only_another_one_helps() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(dir.path()).unwrap();
        ledger.journal = Err(Shut::Unsure);
        let entry = Entry {
            number: 1,
            host: "agent".to_owned(),
            domain: "example.com".to_owned(),
            period: crate::policy::model::Period::Day,
            start: chrono::DateTime::UNIX_EPOCH,
            granted: 1,
            carried: 0,
            passed: 0,
            merged4: 0,
            merged6: 0,
        };
        let error = ledger.append(std::slice::from_ref(&entry)).unwrap_err().to_string();
        assert!(error.ends_with("may not have kept its last version; start clawgress again"), "{error}");
        assert!(!ledger.should_compact());
        ledger.compact(&[]).unwrap();
        ledger.append(std::slice::from_ref(&entry)).unwrap();
        assert_eq!(Ledger::open(dir.path()).unwrap().1.entries, [entry]);
    }
}
