//! Exfil caps at work: what the kernel tells, what the disk keeps, what is granted next.

mod book;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tracing::{error, info, warn};

pub use self::book::Book;
use super::answer::Office;
use super::gate::Gate;
use super::handle::{EndsTheProcess, Handle};
use super::protocol::Check;
use super::status::check;
use crate::core::caps::{CapRecord, CapUse, Caps, Change, Reading, Stopped};
use crate::nft::{Event, Held, HeldObject, Kernel, KernelError, Options, Watch};
use crate::plan::ir::ObjectKind;
use crate::plan::meter::{CapId, CapState};
use crate::plan::table::{names, set_cap};
use crate::policy::Policy;
use crate::policy::schedule::Moment;

/// Caps whose periods begin in one transaction; between two of them answers go out.
const TURNS: usize = 512;
/// From so many caps on, all objects are read at once instead of one by one.
const MANY: usize = 256;
/// After an error on the watching socket.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(500);

/// The limits that the kernel has for a cap.
fn state(held: &Held, id: CapId) -> Option<CapState> {
    let limit = |name| match held.objects.get(&name)? {
        HeldObject::Quota { limit, .. } => Some(*limit),
        _ => None,
    };
    Some(CapState { limit: limit(names::cap(id))?, rest: limit(names::rest(id))?, last: false })
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
fn is_over(kernel: &mut Kernel, id: CapId) -> Result<Option<bool>, KernelError> {
    Ok(match kernel.object(&names::cap(id), ObjectKind::Quota)? {
        Some(HeldObject::Quota { limit, used }) => Some(used >= limit),
        _ => None,
    })
}

impl Gate {
    /// Reads what the kernel counted for these caps.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn read_caps(&mut self, ids: &[CapId]) -> Result<(), KernelError> {
        let mut readings = Vec::with_capacity(ids.len());
        if ids.len() >= MANY {
            let held = Held { objects: self.kernel.objects()?.into_iter().collect(), ..Held::default() };
            readings.extend(ids.iter().filter_map(|id| Some((*id, reading(&held, *id)?))));
        } else {
            for id in ids {
                readings.extend(read_one(&mut self.kernel, *id)?.map(|reading| (*id, reading)));
            }
        }
        self.state.caps.read(readings);
        Ok(())
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

    /// A packet came beyond a cap's first limit: more is granted, or it is used up.
    pub fn cap_stopped(&mut self, id: CapId) {
        // Of a period that is over nothing more is granted.
        if let Some(policy) = self.policy.clone() {
            let moment = Moment::of(&policy, Utc::now(), self.world.zone);
            let due = self.state.caps.get(id).is_some_and(|cap| cap.turns <= moment.utc);
            if due && self.turn(&[id], &moment).is_ok() {
                return;
            }
        }
        let read = is_over(&mut self.kernel, id).and_then(|over| Ok(over.zip(read_one(&mut self.kernel, id)?)));
        let (over, reading) = match read {
            Ok(Some(read)) => read,
            Ok(None) => return,
            Err(error) => {
                self.state.caps.look_again(id);
                return warn!("a cap cannot be read, so nothing more is granted: {error}");
            }
        };
        let mut caps = self.state.caps.clone();
        match caps.stopped(id, reading, over) {
            Stopped::Unknown => {}
            Stopped::Again(state) => {
                if self.kernel.commit(&set_cap(id, &state, false)).is_err() {
                    self.state.caps.look_again(id);
                }
            }
            Stopped::Spent => {
                self.state.caps = caps;
                self.tell_spent(id);
            }
            Stopped::More(change) => {
                let kept = self.keep_records(std::slice::from_ref(&change.record), || caps.records());
                let set = if kept.is_ok() { self.set_caps(caps, vec![change]) } else { self.refuse_cap(id) };
                if set.is_err() {
                    self.state.caps.look_again(id);
                    warn!("the kernel did not take a cap's new limit; it stays as it was");
                }
            }
        }
    }

    /// Without the record nothing is granted, and whoever waits is told so.
    fn refuse_cap(&mut self, id: CapId) -> Result<(), KernelError> {
        let mut caps = self.state.caps.clone();
        let change = caps.refuse(id);
        self.set_caps(caps, change.into_iter().collect())
    }

    fn set_caps(&mut self, caps: Caps, changes: Vec<Change>) -> Result<(), KernelError> {
        let ops = self.state.set_caps(&changes);
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

    /// Begins the periods that are due, some at a time. Gives when to come again.
    ///
    /// # Errors
    /// Disk or kernel refused: those caps stay as they were.
    pub(super) fn turn_caps(&mut self, moment: &Moment) -> Result<Option<DateTime<Utc>>, String> {
        let mut due = self.state.caps.due(moment.utc);
        due.truncate(TURNS);
        self.turn(&due, moment)?;
        Ok(self.state.caps.next_turn())
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
        self.set_caps(caps, changes).map_err(|error| error.what)
    }

    /// Caps that were refused because the disk took no record, and caps that met their limit unseen.
    pub fn retry_caps(&mut self) {
        for id in self.state.caps.waiting() {
            self.cap_stopped(id);
        }
    }

    /// Every cap is looked at: something may have happened that nobody heard of.
    pub fn look_at_caps(&mut self) {
        let Ok(objects) = self.kernel.objects() else { return };
        for (name, object) in objects {
            if let (HeldObject::Quota { limit, used }, Some(id)) = (object, names::read_cap(&name))
                && used >= limit
            {
                self.cap_stopped(id);
            }
        }
    }
}

/// The caps with their use, and what is wrong with the ledger. The counters are read beside the gate, because those of
/// ten thousand caps take a while.
pub async fn usage(office: &Arc<Office>) -> (Vec<CapUse>, Option<Check>) {
    let Ok((caps, trouble)) = office
        .gate
        .run(|gate| (gate.state.caps.clone(), gate.book.told(&gate.state.caps)))
        .await
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
        caps.read(ids.into_iter().filter_map(|id| Some((id, reading(&held, id)?))));
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

/// Listens for caps that are used up. Its thread ends with the process.
pub fn listen(gate: Handle) {
    let runtime = tokio::runtime::Handle::current();
    let work = move || {
        let _guard = EndsTheProcess("the watch over exfil caps");
        let Ok(port) = runtime.block_on(gate.run(|gate| gate.kernel().port())) else { return };
        loop {
            let mut watch = match Watch::open(port) {
                Ok(watch) => watch,
                Err(error) => {
                    error!("cannot hear when exfil caps are used up: {error}");
                    std::thread::sleep(AGAIN);
                    continue;
                }
            };
            // Whatever happened while nobody listened.
            if runtime.block_on(gate.run(Gate::look_at_caps)).is_err() {
                return;
            }
            while let Ok(event) = watch.wait() {
                let heard = match event {
                    Event::UsedUp(name) => match names::read_cap(&name) {
                        Some(id) => runtime.block_on(gate.run(move |gate| gate.cap_stopped(id))),
                        None => continue,
                    },
                    Event::Lost => runtime.block_on(gate.run(Gate::look_at_caps)),
                    Event::Changed(_) | Event::Deleted(_) => continue,
                };
                if heard.is_err() {
                    return;
                }
            }
            std::thread::sleep(AGAIN);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("caps".into()).spawn(work) {
        error!("cannot hear when exfil caps are used up: {error}");
    }
}
