//! What is alike is counted, not recorded again. Pure but for its memory: time is an argument.
//!
//! The first of its kind becomes a record at once. The next ones within a window are counted, and at its end one more
//! record stands for them. Who is refused in ever new places uses up a share, and what exceeds it is counted together.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::record::{Action, Layer, Record};
use super::rooms::Rooms;
use crate::policy::decision::Reason;
use crate::policy::model::HostName;

/// For how long what is alike is counted together at first, milliseconds. As long as it goes on, each window is twice as
/// long as the one before.
pub(super) const WINDOW: u64 = 10_000;
/// The longest window, milliseconds: what has gone on for so long is no news.
const LONGEST: u64 = 32 * WINDOW;
/// Kinds that are counted at a time; about 300 octets each.
pub(super) const MAX_OPEN: usize = 16_384;
/// Kinds that one host (or source) may have told at once for one cause, after a pause.
const SHARE: u32 = 200;
/// Kinds a second afterwards.
const REFILL: u32 = 10;

/// Whose traffic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// A host's, from whichever of its sources.
    Host(HostName),
    /// That of a source that belongs to no host.
    Source(IpAddr),
    /// Not known.
    Anyone,
}

/// Why, and where it was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cause {
    /// The layer.
    pub layer: Layer,
    /// What was done.
    pub action: Action,
    /// The usual reason; a record may know it better.
    pub reason: Reason,
    /// The counter that counts it, where several of a layer do.
    pub counter: u8,
}

/// Decisions with equal keys are of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Whose.
    pub who: Who,
    /// Why.
    pub cause: Cause,
    /// The revision in force: another one may have another line of the policy for it.
    pub revision: u64,
    /// The name.
    pub domain: Option<Arc<str>>,
    /// The other end.
    pub address: Option<IpAddr>,
    /// Its port.
    pub port: Option<u16>,
    /// IANA protocol number.
    pub protocol: u8,
}

impl Key {
    /// All that `who` did for one cause.
    pub(super) fn crowd(who: Who, cause: Cause, revision: u64) -> Self {
        Self { who, cause, revision, domain: None, address: None, port: None, protocol: 0 }
    }

    /// A record that says no more than a crowd's key.
    fn record(&self, time: DateTime<Utc>) -> Record {
        let Cause { layer, action, reason, .. } = self.cause;
        let mut record = Record::new(time, self.revision, action, layer, reason);
        if let Who::Host(host) = &self.who {
            record.host = Some(host.as_str().into());
        }
        record
    }
}

/// What one sees of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The first of its kind: make a record and say [`Alike::describe`], or [`Alike::forget`].
    First,
    /// It was counted.
    Counted,
}

/// A kind within its window.
struct Open {
    /// The record of the first one.
    record: Option<Record>,
    /// How many came that no record stands for yet.
    more: u64,
    last: DateTime<Utc>,
    /// The length of its window.
    window: u64,
    /// Its place in [`Alike::order`].
    place: (u64, u64),
}

/// How much of a share is left.
struct Share {
    /// Thousandths of a kind.
    left: u64,
    at: u64,
}

/// All kinds within their windows.
#[derive(Default)]
pub(super) struct Alike {
    open: HashMap<Key, Open>,
    /// By the end of their window, milliseconds of the caller's clock, and a number that tells equal ones apart.
    order: BTreeMap<(u64, u64), Key>,
    next: u64,
    shares: HashMap<(Who, Cause), Share>,
    rooms: Rooms,
}

impl Alike {
    /// Takes in one decision at `now` (milliseconds of a clock that does not step).
    pub fn see(&mut self, key: &Key, time: DateTime<Utc>, now: u64) -> Seen {
        if let Some(open) = self.open.get_mut(key) {
            open.more += 1;
            open.last = time;
            return Seen::Counted;
        }
        if self.open.len() < MAX_OPEN && self.rooms.has_place(key) && self.has_share(key, now) {
            self.insert(key.clone(), 0, time, now);
            return Seen::First;
        }
        self.add(Key::crowd(key.who.clone(), key.cause, key.revision), 1, time, now);
        Seen::Counted
    }

    /// Counts so many more of a crowd.
    pub fn add(&mut self, key: Key, count: u64, time: DateTime<Utc>, now: u64) {
        if let Some(open) = self.open.get_mut(&key) {
            open.more += count;
            open.last = time;
        } else if self.rooms.has_place(&key) {
            self.insert(key, count, time, now);
        } else {
            self.add(Key::crowd(Who::Anyone, key.cause, key.revision), count, time, now);
        }
    }

    /// The record of the first of its kind, for those that follow.
    pub fn describe(&mut self, key: &Key, record: Record) {
        if let Some(open) = self.open.get_mut(key) {
            open.record = Some(record);
        }
    }

    /// It was no decision.
    pub fn forget(&mut self, key: &Key) {
        if let Some(open) = self.open.remove(key) {
            self.order.remove(&open.place);
            self.rooms.leave(key);
        }
    }

    /// The records of the windows that ended by `now`. A kind that goes on gets another window.
    pub fn ended(&mut self, now: u64) -> Vec<Record> {
        let mut out = Vec::new();
        while let Some(first) = self.order.first_entry().filter(|first| first.key().0 <= now) {
            let key = first.remove();
            let Some(open) = self.open.get_mut(&key) else { continue };
            match summary(&key, open) {
                Some(record) => {
                    out.push(record);
                    open.window = (open.window * 2).min(LONGEST);
                    self.next += 1;
                    open.place = (now + open.window, self.next);
                    self.order.insert(open.place, key);
                }
                None => {
                    self.open.remove(&key);
                    self.rooms.leave(&key);
                }
            }
        }
        self.shares.retain(|_, share| share.now(now) < u64::from(SHARE) * THOUSAND);
        out
    }

    /// The records of all windows, as if they ended now.
    pub fn drain(&mut self) -> Vec<Record> {
        self.order.clear();
        self.rooms = Rooms::default();
        self.open.drain().filter_map(|(key, mut open)| summary(&key, &mut open)).collect()
    }

    fn insert(&mut self, key: Key, more: u64, last: DateTime<Utc>, now: u64) {
        self.next += 1;
        let place = (now + WINDOW, self.next);
        self.order.insert(place, key.clone());
        self.rooms.enter(&key);
        self.open.insert(key, Open { record: None, more, last, window: WINDOW, place });
    }

    fn has_share(&mut self, key: &Key, now: u64) -> bool {
        if self.shares.len() >= MAX_OPEN {
            return false;
        }
        let full = Share { left: u64::from(SHARE) * THOUSAND, at: now };
        let share = self.shares.entry((key.who.clone(), key.cause)).or_insert(full);
        *share = Share { left: share.now(now), at: now };
        let Some(left) = share.left.checked_sub(THOUSAND) else { return false };
        share.left = left;
        true
    }
}

/// Thousandths in a whole.
const THOUSAND: u64 = 1000;

impl Share {
    fn now(&self, now: u64) -> u64 {
        let come = now.saturating_sub(self.at).saturating_mul(u64::from(REFILL));
        self.left.saturating_add(come).min(u64::from(SHARE) * THOUSAND)
    }
}

/// One record for what was counted.
fn summary(key: &Key, open: &mut Open) -> Option<Record> {
    let suppressed = std::mem::take(&mut open.more).checked_sub(1)?;
    let record = open.record.clone().unwrap_or_else(|| key.record(open.last));
    Some(Record { time: open.last, suppressed, ..record })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAUSE: Cause = Cause { layer: Layer::Packet, action: Action::Block, reason: Reason::NoLease, counter: 5 };

    fn key(who: u8, port: u16) -> Key {
        let who = Who::Source(IpAddr::from([10, 0, 0, who]));
        Key { port: Some(port), protocol: 6, ..Key::crowd(who, CAUSE, 1) }
    }

    fn at(now: u64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(i64::try_from(now).unwrap()).unwrap()
    }

    /// What the worker does with a decision; gives the number of records.
    fn take(alike: &mut Alike, key: &Key, now: u64) -> u64 {
        if alike.see(key, at(now), now) == Seen::Counted {
            return 0;
        }
        let mut record = Record::new(at(now), 1, Action::Block, Layer::Packet, Reason::NoLease);
        record.port = key.port;
        alike.describe(key, record);
        1
    }

    #[test]
    fn the_first_is_told_at_once_and_the_rest_together() {
        let mut alike = Alike::default();
        assert_eq!(take(&mut alike, &key(1, 80), 0), 1);
        for now in 1..500 {
            assert_eq!(take(&mut alike, &key(1, 80), now), 0);
        }
        assert_eq!(alike.ended(WINDOW - 1), []);
        let ended = alike.ended(WINDOW);
        assert_eq!((ended.len(), ended[0].suppressed, ended[0].port), (1, 498, Some(80)));
        assert_eq!(ended[0].time, at(499), "the last one's");
        assert_eq!(take(&mut alike, &key(1, 80), WINDOW + 5), 0, "it goes on, so it is in a window again");
        assert_eq!(alike.ended(3 * WINDOW - 1), [], "of twice the length");
        assert_eq!(alike.ended(3 * WINDOW)[0].suppressed, 0);
        assert_eq!(alike.ended(7 * WINDOW), []);
        assert_eq!(take(&mut alike, &key(1, 80), 7 * WINDOW), 1, "it was over");
    }

    #[test]
    fn what_goes_on_for_hours_is_told_less_and_less() {
        let mut alike = Alike::default();
        let (mut records, mut sum) = (0, 0);
        let hours = 5 * 3600;
        for second in 0..hours {
            sum += take(&mut alike, &key(1, 80), second * 1000);
            let ended = alike.ended(second * 1000);
            assert_eq!(alike.rooms.taken(), alike.open.len());
            records += ended.len();
            sum += ended.iter().map(|record| record.suppressed + 1).sum::<u64>();
        }
        assert!(records < 70, "{records} records in five hours");
        assert_eq!(sum + alike.drain()[0].suppressed + 1, hours);
    }

    #[test]
    fn a_scan_fills_its_own_share_only() {
        let mut alike = Alike::default();
        let told: u64 = (0..60_000).map(|port| take(&mut alike, &key(1, port), u64::from(port) / 60)).sum();
        assert!(told <= u64::from(SHARE) + u64::from(REFILL) + 1, "{told} records of a scan within a second");
        assert_eq!(take(&mut alike, &key(2, 1), 1000), 1, "somebody else is seen");
        let ended = alike.drain();
        let crowd = ended.iter().find(|record| record.port.is_none()).unwrap();
        assert_eq!(told + crowd.suppressed + 1, 60_000);
    }

    #[test]
    fn whoever_comes_with_ever_new_places_or_sources_leaves_room_for_others() {
        let mut alike = Alike::default();
        let host = |name: &str, layer, counter| {
            let cause = Cause { layer, counter, ..CAUSE };
            Key { port: Some(1), ..Key::crowd(Who::Host(HostName(name.into())), cause, 1) }
        };
        for n in 0..200_000_u32 {
            take(&mut alike, &Key { who: Who::Source(IpAddr::V4(n.into())), ..key(0, 1) }, 0);
        }
        assert_eq!(take(&mut alike, &host("b", Layer::Packet, 5), 0), 1, "sources that belong to no host are many");
        for cause in 0..u8::MAX {
            for port in 0..200 {
                take(&mut alike, &Key { port: Some(port), ..host("a", Layer::Dns, cause) }, 1);
            }
        }
        assert_eq!(take(&mut alike, &host("a", Layer::Packet, 5), 2), 1, "queries take no room of packets");
        assert_eq!(take(&mut alike, &host("c", Layer::Dns, 5), 2), 1, "a host takes no room of another");
    }

    #[test]
    fn what_was_no_decision_leaves_nothing_behind() {
        let mut alike = Alike::default();
        for now in 0..100 {
            assert_eq!(alike.see(&key(1, 80), at(now), now), Seen::First);
            alike.forget(&key(1, 80));
        }
        assert_eq!((alike.open.len(), alike.order.len(), alike.rooms.taken()), (0, 0, 0));
    }

    #[test]
    fn memory_is_bounded_whoever_comes() {
        let mut alike = Alike::default();
        let mut told = 0;
        for n in 0..200_000_u32 {
            let key = Key { who: Who::Source(IpAddr::V4(n.into())), ..key(0, 1) };
            told += take(&mut alike, &key, 0);
        }
        assert!(
            alike.open.len() <= MAX_OPEN + 2 * super::super::rooms::MAX_CROWDS + 1 && alike.shares.len() <= MAX_OPEN
        );
        let rest: u64 = alike.drain().iter().map(|record| record.suppressed + 1).sum();
        assert_eq!(told + rest, 200_000);
    }

    proptest! {
        /// Whatever comes whenever: the records stand for exactly as many decisions as there were.
        #[test]
        fn sums_hold(steps in prop::collection::vec((0u8..4, 0u16..400, 0u64..3000, 1u8..40), 1..200)) {
            let mut alike = Alike::default();
            let (mut now, mut came, mut told) = (0, 0, 0);
            for (who, port, pause, times) in steps {
                now += pause;
                for _ in 0..times {
                    came += 1;
                    told += take(&mut alike, &key(who, port), now);
                }
                told += alike.ended(now).iter().map(|record| record.suppressed + 1).sum::<u64>();
            }
            told += alike.drain().iter().map(|record| record.suppressed + 1).sum::<u64>();
            prop_assert_eq!(came, told);
        }
    }
}
