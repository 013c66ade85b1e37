//! What the kernel holds and what it should hold: taking over an earlier process's table, and repairing one that
//! somebody else changed.

use std::collections::BTreeSet;

use chrono::TimeDelta;

use super::classes::{self, Class};
use super::doors::{self, Door, Now};
use super::state::{Lease, State, World, lease_value};
use crate::plan::ids::HostId;
use crate::plan::ir::{Data, Family, Key, Set, Verdict};
use crate::plan::ops::{Delta, Op, Table, diff};
use crate::plan::situation::Situation;
use crate::plan::table::{names, table};
use crate::policy::model::{HostName, Policy};

impl State {
    /// What the kernel should hold at `now`.
    pub fn expected(&self, now: impl Into<Now>) -> Table {
        let Now { ms: now, utc } = now.into();
        let mut table = self.fixed.clone();
        for map in [names::UP, names::DOWN] {
            if let Some(set) = table.sets.get_mut(map) {
                for (id, door) in self.doors.iter().filter(|(_, door)| door.until.is_none_or(|until| until > utc)) {
                    let (key, value) = doors::element(*id, door, &self.classes, self.host_name(door.host), utc);
                    set.elements.insert(key, value);
                }
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
        let mut delta = diff(&held, &expected);
        for op in &mut delta.switch {
            if let Op::AddElements(name, elements) = op
                && let Some(set) = timed.sets.get(name).filter(|set| is_lease_map(set))
            {
                let timed = elements.iter().filter_map(|(key, _)| Some((*key, set.elements.get(key)?.clone())));
                *op = Op::PutElements(name.clone(), timed.collect());
            }
        }
        delta.switch.insert(0, Op::AddTable);
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
        for (key, value) in elements(names::NET_CLASS).into_iter().flatten() {
            if let (Key::Mark(host), Data::Mark(class)) = (key, &value.data)
                && let Ok(host) = u16::try_from(*host)
            {
                state.net_classes.insert(HostId(host), *class);
                state.classes.insert_number(*class);
            }
        }
        for (key, value) in elements(names::UP).into_iter().flatten() {
            let Key::Mark(id) = key else { continue };
            state.classes.insert_number(*id);
            let recheck = matches!(&value.data, Data::Verdict(Verdict::Goto(_)));
            let until = value.timeout_ms.map(|left| utc + TimeDelta::milliseconds(i64::try_from(left).unwrap_or(0)));
            let down = elements(names::DOWN).is_some_and(|down| down.contains_key(key));
            let Some((host, set)) = value.comment.as_deref().and_then(classes::read_comment) else { continue };
            let host =
                if host == "*" { Some(HostId::NOBODY) } else { state.hosts.get(&HostName(host.into())).copied() };
            if let (Some(host), true) = (host, down)
                && (!set.is_empty() || state.net_classes.get(&host) == Some(id))
            {
                state.doors.insert(*id, Door { host, recheck, until });
            }
            if let (Some(host), true, false) = (host, down, set.is_empty()) {
                state.classes.insert(*id, Class { host, names: set, links: BTreeSet::new(), recheck, until: now });
            }
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
        state.fixed = held.clone();
        for name in ["dst4", "dst6"] {
            if let Some(set) = state.fixed.sets.get_mut(name) {
                set.elements.clear();
            }
        }
        for name in [names::UP, names::DOWN] {
            if let Some(set) = state.fixed.sets.get_mut(name) {
                // What is not taken over stays in the picture, so that the next revision removes it.
                let doors = &state.doors;
                set.elements.retain(|key, _| !matches!(key, Key::Mark(id) if doors.contains_key(id)));
            }
        }
        state.judged = last.map_or_else(|| held.clone(), |(policy, world)| state.rebuild(policy, world));
        if !same_sets(&state.judged, held) {
            state.judged = held.clone();
        }
        state
    }

    /// The table that a policy gives with the numbers that this state has.
    fn rebuild(&self, policy: &Policy, world: &World) -> Table {
        let situation = Situation {
            hosts: self.hosts.clone(),
            net_classes: self.net_classes.clone(),
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

/// Whether a set is one that leases write and the kernel ages.
fn is_lease_map(set: &Set) -> bool {
    set.spec.timeout
}

/// Whether the static sets of `ours` are in `held`, element by element.
fn same_sets(ours: &Table, held: &Table) -> bool {
    ours.sets
        .iter()
        .filter(|(_, set)| !is_lease_map(set))
        .all(|(name, set)| held.sets.get(name).is_some_and(|other| other.elements == set.elements))
}
