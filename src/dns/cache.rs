//! What upstreams said, for as long as it is good. Never a decision: those differ by host and by revision.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record};

use super::filter::negative_ttl;
use super::quick::Template;
use super::upstream::{Lookup, part};
use crate::core::lease::MAX_LEASE;

/// Parts of the store, each with a lock of its own, so that receivers seldom meet.
const SHARDS: usize = 16;
/// Answers kept at most, in one part.
const MAX_ENTRIES: usize = 32_768 / SHARDS;
/// Octets of answers kept at most in one part, counted as in `weight`.
const MAX_WEIGHT: usize = (32 << 20) / SHARDS;
/// What an entry costs besides its records, in octets (key, map, queue, the answer made ready), roughly.
const ENTRY_WEIGHT: usize = 500;
/// What a record costs besides its data, in octets, roughly.
const RECORD_WEIGHT: usize = 200;
/// For how long after its end an answer may be told where no upstream answers (RFC 8767 section 5: one to three days at
/// the most; here the addresses of agents' services, which move).
const MAX_STALE: Duration = Duration::from_secs(3600);
/// The TTL of such an answer, and for how long no upstream is asked again (RFC 8767 sections 4 and 5), seconds.
pub(super) const STALE_TTL: u32 = 30;
/// An answer that was asked for this often is asked for again before it ends.
const POPULAR: u32 = 3;
/// Lives shorter than this are not worth it.
const LEAST_LIFE: Duration = Duration::from_secs(10);

/// A bounded store of answers. When a part is full its oldest goes.
#[derive(Default)]
pub(super) struct Cache {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    entries: HashMap<Box<[u8]>, Arc<Stored>>,
    /// Entries in the order of their arrival; one whose number is not in the map any more was replaced.
    order: VecDeque<(u64, Box<[u8]>)>,
    next: u64,
    weight: usize,
}

/// One answer.
pub(super) struct Stored {
    /// The question it answers.
    pub lookup: Lookup,
    /// The answer.
    pub message: Arc<Message>,
    /// It has ended, and is told because no upstream answers.
    pub stale: bool,
    /// See [`Stored::template`].
    ready: OnceLock<Option<Template>>,
    number: u64,
    since: Instant,
    life: Duration,
    /// When it ended, or will, as its upstream said.
    ends: Instant,
    weight: usize,
    hits: AtomicU32,
    refreshed: AtomicBool,
}

impl Stored {
    /// Its age in whole seconds.
    pub fn age(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.since).as_secs() as u32
    }

    /// The answer made ready for the quick way. `None`: there is no such way for it.
    pub fn template(&self) -> Option<&Template> {
        self.ready.get_or_init(|| Template::of(self)).as_ref()
    }

    /// Whether it is time to ask again, because it is popular and will end soon. True once.
    pub fn is_due(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.since);
        let soon = !self.stale && self.life >= LEAST_LIFE && age >= self.life * 9 / 10;
        soon && self.hits.load(Ordering::Relaxed) >= POPULAR && !self.refreshed.swap(true, Ordering::Relaxed)
    }
}

impl Cache {
    /// The answer with a key (see [`Lookup::key`]), if it is good.
    pub fn get(&self, key: &[u8], now: Instant) -> Option<Arc<Stored>> {
        let shard = self.shard(key);
        let stored = shard.entries.get(key)?;
        if now.saturating_duration_since(stored.since) >= stored.life {
            return None;
        }
        stored.hits.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(stored))
    }

    /// Keeps an answer if it says for how long it is good. One that does not takes the place of an earlier one all the
    /// same: what an upstream has taken back is not told when none answers. Gives what is kept.
    pub fn put(
        &self,
        lookup: &Lookup,
        message: &Arc<Message>,
        wire_length: usize,
        now: Instant,
    ) -> Option<Arc<Stored>> {
        match life(message) {
            Some(life) => {
                let weight = weight(message, wire_length);
                Some(self.store(lookup.clone(), Arc::clone(message), false, life, now + life, weight, now))
            }
            None if is_answer(message) => {
                let key = lookup.key();
                let mut shard = self.shard(&key);
                if let Some(old) = shard.entries.remove(&key[..]) {
                    shard.weight -= old.weight;
                }
                None
            }
            None => None,
        }
    }

    /// What was the answer until a while ago, to be told because no upstream answers. It is kept as such for a moment, so
    /// that not each query waits for them. `None`: there is none, or it is too old, or said that there is nothing.
    pub fn stale(&self, lookup: &Lookup, now: Instant) -> Option<Arc<Stored>> {
        let key = lookup.key();
        let old = Arc::clone(self.shard(&key).entries.get(&key[..])?);
        let positive = old.message.metadata.response_code == ResponseCode::NoError && !old.message.answers.is_empty();
        if !positive || now >= old.ends + MAX_STALE {
            return None;
        }
        if now.saturating_duration_since(old.since) < old.life {
            return Some(old);
        }
        let mut message = Message::clone(&old.message);
        for record in message.answers.iter_mut().chain(&mut message.authorities) {
            record.ttl = STALE_TTL;
        }
        let life = Duration::from_secs(STALE_TTL.into());
        Some(self.store(lookup.clone(), Arc::new(message), true, life, old.ends, old.weight, now))
    }

    #[allow(clippy::too_many_arguments)]
    fn store(
        &self,
        lookup: Lookup,
        message: Arc<Message>,
        stale: bool,
        life: Duration,
        ends: Instant,
        weight: usize,
        now: Instant,
    ) -> Arc<Stored> {
        let key: Box<[u8]> = lookup.key().into();
        let mut shard = self.shard(&key);
        let shard = &mut *shard;
        let number = shard.next;
        shard.next += 1;
        shard.order.push_back((number, key.clone()));
        shard.weight += weight;
        let stored = Arc::new(Stored {
            lookup,
            message,
            stale,
            ready: OnceLock::new(),
            number,
            since: now,
            life,
            ends,
            weight,
            hits: AtomicU32::new(0),
            refreshed: AtomicBool::new(false),
        });
        if let Some(old) = shard.entries.insert(key, Arc::clone(&stored)) {
            shard.weight -= old.weight;
        }
        // The queue may hold replaced entries: its own length is bounded too.
        while shard.entries.len() > MAX_ENTRIES || shard.weight > MAX_WEIGHT || shard.order.len() > 2 * MAX_ENTRIES {
            let Some((number, key)) = shard.order.pop_front() else { break };
            if shard.entries.get(&key).is_some_and(|entry| entry.number == number)
                && let Some(old) = shard.entries.remove(&key)
            {
                shard.weight -= old.weight;
            }
        }
        stored
    }

    fn shard(&self, key: &[u8]) -> std::sync::MutexGuard<'_, Shard> {
        self.shards[part(key, SHARDS)].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight(message: &Message, wire_length: usize) -> usize {
    ENTRY_WEIGHT + 2 * wire_length + (message.answers.len() + message.authorities.len()) * RECORD_WEIGHT
}

/// Whether it says what there is, or that there is nothing; else it tells of a failure.
fn is_answer(message: &Message) -> bool {
    matches!(message.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
}

/// For how long an answer may be kept; `None`: not at all.
fn life(message: &Message) -> Option<Duration> {
    let code = message.metadata.response_code;
    if !is_answer(message) {
        return None;
    }
    let least = |records: &[Record]| records.iter().map(|record| record.ttl).min();
    let soa = message.authorities.iter().find(|record| matches!(record.data, RData::SOA(_)));
    let negative = code == ResponseCode::NXDomain || soa.is_some();
    let seconds = match (least(&message.answers), soa) {
        (Some(ttl), Some(soa)) if negative => ttl.min(negative_ttl(soa)),
        (Some(ttl), None) if code == ResponseCode::NoError => ttl,
        (None, Some(soa)) => negative_ttl(soa),
        _ => 0,
    };
    (seconds > 0).then(|| Duration::from_secs(seconds.into()).min(MAX_LEASE))
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::rdata::{A, SOA};
    use hickory_proto::rr::{Name, RecordType};

    use super::*;

    fn lookup(number: usize) -> Lookup {
        let name = Name::from_ascii(format!("n{number}.example.")).unwrap();
        Lookup { name, kind: RecordType::A, dnssec_ok: false }
    }

    fn message(ttl: u32) -> Arc<Message> {
        let mut message = Message::response(1, OpCode::Query);
        message.answers.push(Record::from_rdata(Name::root(), ttl, RData::A(A::new(192, 0, 2, 1))));
        Arc::new(message)
    }

    fn get(cache: &Cache, number: usize, now: Instant) -> Option<Arc<Stored>> {
        cache.get(&lookup(number).key(), now)
    }

    #[test]
    fn an_answer_ages_and_goes() {
        let (cache, start) = (Cache::default(), Instant::now());
        cache.put(&lookup(1), &message(30), 100, start);
        let age = |seconds| {
            let now = start + Duration::from_secs(seconds);
            get(&cache, 1, now).map(|stored| stored.age(now))
        };
        assert_eq!((age(0), age(29), age(30)), (Some(0), Some(29), None));
        assert!(get(&cache, 2, start).is_none());
        cache.put(&lookup(3), &message(0), 100, start);
        assert!(get(&cache, 3, start).is_none(), "TTL 0 is for this one answer");
        cache.put(&lookup(4), &message(1 << 30), 100, start);
        assert!(get(&cache, 4, start + MAX_LEASE).is_none());
    }

    #[test]
    fn nothing_is_kept_for_a_minute_at_most() {
        let (cache, start) = (Cache::default(), Instant::now());
        let mut nothing = Message::response(1, OpCode::Query);
        nothing.metadata.response_code = ResponseCode::NXDomain;
        cache.put(&lookup(1), &Arc::new(nothing.clone()), 100, start);
        assert!(get(&cache, 1, start).is_none(), "no SOA, no memory");
        let soa = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, 86400);
        nothing.authorities.push(Record::from_rdata(Name::root(), 86400, RData::SOA(soa)));
        cache.put(&lookup(1), &Arc::new(nothing), 100, start);
        assert!(get(&cache, 1, start + Duration::from_secs(59)).is_some());
        let later = start + Duration::from_secs(60);
        assert!(get(&cache, 1, later).is_none());
        assert!(cache.stale(&lookup(1), later).is_none(), "that there is nothing is not told when it is old");
    }

    #[test]
    fn it_is_bounded_and_the_oldest_goes_first() {
        let (cache, start, answer) = (Cache::default(), Instant::now(), message(60));
        for number in 0..3 * SHARDS * MAX_ENTRIES {
            cache.put(&lookup(number), &answer, 100, start);
        }
        assert!(get(&cache, 0, start).is_none());
        assert!(get(&cache, 3 * SHARDS * MAX_ENTRIES - 1, start).is_some());
        for shard in &cache.shards {
            let count = shard.lock().unwrap().entries.len();
            assert!(count > MAX_ENTRIES / 2, "{count} entries");
        }
        for _ in 0..3 * MAX_ENTRIES {
            cache.put(&lookup(7), &answer, 100, start);
        }
        assert!(get(&cache, 7, start).is_some());
        for shard in &cache.shards {
            let shard = shard.lock().unwrap();
            assert!(shard.order.len() <= 2 * MAX_ENTRIES && shard.entries.len() <= MAX_ENTRIES);
            assert_eq!(shard.weight, shard.entries.values().map(|entry| entry.weight).sum::<usize>());
        }
    }

    #[test]
    fn what_has_ended_is_told_for_an_hour_with_a_short_ttl() {
        let (cache, start) = (Cache::default(), Instant::now());
        cache.put(&lookup(1), &message(60), 100, start);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!cache.stale(&lookup(1), after(59)).unwrap().stale, "it is good still");
        let stale = cache.stale(&lookup(1), after(61)).unwrap();
        assert_eq!((stale.stale, stale.message.answers[0].ttl), (true, STALE_TTL));
        assert!(get(&cache, 1, after(90)).is_some_and(|stored| stored.stale), "nobody waits meanwhile");
        assert!(get(&cache, 1, after(91)).is_none(), "then an upstream is asked again");
        assert!(cache.stale(&lookup(1), after(3659)).is_some());
        assert!(cache.stale(&lookup(1), after(3660)).is_none(), "the bound counts from the first end");
    }

    #[test]
    fn what_was_taken_back_is_not_told_again() {
        let (cache, start) = (Cache::default(), Instant::now());
        let mut gone = Message::response(1, OpCode::Query);
        gone.metadata.response_code = ResponseCode::NXDomain;
        let mut failure = gone.clone();
        failure.metadata.response_code = ResponseCode::ServFail;
        for (newer, told) in [(Arc::new(failure), true), (Arc::new(gone), false), (message(0), false)] {
            cache.put(&lookup(1), &message(60), 100, start);
            cache.put(&lookup(1), &newer, 100, start + Duration::from_secs(61));
            let stale = cache.stale(&lookup(1), start + Duration::from_secs(62));
            assert_eq!(stale.is_some(), told, "{newer:?}");
            let weights: Vec<usize> = cache.shards.iter().map(|shard| shard.lock().unwrap().weight).collect();
            assert_eq!(weights.iter().sum::<usize>() > 0, told);
        }
    }

    #[test]
    fn a_popular_answer_is_due_once_before_it_ends() {
        let (cache, start) = (Cache::default(), Instant::now());
        cache.put(&lookup(1), &message(100), 100, start);
        let due = |seconds| {
            let now = start + Duration::from_secs(seconds);
            get(&cache, 1, now).is_some_and(|stored| stored.is_due(now))
        };
        assert_eq!([due(1), due(95)], [false, false], "it was asked for twice only");
        assert_eq!([due(96), due(97)], [true, false]);
        cache.put(&lookup(1), &message(100), 100, start);
        assert_eq!([due(1), due(2), due(3), due(89), due(90)], [false, false, false, false, true]);
    }
}
