//! Exfil caps: what was used, what is granted, when it turns.
//!
//! The kernel counts and refuses. A cap's quotas there are never reset: their limits are raised, in place, to what was
//! counted so far and what is granted further. So a limit that is set late, or from a reading that is old already, errs
//! against the agent. There are two, so that flows need not stop while more is granted: what comes beyond the first one
//! wakes us, and passes up to the second. Each grant is on disk before the kernel gets it ([`CapRecord`]), so after a power cut at most the last
//! grant is lost to the agent, never won by it.
//!
//! The kernel charges a packet that is several in one (merged by the receiving card, or not yet cut by a sender on this
//! machine) by its own length, and the headers that its parts will have on the wire are added here.

mod cap;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

pub use self::cap::{Cap, CapRecord, CapUse, Reading};
use crate::plan::meter::{CapId, CapState};
use crate::policy::model::{HostName, Mode, Period, Pointer, Policy};
use crate::policy::name::Pattern;
use crate::policy::schedule::Moment;

/// A change of one cap: write the record, then give the kernel the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub id: CapId,
    /// For the disk; first.
    pub record: CapRecord,
    /// For the kernel.
    pub state: CapState,
    /// What becomes of packets beyond the limits changes too.
    pub stop_too: bool,
}

impl Change {
    /// The record, if it must be kept: a cap of seconds is over before a machine could start again.
    pub fn kept(&self) -> Option<CapRecord> {
        (self.record.period != Period::Second).then(|| self.record.clone())
    }
}

/// What becomes of a cap that a packet was beyond a limit of.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// There is no such cap, or nothing is new about it.
    Unknown,
    /// Its limits are met no longer: they are to be written again as they are, because the kernel tells only once for each
    /// writing, and may have told of the limits before these.
    Again(CapState),
    /// It is used up, since now.
    Spent,
    /// More is granted.
    More(Change),
}

type Key = (HostName, Pattern);

/// The use of a cap that is not in force (any more), or whose counters are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Past {
    id: CapId,
    period: Period,
    start: DateTime<Utc>,
    used: u64,
}

/// All caps. A clone shares what it does not change, because each change is tried on one.
#[derive(Clone, Debug, Default)]
pub struct Caps {
    caps: BTreeMap<CapId, Arc<Cap>>,
    by_key: Arc<HashMap<Key, CapId>>,
    past: Arc<HashMap<Key, Past>>,
    next: u32,
    /// Caps that could not be granted more because disk or kernel refused.
    waiting: BTreeSet<CapId>,
    /// When the use before was lost; caps whose period began earlier stay shut until it turns.
    lost: Option<DateTime<Utc>>,
}

impl Caps {
    /// No caps; `next` is a number that no object in the kernel has.
    pub fn new(next: u32) -> Self {
        Self { next, ..Self::default() }
    }

    /// Takes over what the disk says. `held`: what the kernel has of a cap; `None`: its counters are gone, so all that
    /// was granted counts as used.
    #[must_use]
    pub fn resume(
        mut self,
        records: Vec<CapRecord>,
        zone: Tz,
        held: impl Fn(CapId) -> Option<(CapState, Reading)>,
    ) -> Self {
        let (by_key, gone) = (Arc::make_mut(&mut self.by_key), Arc::make_mut(&mut self.past));
        for record in records {
            self.next = self.next.max(record.id.0.saturating_add(1));
            let key = (record.host.clone(), record.pattern.clone());
            let Some((state, reading)) = held(record.id) else {
                let past = Past { id: record.id, period: record.period, start: record.start, used: record.granted };
                gone.insert(key, past);
                continue;
            };
            by_key.insert(key, record.id);
            self.caps.insert(record.id, Arc::new(Cap::resume(record, zone, state, reading)));
        }
        self
    }

    /// The disk's record was no good at `now`.
    #[must_use]
    pub fn lost(mut self, now: DateTime<Utc>) -> Self {
        self.lost = Some(now);
        self
    }

    /// Whether there are caps that stay shut because the use before was lost.
    pub fn is_loss_felt(&self) -> bool {
        self.lost.is_some_and(|lost| self.caps.values().any(|cap| cap.start <= lost))
    }

    /// The caps in force.
    pub fn iter(&self) -> impl Iterator<Item = (CapId, &Cap)> {
        self.caps.iter().map(|(id, cap)| (*id, &**cap))
    }

    /// One cap.
    pub fn get(&self, id: CapId) -> Option<&Cap> {
        self.caps.get(&id).map(|cap| &**cap)
    }

    fn get_mut(&mut self, id: CapId) -> Option<&mut Cap> {
        self.caps.get_mut(&id).map(Arc::make_mut)
    }

    /// How many are in force.
    pub fn len(&self) -> usize {
        self.caps.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.caps.is_empty()
    }

    /// The number of a cap in force.
    pub fn id(&self, host: &HostName, pattern: &Pattern) -> Option<CapId> {
        self.by_key.get(&(host.clone(), pattern.clone())).copied()
    }

    /// Takes over newer readings, which were complete at `now`.
    pub fn read(&mut self, readings: impl IntoIterator<Item = (CapId, Reading)>, now: DateTime<Utc>) {
        for (id, reading) in readings {
            if let Some(cap) = self.get_mut(id) {
                cap.read(reading, now);
            }
        }
    }

    /// The caps that a policy changes or takes away: their counters are to be read first.
    pub fn touched(&self, policy: &Policy) -> Vec<CapId> {
        let same = |cap: &Cap| {
            let fresh = policy.hosts.get(&cap.host).and_then(|host| host.caps.get(&cap.pattern));
            fresh.is_some_and(|fresh| fresh.value.bytes == cap.bytes && fresh.value.period == cap.period)
        };
        self.iter().filter(|(_, cap)| !same(cap)).map(|(id, _)| id).collect()
    }

    /// The caps of a policy, with what was used of them already; and what is to be written before they come into force.
    pub fn follow(&self, policy: &Policy, moment: &Moment) -> (Self, Vec<CapRecord>) {
        let mut next = Self { caps: BTreeMap::new(), by_key: Arc::default(), ..self.clone() };
        let (mut by_key, mut gone) = (HashMap::new(), (*self.past).clone());
        let mut records = Vec::new();
        for (name, host) in &policy.hosts {
            for (pattern, cap) in &host.caps {
                let key = (name.clone(), pattern.clone());
                let old = self.by_key.get(&key).and_then(|id| Some((*id, self.get(*id)?)));
                let (bytes, period) = (cap.value.bytes, cap.value.period);
                let (id, mut fresh) = match old {
                    Some((id, old)) => {
                        let mut same = old.clone();
                        same.path = cap.path.clone();
                        same.follow(bytes, period, moment);
                        (id, same)
                    }
                    None => {
                        let id = CapId(next.next);
                        next.next = next.next.saturating_add(1);
                        (id, self.create(&key, bytes, period, &cap.path, moment))
                    }
                };
                fresh.state.lenient = policy.effective(Some(name)).mode == Mode::Monitor;
                if old.is_none_or(|(_, old)| old.state != fresh.state || old.start != fresh.start) {
                    records.push(fresh.record(id));
                }
                gone.remove(&key);
                by_key.insert(key, id);
                next.caps.insert(id, Arc::new(fresh));
            }
        }
        for (id, cap) in self.caps.iter().filter(|(id, _)| !next.caps.contains_key(id)) {
            let past = Past { id: *id, period: cap.period, start: cap.start, used: cap.used() };
            gone.insert((cap.host.clone(), cap.pattern.clone()), past);
        }
        gone.retain(|_, past| past.period.start(moment) <= past.start);
        (next.by_key, next.past) = (Arc::new(by_key), Arc::new(gone));
        next.waiting.retain(|id| next.caps.contains_key(id));
        (next, records)
    }

    fn create(&self, (host, pattern): &Key, bytes: u64, period: Period, path: &Pointer, moment: &Moment) -> Cap {
        let past = self.past.get(&(host.clone(), pattern.clone()));
        let mut cap = Cap::new(host.clone(), pattern.clone(), bytes, period, path.clone(), moment);
        if self.lost.is_some_and(|lost| cap.start <= lost) {
            cap.begin(moment, bytes);
        } else if let Some(past) = past.filter(|past| past.period.start(moment) <= past.start) {
            cap.begin(moment, past.used);
            // A period that begins later than now is of a clock that was set back.
            cap.start = cap.start.max(past.start);
            cap.turns = cap.turns.max(period.next(&Moment { utc: cap.start.max(moment.utc), ..*moment }));
        }
        cap
    }

    /// A packet came beyond a limit, or may have: what is granted further. `over`: what the kernel charged has met the
    /// first limit. The counters do not tell, because packets on their way are in none of them yet.
    pub fn stopped(&mut self, id: CapId, reading: Reading, over: bool, now: DateTime<Utc>) -> Stopped {
        let waited = self.waiting.remove(&id);
        let Some(cap) = self.get_mut(id) else { return Stopped::Unknown };
        cap.read(reading, now);
        if !over && !waited {
            return Stopped::Again(cap.state.clone());
        }
        let before = cap.state.clone();
        if before.last && !waited {
            return if std::mem::replace(&mut cap.spent, true) { Stopped::Unknown } else { Stopped::Spent };
        }
        cap.grant();
        let stop_too = before.last != cap.state.last;
        Stopped::More(Change { id, record: cap.record(id), stop_too, state: cap.state.clone() })
    }

    /// Nothing more can be granted for now: packets over the limit are refused instead of dropped. To be said to the caps
    /// as they were before the grant that failed. `None`: they are refused already.
    pub fn refuse(&mut self, id: CapId) -> Option<Change> {
        if self.caps.contains_key(&id) {
            self.waiting.insert(id);
        }
        let cap = self.get_mut(id)?;
        if std::mem::replace(&mut cap.state.last, true) {
            return None;
        }
        Some(Change { id, record: cap.record(id), stop_too: true, state: cap.state.clone() })
    }

    /// The kernel did not take or tell something about this cap: it is to be looked at again.
    pub fn look_again(&mut self, id: CapId) {
        self.waiting.insert(id);
    }

    /// Caps for which [`Caps::refuse`] or [`Caps::look_again`] was said.
    pub fn waiting(&self) -> Vec<CapId> {
        self.waiting.iter().copied().collect()
    }

    /// What the kernel counted for these is not known any more: all that was granted counts as used.
    pub fn presume(&mut self, ids: impl IntoIterator<Item = CapId>) {
        for id in ids {
            if let Some(cap) = self.get_mut(id) {
                cap.presume();
            }
        }
    }

    /// Whether something may be granted to it in this period.
    pub fn may_have_more(&self, id: CapId) -> bool {
        self.caps.get(&id).is_some_and(|cap| !cap.state.last) || self.waiting.contains(&id)
    }

    /// The numbers of the caps in force.
    pub fn ids(&self) -> Vec<CapId> {
        self.caps.keys().copied().collect()
    }

    /// The kernel's objects are gone: the use counts on for caps to come.
    #[must_use]
    pub fn retire(self) -> Self {
        let Self { caps, mut past, next, lost, .. } = self;
        let gone = Arc::make_mut(&mut past);
        for (id, cap) in caps {
            let past = Past { id, period: cap.period, start: cap.start, used: cap.used() };
            gone.insert((cap.host.clone(), cap.pattern.clone()), past);
        }
        Self { past, next, lost, ..Self::default() }
    }

    /// The caps whose period is over: their counters are to be read.
    pub fn due(&self, now: DateTime<Utc>) -> Vec<CapId> {
        self.iter().filter(|(_, cap)| cap.turns <= now).map(|(id, _)| id).collect()
    }

    /// Begins the periods that `moment` is in, where those of the given caps are over.
    pub fn turn(&mut self, ids: &[CapId], moment: &Moment) -> Vec<Change> {
        let mut changes = Vec::new();
        for id in ids {
            let Some(cap) = self.get_mut(*id).filter(|cap| cap.turns <= moment.utc) else { continue };
            let before = cap.state.last;
            cap.turn(moment);
            let stop_too = before != cap.state.last;
            changes.push(Change { id: *id, record: cap.record(*id), state: cap.state.clone(), stop_too });
        }
        changes
    }

    /// When the next period is over.
    pub fn next_turn(&self) -> Option<DateTime<Utc>> {
        self.caps.values().map(|cap| cap.turns).min()
    }

    /// The caps of which a period is over then.
    pub fn turning(&self, at: DateTime<Utc>) -> Vec<CapId> {
        self.iter().filter(|(_, cap)| cap.turns == at).map(|(id, _)| id).collect()
    }

    /// What the disk should hold: everything that counts still.
    pub fn records(&self) -> Vec<CapRecord> {
        let past = self.past.iter().map(|((host, pattern), past)| CapRecord {
            id: past.id,
            host: host.clone(),
            pattern: pattern.clone(),
            period: past.period,
            start: past.start,
            granted: past.used,
            carried: past.used,
            base: Reading::default(),
        });
        self.iter().map(|(id, cap)| cap.record(id)).chain(past).collect()
    }
}
