//! One open look-up.

use std::time::Instant;

use super::Waiter;
use super::ports::Place;
use crate::dns::upstream::{Asked, BUDGET, Failure, Lookup, Pool};

/// The number of a look-up; never used again.
pub(super) type Number = u64;

/// One open look-up.
pub(super) struct Flight {
    /// What is looked up.
    pub lookup: Lookup,
    /// Its key.
    pub key: Box<[u8]>,
    /// Who waits for it.
    pub waiters: Vec<Waiter>,
    /// The questions that are open.
    pub open: Vec<Attempt>,
    /// Why the question before failed.
    pub failure: Failure,
    /// Whom to ask, in order.
    plan: Vec<usize>,
    sent: usize,
    next_at: Instant,
    deadline: Instant,
}

/// One question to one upstream.
pub(super) struct Attempt {
    /// Its number within the look-up.
    pub number: u32,
    /// Whom.
    pub upstream: usize,
    /// Since when.
    pub since: Instant,
    /// The question, if it went by UDP.
    pub asked: Option<Asked>,
    /// Where its answer is awaited, if it went by UDP and no other way is tried.
    pub place: Option<Place>,
}

/// What is due in a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// To ask that upstream; it is question number so much.
    Ask(usize, u32),
    /// Nothing until then.
    Wait(Instant),
    /// There is nobody left to ask, and nobody who might answer.
    Failed,
    /// The time is over.
    TooLate,
}

impl Flight {
    pub fn new(lookup: Lookup, key: Box<[u8]>, pool: &Pool, now: Instant) -> Self {
        Self {
            lookup,
            key,
            waiters: Vec::with_capacity(1),
            open: Vec::with_capacity(1),
            failure: Failure::Network("there is no upstream".to_owned()),
            plan: pool.plan(),
            sent: 0,
            next_at: now,
            deadline: now + BUDGET,
        }
    }

    /// What is due. Who is to be asked counts as asked.
    pub fn due(&mut self, pool: &Pool, now: Instant) -> Due {
        if let Some(&upstream) = self.plan.get(self.sent)
            && (self.open.is_empty() || now >= self.next_at)
            && now < self.deadline
        {
            let number = self.sent as u32;
            self.next_at = now + pool.patience(upstream, self.sent);
            self.sent += 1;
            return Due::Ask(upstream, number);
        }
        if self.open.is_empty() {
            return Due::Failed;
        }
        if now >= self.deadline {
            return Due::TooLate;
        }
        let another = self.sent < self.plan.len();
        Due::Wait(if another { self.next_at.min(self.deadline) } else { self.deadline })
    }

    /// A question failed: the next is due at once.
    pub fn failed(&mut self, failure: Failure, now: Instant) {
        self.failure = failure;
        self.next_at = now;
    }

    /// The upstreams that were asked before that one and are silent still.
    pub fn late(&self, answered: usize) -> impl Iterator<Item = usize> {
        self.plan[..self.sent].iter().copied().take_while(move |upstream| *upstream != answered)
    }

    /// All upstreams that were asked, once for each question.
    pub fn asked(&self) -> impl Iterator<Item = usize> {
        self.plan[..self.sent].iter().copied()
    }
}
