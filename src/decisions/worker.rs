//! The log's thread: from sightings to records, ring and files.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use chrono::{SubsecRound, Utc};

use super::alike::{Alike, Cause, Key, Seen, Who};
use super::files::{Files, Keep};
use super::log::{Guard, Log};
use super::record::{Action, Layer, Record};
use super::sender::{Event, Sender, Shared, Sighting};
use crate::settings::Decisions;

/// Sightings and records that may wait: some hundred octets each.
const QUEUE: usize = 4096;
/// Sightings taken in before what came of them is written.
const GROUP: usize = 256;
/// How often windows are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Octets of lines that wait for a disk that cannot take them; what comes on top is in no file.
const HELD: usize = 256 << 10;
/// The part of the log that has trouble when files cannot be written.
const FILES: &str = "files";

/// How the log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The directory of its files.
    pub dir: PathBuf,
    /// How much is kept there.
    pub keep: Keep,
    /// Which decisions are recorded.
    pub wanted: Decisions,
}

/// Starts the log. It goes on without files where they cannot be written, and says so ([`Log::report`]).
///
/// # Errors
/// The system has no thread left.
pub fn start(options: &Options) -> io::Result<(Sender, Arc<Log>, JoinHandle<()>)> {
    let (queue, events) = sync_channel(QUEUE);
    let shared = Arc::new(Shared::default());
    let log = Arc::new(Log::new(&options.dir, Arc::clone(&shared), options.wanted));
    let sender = Sender { queue, shared: Arc::clone(&shared), wanted: options.wanted };
    let mut worker = Worker {
        log: Arc::clone(&log),
        shared,
        options: options.clone(),
        files: None,
        alike: Alike::default(),
        accounts: HashMap::new(),
        revision: 0,
        last: 0,
        waiting: Vec::new(),
        records: 0,
        held: false,
        start: Instant::now(),
    };
    if options.wanted != Decisions::None {
        worker.open();
    }
    let guard = Guard { log: Arc::clone(&log), without: "decisions are not recorded" };
    let work = move || {
        let _guard = guard;
        worker.work(&events);
    };
    let thread = std::thread::Builder::new().name("decisions".into()).spawn(work)?;
    Ok((sender, log, thread))
}

/// One counter of the kernel against what was told of it.
#[derive(Default)]
struct Account {
    /// What it said the time before.
    counted: u64,
    /// Packets that records stand for.
    told: u64,
}

struct Worker {
    log: Arc<Log>,
    shared: Arc<Shared>,
    options: Options,
    files: Option<Files>,
    alike: Alike,
    accounts: HashMap<Cause, Account>,
    /// The latest revision that was heard of.
    revision: u64,
    /// The number of the last record.
    last: u64,
    /// Lines that go to the files together, and how many.
    waiting: Vec<u8>,
    records: u64,
    /// They could not be written; they are tried again with the next tick, all of them, so that none overtakes another.
    held: bool,
    start: Instant,
}

impl Worker {
    fn work(&mut self, events: &Receiver<Event>) {
        let mut tick = Instant::now() + TICK;
        loop {
            let mut next = match events.recv_timeout(tick.saturating_duration_since(Instant::now())) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Event::Stop),
            };
            for _ in 0..GROUP {
                match next {
                    Some(Event::Stop) => return self.end(),
                    Some(event) => self.take(event),
                    None => break,
                }
                next = events.try_recv().ok();
            }
            if let Some(event) = next {
                if matches!(event, Event::Stop) {
                    return self.end();
                }
                self.take(event);
            }
            if Instant::now() >= tick {
                tick = Instant::now() + TICK;
                self.tick();
                self.held = false;
            }
            if !self.held {
                self.write();
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Sighting(sighting) => self.sighting(sighting),
            Event::Record(record) => {
                self.revision = self.revision.max(record.revision);
                self.emit(*record);
            }
            Event::Totals(totals) => self.totals(totals),
            Event::Stop => {}
        }
    }

    fn sighting(&mut self, Sighting { key, time, describe }: Sighting) {
        self.revision = self.revision.max(key.revision);
        if is_counted(key.cause) {
            self.accounts.entry(account(key.cause)).or_default().told += 1;
        }
        if self.alike.see(&key, time, self.now()) == Seen::Counted {
            return;
        }
        match describe() {
            Some(record) => {
                self.alike.describe(&key, record.clone());
                self.emit(record);
            }
            None => self.alike.forget(&key),
        }
    }

    /// What the kernel counted and nobody told of: rationed, lost on the way, or without a place in the queue. The
    /// totals of the time before are held against what was told by now, because copies may still be on their way.
    fn totals(&mut self, totals: Vec<(Cause, u64)>) {
        let (time, now) = (Utc::now(), self.now());
        for (cause, total) in totals {
            let account = self.accounts.entry(cause).or_default();
            let untold = account.counted.saturating_sub(account.told);
            account.counted = total;
            account.told += untold;
            if untold > 0 {
                self.alike.add(Key::crowd(Who::Anyone, cause, self.revision), untold, time, now);
            }
        }
    }

    fn tick(&mut self) {
        let (time, now) = (Utc::now(), self.now());
        for (cause, count) in self.shared.unseen.take() {
            self.alike.add(Key::crowd(Who::Anyone, cause, self.revision), count, time, now);
        }
        for record in self.alike.ended(now) {
            self.emit(record);
        }
        if self.files.is_none() && self.options.wanted != Decisions::None {
            self.open();
        }
        if let Some(files) = &mut self.files {
            let _ = files.expire(0, SystemTime::now());
        }
    }

    fn end(&mut self) {
        self.tick();
        for record in self.alike.drain() {
            self.emit(record);
        }
        self.write();
        self.log.counts.unwritten.fetch_add(self.records, Ordering::Relaxed);
    }

    fn emit(&mut self, mut record: Record) {
        self.last += 1;
        record.id = self.last;
        // As it will be read from the files.
        record.time = record.time.trunc_subsecs(3);
        if self.options.wanted != Decisions::None {
            self.wait(&record);
        }
        self.log.push(Arc::new(record));
    }

    fn wait(&mut self, record: &Record) {
        if self.held && self.waiting.len() >= HELD {
            self.log.counts.unwritten.fetch_add(1, Ordering::Relaxed);
        } else {
            self.waiting.extend(record.line());
            self.records += 1;
        }
    }

    fn open(&mut self) {
        match Files::open(&self.options.dir, self.options.keep) {
            Ok((files, last)) => {
                self.last = self.last.max(last);
                self.log.counts.bytes.store(files.bytes(), Ordering::Relaxed);
                self.files = Some(files);
                self.log.set_trouble(FILES, None);
            }
            Err(error) => self.complain(&error),
        }
    }

    fn write(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let Some(files) = &mut self.files else {
            self.held = true;
            return;
        };
        match files.append(&self.waiting, SystemTime::now()) {
            Ok(()) => {
                self.waiting.clear();
                self.records = 0;
                if self.log.set_trouble(FILES, None) {
                    tracing::info!("decisions are written again");
                }
            }
            Err(error) => {
                self.held = true;
                self.complain(&error);
            }
        }
        let bytes = self.files.as_ref().map_or(0, Files::bytes);
        self.log.counts.bytes.store(bytes, Ordering::Relaxed);
    }

    fn complain(&self, error: &io::Error) {
        let dir = self.options.dir.display();
        let what = match error.kind() {
            io::ErrorKind::StorageFull => "the disk is full; make room".to_owned(),
            io::ErrorKind::QuotaExceeded => "the disk quota is used up; make room".to_owned(),
            _ => error.to_string(),
        };
        let sentence = format!(
            "decisions are enforced and kept in memory, but not written to {dir}: {what}; they are written again as soon as \
             that is possible"
        );
        if self.log.set_trouble(FILES, Some(sentence.clone())) {
            tracing::warn!("{sentence}");
        }
    }

    /// Milliseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Whether the kernel's counters have it.
fn is_counted(cause: Cause) -> bool {
    cause.layer == Layer::Packet && cause.action != Action::Allow
}

/// The kernel counts what is refused and what would have been in the same counters.
fn account(cause: Cause) -> Cause {
    Cause { action: Action::Block, ..cause }
}
