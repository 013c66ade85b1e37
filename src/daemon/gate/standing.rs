//! Leases that the kernel holds, for whoever sends answers to look at without asking the gate.
//!
//! The gate alone writes it, and only after the kernel's acknowledgement. What it says may lag behind what the kernel
//! holds, but never the other way round: before the gate begins anything that could take a lease away, it ends the *term*,
//! and with that everything said under it. What concerns one host alone ends the *epoch* of that host. Time is the only
//! other thing that ends a lease, and each has its end.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use crate::core::doors::Now;
use crate::core::lease::{Acked, HostId, Wanted};
use crate::core::state::{Leased, State};
use crate::policy::name::Name;

/// Parts, each with a lock of its own.
const SHARDS: usize = 16;
/// No term: nothing is said.
const CLOSED: u64 = 0;

/// One address of one host.
struct Held {
    /// The term in which it was said.
    term: u64,
    /// The host's epoch then.
    epoch: u64,
    /// The revision in force then.
    revision: u64,
    /// The names it was given for, each with its end (milliseconds of the gate's clock).
    names: Box<[(Name, u64)]>,
    /// The other names on the way, of which a change of the policy will think.
    links: Box<[Name]>,
    /// When the kernel shuts it, whatever the name.
    until: u64,
}

/// The view; see the module.
pub struct Leases {
    /// The term that is on, or [`CLOSED`].
    term: AtomicU64,
    /// The latest term; written by the gate alone.
    latest: AtomicU64,
    /// By the host's number; written by the gate alone.
    epochs: Box<[AtomicU64]>,
    start: Instant,
    shards: [RwLock<HashMap<(HostId, IpAddr), Held>>; SHARDS],
}

impl Leases {
    /// Says nothing yet. `start` is the beginning of the gate's clock.
    pub fn new(start: Instant) -> Self {
        Self {
            term: AtomicU64::new(CLOSED),
            latest: AtomicU64::new(CLOSED),
            epochs: (0..=u16::MAX).map(|_| AtomicU64::new(0)).collect(),
            start,
            shards: Default::default(),
        }
    }

    /// Ends the term; to be called before anything is sent to the kernel that may take a lease away.
    pub fn close(&self) {
        self.term.store(CLOSED, Ordering::SeqCst);
    }

    /// Begins another term, of which nothing is said yet, if none is on.
    pub(super) fn open(&self) {
        if self.term.load(Ordering::Relaxed) != CLOSED {
            return;
        }
        let term = self.latest.load(Ordering::Relaxed) + 1;
        self.latest.store(term, Ordering::Relaxed);
        self.term.store(term, Ordering::SeqCst);
    }

    /// The kernel has acknowledged these; from now on it is said. Only what is asked for again: most names are asked for
    /// once. What was said before of others among them is said anew, because a name may have gone from an address.
    pub(super) fn say(&self, state: &State, leased: &Leased, now: Now) {
        if self.term.load(Ordering::Relaxed) == CLOSED {
            return;
        }
        for host in &leased.forgot {
            // Which addresses those names led to is not known, so the host's answers are noted again. Other hosts have
            // other classes: whoever serves a name must not slow down those who do not ask for it.
            self.epoch(*host).fetch_add(1, Ordering::SeqCst);
        }
        for key in &leased.touched {
            let known = self.shard(key).read().unwrap_or_else(PoisonError::into_inner).contains_key(key);
            if known {
                self.publish(state, *key, now);
            }
        }
        for key in &leased.again {
            self.publish(state, *key, now);
        }
    }

    fn publish(&self, state: &State, key: (HostId, IpAddr), now: Now) {
        let held = state.standing(key.0, key.1, now).map(|standing| Held {
            term: self.term.load(Ordering::Relaxed),
            epoch: self.epoch(key.0).load(Ordering::Relaxed),
            revision: state.revision,
            names: standing.names.iter().map(|(name, end)| (name.clone(), *end)).collect(),
            links: standing.links.iter().cloned().collect(),
            until: standing.until,
        });
        let mut shard = self.shard(&key).write().unwrap_or_else(PoisonError::into_inner);
        match held {
            Some(held) => shard.insert(key, held),
            None => shard.remove(&key),
        };
    }

    /// Forgets what has ended.
    pub fn sweep(&self, now: u64) {
        let term = self.term.load(Ordering::Relaxed);
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let is_on = |host, held: &Held| held.term == term && held.epoch == self.epoch(host).load(Ordering::Relaxed);
            shard.retain(|(host, _), held| is_on(*host, held) && held.until > now);
        }
    }

    /// See [`crate::core::lease::Leaser::held`].
    pub fn held(&self, wanted: &Wanted<'_>) -> Option<Acked> {
        let (term, epoch) = (self.term.load(Ordering::SeqCst), self.epoch(wanted.host).load(Ordering::SeqCst));
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let until = now.saturating_add(u64::try_from(wanted.term().as_millis()).unwrap_or(u64::MAX));
        let good = |held: &Held| {
            let end = held.names.iter().find(|(name, _)| name == wanted.name).map(|(_, end)| *end);
            held.term == term
                && held.epoch == epoch
                && held.revision == wanted.revision
                && end.is_some_and(|end| end >= until)
                && held.until > now
                && wanted.links.iter().all(|link| held.links.contains(link))
        };
        let all = term != CLOSED
            && wanted.addresses.iter().all(|address| {
                let key = (wanted.host, *address);
                self.shard(&key).read().unwrap_or_else(PoisonError::into_inner).get(&key).is_some_and(good)
            });
        // What ended meanwhile may have ended because of one of these.
        let ended =
            || self.term.load(Ordering::SeqCst) != term || self.epoch(wanted.host).load(Ordering::SeqCst) != epoch;
        (all && !ended()).then(Acked::by_kernel)
    }

    fn epoch(&self, host: HostId) -> &AtomicU64 {
        &self.epochs[usize::from(host.0)]
    }

    fn shard(&self, (host, address): &(HostId, IpAddr)) -> &RwLock<HashMap<(HostId, IpAddr), Held>> {
        let last = match address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15] ^ address.octets()[7],
        };
        &self.shards[(usize::from(last) + usize::from(host.0)) % SHARDS]
    }
}

#[cfg(test)]
mod tests;
