//! The way in, from any thread: it never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Instant;

use chrono::{DateTime, Utc};

use super::alike::{Cause, Key};
use super::record::{Action, Layer, Record};
use crate::policy::decision::Reason;
use crate::settings::Decisions;

/// Queries a second of which the log looks at each; what is beyond is counted by reason.
const QUERIES: u64 = 5000;
/// Reasons there are.
const REASONS: usize = Reason::OutOfScope as usize + 1;

/// A decision as it is noticed.
pub struct Sighting {
    /// What it is alike to.
    pub key: Key,
    /// When.
    pub time: DateTime<Utc>,
    /// Makes its record, if it is the first of its kind; may ask others and wait. `None`: it was no decision.
    pub describe: Box<dyn FnOnce() -> Option<Record> + Send>,
}

/// What the log's thread is told.
pub(super) enum Event {
    Sighting(Sighting),
    Record(Box<Record>),
    Totals(Vec<(Cause, u64)>),
    Stop,
}

/// Decisions on queries that were counted only, by what was done and why.
pub(super) struct Unseen([[AtomicU64; REASONS]; 3]);

impl Default for Unseen {
    fn default() -> Self {
        Self(std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

const REASON: [Reason; REASONS] = [
    Reason::Allowed,
    Reason::NotAllowlisted,
    Reason::Denied,
    Reason::PortNotAllowed,
    Reason::WindowClosed,
    Reason::CapExhausted,
    Reason::RateLimited,
    Reason::NoLease,
    Reason::Rebinding,
    Reason::NameMismatch,
    Reason::EncryptedDns,
    Reason::Threat,
    Reason::Malformed,
    Reason::OutOfScope,
];

impl Unseen {
    fn add(&self, action: Action, reason: Reason) {
        self.0[action as usize][reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted since the last time.
    pub fn take(&self) -> Vec<(Cause, u64)> {
        let mut out = Vec::new();
        for action in [Action::Allow, Action::Block, Action::Monitor] {
            for reason in REASON {
                let count = self.0[action as usize][reason as usize].swap(0, Ordering::Relaxed);
                if count > 0 {
                    out.push((Cause { layer: Layer::Dns, action, reason, counter: 0 }, count));
                }
            }
        }
        out
    }
}

/// What all senders share with the log's thread.
pub(super) struct Shared {
    pub unseen: Unseen,
    /// Records that found no place in the queue.
    pub dropped: AtomicU64,
    start: Instant,
    /// The second for which queries are counted (upper half) and how many it had (lower half).
    ration: AtomicU64,
}

impl Default for Shared {
    fn default() -> Self {
        Self { unseen: Unseen::default(), dropped: AtomicU64::new(0), start: Instant::now(), ration: AtomicU64::new(0) }
    }
}

impl Shared {
    /// Whether the log can look at one more query now.
    fn has_ration(&self) -> bool {
        let second = self.start.elapsed().as_secs() << 32;
        let before = self.ration.load(Ordering::Relaxed);
        if before & !0xffff_ffff != second {
            // Two that do this at once let a few more through, which does no harm.
            self.ration.store(second | 1, Ordering::Relaxed);
            return true;
        }
        before & 0xffff_ffff < QUERIES && self.ration.fetch_add(1, Ordering::Relaxed) & 0xffff_ffff < QUERIES
    }
}

/// The way in; clones go to the same log.
#[derive(Clone)]
pub struct Sender {
    pub(super) queue: SyncSender<Event>,
    pub(super) shared: Arc<Shared>,
    pub(super) wanted: Decisions,
}

impl Sender {
    /// Whether decisions of that kind are recorded at all.
    pub fn wants(&self, action: Action) -> bool {
        match self.wanted {
            Decisions::All => true,
            Decisions::Block => action != Action::Allow,
            Decisions::None => false,
        }
    }

    /// Records a decision as it is, whatever others are alike. False: there was no place for it, which is counted.
    pub fn record(&self, record: Record) -> bool {
        if !self.wants(record.action) {
            return true;
        }
        let sent = self.queue.try_send(Event::Record(Box::new(record))).is_ok();
        if !sent {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// Tells of a packet that the kernel copied. What finds no place is known by the kernel's counters
    /// ([`Sender::totals`]).
    pub fn packet(&self, sighting: Sighting) {
        if self.wants(sighting.key.cause.action) {
            let _ = self.queue.try_send(Event::Sighting(sighting));
        }
    }

    /// Tells of a query: `sighting` is made if the log can look at it, else it is counted.
    pub fn query(&self, action: Action, reason: Reason, sighting: impl FnOnce() -> Sighting) {
        if self.wants(action)
            && (!self.shared.has_ration() || self.queue.try_send(Event::Sighting(sighting())).is_err())
        {
            self.shared.unseen.add(action, reason);
        }
    }

    /// Tells how many packets the kernel counted since it is listened to, by the counter of their cause. All that were
    /// copied before and taken in must have been told of before.
    pub fn totals(&self, totals: Vec<(Cause, u64)>) {
        let _ = self.queue.try_send(Event::Totals(totals));
    }

    /// Ends the log: what it still counts is recorded and written.
    pub fn stop(&self) {
        let mut event = Event::Stop;
        // The thread empties the queue; it takes no longer than that.
        while let Err(TrySendError::Full(again)) = self.queue.try_send(event) {
            event = again;
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_place() {
        for (place, reason) in REASON.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
    }
}
