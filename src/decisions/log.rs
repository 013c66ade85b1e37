//! The way out: looking back, and following.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::files;
use super::filter::Filter;
use super::record::Record;
use super::sender::Shared;
use crate::settings::Decisions;

/// Records in memory: about two megabytes.
const RING: usize = 4096;
/// Records that may wait for one who follows; who is slower misses some, and is told.
const BEHIND: usize = 2048;
/// Records in one piece of news.
const PIECE: usize = 256;

/// What the log did so far, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which decisions are recorded.
    pub wanted: Decisions,
    /// Records since the start.
    pub records: u64,
    /// Decisions that they stand for.
    pub decisions: u64,
    /// Copies of packets that were lost between the kernel and us; their number is recorded.
    pub lost: u64,
    /// Records that found no place in the queue: in no file and in no sum.
    pub dropped: u64,
    /// Records that are in no file because it could not be written.
    pub unwritten: u64,
    /// Octets on disk.
    pub bytes: u64,
    /// One sentence each.
    pub trouble: Vec<String>,
}

/// The log, for those who read it.
pub struct Log {
    ring: Mutex<VecDeque<Arc<Record>>>,
    news: broadcast::Sender<Arc<Record>>,
    dir: PathBuf,
    /// Reading the files takes processor and disk: one at a time does.
    reading: Mutex<()>,
    shared: Arc<Shared>,
    pub(super) counts: Counts,
    wanted: Decisions,
    trouble: Mutex<BTreeMap<&'static str, String>>,
}

/// Numbers that only grow, but for `bytes`.
#[derive(Default)]
pub(super) struct Counts {
    pub records: AtomicU64,
    pub decisions: AtomicU64,
    pub lost: AtomicU64,
    pub unwritten: AtomicU64,
    pub bytes: AtomicU64,
}

impl Log {
    pub(super) fn new(dir: &Path, shared: Arc<Shared>, wanted: Decisions) -> Self {
        Self {
            ring: Mutex::new(VecDeque::with_capacity(RING)),
            news: broadcast::channel(BEHIND).0,
            dir: dir.to_owned(),
            reading: Mutex::new(()),
            shared,
            counts: Counts::default(),
            wanted,
            trouble: Mutex::default(),
        }
    }

    pub(super) fn push(&self, record: Arc<Record>) {
        self.counts.records.fetch_add(1, Ordering::Relaxed);
        self.counts.decisions.fetch_add(record.suppressed + 1, Ordering::Relaxed);
        let mut ring = lock(&self.ring);
        if ring.len() == RING {
            ring.pop_front();
        }
        ring.push_back(Arc::clone(&record));
        drop(ring);
        // Nobody follows: that is no failure.
        let _ = self.news.send(record);
    }

    /// The latest records that the filter wants, oldest first. Looks into the files where memory does not reach back far
    /// enough, which takes up to a second: not for a thread that others wait for.
    #[must_use]
    pub fn find(&self, filter: &Filter) -> Vec<Arc<Record>> {
        let ring: Vec<Arc<Record>> = lock(&self.ring).iter().cloned().collect();
        let most = filter.limit();
        let mut found: VecDeque<Arc<Record>> = VecDeque::new();
        for record in ring.iter().rev() {
            if found.len() == most {
                break;
            }
            if filter.wants(record) {
                found.push_front(Arc::clone(record));
            }
        }
        let first = ring.first();
        let reaches = first.is_some_and(|first| filter.since.is_some_and(|since| first.time < since));
        if found.len() < most && !reaches {
            let _one = lock(&self.reading);
            let before = first.map_or(u64::MAX, |first| first.id);
            let room = most - found.len();
            let mut older: VecDeque<Arc<Record>> = VecDeque::new();
            for record in files::read(&self.dir).filter(|record| record.id < before && filter.wants(record)) {
                if older.len() == room {
                    older.pop_front();
                }
                older.push_back(Arc::new(record));
            }
            older.append(&mut found);
            found = older;
        }
        found.into()
    }

    /// Where the files are.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    /// What comes from now on.
    #[must_use]
    pub fn follow(&self, filter: Filter) -> Follower {
        Follower { news: self.news.subscribe(), filter, after: 0 }
    }

    /// What it did so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Report {
            wanted: self.wanted,
            records: read(&self.counts.records),
            decisions: read(&self.counts.decisions),
            lost: read(&self.counts.lost),
            dropped: read(&self.shared.dropped),
            unwritten: read(&self.counts.unwritten),
            bytes: read(&self.counts.bytes),
            trouble: lock(&self.trouble).values().cloned().collect(),
        }
    }

    /// Something is wrong with a part of the log, or (`None`) is well again. True: that is news.
    pub fn set_trouble(&self, part: &'static str, what: Option<String>) -> bool {
        let mut trouble = lock(&self.trouble);
        match what {
            Some(what) => trouble.insert(part, what).is_none(),
            None => trouble.remove(part).is_some(),
        }
    }

    /// How many copies of packets were lost so far.
    pub fn set_lost(&self, lost: u64) {
        self.counts.lost.store(lost, Ordering::Relaxed);
    }
}

/// Held by a thread of the log: its failure is told, because nothing else would show it.
pub struct Guard {
    /// The log.
    pub log: Arc<Log>,
    /// What does not happen any more without the thread.
    pub without: &'static str,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let without = self.without;
            let sentence = format!("a fault in clawgress: {without} until it is started again; decisions are enforced");
            self.log.set_trouble(without, Some(sentence));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Somebody who follows.
pub struct Follower {
    news: broadcast::Receiver<Arc<Record>>,
    filter: Filter,
    after: u64,
}

/// What one who follows is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Records, oldest first; never none.
    Records(Vec<Arc<Record>>),
    /// So many came faster than they were taken, wanted or not.
    Missed(u64),
}

impl Follower {
    /// Leaves out what was seen already.
    #[must_use]
    pub fn after(mut self, id: u64) -> Self {
        self.after = id;
        self
    }

    /// Waits for news; `None`: the log has ended.
    pub async fn next(&mut self) -> Option<News> {
        let mut found = Vec::new();
        loop {
            match self.news.recv().await {
                Ok(record) => self.keep(record, &mut found),
                Err(RecvError::Lagged(missed)) => return Some(News::Missed(missed)),
                Err(RecvError::Closed) => return None,
            }
            while found.len() < PIECE
                && let Ok(record) = self.news.try_recv()
            {
                self.keep(record, &mut found);
            }
            if !found.is_empty() {
                return Some(News::Records(found));
            }
        }
    }

    fn keep(&self, record: Arc<Record>, found: &mut Vec<Arc<Record>>) {
        if record.id > self.after && self.filter.wants(&record) {
            found.push(record);
        }
    }
}
