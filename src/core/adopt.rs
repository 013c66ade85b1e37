//! What the kernel holds and what it should hold: taking over an earlier process's table, and repairing one that
//! somebody else changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta};

use super::caps::Caps;
use super::classes::{self, Class, Said, Way};
use super::doors::{Door, MAPS, Now, Scribe};
use super::egress::Egress;
use super::state::{Lease, State, World, lease_value};
use crate::plan::ids::HostId;
use crate::plan::ir::{Data, Family, Key, Object, Set, Verdict};
use crate::plan::meter::{CapId, Meter};
use crate::plan::ops::{Delta, Op, Table, diff};
use crate::plan::situation::Situation;
use crate::plan::table::{names, table};
use crate::policy::model::{HostName, Policy};

impl State {
    /// What the kernel should hold at `now`.
    pub fn expected(&self, now: impl Into<Now>) -> Table {
        let Now { ms: now, utc } = now.into();
        let mut table = self.fixed.clone();
        let scribe = Scribe { classes: &self.classes, host: &|id| self.host_name(id), utc };
        for (id, door) in self.doors.iter().filter(|(_, door)| door.until.is_none_or(|until| until > utc)) {
            for (map, element) in MAPS.into_iter().zip(scribe.elements(*id, door)) {
                if let (Some(set), Some((key, value))) = (table.sets.get_mut(map), element) {
                    set.elements.insert(key, value);
                }
            }
        }
        for (id, cap) in self.caps.iter() {
            // Where they must be made anew, they go on from what is known. The kernel takes no quota of which more was used
            // than its limit; if less used were written instead, a later limit would let the difference through.
            let (reading, state) = (cap.reading(), cap.state());
            let charged = reading.passed.saturating_add(reading.spilled);
            for (name, limit, used) in
                [(names::cap(id), state.limit, charged), (names::rest(id), state.rest, reading.over)]
            {
                table.objects.insert(name, Object::Quota { limit: limit.max(used), used });
            }
            let counters = names::cap_counters(id).into_array().into_iter().zip(reading.into_array());
            for (name, bytes) in counters {
                table.objects.insert(name, Object::Counter { packets: 0, bytes });
            }
        }
        for ((host, address), lease) in self.leases.iter().filter(|(_, lease)| lease.until > now) {
            if let Some(set) = table.sets.get_mut(&names::of("dst", Family::of(*address))) {
                let value = lease_value(lease.class, lease.until, now);
                set.elements.insert(Key::MarkAddress(u32::from(host.0), *address), value);
            }
        }
        table
    }

    /// The transactions that make the kernel hold what it should, given what it holds. Timeouts are not compared.
    pub fn repair(&self, held: &Table, now: impl Into<Now>) -> Delta {
        let mut expected = self.expected(now);
        let timed = expected.clone();
        let mut held = held.clone();
        for set in expected.sets.values_mut().chain(held.sets.values_mut()) {
            if !is_lease_map(set) {
                continue;
            }
            for value in set.elements.values_mut() {
                value.timeout_ms = None;
            }
        }
        for (name, object) in &mut expected.objects {
            // What is there goes on as it is.
            if let (Object::Quota { limit, .. }, Some(Object::Quota { limit: set, .. }), true) =
                (object, self.fixed.objects.get(name), held.objects.contains_key(name))
            {
                *limit = *set;
            }
        }
        let mut delta = diff(&held, &expected);
        for op in &mut delta.switch {
            if let Op::AddElements(name, elements) = op
                && let Some(set) = timed.sets.get(name).filter(|set| is_lease_map(set))
            {
                let timed = elements.iter().filter_map(|(key, _)| Some((*key, set.elements.get(key)?.clone())));
                *op = Op::PutElements(name.clone(), timed.collect());
            }
        }
        delta.add_table();
        delta
    }

    /// Takes over what an earlier process left in the kernel: hosts, classes and leases, from the table itself.
    /// What cannot be read is not taken over, so its flows are judged anew.
    ///
    /// `last` is the policy that the earlier process enforced, if it is known: then flows need not be judged anew
    /// where the next policy says the same.
    pub fn adopt(held: &Table, last: Option<(&Policy, &World)>, first_class: u32, now: impl Into<Now>) -> Self {
        let Now { ms: now, utc } = now.into();
        let mut state = Self::new(first_class);
        let elements = |name: &str| held.sets.get(name).map(|set| &set.elements);
        for (key, value) in elements(names::HOSTS).into_iter().flatten() {
            if let (Key::Mark(id), Some(comment)) = (key, &value.comment)
                && let Ok(id) = u16::try_from(*id)
            {
                state.hosts.insert(HostName(comment.clone()), HostId(id));
                state.next_host = state.next_host.max(id.saturating_add(1));
            }
        }
        for (name, nets) in [
            (names::NET_CLASS, &mut state.nets.outbound),
            (names::INBOUND_CLASS, &mut state.nets.inbound),
            (names::MONITOR_CLASS, &mut state.nets.monitored),
        ] {
            for (key, value) in elements(name).into_iter().flatten() {
                if let (Key::Mark(host), Data::Mark(class)) = (key, &value.data)
                    && let Ok(host) = u16::try_from(*host)
                {
                    nets.insert(HostId(host), *class);
                    state.classes.insert_number(*class);
                }
            }
        }
        let charged = charged_classes(held);
        for (key, value) in elements(names::UP).into_iter().flatten() {
            let Key::Mark(id) = key else { continue };
            state.classes.insert_number(*id);
            let until = value.timeout_ms.map(|left| utc + TimeDelta::milliseconds(i64::try_from(left).unwrap_or(0)));
            let Some(down) = elements(names::DOWN).and_then(|down| down.get(key)) else { continue };
            let Some(Said { host, names: set, .. }) = value.comment.as_deref().and_then(classes::read_comment) else {
                continue;
            };
            let host =
                if host == "*" { Some(HostId::NOBODY) } else { state.hosts.get(&HostName(host.into())).copied() };
            let Some(host) = host else { continue };
            let net = [Way::Nets, Way::Inbound, Way::Monitored]
                .into_iter()
                .find(|way| state.nets.get(host, *way) == Some(*id));
            let capped = charged.get(id).map(|(way, _)| *way);
            let Some(way) = net.or(capped).or((!set.is_empty()).then_some(Way::Named)) else { continue };
            let verdict = if way == Way::Inbound { &down.data } else { &value.data };
            let Some(meter) = read_meter(held, verdict, host) else { continue };
            if net.is_none() {
                let mut class = Class::new(host, way, set, meter.caps.clone());
                class.recheck = meter.recheck.is_some();
                class.until = if way == Way::Named { now } else { u64::MAX };
                state.classes.insert(*id, class);
            }
            state.doors.insert(*id, Door { host, way, meter, until });
        }
        for family in Family::BOTH {
            for (key, value) in elements(&names::of("dst", family)).into_iter().flatten() {
                if let Data::Mark(id) = &value.data {
                    state.classes.insert_number(*id);
                }
                if let (Key::MarkAddress(host, address), Data::Mark(id), Some(left)) =
                    (key, &value.data, value.timeout_ms)
                    && let (Ok(host), Some(class)) = (u16::try_from(*host), state.classes.get(*id))
                {
                    let until = now + left;
                    let names = class.names.iter().map(|name| (name.clone(), until)).collect();
                    state.classes.extend(*id, until, &[]);
                    state.leases.insert((HostId(host), *address), Lease { names, class: *id, until });
                }
            }
        }
        state.recount();
        state.charged.resume(
            charged.iter().filter_map(|(id, (_, addresses))| {
                let class = state.classes.get(*id)?;
                Some((class.host, class.caps.clone(), addresses.as_slice()))
            }),
            now,
        );
        state.fixed = held.clone();
        for name in ["dst4", "dst6"] {
            if let Some(set) = state.fixed.sets.get_mut(name) {
                set.elements.clear();
            }
        }
        for (place, name) in MAPS.into_iter().enumerate() {
            let has = |door: &Door| door.verdicts()[place].is_some();
            if let Some(set) = state.fixed.sets.get_mut(name) {
                // What is not taken over stays in the picture, so that the next revision removes it.
                let doors = &state.doors;
                let known = |key: &Key| matches!(key, Key::Mark(id) if doors.get(id).is_some_and(has));
                set.elements.retain(|key, _| !known(key));
            }
            // An element is missing, as in a table of an earlier version: the next revision puts the door anew.
            for (id, door) in state.doors.iter_mut().filter(|(_, door)| has(door)) {
                if elements(name).and_then(|all| all.get(&Key::Mark(*id))).is_none() {
                    door.until = Some(DateTime::UNIX_EPOCH);
                }
            }
        }
        state.judged = last.map_or_else(|| held.clone(), |(policy, world)| state.rebuild(policy, world));
        if !same_sets(&state.judged, held) {
            state.judged = held.clone();
        }
        state
    }

    /// Takes over what was used of caps. `last`: the policy that the earlier process enforced, if it is known.
    pub fn resume_caps(&mut self, caps: Caps, last: Option<&Policy>) {
        let egress = last.map(|policy| Egress::of(policy, &caps, |name| self.hosts.get(name).copied()));
        (self.caps, self.egress) = (caps, Arc::new(egress.unwrap_or_default()));
    }

    /// The table that a policy gives with the numbers that this state has.
    fn rebuild(&self, policy: &Policy, world: &World) -> Table {
        let situation = Situation {
            hosts: self.hosts.clone(),
            net_classes: self.nets.outbound.clone(),
            inbound_classes: self.nets.inbound.clone(),
            monitored: self.nets.monitored.clone(),
            meters: BTreeSet::new(),
            caps: BTreeMap::new(),
            capped: BTreeMap::new(),
            recheck: BTreeSet::new(),
            dns4: world.dns4,
            dns6: world.dns6,
            dns_ports: world.dns_ports.clone(),
            guarded: world.guarded.clone(),
            keep_tracking: world.keep_tracking,
            reports: world.reports,
        };
        table(policy, &situation)
    }
}

/// What the verdict of an element says about its class. `None`: it leads to no chain of ours.
fn read_meter(held: &Table, verdict: &Data, host: HostId) -> Option<Meter> {
    let chain = match verdict {
        Data::Verdict(Verdict::Accept) => return Some(Meter::default()),
        Data::Verdict(Verdict::Goto(chain)) if *chain == names::recheck(host) => {
            return Some(Meter { recheck: Some(host), ..Meter::default() });
        }
        Data::Verdict(Verdict::Goto(chain)) => chain,
        _ => return None,
    };
    let caps: BTreeSet<CapId> =
        held.chains.get(chain)?.rules.iter().filter_map(|rule| names::read_cap(&rule.comment)).collect();
    // The chain's name is a digest, so it proves the rest.
    let all = [None, Some(host)].into_iter().flat_map(|rate| [false, true].map(|all| (rate, all)));
    let all = all.flat_map(|(rate, all)| [None, Some(host)].map(|recheck| (rate, all, recheck)));
    all.map(|(rate, all, recheck)| Meter { rate, all, caps: caps.clone(), recheck })
        .find(|meter| meter.chain() == *chain)
}

/// The classes of addresses that `allow.ips` opens and caps are charged for.
fn charged_classes(held: &Table) -> BTreeMap<u32, (Way, Vec<IpAddr>)> {
    let mut found: BTreeMap<u32, (Way, Vec<IpAddr>)> = BTreeMap::new();
    for (name, set) in &held.sets {
        let Some((inbound, _)) = names::read_capped_class(name) else { continue };
        let way = if inbound { Way::Inbound } else { Way::Nets };
        for (key, value) in &set.elements {
            if let (Key::Address(address), Data::Mark(class)) = (key, &value.data) {
                found.entry(*class).or_insert_with(|| (way, Vec::new())).1.push(*address);
            }
        }
    }
    found
}

/// Whether a set is one that leases write and the kernel ages.
fn is_lease_map(set: &Set) -> bool {
    set.spec.timeout
}

/// Whether the static sets of `ours` are in `held`, element by element.
fn same_sets(ours: &Table, held: &Table) -> bool {
    ours.sets
        .iter()
        .filter(|(name, set)| !is_lease_map(set) && !name.starts_with(names::CAPPED))
        .all(|(name, set)| held.sets.get(name).is_some_and(|other| other.elements == set.elements))
}
