//! What is known, and finding out what is not.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use hickory_proto::op::Message;
use tokio::sync::oneshot;

use super::cache::{Cache, Stored};
use super::counters::Counters;
use super::flights::{Flights, Waiter};
use super::upstream::{Failure, Lookup, Pool};

/// What a look-up found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// What an upstream said.
    pub message: Arc<Message>,
    /// How long ago, in seconds.
    pub age: u32,
    /// It has ended, and no upstream says anything newer.
    pub stale: bool,
}

impl Found {
    /// What the cache has.
    pub fn stored(stored: &Stored, now: Instant) -> Self {
        // The TTLs of a stale answer say how long it may be told from now on.
        let age = if stored.stale { 0 } else { stored.age(now) };
        Self { message: Arc::clone(&stored.message), age, stale: stored.stale }
    }
}

/// Answers look-ups, from the cache or by [`Flights`].
pub(super) struct Resolver {
    /// What is known.
    pub cache: Arc<Cache>,
    /// What is being found out.
    pub flights: Flights,
    counters: Arc<Counters>,
}

impl Resolver {
    /// `threads`: how many keep look-ups open.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn new(pool: Pool, counters: Arc<Counters>, threads: usize) -> io::Result<Self> {
        let cache = Arc::new(Cache::default());
        let flights = Flights::new(pool, Arc::clone(&cache), Arc::clone(&counters), threads)?;
        Ok(Self { cache, flights, counters })
    }

    /// The answer.
    pub async fn resolve(&self, lookup: &Lookup) -> Result<Found, Failure> {
        let now = Instant::now();
        if let Some(hit) = self.cache.get(&lookup.key(), now) {
            Counters::bump(&self.counters.cache_hits);
            self.keep_fresh(&hit, now);
            return Ok(Found::stored(&hit, now));
        }
        let (task, landing) = oneshot::channel();
        self.flights.ask(lookup, Waiter::Task(task));
        landing.await.unwrap_or_else(|_| Err(Failure::Network("the look-up was given up".to_owned())))
    }

    /// Asks again for a popular answer that will end soon; nobody waits for that.
    pub fn keep_fresh(&self, hit: &Stored, now: Instant) {
        if hit.is_due(now) {
            Counters::bump(&self.counters.prefetched);
            self.flights.ask(&hit.lookup, Waiter::Nobody);
        }
    }
}
