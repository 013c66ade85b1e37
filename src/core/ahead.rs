//! What can be done before a revision that has live flows judged at each packet.
//!
//! Where a revision changes the sources, the denied addresses or the ports of a host, what its live flows met when they began
//! says nothing any more, and the element of each of its classes is written anew. For ten thousand classes the kernel
//! needs most of a second in one transaction, and leases wait meanwhile. The rules that are still in force let these
//! flows pass, so they may as well be judged by those: piece by piece, with leases in between.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::classes::{Class, Way};
use super::doors::{self, Door, Doors, Scribe};
use super::state::State;
use crate::plan::ids::HostId;
use crate::plan::meter::Meter;
use crate::plan::ops::Op;
use crate::policy::model::HostName;

/// Some classes, to be judged at each packet.
#[must_use]
#[derive(Debug)]
pub struct Rechecked {
    /// One transaction.
    pub ops: Vec<Op>,
    /// The last of them.
    pub last: u32,
    classes: Vec<u32>,
    doors: Doors,
}

impl State {
    /// From the next [`State::enforce`] on, the table has what flows of these hosts are judged by.
    pub fn recheck_soon(&mut self, hosts: BTreeSet<HostId>) {
        self.rechecking = hosts;
    }

    /// Whether a class can be made ready: its flows are not judged at each packet yet, and meet no limits. Limits have chains
    /// of their own, also where a window has shut the door and will open it again; they are left to the revision.
    pub(super) fn can_be_ready(&self, id: u32, class: &Class) -> bool {
        class.way == Way::Named
            && !class.recheck
            && self.egress.meter(class.host, &class.caps, false).is_free()
            && self.doors.get(&id).is_none_or(|door| door.meter.is_free())
    }

    /// At most `most` classes of those hosts with numbers above `after` and below `end` that can be made ready. `None`: there
    /// are no more. Without an end, an agent that asks for ever new names would hold up the revision.
    pub fn recheck(&self, after: u32, end: u32, most: usize, utc: DateTime<Utc>) -> Option<Rechecked> {
        let due = self.classes.after(after).take_while(|(id, _)| *id < end).filter(|(id, class)| {
            // What the kernel has shut by itself must not be opened again.
            let is_shut = self.doors.get(id).and_then(|door| door.until).is_some_and(|until| until <= utc);
            self.rechecking.contains(&class.host) && !is_shut && self.can_be_ready(*id, class)
        });
        let classes: Vec<u32> = due.map(|(id, _)| id).take(most).collect();
        let last = *classes.last()?;
        let old: Doors = classes.iter().filter_map(|id| Some((*id, self.doors.get(id)?.clone()))).collect();
        let judged =
            |door: &Door| Door { meter: Meter { recheck: Some(door.host), ..Meter::default() }, ..door.clone() };
        let doors: Doors = old.iter().map(|(id, door)| (*id, judged(door))).collect();
        let names: BTreeMap<HostId, &HostName> = self.hosts.iter().map(|(name, id)| (*id, name)).collect();
        let scribe = Scribe { classes: &self.classes, host: &|id| names.get(&id).copied(), utc };
        let (mut ops, shut) = doors::difference(&old, &doors, &scribe);
        ops.extend(shut);
        Some(Rechecked { ops, last, classes, doors })
    }

    /// The kernel has taken what [`State::recheck`] said.
    pub fn rechecked(&mut self, done: Rechecked) {
        done.classes.iter().for_each(|id| self.classes.set_recheck(*id));
        self.doors.extend(done.doors);
    }
}
