//! Reads the kernel's counters beside the gate, and keeps the books.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tracing::warn;

use super::notes::Notes;
use crate::core::telemetry::{ChainCount, Counted, Element, Registry, Ring, Tally, Window};
use crate::nft::{self, HeldElement, Kernel, KernelError, Options, Removal, Removals};
use crate::plan::ir::{Data, Verdict};
use crate::plan::table::refusals::REFUSALS;
use crate::store::telemetry::{Books, Entry, Journal};

/// How often counters are read.
const PERIOD: Duration = Duration::from_secs(5);
/// Of the time at most the part of one in so many goes into reading, however many classes there are.
const SHARE: u32 = 20;
/// How long before the end of an element it is read, milliseconds: the kernel tells nobody what it had counted.
const BEFORE_END: u64 = 25;
/// Who asks gets a reading of this moment, unless the last one is younger than so many times what a reading takes.
const YOUNG: u32 = 4;

/// The books and the ways to the kernel and the disk.
pub(super) struct Clerk {
    removals: Removals,
    kernel: Kernel,
    chains: nft::Tally,
    notes: Arc<Notes>,
    registry: Registry,
    ring: Ring,
    journal: Option<Journal>,
    /// Counted and not written yet.
    unwritten: Tally,
    /// A line was not written: the next one has all counters.
    whole: bool,
    /// Since the start of the process, without domains.
    totals: Tally,
    read_at: Option<Instant>,
    took: Duration,
    /// When to read next.
    pub next: Instant,
    /// What is wrong with the numbers.
    unread: Option<String>,
    unkept: Option<String>,
    lost: Option<String>,
}

impl Clerk {
    /// Goes on where an earlier process ended; `removals` must have listened before the gate changes anything.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn open(state_dir: &Path, notes: Arc<Notes>, removals: Removals) -> Result<Self, KernelError> {
        let (mut ring, mut books, mut lines) = (Ring::default(), Books::default(), 0_usize);
        let opened = Journal::open(state_dir, |entry| {
            lines += 1;
            books.take(&entry);
            let at = DateTime::from_timestamp_millis(entry.at).unwrap_or_default();
            let tally = ring.admit(entry.tally);
            ring.add(at, &tally);
        });
        let mut lost = None;
        let (journal, unkept) = match opened {
            Ok((journal, bad)) => {
                if bad > 0 {
                    let what = format!("{bad} lines of the telemetry of the last day are damaged and left out");
                    warn!("{what}");
                    lost = Some(what);
                }
                (Some(journal), None)
            }
            Err(error) => (None, Some(unkept(&error))),
        };
        let registry = if lines == 0 {
            Registry::fresh()
        } else {
            let (baselines, chains) = books.finish();
            Registry::resume(baselines, chains.into_iter().collect())
        };
        let mut clerk = Self {
            removals,
            kernel: Kernel::open(Options::default())?,
            chains: nft::Tally::open()?,
            notes,
            registry,
            ring,
            journal,
            unwritten: Tally::default(),
            whole: true,
            totals: Tally::default(),
            read_at: None,
            took: Duration::ZERO,
            next: Instant::now(),
            unread: None,
            unkept,
            lost,
        };
        clerk.read();
        Ok(clerk)
    }

    /// What tells when there is something to hear.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn ears(&self) -> std::io::Result<std::os::fd::OwnedFd> {
        use std::os::fd::AsFd as _;
        self.removals.as_fd().try_clone_to_owned()
    }

    /// Takes in what elements had counted when they were removed, and writes it down at once: nobody can ask the kernel
    /// for it any more.
    pub fn hear(&mut self) {
        let mut tally = Tally::default();
        if self.listen(&mut tally) {
            self.book(tally);
            self.write();
        }
    }

    /// True: something was removed.
    fn listen(&mut self, tally: &mut Tally) -> bool {
        let (registry, mut heard, mut lost) = (&mut self.registry, false, false);
        let taken = self.removals.take(|removal| match removal {
            Removal::Element { map, mark, element } => {
                if let Some(of) = Counted::of(&map) {
                    heard = true;
                    registry.removed(&counted(of, mark, &element), tally);
                }
            }
            Removal::Table => {
                heard = true;
                registry.table_removed();
            }
            Removal::Lost => lost = true,
        });
        if lost {
            self.lost = Some("changes came too fast: some seconds of what ended flows had sent may be missing".into());
        }
        if let Err(error) = taken {
            self.unread = Some(error.to_string());
        }
        heard
    }

    /// Reads all counters, and what else was noted.
    pub fn read(&mut self) {
        let start = Instant::now();
        let mut tally = Tally::default();
        match self.read_kernel(&mut tally) {
            Ok(first_end) => {
                self.unread = None;
                let pause = PERIOD.max((start.elapsed() * SHARE).min(PERIOD * SHARE));
                let end = first_end.map(Duration::from_millis);
                self.next = start + end.map_or(pause, |end| end.min(pause));
            }
            Err(error) => {
                self.next = start + PERIOD;
                let sentence = format!("the kernel's counters cannot be read: {error}");
                if self.unread.as_ref() != Some(&sentence) {
                    warn!("{sentence}");
                }
                self.unread = Some(sentence);
            }
        }
        // Only now: a reading is never older than the removals that were taken in before it.
        self.listen(&mut tally);
        self.notes.drain(&mut tally);
        self.book(tally);
        self.write();
        (self.read_at, self.took) = (Some(Instant::now()), start.elapsed());
    }

    /// Gives in how many milliseconds to come again, because elements end then.
    fn read_kernel(&mut self, tally: &mut Tally) -> Result<Option<u64>, KernelError> {
        let (mut found, mut first_end) = (BTreeMap::new(), None);
        for of in Counted::ALL {
            self.kernel.counts(of.map(), |mark, element| {
                let left = element.left_ms.and_then(|left| left.checked_sub(BEFORE_END)).filter(|left| *left > 0);
                first_end = first_end.into_iter().chain(left).min();
                // Most have counted nothing.
                if element.bytes > 0 || self.registry.has_counted(of, mark) {
                    found.insert((of, mark), element);
                }
            })?;
        }
        let settled = self.removals.are_settled();
        self.registry.read(found.iter().map(|((of, mark), element)| counted(*of, *mark, element)), settled, tally);
        let mut counts = Vec::with_capacity(REFUSALS.len());
        for refusal in &REFUSALS {
            let Some(nft::Count { handle, packets }) = self.chains.first_counter(refusal.chain)? else { continue };
            counts.push((refusal.chain, refusal.reasons[0].as_str(), ChainCount { handle, packets }));
        }
        self.registry.read_chains(counts, tally);
        Ok(first_end)
    }

    fn book(&mut self, tally: Tally) {
        if tally.is_empty() {
            return;
        }
        let tally = self.ring.admit(tally);
        self.ring.add(Utc::now(), &tally);
        self.unwritten.add(&tally);
        // Metrics have no domains.
        self.totals.add(&Tally { domains: BTreeMap::new(), ..tally });
    }

    fn write(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        let at = Utc::now().timestamp_millis();
        let all = self.whole || journal.begins(at);
        let (baselines, chains) = if all {
            let _ = self.registry.changes();
            self.registry.all()
        } else {
            self.registry.changes()
        };
        if self.unwritten.is_empty() && !all && baselines.is_empty() && chains.is_empty() {
            return;
        }
        let tally = std::mem::take(&mut self.unwritten);
        let entry = Entry { at, tally, baselines, chains: chains.into_iter().collect(), all };
        match journal.append(&entry) {
            Ok(()) => (self.whole, self.unkept) = (false, None),
            Err(error) => {
                // Tried again with what comes next.
                (self.unwritten, self.whole) = (entry.tally, true);
                let sentence = unkept(&error);
                if self.unkept.as_ref() != Some(&sentence) {
                    warn!("{sentence}");
                }
                self.unkept = Some(sentence);
            }
        }
    }

    /// The last reading, and the disk has it.
    pub fn close(&mut self) {
        self.read();
        if let Some(journal) = &self.journal {
            let _ = journal.sync();
        }
    }

    fn freshen(&mut self) {
        if self.read_at.is_none_or(|at| at.elapsed() > self.took * YOUNG) {
            self.read();
        }
    }

    /// What was counted in a window up to now, and since when.
    pub fn window(&mut self, window: Window) -> (DateTime<Utc>, DateTime<Utc>, Tally) {
        self.freshen();
        let now = Utc::now();
        let (since, tally) = self.ring.window(window, now);
        (since, now, tally)
    }

    /// What was counted since the start of the process.
    pub fn totals(&mut self) -> Tally {
        self.freshen();
        self.totals.clone()
    }

    /// What is wrong with the numbers, one sentence each.
    pub fn trouble(&self) -> Vec<String> {
        [&self.unread, &self.unkept, &self.lost].into_iter().flatten().cloned().collect()
    }

    /// How much is told apart.
    pub fn sizes(&self) -> BTreeMap<String, u64> {
        let (hosts, domains) = self.ring.sizes();
        [("telemetry_hosts", hosts), ("telemetry_domains", domains)]
            .map(|(word, count)| (word.to_owned(), u64::try_from(count).unwrap_or(u64::MAX)))
            .into()
    }
}

fn counted(of: Counted, class: u32, element: &HeldElement) -> Element<'_> {
    let comment = element.value.comment.as_deref().unwrap_or_default();
    let accepts = element.value.data == Data::Verdict(Verdict::Accept);
    Element { of, class, comment, accepts, packets: element.packets, bytes: element.bytes }
}

fn unkept(error: &std::io::Error) -> String {
    format!("telemetry is counted, but not kept on disk: {}", crate::store::words(error))
}
