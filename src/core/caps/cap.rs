//! One cap: its arithmetic.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plan::meter::{CapCounters, CapId, CapState};
use crate::plan::table::MERGED;
use crate::policy::model::{HostName, Period, Pointer};
use crate::policy::name::Pattern;
use crate::policy::schedule::Moment;

/// A grant is this part of the cap …
const PARTS: u64 = 8;
/// … but at least so many octets: eight of the longest packets.
const LEAST_GRANT: u64 = 512 * 1024;
/// The longest packet, octets. A grant that is no longer is the last one: the packet that was stopped may be one of these.
const LONGEST: u64 = 65_536;
/// Headers of one part of a merged packet: IPv4 or IPv6, TCP with timestamps (RFC 7323); and what else is in it if the
/// whole has 1280 octets, the least that every IPv6 link carries (RFC 8200 section 5).
const PART_V4: (u64, u64) = (52, 1280 - 52);
const PART_V6: (u64, u64) = (72, 1280 - 72);

/// What the kernel counted for a cap.
pub type Reading = CapCounters<u64>;

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
    /// Octets used in the period, as of a reading that was certainly taken in it.
    before: u64,
    pub(super) state: CapState,
}

/// A cap for people and scripts: `status`, `explain`, `telemetry`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CapUse {
    /// Whose.
    pub host: String,
    /// For what: the domain as the policy says it.
    pub domain: String,
    /// Octets in a period.
    pub bytes: u64,
    /// How often it turns.
    pub period: String,
    /// Octets used.
    pub used: u64,
    /// Octets left; 0 when it is used up, also where less than the longest packet is left.
    pub remaining: u64,
    /// When it turns, RFC 3339.
    pub resets_at: DateTime<Utc>,
}

/// What these octets are on the wire if all of them came in merged packets, with the longer headers.
fn as_merged(counted: u64) -> u64 {
    counted.saturating_add((u128::from(counted) * u128::from(PART_V6.0)).div_ceil(u128::from(PART_V6.1)) as u64)
}

impl Cap {
    /// The state as of the last reading.
    pub fn usage(&self) -> CapUse {
        CapUse {
            host: self.host.to_string(),
            domain: self.pattern.to_string(),
            bytes: self.bytes,
            period: self.period.word().to_owned(),
            used: self.used().min(self.bytes),
            remaining: self.remaining(),
            resets_at: self.turns,
        }
    }

    /// A cap of which nothing was used.
    pub(super) fn new(
        host: HostName,
        pattern: Pattern,
        bytes: u64,
        period: Period,
        path: Pointer,
        moment: &Moment,
    ) -> Self {
        let record = CapRecord {
            id: CapId(0),
            host,
            pattern,
            period,
            start: moment.utc,
            granted: 0,
            carried: 0,
            base: Reading::default(),
        };
        let mut cap =
            Self { bytes, path, ..Self::resume(record, moment.zone, CapState::default(), Reading::default()) };
        cap.begin(moment, 0);
        cap
    }

    /// A cap as disk and kernel have it. Its size is for the policy to say; until then nothing is left.
    pub(super) fn resume(record: CapRecord, zone: Tz, state: CapState, reading: Reading) -> Self {
        Self {
            host: record.host,
            pattern: record.pattern,
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
            before: 0,
            state,
        }
    }

    /// Octets of IP packets used in the period, as of the last reading.
    pub fn used(&self) -> u64 {
        self.used_by(&self.reading)
    }

    fn used_by(&self, reading: &Reading) -> u64 {
        let extra = |merged: u64, base: u64, (headers, rest): (u64, u64)| {
            (u128::from(merged.saturating_sub(base)) * u128::from(headers)).div_ceil(u128::from(rest)) as u64
        };
        (self.carried)
            .saturating_add(reading.passed.saturating_sub(self.base.passed))
            .saturating_add(extra(reading.merged4, self.base.merged4, PART_V4))
            .saturating_add(extra(reading.merged6, self.base.merged6, PART_V6))
    }

    /// Octets left in the period, as of the last reading.
    pub fn remaining(&self) -> u64 {
        if self.spent { 0 } else { self.bytes.saturating_sub(self.used()) }
    }

    /// What the kernel has of it.
    pub fn state(&self) -> &CapState {
        &self.state
    }

    /// Takes over a newer reading that was complete at `now`.
    pub fn read(&mut self, reading: Reading, now: DateTime<Utc>) {
        if now < self.turns {
            // No more than what was used then: of the counters that are read last the value from the time before.
            let Reading { merged4, merged6, .. } = self.reading;
            self.before = self.used_by(&Reading { merged4, merged6, ..reading });
        }
        self.reading = reading;
    }

    /// All that was granted counts as used.
    pub(super) fn presume(&mut self) {
        // No less than what the kernel's limits allow, since all of that was granted.
        let left = self.granted.saturating_sub(self.used());
        self.reading.passed = self.reading.passed.saturating_add(left);
        self.reading.over = self.reading.over.max(self.state.rest);
    }

    /// What the kernel's counters say, or should say.
    pub fn reading(&self) -> Reading {
        self.reading
    }

    /// Grants the next part of what is left.
    pub(super) fn grant(&mut self) {
        let left = self.bytes.saturating_sub(self.used());
        let part = left.min((self.bytes / PARTS).max(LEAST_GRANT));
        // As if all of it came in merged packets, with the longer headers; what that was too careful is granted later.
        let counted = if part <= u64::from(MERGED) { part } else { part / (PART_V6.0 + PART_V6.1) * PART_V6.1 };
        let last = counted <= LONGEST;
        let Reading { passed, spilled, over, .. } = self.reading;
        let charged = passed.saturating_add(spilled);
        // What may pass under the old limits until the new ones are there.
        let unmet = self.state.limit.saturating_sub(charged);
        let meanwhile = unmet.saturating_add(self.state.rest.saturating_sub(over));
        self.granted = self.granted.max(self.used().saturating_add(part.max(as_merged(meanwhile))));
        // Of the last part nothing is kept back: beyond it comes the end. Otherwise any packet must fit into the first
        // limit alone, or it would be dropped for ever; and what passes meanwhile below the old first limit is charged to
        // the new first one only.
        let rest = if last { 0 } else { (counted / 2).min(counted - LONGEST).min(counted.saturating_sub(unmet)) };
        let limit = charged.saturating_add(counted - rest);
        self.state = CapState { limit, rest: over.saturating_add(rest), last, ..self.state };
        self.spent = left == 0;
    }

    /// Begins the period that `moment` is in; so much was used of it already.
    pub(super) fn begin(&mut self, moment: &Moment, carried: u64) {
        (self.start, self.turns) = (self.period.start(moment), self.period.next(moment));
        (self.carried, self.granted, self.before) = (carried, 0, carried);
        self.base = self.reading;
        self.grant();
    }

    /// The period is over. What passed since the last reading that was taken in it may have passed after its end, so it
    /// counts in the new one; so does all of it if the old period lies in the new one.
    pub(super) fn turn(&mut self, moment: &Moment) {
        let before = if self.period.start(moment) > self.start { self.before } else { 0 };
        self.begin(moment, self.used().saturating_sub(before));
    }

    /// Follows a policy: another size, period or zone. What was used counts on, and a clock that was set back does not
    /// give anything back.
    pub(super) fn follow(&mut self, bytes: u64, period: Period, moment: &Moment) {
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
        } else if self.start <= moment.utc {
            // In another zone the period began earlier; so it ends earlier, too.
            self.turns = self.turns.min(period.next(moment));
        }
    }

    pub(super) fn record(&self, id: CapId) -> CapRecord {
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
