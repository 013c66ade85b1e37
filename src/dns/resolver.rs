//! Cache, shared look-ups, upstreams.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hickory_proto::op::Message;
use tokio::sync::watch;

use super::cache::{Cache, Stored};
use super::counters::Counters;
use super::upstream::{Failure, Lookup, Pool};

/// Look-ups open at once at most. Each holds a little memory while it waits.
const MAX_FLIGHTS: usize = 8192;

type Outcome = Result<Found, Failure>;

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
    fn stored(stored: &Stored, now: Instant) -> Self {
        // The TTLs of a stale answer say how long it may be told from now on.
        let age = if stored.stale { 0 } else { stored.age(now) };
        Self { message: Arc::clone(&stored.message), age, stale: stored.stale }
    }
}

/// Answers look-ups; equal ones that are open at the same time go upstream once.
pub(super) struct Resolver {
    pool: Pool,
    /// What is known.
    pub cache: Cache,
    flights: Mutex<HashMap<Lookup, watch::Receiver<Option<Outcome>>>>,
    counters: Arc<Counters>,
}

impl Resolver {
    pub fn new(pool: Pool, counters: Arc<Counters>) -> Self {
        Self { pool, cache: Cache::default(), flights: Mutex::default(), counters }
    }

    /// The answer.
    pub async fn resolve(self: &Arc<Self>, lookup: Lookup) -> Result<Found, Failure> {
        let now = Instant::now();
        if let Some(hit) = self.cache.get(&lookup.key(), now) {
            Counters::bump(&self.counters.cache_hits);
            self.keep_fresh(&hit, now);
            return Ok(Found::stored(&hit, now));
        }
        let mut landing = self.board(lookup)?;
        let outcome = landing.wait_for(Option::is_some).await;
        match outcome.ok().and_then(|outcome| outcome.clone()) {
            Some(outcome) => outcome,
            None => Err(Failure::Network("the look-up was given up".to_owned())),
        }
    }

    /// Asks again for a popular answer that will end soon; nobody waits for that.
    pub fn keep_fresh(self: &Arc<Self>, hit: &Stored, now: Instant) {
        if hit.is_due(now) {
            Counters::bump(&self.counters.prefetched);
            let _ = self.board(hit.lookup.clone());
        }
    }

    /// Joins the open look-up for the question, or opens one. It runs by itself, so that one client that goes away does
    /// not end it for the others.
    fn board(self: &Arc<Self>, lookup: Lookup) -> Result<watch::Receiver<Option<Outcome>>, Failure> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let full = flights.len() >= MAX_FLIGHTS;
        match flights.entry(lookup.clone()) {
            Entry::Occupied(open) => Ok(open.get().clone()),
            Entry::Vacant(_) if full => Err(Failure::Overload),
            Entry::Vacant(place) => {
                let (sender, receiver) = watch::channel(None);
                place.insert(receiver.clone());
                // A runtime that is ending drops the task here and now, and with it the flight, which takes the lock.
                drop(flights);
                let flight = Flight { resolver: Arc::clone(self), lookup };
                tokio::spawn(async move {
                    let outcome = flight.fly().await;
                    drop(flight);
                    let _ = sender.send(Some(outcome));
                });
                Ok(receiver)
            }
        }
    }
}

/// One open look-up; leaves the table however it ends.
struct Flight {
    resolver: Arc<Resolver>,
    lookup: Lookup,
}

impl Flight {
    async fn fly(&self) -> Outcome {
        let Resolver { pool, cache, counters, .. } = &*self.resolver;
        match pool.ask(&self.lookup).await {
            Ok(reply) => {
                let message = Arc::new(reply.message);
                cache.put(&self.lookup, &message, reply.length, Instant::now());
                Ok(Found { message, age: 0, stale: false })
            }
            Err(failure) => {
                let now = Instant::now();
                let old = cache.stale(&self.lookup, now).ok_or(failure)?;
                if old.stale {
                    Counters::bump(&counters.stale);
                }
                Ok(Found::stored(&old, now))
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.resolver.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.lookup);
    }
}
