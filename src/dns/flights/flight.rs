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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use hickory_proto::rr::{Name, RecordType};

    use super::*;
    use crate::dns::Upstream;
    use crate::dns::counters::Counters;

    fn flight(upstreams: u16, now: Instant) -> (Pool, Flight) {
        let upstreams: Vec<Upstream> =
            (0..upstreams).map(|port| Upstream::plain(([127, 0, 0, 1], port).into())).collect();
        let pool = Pool::new(&upstreams, Arc::new(Counters::default()), || Err("not encrypted".to_owned())).unwrap();
        let lookup = Lookup { name: Name::from_ascii("a.example.").unwrap(), kind: RecordType::A, dnssec_ok: false };
        let key = lookup.key().into();
        let flight = Flight::new(lookup, key, &pool, now);
        (pool, flight)
    }

    fn attempt(number: u32, upstream: usize, since: Instant) -> Attempt {
        Attempt { number, upstream, since, asked: None, place: None }
    }

    #[test]
    fn silence_brings_the_next_upstream_and_then_the_end() {
        let start = Instant::now();
        let (pool, mut flight) = flight(2, start);
        let mut asked = Vec::new();
        let mut now = start;
        let end = loop {
            match flight.due(&pool, now) {
                Due::Ask(upstream, number) => {
                    asked.push((upstream, now - start));
                    flight.open.push(attempt(number, upstream, now));
                }
                Due::Wait(until) => {
                    assert!(until > now);
                    now = until;
                }
                end => break end,
            }
        };
        assert_eq!((end, now - start), (Due::TooLate, BUDGET));
        let ms = Duration::from_millis;
        // Nothing is known of them: 200 ms for the first, then 800 ms before the first is asked again.
        assert_eq!(asked, [(0, ms(0)), (1, ms(200)), (0, ms(1000))]);
        assert_eq!(flight.late(1).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn failures_bring_the_next_one_at_once_and_the_last_one_ends_it() {
        let start = Instant::now();
        let (pool, mut flight) = flight(3, start);
        let asked: Vec<usize> = std::iter::from_fn(|| match flight.due(&pool, start) {
            Due::Ask(upstream, _) => {
                flight.failed(Failure::Upstream("SERVFAIL".to_owned()), start);
                Some(upstream)
            }
            end => {
                assert_eq!(end, Due::Failed);
                None
            }
        })
        .collect();
        assert_eq!(asked, [0, 1, 2, 0]);
        let (pool, mut nobody) = self::flight(0, start);
        assert_eq!(nobody.due(&pool, start), Due::Failed);
    }
}
