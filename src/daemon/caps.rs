//! Exfil caps at work: what the kernel tells, what the disk keeps, what is granted next.

mod book;
mod listen;

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use tracing::{error, info, warn};

pub use self::book::Book;
pub use self::listen::listen;
use super::answer::Office;
use super::gate::Gate;
use super::protocol::Check;
use super::status::check;
use crate::core::caps::{CapRecord, CapUse, Caps, Change, Reading, Stopped};
use crate::nft::{Held, HeldObject, Kernel, KernelError, Options};
use crate::plan::ir::{Ident, ObjectKind};
use crate::plan::meter::{CapId, CapState};
use crate::plan::ops::Op;
use crate::plan::table::{names, set_cap};
use crate::policy::Policy;
use crate::policy::schedule::Moment;

/// Caps that are read and changed together; between two such groups answers go out.
const GROUP: usize = 128;
/// If at least one in so many caps is to be read, all objects are read at once instead of one by one.
const MANY: usize = 8;
/// How long before a turn its caps are read, and so much more for each of them.
const LEAD: TimeDelta = TimeDelta::milliseconds(10);
const LEAD_OF_EACH: TimeDelta = TimeDelta::microseconds(50);
/// When a turn is tried again that disk or kernel refused.
const AGAIN_LATER: TimeDelta = TimeDelta::seconds(1);

/// The next turn, and which of its caps were not read yet.
#[derive(Debug, Default)]
pub struct Ahead {
    turn: Option<DateTime<Utc>>,
    unread: Vec<CapId>,
}

/// The limits that the kernel has for a cap.
fn state(held: &Held, id: CapId) -> Option<CapState> {
    let limit = |name| match held.objects.get(&name)? {
        HeldObject::Quota { limit, .. } => Some(*limit),
        _ => None,
    };
    Some(CapState { limit: limit(names::cap(id))?, rest: limit(names::rest(id))?, last: false, lenient: false })
}

/// What a dump says that the kernel counted for a cap.
fn reading(held: &Held, id: CapId) -> Option<Reading> {
    let mut octets = [0; 5];
    for (octets, name) in octets.iter_mut().zip(names::cap_counters(id).into_array()) {
        match held.objects.get(&name)? {
            HeldObject::Counter { bytes, .. } => *octets = *bytes,
            _ => return None,
        }
    }
    Some(Reading::from_array(octets))
}

/// What the kernel counts for a cap, one counter after the other.
fn read_one(kernel: &mut Kernel, id: CapId) -> Result<Option<Reading>, KernelError> {
    let mut octets = [0; 5];
    for (octets, name) in octets.iter_mut().zip(names::cap_counters(id).into_array()) {
        match kernel.object(&name, ObjectKind::Counter)? {
            Some(HeldObject::Counter { bytes, .. }) => *octets = bytes,
            _ => return Ok(None),
        }
    }
    Ok(Some(Reading::from_array(octets)))
}

/// Whether what the kernel charged a cap has met its first limit.
fn is_over(object: Option<&HeldObject>) -> Option<bool> {
    match object? {
        HeldObject::Quota { limit, used } => Some(used >= limit),
        _ => None,
    }
}

impl Gate {
    /// Reads what the kernel counted for these caps.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn read_caps(&mut self, ids: &[CapId]) -> Result<(), KernelError> {
        let mut readings = Vec::with_capacity(ids.len());
        if self.are_many(ids) {
            let held = Held { objects: self.kernel.objects()?.into_iter().collect(), ..Held::default() };
            readings.extend(ids.iter().filter_map(|id| Some((*id, reading(&held, *id)?))));
        } else {
            for id in ids {
                readings.extend(read_one(&mut self.kernel, *id)?.map(|reading| (*id, reading)));
            }
        }
        self.state.caps.read(readings, Utc::now());
        Ok(())
    }

    fn are_many(&self, ids: &[CapId]) -> bool {
        ids.len() * MANY >= self.state.caps.len()
    }

    /// The same, and whether what was charged has met the first limit.
    fn read_limits(&mut self, ids: &[CapId]) -> Result<Vec<(CapId, bool, Reading)>, KernelError> {
        let mut read = Vec::with_capacity(ids.len());
        if self.are_many(ids) {
            let held = Held { objects: self.kernel.objects()?.into_iter().collect(), ..Held::default() };
            let one = |id: &CapId| Some((*id, is_over(held.objects.get(&names::cap(*id)))?, reading(&held, *id)?));
            read.extend(ids.iter().filter_map(one));
        } else {
            for id in ids {
                let over = is_over(self.kernel.object(&names::cap(*id), ObjectKind::Quota)?.as_ref());
                read.extend(over.zip(read_one(&mut self.kernel, *id)?).map(|(over, reading)| (*id, over, reading)));
            }
        }
        Ok(read)
    }

    /// All caps as of now.
    pub fn read_all_caps(&mut self) -> Result<(), KernelError> {
        self.read_caps(&self.state.caps.ids())
    }

    /// Before a policy: what it changes or takes away is read, so that the use counts on.
    pub(super) fn read_touched(&mut self, policy: &Policy) {
        let zones = |policy: &Policy| policy.time_zone.as_ref().map(|zone| zone.value);
        let moved = self.policy.as_ref().is_none_or(|old| zones(old) != zones(policy));
        let ids = if moved { self.state.caps.ids() } else { self.state.caps.touched(policy) };
        // A cap that cannot be read counts as used up to what was granted.
        if self.read_caps(&ids).is_err() {
            self.state.caps.presume(ids);
        }
    }

    /// Writes what must be on the disk before the kernel gets it.
    pub(super) fn keep_records(
        &mut self,
        records: &[CapRecord],
        all: impl FnOnce() -> Vec<CapRecord>,
    ) -> Result<(), String> {
        let before = self.book.failing.clone();
        let written = self.book.write(records, all);
        if let Some(failing) = self.book.failing.as_ref().filter(|now| before.as_ref() != Some(*now)) {
            error!("{failing}");
        }
        written
    }

    /// Packets came beyond these caps' first limits: more is granted, or they are used up.
    pub fn caps_stopped(&mut self, ids: &[CapId]) {
        let ids = self.without_due(ids);
        if ids.is_empty() {
            return;
        }
        let read = match self.read_limits(&ids) {
            Ok(read) => read,
            Err(error) => {
                ids.iter().for_each(|id| self.state.caps.look_again(*id));
                return warn!("exfil caps cannot be read, so nothing more is granted: {error}");
            }
        };
        let now = Utc::now();
        let mut caps = self.state.caps.clone();
        let (mut changes, mut again, mut spent) = (Vec::new(), Vec::new(), Vec::new());
        for (id, over, reading) in read {
            match caps.stopped(id, reading, over, now) {
                Stopped::Unknown => {}
                Stopped::Again(state) => again.extend(set_cap(id, &state, false)),
                Stopped::Spent => spent.push(id),
                Stopped::More(change) => changes.push(change),
            }
        }
        let records: Vec<CapRecord> = changes.iter().map(|change| change.record.clone()).collect();
        let kept = self.keep_records(&records, || caps.records());
        let looked = if kept.is_ok() { self.set_caps(caps, changes, again) } else { self.refuse_caps(&changes) };
        if let Err(error) = looked {
            ids.iter().for_each(|id| self.state.caps.look_again(*id));
            warn!("the kernel did not take the limits of exfil caps; they stay as they were: {error}");
        }
        for id in spent {
            self.tell_spent(id);
        }
    }

    /// Of a period that is over nothing more is granted: the next one begins. Those of which none did.
    fn without_due(&mut self, ids: &[CapId]) -> Vec<CapId> {
        let Some(policy) = self.policy.clone() else { return Vec::new() };
        let moment = Moment::of(&policy, Utc::now(), self.world.zone);
        let is_due = |id: &CapId| self.state.caps.get(*id).is_some_and(|cap| cap.turns <= moment.utc);
        let (due, running): (Vec<CapId>, Vec<CapId>) = ids.iter().copied().partition(is_due);
        match self.turn(&due, &moment) {
            Ok(()) => running,
            Err(_) => ids.to_vec(),
        }
    }

    /// Without the record nothing is granted, and whoever waits is told so.
    fn refuse_caps(&mut self, refused: &[Change]) -> Result<(), KernelError> {
        let mut caps = self.state.caps.clone();
        let changes = refused.iter().filter_map(|change| caps.refuse(change.id)).collect();
        self.set_caps(caps, changes, Vec::new())
    }

    /// The kernel gets new limits, and others again as they are.
    fn set_caps(&mut self, caps: Caps, changes: Vec<Change>, again: Vec<Op>) -> Result<(), KernelError> {
        let mut ops = self.state.set_caps(&changes);
        ops.extend(again);
        self.kernel.commit(&ops)?;
        self.state.caps = caps;
        self.state.caps_set(&changes);
        Ok(())
    }

    fn tell_spent(&mut self, id: CapId) {
        let Some(cap) = self.state.caps.get(id) else { return };
        info!(
            "exfil cap used up: {} has sent {} of {} bytes to {} in this {}; it turns at {}",
            cap.host,
            cap.used(),
            cap.bytes,
            cap.pattern,
            cap.period.word(),
            cap.turns.format("%Y-%m-%d %H:%M:%S UTC")
        );
    }

    /// Begins the periods that are due, a group at a time. Gives when to come again. Where disk or kernel refuse, caps stay
    /// as they were, and that is said by whoever fails.
    ///
    /// Shortly before a turn the caps are read, because what passed since the last reading counts in the next period: the
    /// turn is noticed late by a moment, and nothing tells what passed in it.
    pub fn turn_caps(&mut self) -> Option<DateTime<Utc>> {
        let moment = Moment::of(self.policy.as_deref()?, Utc::now(), self.world.zone);
        let mut due = self.state.caps.due(moment.utc);
        if !due.is_empty() {
            due.truncate(GROUP);
            return match self.turn(&due, &moment) {
                Ok(()) => self.state.caps.next_turn(),
                Err(_) => Some(moment.utc + AGAIN_LATER),
            };
        }
        let turn = self.state.caps.next_turn()?;
        if self.ahead.turn != Some(turn) {
            self.ahead = Ahead { turn: Some(turn), unread: self.state.caps.turning(turn) };
        }
        let some = self.ahead.unread.len().saturating_sub(GROUP);
        let lead = LEAD + LEAD_OF_EACH * i32::try_from(self.ahead.unread.len()).unwrap_or(i32::MAX);
        if self.ahead.unread.is_empty() || moment.utc < turn - lead {
            return Some(if self.ahead.unread.is_empty() { turn } else { turn - lead });
        }
        let group = self.ahead.unread.split_off(some);
        // Twice, because of each reading only the counters that are read first are sure to be of before its end.
        let read = self.read_caps(&group).and_then(|()| self.read_caps(&group));
        if let Err(error) = read {
            warn!("exfil caps cannot be read before their turn: {error}");
        }
        Some(moment.utc)
    }

    fn turn(&mut self, due: &[CapId], moment: &Moment) -> Result<(), String> {
        if due.is_empty() {
            return Ok(());
        }
        self.read_caps(due).map_err(|error| error.what)?;
        let mut caps = self.state.caps.clone();
        let changes = caps.turn(due, moment);
        let records: Vec<CapRecord> = changes.iter().filter_map(|change| change.kept()).collect();
        self.keep_records(&records, || caps.records())?;
        self.set_caps(caps, changes, Vec::new()).map_err(|error| error.what)
    }

    /// Caps that were refused because the disk took no record, and such about which the kernel did not answer.
    pub fn retry_caps(&mut self) {
        self.caps_stopped(&self.state.caps.waiting());
    }

    /// Every cap is looked at: something may have happened that nobody heard of. False: the kernel did not say.
    pub fn look_at_caps(&mut self) -> bool {
        let Ok(objects) = self.kernel.objects() else { return false };
        let over = |(name, object): (Ident, HeldObject)| match object {
            HeldObject::Quota { limit, used } if used >= limit => names::read_cap(&name),
            _ => None,
        };
        let stopped: BTreeSet<CapId> = objects.into_iter().filter_map(over).collect();
        let stopped: Vec<CapId> = stopped.into_iter().filter(|id| self.state.caps.may_have_more(*id)).collect();
        stopped.chunks(GROUP).for_each(|some| self.caps_stopped(some));
        true
    }
}

/// The caps with their use, and what is wrong with the ledger. The counters are read beside the gate, because those of
/// ten thousand caps take a while.
pub async fn usage(office: &Arc<Office>) -> (Vec<CapUse>, Option<Check>) {
    let Ok((caps, trouble)) = office.gate.run(|gate| (gate.state.caps.clone(), gate.book.told(&gate.state.caps))).await
    else {
        return (Vec::new(), None);
    };
    let trouble = trouble.map(|trouble| check("caps", false, trouble));
    if caps.is_empty() {
        return (Vec::new(), trouble);
    }
    let read = move || {
        let objects = Kernel::open(Options::default()).and_then(|mut kernel| kernel.objects());
        let held = Held { objects: objects?.into_iter().collect(), ..Held::default() };
        let mut caps = caps;
        let ids: Vec<CapId> = caps.iter().map(|(id, _)| id).collect();
        caps.read(ids.into_iter().filter_map(|id| Some((id, reading(&held, id)?))), Utc::now());
        Ok::<_, KernelError>(caps.iter().map(|(_, cap)| cap.usage()).collect::<Vec<_>>())
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(used)) => {
            let spent = used.iter().filter(|cap| cap.remaining == 0).count();
            let said = format!("{} exfil caps, {spent} used up", used.len());
            (used, Some(trouble.unwrap_or_else(|| check("caps", true, said))))
        }
        Ok(Err(error)) => (Vec::new(), Some(check("caps", false, error.to_string()))),
        Err(error) => (Vec::new(), Some(check("caps", false, error.to_string()))),
    }
}
