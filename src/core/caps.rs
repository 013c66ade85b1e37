//! Exfil caps: what was used, what is granted, when it turns.
//!
//! The kernel counts and refuses. A cap's quota there is never reset: its limit is raised, in place, to what was counted
//! so far and what is granted further. So a limit that is set late, or from a reading that is old already, errs against
//! the agent. Each grant is on disk before the kernel gets it ([`CapRecord`]), so after a power cut at most the last
//! grant is lost to the agent, never won by it.
//!
//! The kernel charges a packet that is several in one (merged by the receiving card, or not yet cut by a sender on this
//! machine) by its own length, and the headers that its parts will have on the wire are added here.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use crate::plan::meter::{CapId, CapState};
use crate::plan::table::MERGED;
use crate::policy::model::{HostName, Period, Pointer, Policy};
use crate::policy::name::Pattern;
use crate::policy::schedule::Moment;

/// A grant is this part of the cap …
const PARTS: u64 = 16;
/// … but at least so many octets: four of the longest packets.
const LEAST_GRANT: u64 = 256 * 1024;
/// What is left after the kernel stopped a packet, octets: below it nothing more is granted, because the packet that was
/// stopped may be one of the longest.
const LEAST_LEFT: u64 = 65_536;
/// How late a turn may be noticed.
const MOMENT: TimeDelta = TimeDelta::seconds(1);
/// Headers of one part of a merged packet: IPv4 or IPv6, TCP with timestamps (RFC 7323); and what else is in it if the
/// whole has 1280 octets, the least that every IPv6 link carries (RFC 8200 section 5).
const PART_V4: (u64, u64) = (52, 1280 - 52);
const PART_V6: (u64, u64) = (72, 1280 - 72);

/// What the kernel counted for a cap since its objects were made, octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Passed.
    pub passed: u64,
    /// Met the limit.
    pub spilled: u64,
    /// Of what passed, IPv4 packets that were several in one.
    pub merged4: u64,
    /// The same of IPv6.
    pub merged6: u64,
}

/// The use of a cap as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapRecord {
    /// The cap's number in the kernel.
    pub id: CapId,
    /// Whose.
    pub host: HostName,
    /// For what.
    pub pattern: Pattern,
    /// How often it turns.
    pub period: Period,
    /// When the period began.
    pub start: DateTime<Utc>,
    /// Octets granted in the period: no more was used.
    pub granted: u64,
    /// Octets used in the period before the kernel's counters began.
    pub carried: u64,
    /// The kernel's counters when the period began (or when they did).
    pub base: Reading,
}

/// One cap in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cap {
    /// Whose.
    pub host: HostName,
    /// For what.
    pub pattern: Pattern,
    /// Octets in a period.
    pub bytes: u64,
    /// How often it turns.
    pub period: Period,
    /// The line of the policy.
    pub path: Pointer,
    /// When the period began.
    pub start: DateTime<Utc>,
    /// When it turns.
    pub turns: DateTime<Utc>,
    /// Nothing passes any more in this period.
    pub spent: bool,
    carried: u64,
    base: Reading,
    reading: Reading,
    granted: u64,
    state: CapState,
}

impl Cap {
    /// Octets of IP packets used in the period, as of the last reading.
    pub fn used(&self) -> u64 {
        let extra = |merged: u64, base: u64, (headers, rest): (u64, u64)| {
            (u128::from(merged.saturating_sub(base)) * u128::from(headers)).div_ceil(u128::from(rest)) as u64
        };
        (self.carried)
            .saturating_add(self.reading.passed.saturating_sub(self.base.passed))
            .saturating_add(extra(self.reading.merged4, self.base.merged4, PART_V4))
            .saturating_add(extra(self.reading.merged6, self.base.merged6, PART_V6))
    }

    /// Octets left in the period, as of the last reading.
    pub fn remaining(&self) -> u64 {
        if self.spent { 0 } else { self.bytes.saturating_sub(self.used()) }
    }

    /// What the kernel has of it.
    pub fn state(&self) -> &CapState {
        &self.state
    }

    /// Takes over a newer reading.
    pub fn read(&mut self, reading: Reading) {
        self.reading = reading;
    }

    /// Grants the next part of what is left.
    fn grant(&mut self) {
        let left = self.bytes.saturating_sub(self.used());
        let part = left.min((self.bytes / PARTS).max(LEAST_GRANT));
        // As if all of it came in merged packets, with the longer headers; what that was too careful is granted later.
        let counted = if part <= u64::from(MERGED) { part } else { part / (PART_V6.0 + PART_V6.1) * PART_V6.1 };
        self.granted = self.granted.max(self.used() + part);
        let limit = self.reading.passed.saturating_add(self.reading.spilled).saturating_add(counted);
        self.state = CapState { limit, last: left <= LEAST_LEFT };
        self.spent = left == 0;
    }

    /// Begins the period that `moment` is in; so much was used of it already.
    fn begin(&mut self, moment: &Moment, carried: u64) {
        (self.start, self.turns) = (self.period.start(moment), self.period.next(moment));
        (self.carried, self.granted) = (carried, 0);
        self.base = self.reading;
        self.grant();
    }

    /// The period was over some time ago. What passed since is not known apart from what passed before, so all of it
    /// counts in the new one, unless it can only be a moment's.
    fn turn(&mut self, moment: &Moment) {
        let late = moment.utc - self.turns > MOMENT;
        self.begin(moment, if late { self.used() } else { 0 });
    }

    /// Follows a policy: another size, period or zone. What was used counts on, and a clock that was set back does not
    /// give anything back.
    fn follow(&mut self, bytes: u64, period: Period, moment: &Moment) {
        let same = self.bytes == bytes && self.period == period;
        let begun = period.start(moment);
        if self.turns <= moment.utc && self.period == period {
            self.bytes = bytes;
            self.turn(moment);
        } else if !same || begun > self.start {
            (self.bytes, self.period) = (bytes, period);
            let ahead = self.start > moment.utc;
            let used = self.used();
            let (start, turns) = (self.start, self.turns);
            self.begin(moment, used);
            if ahead {
                (self.start, self.turns) = (start.max(self.start), turns.max(self.turns));
            }
        }
    }

    fn record(&self, id: CapId) -> CapRecord {
        CapRecord {
            id,
            host: self.host.clone(),
            pattern: self.pattern.clone(),
            period: self.period,
            start: self.start,
            granted: self.granted,
            carried: self.carried,
            base: self.base,
        }
    }
}

/// A change of one cap: write the record, then give the kernel the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub id: CapId,
    /// For the disk; first.
    pub record: CapRecord,
    /// For the kernel.
    pub state: CapState,
    /// What becomes of packets over the limit changes too.
    pub over_too: bool,
}

type Key = (HostName, Pattern);

/// The use of a cap that is not in force (any more), or whose counters are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Past {
    period: Period,
    start: DateTime<Utc>,
    used: u64,
}

/// All caps.
#[derive(Clone, Debug, Default)]
pub struct Caps {
    caps: BTreeMap<CapId, Cap>,
    by_key: HashMap<Key, CapId>,
    past: HashMap<Key, Past>,
    next: u32,
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
        held: impl Fn(CapId) -> Option<(u64, Reading)>,
    ) -> Self {
        for record in records {
            self.next = self.next.max(record.id.0.saturating_add(1));
            let key = (record.host.clone(), record.pattern.clone());
            let Some((limit, reading)) = held(record.id) else {
                self.past.insert(key, Past { period: record.period, start: record.start, used: record.granted });
                continue;
            };
            self.by_key.insert(key, record.id);
            let cap = Cap {
                host: record.host,
                pattern: record.pattern,
                // The policy says it; until then nothing is left.
                bytes: 0,
                period: record.period,
                path: Pointer("".into()),
                start: record.start,
                turns: record.period.next(&Moment { utc: record.start, zone }),
                spent: false,
                carried: record.carried,
                base: record.base,
                reading,
                granted: record.granted,
                state: CapState { limit, last: false },
            };
            self.caps.insert(record.id, cap);
        }
        self
    }

    /// The disk's record was no good at `now`.
    #[must_use]
    pub fn lost(mut self, now: DateTime<Utc>) -> Self {
        self.lost = Some(now);
        self
    }

    /// The caps in force.
    pub fn iter(&self) -> impl Iterator<Item = (CapId, &Cap)> {
        self.caps.iter().map(|(id, cap)| (*id, cap))
    }

    /// One cap.
    pub fn get(&self, id: CapId) -> Option<&Cap> {
        self.caps.get(&id)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.caps.is_empty()
    }

    /// The number of a cap in force.
    pub fn id(&self, host: &HostName, pattern: &Pattern) -> Option<CapId> {
        self.by_key.get(&(host.clone(), pattern.clone())).copied()
    }

    /// Takes over newer readings.
    pub fn read(&mut self, readings: impl IntoIterator<Item = (CapId, Reading)>) {
        for (id, reading) in readings {
            if let Some(cap) = self.caps.get_mut(&id) {
                cap.read(reading);
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
        let mut next = Self { caps: BTreeMap::new(), by_key: HashMap::new(), ..self.clone() };
        let mut records = Vec::new();
        for (name, host) in &policy.hosts {
            for (pattern, cap) in &host.caps {
                let key = (name.clone(), pattern.clone());
                let old = self.by_key.get(&key).and_then(|id| Some((*id, self.caps.get(id)?)));
                let (bytes, period) = (cap.value.bytes, cap.value.period);
                let (id, fresh) = match old {
                    Some((id, old)) => {
                        let mut same = Cap { path: cap.path.clone(), ..old.clone() };
                        same.follow(bytes, period, moment);
                        (id, same)
                    }
                    None => {
                        let id = CapId(next.next);
                        next.next = next.next.saturating_add(1);
                        (id, self.create(&key, bytes, period, &cap.path, moment))
                    }
                };
                if old.is_none_or(|(_, old)| old.state != fresh.state || old.start != fresh.start) {
                    records.push(fresh.record(id));
                }
                next.past.remove(&key);
                next.by_key.insert(key, id);
                next.caps.insert(id, fresh);
            }
        }
        for cap in self.caps.iter().filter(|(id, _)| !next.caps.contains_key(id)).map(|(_, cap)| cap) {
            let past = Past { period: cap.period, start: cap.start, used: cap.used() };
            next.past.insert((cap.host.clone(), cap.pattern.clone()), past);
        }
        next.past.retain(|_, past| past.period.start(moment) <= past.start);
        (next, records)
    }

    fn create(&self, (host, pattern): &Key, bytes: u64, period: Period, path: &Pointer, moment: &Moment) -> Cap {
        let past = self.past.get(&(host.clone(), pattern.clone()));
        let mut cap = Cap {
            host: host.clone(),
            pattern: pattern.clone(),
            bytes,
            period,
            path: path.clone(),
            start: moment.utc,
            turns: moment.utc,
            spent: false,
            carried: 0,
            base: Reading::default(),
            reading: Reading::default(),
            granted: 0,
            state: CapState { limit: 0, last: false },
        };
        cap.begin(moment, 0);
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

    /// A cap stopped a packet: what is granted further. `None`: nothing, it is spent.
    pub fn stopped(&mut self, id: CapId, reading: Reading) -> Option<Change> {
        let cap = self.caps.get_mut(&id)?;
        cap.read(reading);
        if cap.state.last || cap.spent {
            cap.spent = true;
            return None;
        }
        let before = cap.state.clone();
        cap.grant();
        Some(Change { id, record: cap.record(id), over_too: before.last != cap.state.last, state: cap.state.clone() })
    }

    /// The caps whose period is over: their counters are to be read.
    pub fn due(&self, now: DateTime<Utc>) -> Vec<CapId> {
        self.iter().filter(|(_, cap)| cap.turns <= now).map(|(id, _)| id).collect()
    }

    /// Begins the periods that `moment` is in, where those of the given caps are over.
    pub fn turn(&mut self, ids: &[CapId], moment: &Moment) -> Vec<Change> {
        let mut changes = Vec::new();
        for id in ids {
            let Some(cap) = self.caps.get_mut(id).filter(|cap| cap.turns <= moment.utc) else { continue };
            let before = cap.state.last;
            cap.turn(moment);
            let over_too = before != cap.state.last;
            changes.push(Change { id: *id, record: cap.record(*id), state: cap.state.clone(), over_too });
        }
        changes
    }

    /// When the next period is over.
    pub fn next_turn(&self) -> Option<DateTime<Utc>> {
        self.caps.values().map(|cap| cap.turns).min()
    }

    /// What the disk should hold: everything that counts still.
    pub fn records(&self) -> Vec<CapRecord> {
        let past = self.past.iter().map(|((host, pattern), past)| CapRecord {
            id: CapId(0),
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
