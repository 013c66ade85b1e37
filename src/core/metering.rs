//! What is measured, as part of the state: chains of meters, the addresses that caps are charged for, the limits of caps.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use chrono::{DateTime, Utc};

use super::caps::{Caps, Change};
use super::classes::{Class, Classes, Way};
use super::doors::{Doors, Nets};
use super::egress::Egress;
use super::lease::LeaseError;
use super::state::{Leased, MAX_LEASES_PER_HOST, State};
use crate::plan::ids::HostId;
use crate::plan::ir::{Chain, Data, Family, Ident, Key, Object, Value};
use crate::plan::meter::{CapId, CapState, Meter};
use crate::plan::ops::Op;
use crate::plan::snapshot::{AddressVerdict, Snapshot};
use crate::plan::table::{make_meter, meter_rules, names, set_cap, stop_cap};
use crate::policy::name::Name;

/// For how long an address stays charged to a cap after the last answer that gave it to the host for a capped name,
/// milliseconds: a day.
pub const REMEMBERED: u64 = 24 * 3600 * 1000;
/// The most caps that one address is charged to; each costs every packet.
pub const MAX_CAPS: usize = 32;

/// The addresses to which capped names led.
#[derive(Clone, Debug, Default)]
pub struct Charged {
    /// Caps with the end of their memory, by host and address.
    known: HashMap<(HostId, IpAddr), BTreeMap<CapId, u64>>,
    /// How many addresses each host has in it.
    count: HashMap<HostId, usize>,
    /// The classes of those that `allow.ips` opens.
    open: BTreeMap<(HostId, IpAddr, Way), u32>,
}

/// What became of a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// There is no room for it.
    NoRoom,
    /// The address was charged to all of the caps before.
    Known,
    /// The address is charged to a cap from now on.
    Fresh,
}

impl Charged {
    /// A capped name led the host to the address; remembered until `until`.
    #[must_use]
    pub fn note(&mut self, host: HostId, address: IpAddr, caps: &BTreeSet<CapId>, until: u64) -> Noted {
        if caps.is_empty() {
            return Noted::Known;
        }
        if !self.known.contains_key(&(host, address)) {
            let count = self.count.entry(host).or_default();
            if *count >= MAX_LEASES_PER_HOST {
                return Noted::NoRoom;
            }
            *count += 1;
        }
        let known = self.known.entry((host, address)).or_default();
        let before = known.len();
        for cap in caps {
            let end = known.entry(*cap).or_insert(until);
            *end = (*end).max(until);
        }
        match known.len() {
            more if more > MAX_CAPS => Noted::NoRoom,
            same if same == before => Noted::Known,
            _ => Noted::Fresh,
        }
    }

    /// Takes over what an earlier process knew: hosts, caps, and their addresses.
    pub fn resume<'a>(&mut self, known: impl Iterator<Item = (HostId, BTreeSet<CapId>, &'a [IpAddr])>, now: u64) {
        for (host, caps, addresses) in known {
            for address in addresses {
                let _ = self.note(host, *address, &caps, now + REMEMBERED);
            }
        }
    }

    fn recount(&mut self) {
        self.count.clear();
        for (host, _) in self.known.keys() {
            *self.count.entry(*host).or_default() += 1;
        }
    }

    /// The caps that an address is charged to.
    pub fn caps(&self, host: HostId, address: IpAddr) -> BTreeSet<CapId> {
        self.known.get(&(host, address)).map_or_else(BTreeSet::new, |caps| caps.keys().copied().collect())
    }

    /// The class of a charged address that `allow.ips` opens.
    pub fn class(&self, host: HostId, address: IpAddr, way: Way) -> Option<u32> {
        self.open.get(&(host, address, way)).copied()
    }

    /// Forgets what is over. What `allow.ips` opens stays: nothing else would remember it.
    pub fn sweep(&mut self, now: u64) {
        let open = &self.open;
        self.known.retain(|(host, address), caps| {
            if !open.contains_key(&(*host, *address, Way::Nets)) {
                caps.retain(|_, until| *until > now);
            }
            !caps.is_empty()
        });
        self.recount();
    }

    /// Forgets caps that are not in force any more.
    pub fn keep(&mut self, alive: impl Fn(CapId) -> bool) {
        self.known.retain(|_, caps| {
            caps.retain(|cap, _| alive(*cap));
            !caps.is_empty()
        });
        self.recount();
    }

    /// The addresses that `allow.ips` opens, each with its class, for the policy of `snapshot`; classes are made where
    /// there are none.
    pub fn open(&mut self, snapshot: &Snapshot, classes: &mut Classes) -> BTreeMap<(HostId, IpAddr, bool), u32> {
        let mut open = BTreeMap::new();
        for ((host, address), caps) in
            self.known.iter().filter(|((host, address), _)| snapshot.is_open(*host, *address))
        {
            for way in [Way::Nets, Way::Inbound] {
                let mut class = Class::new(*host, way, BTreeSet::new(), caps.keys().copied().collect());
                class.until = u64::MAX;
                if let Some((id, _)) = classes.of(class) {
                    open.insert((*host, *address, way), id);
                }
            }
        }
        self.open = open;
        self.open.iter().map(|((host, address, way), id)| ((*host, *address, *way == Way::Inbound), *id)).collect()
    }
}

/// The meters of all classes, whether or not their doors are open now.
pub fn meters(classes: &Classes, nets: &Nets, egress: &Egress) -> BTreeSet<Meter> {
    let named = classes.iter().map(|(_, class)| egress.meter(class.host, &class.caps, class.recheck));
    let nets = nets.iter().filter(|(.., way)| *way != Way::Monitored);
    let nets = nets.map(|(_, host, _)| egress.meter(host, &BTreeSet::new(), false));
    named.chain(nets).filter(|meter| !meter.is_free()).collect()
}

impl State {
    /// What is known of addresses, for other caps: those of live leases count from the start.
    pub(super) fn charged_again(&self, egress: &Egress, caps: &Caps, now: u64) -> Charged {
        let mut charged = self.charged.clone();
        charged.keep(|cap| caps.get(cap).is_some());
        if caps.is_empty() && egress.has_no_caps() {
            return charged;
        }
        for ((host, address), lease) in self.leases.iter().filter(|(_, lease)| lease.until > now) {
            let known = self.classes.get(lease.class).map(|class| &class.caps);
            let known = known.into_iter().flatten().copied().filter(|cap| caps.get(*cap).is_some());
            let links = self.classes.get(lease.class).map(|class| &class.links);
            let named = egress.caps_of(
                *host,
                lease
                    .names
                    .iter()
                    .filter(|(_, end)| **end > now)
                    .map(|(name, _)| name)
                    .chain(links.into_iter().flatten()),
            );
            // Where there is no room, the lease's own class is charged all the same.
            let _ = charged.note(*host, *address, &known.chain(named).collect(), now + REMEMBERED);
        }
        charged
    }

    /// Makes the chains of a meter with the leases that need it.
    pub(super) fn make_meter(&mut self, meter: &Meter, out: &mut Leased) {
        out.ops.extend(make_meter(meter));
        for (name, rule) in meter_rules(meter) {
            let chain = self.fixed.chains.entry(name.clone()).or_insert_with(|| {
                out.chains.push(name);
                Chain { base: None, rules: Vec::new() }
            });
            chain.rules.push(rule);
        }
    }

    /// Where `allow.ips` opens an address that caps are charged for, its flows need classes of their own. True: the
    /// address may be leased besides.
    pub(super) fn charge(
        &mut self,
        host: HostId,
        address: IpAddr,
        snapshot: &Snapshot,
        utc: DateTime<Utc>,
        out: &mut Leased,
        opened: &mut Doors,
    ) -> Result<bool, LeaseError> {
        let leased = snapshot.judge_address(host, address) == AddressVerdict::Lease;
        if !snapshot.is_open(host, address) {
            return Ok(leased);
        }
        let caps = self.charged.caps(host, address);
        for way in [Way::Nets, Way::Inbound].into_iter().filter(|_| !caps.is_empty()) {
            let mut class = Class::new(host, way, BTreeSet::new(), caps.clone());
            // No lease ends it.
            class.until = u64::MAX;
            let before = self.charged.open.get(&(host, address, way)).copied();
            if before.is_some_and(|id| self.classes.get(id).is_some_and(|old| old.caps == class.caps)) {
                continue;
            }
            let id = self.open_class(class, snapshot, utc, out, opened)?;
            out.charged.push(((host, address, way), before));
            self.set_charged((host, address, way), Some(id));
        }
        Ok(leased)
    }

    /// The operations for the addresses noted in `out.charged`.
    pub(super) fn charge_addresses(&self, out: &mut Leased) {
        for ((host, address, way), before) in &out.charged {
            let (set, map, key) = charged_sets(*host, *address, *way);
            let Some(class) = self.charged.open.get(&(*host, *address, *way)) else { continue };
            if before.is_some() {
                out.ops.push(Op::DelElements(map.clone(), vec![key]));
            } else {
                out.ops.push(Op::AddElements(set, vec![(key, Value::plain(Data::None))]));
            }
            out.ops.push(Op::AddElements(map, vec![(key, Value::plain(Data::Mark(*class)))]));
        }
    }

    /// Sets or removes the class of a charged address in the picture of the kernel.
    pub(super) fn set_charged(&mut self, (host, address, way): (HostId, IpAddr, Way), class: Option<u32>) {
        let (set, map, key) = charged_sets(host, address, way);
        let data = [(set, Data::None), (map, Data::Mark(class.unwrap_or(0)))];
        for (name, data) in data {
            let Some(set) = self.fixed.sets.get_mut(&name) else { continue };
            match class {
                Some(_) => drop(set.elements.insert(key, Value::plain(data))),
                None => drop(set.elements.remove(&key)),
            }
        }
        match class {
            Some(class) => self.charged.open.insert((host, address, way), class),
            None => self.charged.open.remove(&(host, address, way)),
        };
    }

    /// The caps that a name is charged to.
    pub fn caps_of_name(&self, host: HostId, name: &Name) -> BTreeSet<CapId> {
        self.egress.caps_of(host, [name])
    }

    /// The caps that an address is charged to now.
    pub fn caps_of_address(&self, host: HostId, address: IpAddr) -> BTreeSet<CapId> {
        let class = self.leases.get(&(host, address)).and_then(|lease| self.classes.get(lease.class));
        let leased = class.into_iter().flat_map(|class| class.caps.iter().copied());
        leased.chain(self.charged.caps(host, address)).collect()
    }

    /// The transaction that gives the kernel the new limits of caps.
    pub fn set_caps(&self, changes: &[Change]) -> Vec<Op> {
        changes.iter().flat_map(|change| set_cap(change.id, &change.state, change.stop_too)).collect()
    }

    /// The kernel has taken what [`State::set_caps`] said.
    pub fn caps_set(&mut self, changes: &[Change]) {
        for Change { id, state, .. } in changes {
            self.picture_cap(*id, state);
        }
    }

    fn picture_cap(&mut self, id: CapId, state: &CapState) {
        for (name, fresh) in [(names::cap(id), state.limit), (names::rest(id), state.rest)] {
            if let Some(Object::Quota { limit, .. }) = self.fixed.objects.get_mut(&name) {
                *limit = fresh;
            }
        }
        if let Some(chain) = self.fixed.chains.get_mut(&names::stop(id)) {
            chain.rules = stop_cap(state);
        }
    }
}

/// The set and the map of charged addresses, and the key in both.
fn charged_sets(host: HostId, address: IpAddr, way: Way) -> (Ident, Ident, Key) {
    let (family, inbound) = (Family::of(address), way == Way::Inbound);
    (names::capped(family, inbound, host), names::capped_class(family, inbound, host), Key::Address(address))
}
