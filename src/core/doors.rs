//! Doors: the classes that the kernel holds open, each until the next window closes.
//!
//! A class without a door is remembered, and its flows are refused. The end of a door is the timeout of its element, so
//! the kernel shuts it by itself at the closing edge, whether or not this process still lives.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::classes::{self, Class, Classes, Way};
use super::egress::Egress;
use crate::plan::ids::HostId;
use crate::plan::ir::{Data, Ident, Key, Value, Verdict};
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
    /// The elements of each of [`MAPS`] that are a door; `None`: it has none there.
    pub fn elements(&self, id: u32, door: &Door) -> [Option<(Key, Value)>; MAPS.len()] {
        let host = (self.host)(door.host);
        door.verdicts().map(|verdict| {
            let (key, mut value) = match self.classes.get(id) {
                Some(class) => classes::element(id, class, verdict?, host),
                None => classes::element(id, &net_class(door.host, door.way), verdict?, host),
            };
            let left = |until: DateTime<Utc>| u64::try_from((until - self.utc).num_milliseconds()).unwrap_or(0).max(1);
            value.timeout_ms = door.until.map(left);
            Some((key, value))
        })
    }
}

/// The maps in which doors have elements. The first two open; the others count what passed behind what the first two
/// lead to.
pub const MAPS: [&str; 4] = [names::UP, names::DOWN, names::SENT_UP, names::SENT_DOWN];

impl Door {
    /// What stands in each of [`MAPS`]. Only what the agent sends is measured.
    pub fn verdicts(&self) -> [Option<Verdict>; MAPS.len()] {
        let unmeasured = Meter { recheck: self.meter.recheck, ..Meter::default() };
        let (up, down) = match self.way {
            Way::Named | Way::Nets | Way::Monitored => (&self.meter, &unmeasured),
            Way::Inbound => (&unmeasured, &self.meter),
        };
        let sent = |verdict: &Verdict| (self.is_counted_behind(verdict)).then_some(Verdict::Accept);
        let (up, down) = (up.verdict(), down.verdict());
        let behind = [sent(&up), sent(&down)];
        let [sent_up, sent_down] = behind;
        [Some(up), Some(down), sent_up, sent_down]
    }

    /// Packets are accepted elsewhere: behind limits, or where they would have been refused.
    fn is_counted_behind(&self, verdict: &Verdict) -> bool {
        *verdict != Verdict::Accept || self.way == Way::Monitored
    }
}

/// The operations between two states of the doors: what opens or changes, and what shuts.
pub fn difference(old: &Doors, new: &Doors, scribe: &Scribe<'_>) -> (Vec<Op>, Vec<Op>) {
    let (mut switch, mut remove) = (Vec::new(), Vec::new());
    let mut replaced: [Vec<Key>; MAPS.len()] = Default::default();
    let mut come: [Vec<(Key, Value)>; MAPS.len()] = Default::default();
    let mut gone: [Vec<Key>; MAPS.len()] = Default::default();
    for (id, door) in new.iter().filter(|(id, door)| old.get(id) != Some(door)) {
        let before = old.get(id);
        let had = before.map(Door::verdicts).unwrap_or_default();
        let stays = before.is_some_and(|before| before.until == door.until);
        for (place, element) in scribe.elements(*id, door).into_iter().enumerate() {
            match (element, &had[place]) {
                // What is as it was goes on counting.
                (Some((_, value)), Some(had)) if stays && value.data == Data::Verdict(had.clone()) => {}
                (Some(element), had) => {
                    replaced[place].extend(had.as_ref().map(|_| Key::Mark(*id)));
                    come[place].push(element);
                }
                (None, Some(_)) => gone[place].push(Key::Mark(*id)),
                (None, None) => {}
            }
        }
    }
    for (id, door) in old.iter().filter(|(id, _)| !new.contains_key(id)) {
        for (gone, _) in gone.iter_mut().zip(door.verdicts()).filter(|(_, had)| had.is_some()) {
            gone.push(Key::Mark(*id));
        }
    }
    for (place, map) in MAPS.into_iter().enumerate() {
        let map: Ident = map.into();
        let take = |keys: &mut Vec<Key>| std::mem::take(keys);
        if !replaced[place].is_empty() {
            switch.push(Op::DelElements(map.clone(), take(&mut replaced[place])));
        }
        if !come[place].is_empty() {
            switch.push(Op::AddElements(map.clone(), std::mem::take(&mut come[place])));
        }
        if !gone[place].is_empty() {
            remove.push(Op::DelElements(map, take(&mut gone[place])));
        }
    }
    (switch, remove)
}
