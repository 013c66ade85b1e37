//! Doors: the classes that the kernel holds open, each until the next window closes.
//!
//! A class without a door is remembered, and its flows are refused. The end of a door is the timeout of its element, so
//! the kernel shuts it by itself at the closing edge, whether or not this process still lives.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::classes::{self, Class, Classes, Way};
use super::egress::Egress;
use crate::plan::ids::HostId;
use crate::plan::ir::{Ident, Key, Value};
use crate::plan::meter::Meter;
use crate::plan::ops::Op;
use crate::plan::snapshot::{Openness, Snapshot};
use crate::plan::table::names;
use crate::policy::model::HostName;

/// A point in time on both clocks that matter: leases end by the one that never steps, windows by the one on the wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since some moment; never steps.
    pub ms: u64,
    /// The wall clock.
    pub utc: DateTime<Utc>,
}

impl From<u64> for Now {
    /// Clocks that agree: both began at the epoch.
    fn from(ms: u64) -> Self {
        let since = TimeDelta::milliseconds(i64::try_from(ms).unwrap_or(i64::MAX));
        Self { ms, utc: DateTime::UNIX_EPOCH + since }
    }
}

/// An open door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// Whose.
    pub host: HostId,
    /// Why its flows may pass.
    pub way: Way,
    /// What the host's packets meet on their way out.
    pub meter: Meter,
    /// When it shuts; `None`: no window will shut it.
    pub until: Option<DateTime<Utc>>,
}

/// The open doors by class.
pub type Doors = BTreeMap<u32, Door>;

/// The door of a class at an instant. `None`: it is shut.
pub fn door(class: &Class, snapshot: &Snapshot, egress: &Egress, utc: DateTime<Utc>) -> Option<Door> {
    if class.way == Way::Monitored {
        return Some(Door { host: class.host, way: class.way, meter: Meter::default(), until: None });
    }
    let until = match snapshot.openness(class.host, &class.names, utc) {
        Openness::Closed => return None,
        Openness::Until(until) => Some(until),
        Openness::Always => None,
    };
    Some(Door { host: class.host, way: class.way, meter: egress.meter(class.host, &class.caps, class.recheck), until })
}

/// The class of what `allow.ips` lets through.
pub fn net_class(host: HostId, way: Way) -> Class {
    Class::new(host, way, BTreeSet::new(), BTreeSet::new())
}

/// The classes of what `allow.ips` lets through, by way and host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nets {
    /// Where the host opens the flow.
    pub outbound: BTreeMap<HostId, u32>,
    /// Where somebody outside opens it.
    pub inbound: BTreeMap<HostId, u32>,
    /// Where nothing is enforced, and it would have been refused.
    pub monitored: BTreeMap<HostId, u32>,
}

impl Nets {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (u32, HostId, Way)> {
        let outbound = self.outbound.iter().map(|(host, id)| (*id, *host, Way::Nets));
        let inbound = self.inbound.iter().map(|(host, id)| (*id, *host, Way::Inbound));
        outbound.chain(inbound).chain(self.monitored.iter().map(|(host, id)| (*id, *host, Way::Monitored)))
    }

    /// The class of a host's flows of that way.
    pub fn get(&self, host: HostId, way: Way) -> Option<u32> {
        match way {
            Way::Named => None,
            Way::Nets => self.outbound.get(&host).copied(),
            Way::Inbound => self.inbound.get(&host).copied(),
            Way::Monitored => self.monitored.get(&host).copied(),
        }
    }
}

/// All doors that are open at an instant.
pub fn open(classes: &Classes, nets: &Nets, snapshot: &Snapshot, egress: &Egress, utc: DateTime<Utc>) -> Doors {
    let named = classes.iter().filter_map(|(id, class)| Some((id, door(class, snapshot, egress, utc)?)));
    let nets =
        nets.iter().filter_map(|(id, host, way)| Some((id, door(&net_class(host, way), snapshot, egress, utc)?)));
    named.chain(nets).collect()
}

/// What writes the elements of doors: the classes, and the hosts' names.
pub struct Scribe<'a> {
    /// The classes.
    pub classes: &'a Classes,
    /// The name of a host.
    pub host: &'a dyn Fn(HostId) -> Option<&'a HostName>,
    /// Now.
    pub utc: DateTime<Utc>,
}

impl Scribe<'_> {
    /// The elements of `up` and `down` that are a door. Only what the agent sends is measured.
    pub fn elements(&self, id: u32, door: &Door) -> [(Key, Value); 2] {
        let unmeasured = Meter { recheck: door.meter.recheck, ..Meter::default() };
        let (up, down) = match door.way {
            Way::Named | Way::Nets | Way::Monitored => (&door.meter, &unmeasured),
            Way::Inbound => (&unmeasured, &door.meter),
        };
        let host = (self.host)(door.host);
        [up, down].map(|meter| {
            let (key, mut value) = match self.classes.get(id) {
                Some(class) => classes::element(id, class, meter.verdict(), host),
                None => classes::element(id, &net_class(door.host, door.way), meter.verdict(), host),
            };
            let left = |until: DateTime<Utc>| u64::try_from((until - self.utc).num_milliseconds()).unwrap_or(0).max(1);
            value.timeout_ms = door.until.map(left);
            (key, value)
        })
    }
}

/// The operations between two states of the doors: what opens or changes, and what shuts.
pub fn difference(old: &Doors, new: &Doors, scribe: &Scribe<'_>) -> (Vec<Op>, Vec<Op>) {
    let mut replaced = Vec::new();
    let mut come: [Vec<(Key, Value)>; 2] = [Vec::new(), Vec::new()];
    for (id, door) in new.iter().filter(|(id, door)| old.get(id) != Some(door)) {
        if old.contains_key(id) {
            replaced.push(Key::Mark(*id));
        }
        for (come, element) in come.iter_mut().zip(scribe.elements(*id, door)) {
            come.push(element);
        }
    }
    let gone: Vec<Key> = old.keys().filter(|id| !new.contains_key(id)).map(|id| Key::Mark(*id)).collect();
    let (mut switch, mut remove) = (Vec::new(), Vec::new());
    for (map, come) in [names::UP, names::DOWN].into_iter().zip(come) {
        let map: Ident = map.into();
        if !replaced.is_empty() {
            switch.push(Op::DelElements(map.clone(), replaced.clone()));
        }
        if !come.is_empty() {
            switch.push(Op::AddElements(map.clone(), come));
        }
        if !gone.is_empty() {
            remove.push(Op::DelElements(map, gone.clone()));
        }
    }
    (switch, remove)
}
