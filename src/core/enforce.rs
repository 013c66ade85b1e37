//! A new revision: what changes in the kernel, which flows end, which leases go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::caps::{CapRecord, Caps};
use super::changes::Changes;
use super::classes::{Class, Classes, Way};
use super::doors::{self, Doors, Nets, Now, Scribe};
use super::egress::Egress;
use super::metering::{Charged, meters};
use super::state::{Lease, Past, State, World, lease_value};
use crate::plan::ids::HostId;
use crate::plan::ir::{Family, Key, Value};
use crate::plan::ops::{Delta, Op, Table, diff};
use crate::plan::prepared::Prepared;
use crate::plan::situation::Situation;
use crate::plan::snapshot::Snapshot;
use crate::plan::table::{names, table_of};
use crate::policy::decision::Verdict as Decided;
use crate::policy::model::{HostName, Policy};
use crate::policy::name::Name;
use crate::policy::schedule::Moment;

/// A revision on its way: what to commit, and what the state becomes when the kernel has taken it.
#[must_use]
#[derive(Debug)]
pub struct Pending {
    /// The transactions, one after the other; with the switch the revision is in force.
    pub delta: Delta,
    /// For the DNS server, from the moment the kernel has the switch.
    pub snapshot: Arc<Snapshot>,
    /// How many classes end with it: their flows are cut.
    pub cut: usize,
    /// Classes without limits whose flows are judged at each packet from now on.
    pub rechecks: usize,
    /// Whose they are.
    pub rechecked: BTreeSet<HostId>,
    /// The use of caps as it must be on disk before anything of the delta is committed.
    pub records: Vec<CapRecord>,
    next: Box<Next>,
}

#[derive(Debug)]
struct Next {
    hosts: BTreeMap<HostName, HostId>,
    next_host: u16,
    fixed: Table,
    classes: Classes,
    nets: Nets,
    doors: Doors,
    egress: Arc<Egress>,
    caps: Caps,
    charged: Charged,
    leases: Vec<((HostId, std::net::IpAddr), Option<Lease>)>,
}

impl Pending {
    /// The use of all caps that will be in force.
    pub fn cap_records(&self) -> Vec<CapRecord> {
        self.next.caps.records()
    }
}

impl State {
    /// The transaction that puts `policy` in force as `revision` at `now`.
    pub fn enforce(&self, policy: &Policy, world: &World, revision: u64, now: impl Into<Now>) -> Pending {
        self.enforce_prepared(policy, &Prepared::of(policy), world, revision, now)
    }

    /// [`State::enforce`] for a policy whose lists are prepared already.
    pub fn enforce_prepared(
        &self,
        policy: &Policy,
        prepared: &Prepared,
        world: &World,
        revision: u64,
        now: impl Into<Now>,
    ) -> Pending {
        let now = now.into();
        let (hosts, next_host) = self.number_hosts(policy);
        let own = world.own.iter().copied();
        let snapshot = Arc::new(Snapshot::compile_of(policy, &prepared.indexes, &hosts, own, world.zone, revision));
        let names: BTreeMap<HostId, HostName> = hosts.iter().map(|(name, id)| (*id, name.clone())).collect();
        let mut classes = self.classes.clone();

        let moment = Moment::of(policy, now.utc, world.zone);
        let (caps, records) = self.caps.follow(policy, &moment);
        let egress = Arc::new(Egress::of(policy, &caps, |name| hosts.get(name).copied()));
        let mut charged = self.charged_again(&egress, &caps, now.ms);
        let mut situation = Situation {
            net_classes: net_classes(&self.nets.outbound, &hosts, &mut classes),
            inbound_classes: net_classes(&self.nets.inbound, &hosts, &mut classes),
            monitored: egress
                .monitored()
                .filter_map(|id| Some((id, self.nets.monitored.get(&id).copied().or_else(|| classes.fresh())?)))
                .collect(),
            caps: caps.iter().map(|(id, cap)| (id, cap.state().clone())).collect(),
            meters: BTreeSet::new(),
            capped: BTreeMap::new(),
            hosts,
            recheck: BTreeSet::new(),
            dns4: world.dns4,
            dns6: world.dns6,
            dns_ports: world.dns_ports.clone(),
            guarded: world.guarded.clone(),
            keep_tracking: world.keep_tracking,
            reports: world.reports,
        };
        // Built once to see whose rules change, then for good with the consequences of that.
        let changes =
            Changes::between(&self.judged, &table_of(policy, &prepared.lists, &situation), names.keys().copied());
        // Flows to addresses that allow.ips opens may be charged to other caps now.
        let judged_anew: BTreeSet<HostId> = changes.any.iter().chain(&egress.differs(&self.egress)).copied().collect();
        for id in &judged_anew {
            // A new class: flows that allow.ips let in, or that passed because nothing was enforced, are judged from the
            // start by the new rules. Their sources may belong to another host now.
            for (old, nets) in [
                (&self.nets.outbound, &mut situation.net_classes),
                (&self.nets.inbound, &mut situation.inbound_classes),
                (&self.nets.monitored, &mut situation.monitored),
            ] {
                if old.contains_key(id)
                    && let Some(own) = nets.get_mut(id)
                    && let Some(class) = classes.fresh()
                {
                    *own = class;
                }
            }
        }
        let (mut cut, mut rechecks, mut rechecked) = (0, 0, BTreeSet::new());
        let barred = self.barred(&snapshot);
        // All of whose names may go on: their leases need no second look.
        let mut whole = BTreeSet::new();
        for (id, class) in self.classes.iter() {
            if class.way != Way::Named {
                if judged_anew.contains(&class.host) {
                    classes.remove(id);
                }
                continue;
            }
            let allowed = allowed_names(class, &snapshot);
            if allowed > 0 && allowed == class.names.len() {
                whole.insert(id);
            }
            if barred.contains(&id) || allowed == 0 {
                cut += 1;
                classes.remove(id);
            } else if changes.guards.contains(&class.host) && !class.recheck {
                if self.can_be_ready(id, class) {
                    rechecks += 1;
                    rechecked.insert(class.host);
                }
                classes.set_recheck(id);
            }
        }
        for (id, class) in self.classes.iter() {
            let known = class.caps.iter().copied().filter(|cap| caps.get(*cap).is_some());
            let named = egress.caps_of(class.host, class.names.iter().chain(&class.links));
            classes.set_caps(id, known.chain(named).collect());
        }
        let known = Judged { barred: &barred, whole: &whole, charged: &charged };
        let (leases, puts, ended) = self.keep_leases(&snapshot, &egress, &known, &mut classes, now.ms);
        situation.capped = charged.open(&snapshot, &mut classes);
        let nets = Nets {
            outbound: situation.net_classes.clone(),
            inbound: situation.inbound_classes.clone(),
            monitored: situation.monitored.clone(),
        };
        let doors = doors::open(&classes, &nets, &snapshot, &egress, now.utc);
        situation.meters = meters(&classes, &nets, &egress);
        let judged = classes.iter().filter(|(_, class)| class.recheck).map(|(_, class)| class.host);
        situation.recheck = judged.chain(self.rechecking.iter().copied()).collect();

        let fixed = table_of(policy, &prepared.lists, &situation);
        let mut delta = diff(&self.fixed, &fixed);
        delta.add_table();
        let scribe = Scribe { classes: &classes, host: &|id| names.get(&id), utc: now.utc };
        let (open, shut) = doors::difference(&self.doors, &doors, &scribe);
        delta.switch.extend(open.into_iter().chain(puts));
        delta.remove.extend(shut.into_iter().chain(ended));
        let hosts = situation.hosts;
        let next = Next { hosts, next_host, fixed, classes, nets, doors, egress, caps, charged, leases };
        Pending { delta, snapshot, cut, rechecks, rechecked, records, next: Box::new(next) }
    }

    /// The kernel has taken the revision. Gives what it took the place of: that may be much, and takes a while to drop.
    pub fn enforced(&mut self, pending: Pending) -> Past {
        let Next { hosts, next_host, fixed, classes, nets, doors, egress, caps, charged, leases } = *pending.next;
        self.revision = pending.snapshot.revision;
        self.hosts = hosts;
        self.next_host = next_host;
        let judged = std::mem::replace(&mut self.judged, fixed.clone());
        let fixed = std::mem::replace(&mut self.fixed, fixed);
        let classes = std::mem::replace(&mut self.classes, classes);
        self.nets = nets;
        self.egress = egress;
        self.caps = caps;
        self.charged = charged;
        let doors = std::mem::replace(&mut self.doors, doors);
        let snapshot = self.snapshot.replace(pending.snapshot.clone());
        for (key, lease) in leases {
            match lease {
                Some(lease) => self.leases.insert(key, lease),
                None => self.leases.remove(&key),
            };
        }
        self.recount();
        Past(Box::new((judged, fixed, classes, doors, snapshot)))
    }

    /// The classes of leases at addresses that no answer may hold any more. Their flows are cut, also those to other
    /// addresses of the class: where these stay leased, such a flow finds its new class with the next packet.
    fn barred(&self, snapshot: &Snapshot) -> BTreeSet<u32> {
        let leases = self.leases.iter();
        let barred = leases.filter(|((host, address), _)| snapshot.denied_answer(*host, *address).is_some());
        barred.map(|(_, lease)| lease.class).collect()
    }

    /// Leases of which some names are not allowed any more: they go on under the other names, or end.
    #[allow(clippy::type_complexity)]
    fn keep_leases(
        &self,
        snapshot: &Snapshot,
        egress: &Egress,
        judged: &Judged<'_>,
        classes: &mut Classes,
        now: u64,
    ) -> (Vec<((HostId, std::net::IpAddr), Option<Lease>)>, Vec<Op>, Vec<Op>) {
        let mut changed = Vec::new();
        let mut puts: [Vec<(Key, Value)>; 2] = [Vec::new(), Vec::new()];
        let mut ended: [Vec<Key>; 2] = [Vec::new(), Vec::new()];
        for (key, lease) in &self.leases {
            let (host, address) = *key;
            // An answer that leads over a denied name would not be given now: what it opened goes with its flows.
            let class = self.classes.get(lease.class);
            let barred = judged.barred.contains(&lease.class) && snapshot.denied_answer(host, address).is_some();
            let is_whole = judged.whole.contains(&lease.class)
                && class.is_some_and(|class| {
                    class.host == host && lease.names.keys().all(|name| class.names.contains(name))
                });
            if is_whole && !barred && classes.get(lease.class).is_some() {
                continue;
            }
            let refused = barred || class.is_some_and(|class| over_denied(class, snapshot));
            let kept: BTreeMap<_, _> = lease
                .names
                .iter()
                .filter(|(name, _)| !refused && snapshot.decide_name(host, Some(name)).verdict == Decided::Allow)
                .map(|(name, until)| (name.clone(), *until))
                .collect();
            if kept.len() == lease.names.len() && classes.get(lease.class).is_some() {
                continue;
            }
            let until = kept.values().copied().max().unwrap_or(0);
            let set: BTreeSet<Name> = kept.keys().cloned().collect();
            let caps = &judged.charged.caps(host, address) | &egress.caps_of(host, &set);
            let links: Vec<Name> = class.map(|class| class.links.iter().cloned().collect()).unwrap_or_default();
            let class = if until > now { classes.of(Class::new(host, Way::Named, set, caps)) } else { None };
            let put = &mut puts[usize::from(!address.is_ipv4())];
            let element = Key::MarkAddress(u32::from(host.0), address);
            if let Some((id, _)) = class {
                classes.extend(id, until, &links);
                put.push((element, lease_value(id, until, now)));
                changed.push((*key, Some(Lease { names: kept, class: id, until })));
            } else {
                if lease.until > now {
                    ended[usize::from(!address.is_ipv4())].push(element);
                }
                changed.push((*key, None));
            }
        }
        let puts = Family::BOTH
            .into_iter()
            .zip(puts)
            .filter(|(_, elements)| !elements.is_empty())
            .map(|(family, elements)| Op::PutElements(names::of("dst", family), elements));
        let ended = Family::BOTH
            .into_iter()
            .zip(ended)
            .filter(|(_, keys)| !keys.is_empty())
            .map(|(family, keys)| Op::DelElements(names::of("dst", family), keys));
        (changed, puts.collect(), ended.collect())
    }

    /// Hosts keep their numbers; a new one gets the next that neither this policy nor the one in force has. Numbers come
    /// round again after some 65 000 new hosts: what the kernel still holds under an old one leads to dead classes.
    fn number_hosts(&self, policy: &Policy) -> (BTreeMap<HostName, HostId>, u16) {
        let mut taken: BTreeSet<HostId> = self.hosts.values().copied().collect();
        if taken.len() + policy.hosts.len() > NUMBERS {
            // Not enough for both: hosts that go with this revision leave theirs to those that come.
            taken = policy.hosts.keys().filter_map(|name| self.hosts.get(name)).copied().collect();
        }
        let mut next = self.next_host;
        let hosts = policy.hosts.keys().map(|name| {
            let id = self.hosts.get(name).copied().unwrap_or_else(|| {
                let mut id = HostId(next);
                while !taken.insert(id) {
                    id = id.0.checked_add(1).map_or(HostId::FIRST, HostId);
                }
                next = id.0.checked_add(1).unwrap_or(HostId::FIRST.0);
                id
            });
            (name.clone(), id)
        });
        (hosts.collect(), next)
    }
}

/// How many numbers there are for hosts; a policy has no more (see the parser).
const NUMBERS: usize = (u16::MAX - HostId::FIRST.0) as usize + 1;

/// Every host, and nobody, has a class for what `allow.ips` lets through.
fn net_classes(
    old: &BTreeMap<HostId, u32>,
    hosts: &BTreeMap<HostName, HostId>,
    classes: &mut Classes,
) -> BTreeMap<HostId, u32> {
    let ids = hosts.values().copied().chain([HostId::NOBODY]);
    ids.filter_map(|id| Some((id, old.get(&id).copied().or_else(|| classes.fresh())?))).collect()
}

/// What is known of classes and addresses when leases are looked at.
struct Judged<'a> {
    /// Classes with an address that no answer may hold any more.
    barred: &'a BTreeSet<u32>,
    /// Classes of which every name is allowed, and none on the way denied.
    whole: &'a BTreeSet<u32>,
    charged: &'a Charged,
}

/// How many names of a class the policy allows: it lives on if there is one. None, if a name on the way is denied.
fn allowed_names(class: &Class, snapshot: &Snapshot) -> usize {
    let is_allowed = |name: &&Name| snapshot.decide_name(class.host, Some(name)).verdict == Decided::Allow;
    let allowed = class.names.iter().filter(is_allowed).count();
    if allowed > 0 && over_denied(class, snapshot) { 0 } else { allowed }
}

/// Whether a name on the way to a class's addresses is denied.
fn over_denied(class: &Class, snapshot: &Snapshot) -> bool {
    class.links.iter().any(|link| snapshot.denied_link(class.host, link).is_some())
}
