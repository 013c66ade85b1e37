//! Doors: the classes that the kernel holds open, each until the next window closes.
//!
//! A class without a door is remembered, and its flows are refused. The end of a door is the timeout of its element, so
//! the kernel shuts it by itself at the closing edge, whether or not this process still lives.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::classes::{self, Class, Classes};
use crate::plan::ids::HostId;
use crate::plan::ir::{Ident, Key, Value};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    /// Whose.
    pub host: HostId,
    /// Its flows are judged again at each packet.
    pub recheck: bool,
    /// When it shuts; `None`: no window will shut it.
    pub until: Option<DateTime<Utc>>,
}

/// The open doors by class.
pub type Doors = BTreeMap<u32, Door>;

/// The door of a class at an instant. `None`: it is shut.
pub fn door(class: &Class, snapshot: &Snapshot, utc: DateTime<Utc>) -> Option<Door> {
    let until = match snapshot.openness(class.host, &class.names, utc) {
        Openness::Closed => return None,
        Openness::Until(until) => Some(until),
        Openness::Always => None,
    };
    Some(Door { host: class.host, recheck: class.recheck, until })
}

/// The class of what `allow.ips` lets through.
pub fn net_class(host: HostId) -> Class {
    Class { host, names: Default::default(), links: Default::default(), recheck: false, until: 0 }
}

/// All doors that are open at an instant.
pub fn open(classes: &Classes, nets: &BTreeMap<HostId, u32>, snapshot: &Snapshot, utc: DateTime<Utc>) -> Doors {
    let named = classes.iter().filter_map(|(id, class)| Some((id, door(class, snapshot, utc)?)));
    let nets = nets.iter().filter_map(|(host, id)| Some((*id, door(&net_class(*host), snapshot, utc)?)));
    named.chain(nets).collect()
}

/// The element of `up` and `down` that is a door.
pub fn element(id: u32, door: &Door, classes: &Classes, host: Option<&HostName>, utc: DateTime<Utc>) -> (Key, Value) {
    let (key, mut value) = match classes.get(id) {
        Some(class) => classes::element(id, class, host),
        None => classes::element(id, &net_class(door.host), host),
    };
    value.timeout_ms = door.until.map(|until| u64::try_from((until - utc).num_milliseconds()).unwrap_or(0).max(1));
    (key, value)
}

/// The operations between two states of the doors: what opens or changes, and what shuts.
pub fn difference(old: &Doors, new: &Doors, element: impl Fn(u32, &Door) -> (Key, Value)) -> (Vec<Op>, Vec<Op>) {
    let mut replaced = Vec::new();
    let mut come = Vec::new();
    for (id, door) in new.iter().filter(|(id, door)| old.get(id) != Some(door)) {
        if old.contains_key(id) {
            replaced.push(Key::Mark(*id));
        }
        come.push(element(*id, door));
    }
    let gone: Vec<Key> = old.keys().filter(|id| !new.contains_key(id)).map(|id| Key::Mark(*id)).collect();
    let (mut switch, mut remove) = (Vec::new(), Vec::new());
    for map in [names::UP, names::DOWN] {
        let map: Ident = map.into();
        if !replaced.is_empty() {
            switch.push(Op::DelElements(map.clone(), replaced.clone()));
        }
        if !come.is_empty() {
            switch.push(Op::AddElements(map.clone(), come.clone()));
        }
        if !gone.is_empty() {
            remove.push(Op::DelElements(map, gone.clone()));
        }
    }
    (switch, remove)
}
