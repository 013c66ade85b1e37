//! Cache, shared look-ups, upstreams.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hickory_proto::op::Message;
use tokio::sync::watch;

use super::cache::Cache;
use super::counters::Counters;
use super::upstream::{Failure, Lookup, Pool};

/// Look-ups open at once at most. Each holds a socket or two while it waits.
const MAX_FLIGHTS: usize = 8192;

type Outcome = Result<Arc<Message>, Failure>;

/// Answers look-ups; equal ones that are open at the same time go upstream once.
pub(super) struct Resolver {
    pool: Pool,
    cache: Cache,
    flights: Mutex<HashMap<Lookup, watch::Receiver<Option<Outcome>>>>,
    counters: Arc<Counters>,
}

impl Resolver {
    pub fn new(pool: Pool, counters: Arc<Counters>) -> Self {
        Self { pool, cache: Cache::default(), flights: Mutex::default(), counters }
    }

    /// The answer and its age in seconds.
    pub async fn resolve(self: &Arc<Self>, lookup: Lookup) -> Result<(Arc<Message>, u32), Failure> {
        if let Some(hit) = self.cache.get(&lookup, Instant::now()) {
            Counters::bump(&self.counters.cache_hits);
            return Ok(hit);
        }
        let mut landing = self.board(lookup)?;
        let outcome = landing.wait_for(Option::is_some).await;
        match outcome.ok().and_then(|outcome| outcome.clone()) {
            Some(outcome) => outcome.map(|message| (message, 0)),
            None => Err(Failure::Network("the look-up was given up".to_owned())),
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
        let reply = self.resolver.pool.ask(&self.lookup).await?;
        let message = Arc::new(reply.message);
        self.resolver.cache.put(self.lookup.clone(), &message, reply.length, Instant::now());
        Ok(message)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.resolver.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.lookup);
    }
}
