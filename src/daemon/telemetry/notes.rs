//! What is counted as it happens, from many threads: queries, and refused packets of which the host is known.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::core::telemetry::{Counts, NOBODY, OTHER, Tally};
use crate::decisions::Action;
use crate::policy::decision::Reason;
use crate::policy::lists::Table;
use crate::policy::model::HostName;

/// Parts with a lock each, so that threads seldom meet.
const SHARDS: usize = 16;
/// Names in one part between two readings; more are counted together.
const MAX_NAMES: usize = 1024;

/// Whose: a host, or everybody else.
type Whose = Option<HostName>;

#[derive(Default)]
struct Shard {
    /// Finds the number of an entry.
    table: Table,
    names: Vec<Entry>,
    /// Of packets whose name is not known.
    hosts: HashMap<Whose, Counts>,
    /// Few enough to look through.
    reasons: Vec<(Reason, u64)>,
}

struct Entry {
    host: Whose,
    name: Box<str>,
    counts: Counts,
}

impl Shard {
    /// A name costs memory when it is new only, and each time it is noted it is hashed once, before.
    fn counts(&mut self, hasher: &RandomState, hash: u64, host: Option<&HostName>, name: &str) -> &mut Counts {
        let is = |entry: &Entry| *entry.name == *name && entry.host.as_ref() == host;
        let found = self.table.find(slot(hash), |number| is(&self.names[number as usize]));
        let number = match found {
            Some(number) => number,
            None if self.names.len() >= MAX_NAMES && name != OTHER => {
                return self.counts(hasher, hasher.hash_one((host, OTHER)), host, OTHER);
            }
            None => {
                let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX - 1);
                self.table.insert(slot(hash), number);
                self.names.push(Entry { host: host.cloned(), name: name.into(), counts: Counts::default() });
                number
            }
        };
        &mut self.names[number as usize].counts
    }
}

/// The half of a hash by which the shard is not chosen.
fn slot(hash: u64) -> u32 {
    u32::try_from(hash >> 32).unwrap_or(0)
}

/// The notes.
pub struct Notes {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

impl Default for Notes {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }
}

impl Notes {
    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        let place = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        self.shards[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The policy was asked about a name.
    pub fn query(&self, host: Option<&HostName>, name: &str, action: Action, reason: Reason) {
        let hash = self.hasher.hash_one((host, name));
        let mut shard = self.shard(hash);
        let counts = shard.counts(&self.hasher, hash, host, name);
        counts.queries += 1;
        match action {
            Action::Allow => counts.allows += 1,
            Action::Block | Action::Monitor => {
                counts.denies += 1;
                match shard.reasons.iter_mut().find(|(known, _)| *known == reason) {
                    Some((_, count)) => *count += 1,
                    None => shard.reasons.push((reason, 1)),
                }
            }
        }
    }

    /// A packet was refused. Its reason is counted by the kernel.
    pub fn refused(&self, host: Option<&HostName>, peer: IpAddr, name: Option<&str>) {
        let Some(name) = name else {
            let mut shard = self.shard(self.hasher.hash_one(peer));
            shard.hosts.entry(host.cloned()).or_default().denies += 1;
            return;
        };
        let hash = self.hasher.hash_one((host, name));
        self.shard(hash).counts(&self.hasher, hash, host, name).denies += 1;
    }

    /// Takes what was noted since this was called the last time.
    pub fn drain(&self, tally: &mut Tally) {
        let word = |host: &Whose| -> Arc<str> { host.as_ref().map_or(NOBODY, HostName::as_str).into() };
        for shard in &self.shards {
            let shard = std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
            for Entry { host, name, counts } in shard.names {
                tally.count(&word(&host), Some(&Arc::from(name)), &counts);
            }
            for (host, counts) in shard.hosts {
                tally.count(&word(&host), None, &counts);
            }
            for (reason, count) in shard.reasons {
                *tally.reasons.entry(reason.as_str().into()).or_default() += count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_is_counted_from_any_thread_and_memory_is_bounded() {
        let notes = Notes::default();
        let host = HostName::from_record("a");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (notes, host) = (&notes, &host);
                scope.spawn(move || {
                    for number in 0..50_000 {
                        notes.query(Some(host), &format!("n{number}.t{thread}.example"), Action::Block, Reason::Denied);
                        notes.query(None, "api.example.com", Action::Allow, Reason::Allowed);
                        notes.refused(Some(host), IpAddr::from([192, 0, 2, thread]), None);
                    }
                });
            }
        });
        let mut tally = Tally::default();
        notes.drain(&mut tally);
        let (own, nobody) = (tally.hosts["a"], tally.hosts["*"]);
        assert_eq!((own.queries, own.allows, own.denies), (200_000, 0, 400_000));
        assert_eq!((nobody.queries, nobody.allows, nobody.denies), (200_000, 200_000, 0));
        assert_eq!(tally.reasons["denied"], 200_000);
        assert!(tally.domains.len() <= SHARDS * MAX_NAMES + 2 * SHARDS, "{}", tally.domains.len());
        assert!(tally.domains[&("a".into(), OTHER.into())].denies > 100_000);
        let mut again = Tally::default();
        notes.drain(&mut again);
        assert!(again.is_empty());
    }
}
