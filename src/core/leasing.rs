//! Leases: how an address opens for a host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use chrono::{DateTime, Utc};

use super::classes::{Class, MAX_CLASSES_PER_HOST, Way};
use super::doors::{self, Doors, Now, Scribe};
use super::lease::{LeaseError, LeaseRequest, MAX_LEASE, MIN_LEASE, ROUNDING};
use super::metering::{Noted, REMEMBERED};
use super::state::{Lease, Leased, MAX_LEASES_PER_HOST, MAX_NAMES, State, lease_value};
use crate::plan::ids::HostId;
use crate::plan::ir::{Family, Key, Value};
use crate::plan::ops::Op;
use crate::plan::snapshot::Snapshot;
use crate::plan::table::names;
use crate::policy::name::Name;

/// What [`State::standing`] finds.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'s> {
    /// The names that the address was given for, each with its end (milliseconds of the caller's clock).
    pub names: &'s BTreeMap<Name, u64>,
    /// The other names on the way to it.
    pub links: &'s BTreeSet<Name>,
    /// When the kernel shuts it, whatever the name.
    pub until: u64,
}

impl State {
    /// The transaction that makes the kernel hold the addresses of all requests, as far as they are legal.
    pub fn lease(&mut self, requests: &[LeaseRequest], now: impl Into<Now>) -> Leased {
        let now = now.into();
        let mut out = Leased::default();
        let mut opened = BTreeMap::new();
        let mut puts: [BTreeMap<Key, Value>; 2] = [BTreeMap::new(), BTreeMap::new()];
        for request in requests {
            let result = self.lease_one(request, now, &mut out, &mut opened, &mut puts);
            out.results.push(result);
        }
        let scribe = Scribe { classes: &self.classes, host: &|id| self.host_name(id), utc: now.utc };
        let (open, _) = doors::difference(&Doors::new(), &opened, &scribe);
        out.ops.extend(open);
        self.charge_addresses(&mut out);
        for (family, elements) in Family::BOTH.into_iter().zip(puts) {
            if !elements.is_empty() {
                out.ops.push(Op::PutElements(names::of("dst", family), elements.into_iter().collect()));
            }
        }
        out
    }

    /// Whether [`State::evict`] has to search for classes to give up.
    #[must_use]
    pub fn is_crowded(&self, now: u64) -> bool {
        self.classes.are_many(now)
    }

    /// The transaction that gives up classes whose leases ended long ago, when there are too many. `None`: there are not.
    #[must_use]
    pub fn evict(&mut self, now: u64) -> Option<Vec<Op>> {
        let surplus = self.classes.surplus(now);
        let mut shut = Doors::new();
        for id in &surplus {
            self.classes.remove(*id);
            shut.extend(self.doors.remove(id).map(|door| (*id, door)));
        }
        let (_, ops) = doors::difference(
            &shut,
            &Doors::new(),
            &Scribe { classes: &self.classes, host: &|_| None, utc: DateTime::UNIX_EPOCH },
        );
        (!surplus.is_empty()).then_some(ops)
    }

    fn lease_one(
        &mut self,
        request: &LeaseRequest,
        now: Now,
        out: &mut Leased,
        opened: &mut Doors,
        puts: &mut [BTreeMap<Key, Value>; 2],
    ) -> Result<(), LeaseError> {
        if request.revision != self.revision || self.revision == 0 {
            return Err(LeaseError::Stale);
        }
        let Some(snapshot) = self.snapshot.clone() else { return Err(LeaseError::Stale) };
        let Now { ms: now, utc } = now;
        let fresh = request.addresses.iter().filter(|address| !self.leases.contains_key(&(request.host, **address)));
        if self.held.get(&request.host).copied().unwrap_or(0) + fresh.count() > MAX_LEASES_PER_HOST {
            return Err(LeaseError::Full);
        }
        let ttl = request.ttl.clamp(MIN_LEASE, MAX_LEASE);
        let until = now + u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let capped = self.egress.is_capped(request.host);
        let asked = self.egress.caps_of(request.host, request.links.iter().chain([&request.name]));
        for address in &request.addresses {
            if capped {
                match self.charged.note(request.host, *address, &asked, now + REMEMBERED) {
                    Noted::NoRoom => return Err(LeaseError::Full),
                    Noted::Known => {}
                    Noted::Fresh => out.recharges = true,
                }
                let leased = self.charge(request.host, *address, &snapshot, utc, out, opened)?;
                if !leased {
                    continue;
                }
            }
            let key = (request.host, *address);
            let mut lease = match self.leases.get(&key) {
                Some(lease) => lease.clone(),
                None => Lease { names: BTreeMap::new(), class: 0, until: 0 },
            };
            let open = self.doors.get(&lease.class).is_some_and(|door| door.until.is_none_or(|until| until > utc));
            let caps = self.charged.caps(request.host, *address);
            let same = self.classes.get(lease.class).is_some_and(|class| caps.is_subset(&class.caps));
            let held = lease.until > now && open && same;
            if held && lease.names.get(&request.name).is_some_and(|end| *end >= until) {
                if self.classes.extend(lease.class, until, &request.links) {
                    out.forgot.insert(request.host);
                }
                out.again.push(key);
                continue;
            }
            lease.names.retain(|_, end| *end > now);
            if lease.names.contains_key(&request.name) {
                out.again.push(key);
            }
            let until = until + ROUNDING.as_millis() as u64;
            let end = lease.names.entry(request.name.clone()).or_insert(until);
            *end = (*end).max(until);
            shorten(&mut lease.names, &request.name);
            let set: BTreeSet<Name> = lease.names.keys().cloned().collect();
            let caps = &caps | &self.egress.caps_of(request.host, &set);
            let class = Class::new(request.host, Way::Named, set, caps);
            lease.class = self.open_class(class, &snapshot, utc, out, opened)?;
            lease.until = lease.names.values().copied().max().unwrap_or(until);
            if self.classes.extend(lease.class, lease.until, &request.links) {
                out.forgot.insert(request.host);
            }
            let value = lease_value(lease.class, lease.until, now);
            let family = usize::from(!address.is_ipv4());
            puts[family].insert(Key::MarkAddress(u32::from(request.host.0), *address), value);
            if self.leases.insert(key, lease).is_none() {
                *self.held.entry(request.host).or_default() += 1;
            }
            out.touched.push(key);
        }
        Ok(())
    }

    /// What the kernel holds for a host at an address, as long as nothing but time takes it away. `None`: nothing, or each
    /// answer has to be looked at (hosts with exfil caps).
    pub fn standing(&self, host: HostId, address: IpAddr, now: Now) -> Option<Standing<'_>> {
        if self.egress.is_capped(host) {
            return None;
        }
        let lease = self.leases.get(&(host, address)).filter(|lease| lease.until > now.ms)?;
        let door = self.doors.get(&lease.class)?;
        // The kernel counts the end of a window down as it was when the door was opened.
        let left = door.until.map(|until| u64::try_from((until - now.utc).num_milliseconds()).unwrap_or(0));
        let until = left.map_or(lease.until, |left| lease.until.min(now.ms + left));
        let links = &self.classes.get(lease.class)?.links;
        Some(Standing { names: &lease.names, links, until })
    }

    /// The class that is like `class`, alive. One whose flows are judged at each packet is none that leases get.
    pub(super) fn open_class(
        &mut self,
        class: Class,
        snapshot: &Snapshot,
        utc: DateTime<Utc>,
        out: &mut Leased,
        opened: &mut Doors,
    ) -> Result<u32, LeaseError> {
        let is_there = !class.recheck && self.classes.has(&class);
        if self.classes.count(class.host) >= MAX_CLASSES_PER_HOST && !is_there {
            return Err(LeaseError::Full);
        }
        let found = if class.recheck { self.classes.beside(class) } else { self.classes.of(class) };
        let Some((id, made)) = found else {
            return Err(LeaseError::Kernel("all class numbers of this table are used".into()));
        };
        let Some(fresh) = self.classes.get(id) else { return Err(LeaseError::Stale) };
        if made {
            out.made.push(id);
            let meter = self.egress.meter(fresh.host, &fresh.caps, fresh.recheck);
            if !meter.is_free() && !self.fixed.chains.contains_key(&meter.chain()) {
                self.make_meter(&meter, out);
            }
        }
        let shut = self.doors.get(&id).is_none_or(|door| door.until.is_some_and(|until| until <= utc));
        if shut && let Some(fresh) = self.classes.get(id) {
            // A window may have closed since the decision; then another decision is due.
            let Some(door) = doors::door(fresh, snapshot, &self.egress, utc) else { return Err(LeaseError::Stale) };
            self.doors.insert(id, door.clone());
            opened.insert(id, door);
            out.opened.push(id);
        }
        Ok(id)
    }

    /// The kernel did not take these leases: nothing of them is remembered.
    pub fn forget(&mut self, leased: Leased) {
        for key in leased.touched {
            self.leases.remove(&key);
        }
        for class in leased.made {
            self.classes.remove(class);
        }
        for class in leased.opened {
            self.doors.remove(&class);
        }
        for chain in leased.chains {
            self.fixed.chains.remove(&chain);
        }
        for (key, before) in leased.charged {
            self.set_charged(key, before);
        }
        self.recount();
    }
}

/// Keeps [`MAX_NAMES`], the one just asked for among them; those that end first go.
fn shorten(names: &mut BTreeMap<Name, u64>, asked: &Name) {
    while names.len() > MAX_NAMES {
        let others = names.iter().filter(|(name, _)| *name != asked);
        let Some(first) = others.min_by_key(|(_, end)| **end).map(|(name, _)| name.clone()) else { return };
        names.remove(&first);
    }
}
