//! What upstreams said, for as long as it is good. Never a decision: those differ by host and by revision.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record};

use super::filter::negative_ttl;
use super::upstream::Lookup;
use crate::core::lease::MAX_LEASE;

/// Answers kept at most.
const MAX_ENTRIES: usize = 20_000;
/// Octets of answers kept at most, counted as in `weight`.
const MAX_WEIGHT: usize = 32 << 20;
/// What an entry costs besides its records, in octets (key, map, queue), roughly.
const ENTRY_WEIGHT: usize = 300;
/// What a record costs besides its data, in octets, roughly.
const RECORD_WEIGHT: usize = 200;

/// A bounded store of answers. When it is full the oldest goes.
#[derive(Default)]
pub(super) struct Cache {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<Lookup, Entry>,
    /// Entries in the order of their arrival; one whose number is not in the map any more was replaced.
    order: VecDeque<(u64, Lookup)>,
    next: u64,
    weight: usize,
}

struct Entry {
    number: u64,
    message: Arc<Message>,
    stored: Instant,
    life: Duration,
    weight: usize,
}

impl Cache {
    /// The answer to a look-up and its age in whole seconds.
    pub fn get(&self, lookup: &Lookup, now: Instant) -> Option<(Arc<Message>, u32)> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = inner.entries.get(lookup)?;
        let age = now.saturating_duration_since(entry.stored);
        (age < entry.life).then(|| (Arc::clone(&entry.message), age.as_secs() as u32))
    }

    /// Keeps an answer if it says for how long it is good.
    pub fn put(&self, lookup: Lookup, message: &Arc<Message>, wire_length: usize, now: Instant) {
        let Some(life) = life(message) else { return };
        let records = message.answers.len() + message.authorities.len();
        let weight = ENTRY_WEIGHT + wire_length + records * RECORD_WEIGHT;
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        let number = inner.next;
        inner.next += 1;
        inner.order.push_back((number, lookup.clone()));
        inner.weight += weight;
        let entry = Entry { number, message: Arc::clone(message), stored: now, life, weight };
        if let Some(old) = inner.entries.insert(lookup, entry) {
            inner.weight -= old.weight;
        }
        // The queue may hold replaced entries: its own length is bounded too.
        while inner.entries.len() > MAX_ENTRIES || inner.weight > MAX_WEIGHT || inner.order.len() > 2 * MAX_ENTRIES {
            let Some((number, lookup)) = inner.order.pop_front() else { break };
            if inner.entries.get(&lookup).is_some_and(|entry| entry.number == number)
                && let Some(old) = inner.entries.remove(&lookup)
            {
                inner.weight -= old.weight;
            }
        }
    }
}

/// For how long an answer may be kept; `None`: not at all.
fn life(message: &Message) -> Option<Duration> {
    let code = message.metadata.response_code;
    if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
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

    #[test]
    fn an_answer_ages_and_goes() {
        let (cache, start) = (Cache::default(), Instant::now());
        cache.put(lookup(1), &message(30), 100, start);
        let age = |seconds| cache.get(&lookup(1), start + Duration::from_secs(seconds)).map(|(_, age)| age);
        assert_eq!((age(0), age(29), age(30)), (Some(0), Some(29), None));
        assert!(cache.get(&lookup(2), start).is_none());
        cache.put(lookup(3), &message(0), 100, start);
        assert!(cache.get(&lookup(3), start).is_none(), "TTL 0 is for this one answer");
        cache.put(lookup(4), &message(1 << 30), 100, start);
        assert!(cache.get(&lookup(4), start + MAX_LEASE).is_none());
    }

    #[test]
    fn nothing_is_kept_for_a_minute_at_most() {
        let (cache, start) = (Cache::default(), Instant::now());
        let mut nothing = Message::response(1, OpCode::Query);
        nothing.metadata.response_code = ResponseCode::NXDomain;
        cache.put(lookup(1), &Arc::new(nothing.clone()), 100, start);
        assert!(cache.get(&lookup(1), start).is_none(), "no SOA, no memory");
        let soa = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, 86400);
        nothing.authorities.push(Record::from_rdata(Name::root(), 86400, RData::SOA(soa)));
        cache.put(lookup(1), &Arc::new(nothing), 100, start);
        assert!(cache.get(&lookup(1), start + Duration::from_secs(59)).is_some());
        assert!(cache.get(&lookup(1), start + Duration::from_secs(60)).is_none());
    }

    #[test]
    fn it_is_bounded_and_the_oldest_goes_first() {
        let (cache, start, answer) = (Cache::default(), Instant::now(), message(60));
        for number in 0..MAX_ENTRIES + 10 {
            cache.put(lookup(number), &answer, 100, start);
        }
        assert!(cache.get(&lookup(9), start).is_none());
        assert!(cache.get(&lookup(10), start).is_some());
        for _ in 0..3 * MAX_ENTRIES {
            cache.put(lookup(7), &answer, 100, start);
        }
        let inner = cache.inner.lock().unwrap();
        assert!(inner.order.len() <= 2 * MAX_ENTRIES && inner.entries.contains_key(&lookup(7)));
        assert_eq!(inner.weight, inner.entries.values().map(|entry| entry.weight).sum::<usize>());
    }
}
