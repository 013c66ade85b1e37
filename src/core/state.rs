//! The daemon's picture of the kernel, and every way it may change.
//!
//! Three transitions, each a list of operations for one kernel transaction: [`State::enforce`] (a revision, in
//! [`super::enforce`]), [`State::lease`] (an answer is about to go), [`State::repair`] (the kernel holds something
//! else than we think, in [`super::adopt`]). The caller commits the operations and then says [`State::enforced`], or
//! [`State::forget`] for leases that failed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use chrono::DateTime;
use chrono_tz::Tz;

use super::classes::{Classes, MAX_CLASSES_PER_HOST};
use super::doors::{self, Doors, Now};
use super::lease::{LeaseError, LeaseRequest, MAX_LEASE, MIN_LEASE};
use crate::plan::ids::HostId;
use crate::plan::ir::{Data, Family, Key, Value};
use crate::plan::ops::{Op, Table};
use crate::plan::situation::{DnsDoor, Reports};
use crate::plan::snapshot::Snapshot;
use crate::plan::table::names;
use crate::policy::model::HostName;
use crate::policy::name::Name;

/// The most addresses that one host holds at a time. The kernel holds 2^20 for all: one agent, with a name server of its
/// own behind an allowed name, must not fill that up for the others.
pub const MAX_LEASES_PER_HOST: usize = 1 << 16;
/// The most names under which a host holds one address. Each further name is another class with all of them in it, so
/// without a bound a wildcard that points at one address would cost the square of its names. The name whose lease ends
/// first goes; a flow that only that name allowed ends when the others are revoked.
pub const MAX_NAMES: usize = 16;

/// What the gateway's own machine contributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// The way to our DNS over IPv4.
    pub dns4: DnsDoor,
    /// The way to our DNS over IPv6.
    pub dns6: DnsDoor,
    /// The ports on which our DNS listens.
    pub dns_ports: BTreeSet<u16>,
    /// Interfaces behind which policed sources live.
    pub guarded: BTreeSet<String>,
    /// Whether another table switches tracking off.
    pub keep_tracking: bool,
    /// Of which packets the decision log gets a copy.
    pub reports: Reports,
    /// The gateway's own addresses.
    pub own: BTreeSet<IpAddr>,
    /// The gateway's time zone, for policies that name none.
    pub zone: Tz,
}

impl World {
    /// A machine of which nothing is known but that its DNS listens on `port` at every address; its clock shows UTC.
    pub fn listening(port: u16) -> Self {
        Self {
            dns4: DnsDoor::Redirect(port),
            dns6: DnsDoor::Redirect(port),
            dns_ports: BTreeSet::from([port]),
            guarded: BTreeSet::new(),
            keep_tracking: false,
            reports: Reports::Refused,
            own: BTreeSet::new(),
            zone: Tz::UTC,
        }
    }
}

/// One address of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// The names it was given for, each with the end of its lease (milliseconds of the caller's clock).
    pub names: BTreeMap<Name, u64>,
    pub class: u32,
    /// When the kernel's element ends.
    pub until: u64,
}

/// The state; see the module.
#[derive(Clone, Debug)]
pub struct State {
    /// The revision in force; 0: none.
    pub revision: u64,
    /// The kernel's numbers for the hosts.
    pub hosts: BTreeMap<HostName, HostId>,
    /// The static part of the table, as the kernel holds it.
    pub(super) fixed: Table,
    /// The static part by which live flows were judged; the same, but for a while after [`State::adopt`].
    pub(super) judged: Table,
    pub(super) classes: Classes,
    pub(super) net_classes: BTreeMap<HostId, u32>,
    /// The classes that the kernel holds open.
    pub(super) doors: Doors,
    /// The policy in force, compiled.
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) leases: HashMap<(HostId, IpAddr), Lease>,
    /// How many of them each host has.
    held: HashMap<HostId, usize>,
    pub(super) next_host: u16,
}

/// Operations for a group of leases, and what each request gets if they succeed.
#[must_use]
#[derive(Debug, Default)]
pub struct Leased {
    /// One transaction; empty if the kernel holds everything already.
    pub ops: Vec<Op>,
    /// By request, in order.
    pub results: Vec<Result<(), LeaseError>>,
    touched: Vec<(HostId, IpAddr)>,
    made: Vec<u32>,
    opened: Vec<u32>,
}

impl State {
    /// Nothing enforced yet, nothing in the kernel.
    pub fn new(first_class: u32) -> Self {
        Self {
            revision: 0,
            hosts: BTreeMap::new(),
            fixed: Table::default(),
            judged: Table::default(),
            classes: Classes::new(first_class),
            net_classes: BTreeMap::new(),
            doors: Doors::new(),
            snapshot: None,
            leases: HashMap::new(),
            held: HashMap::new(),
            next_host: HostId::FIRST.0,
        }
    }

    /// The number of live classes and of addresses leased at `now`.
    pub fn counts(&self, now: u64) -> (usize, usize) {
        (self.classes.len(), self.leases.values().filter(|lease| lease.until > now).count())
    }

    /// The first class number that no flow can carry yet.
    pub fn next_class(&self) -> u32 {
        self.classes.next()
    }

    /// The names under which a host holds an address at `now`.
    pub fn names_of(&self, host: HostId, address: IpAddr, now: u64) -> Vec<Name> {
        let lease = self.leases.get(&(host, address));
        lease.map_or_else(Vec::new, |lease| {
            lease.names.iter().filter(|(_, until)| **until > now).map(|(name, _)| name.clone()).collect()
        })
    }

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
        let (open, _) = doors::difference(&Doors::new(), &opened, |id, door| {
            doors::element(id, door, &self.classes, self.host_name(door.host), now.utc)
        });
        out.ops.extend(open);
        for (family, elements) in Family::BOTH.into_iter().zip(puts) {
            if !elements.is_empty() {
                out.ops.push(Op::PutElements(names::of("dst", family), elements.into_iter().collect()));
            }
        }
        out
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
        let (_, ops) = doors::difference(&shut, &Doors::new(), |id, _| (Key::Mark(id), Value::plain(Data::None)));
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
        for address in &request.addresses {
            let key = (request.host, *address);
            let mut lease = match self.leases.get(&key) {
                Some(lease) => lease.clone(),
                None => Lease { names: BTreeMap::new(), class: 0, until: 0 },
            };
            let open = self.doors.get(&lease.class).is_some_and(|door| door.until.is_none_or(|until| until > utc));
            let held = lease.until > now && open;
            if held && lease.names.get(&request.name).is_some_and(|end| *end >= until) {
                self.classes.extend(lease.class, until, &request.links);
                continue;
            }
            lease.names.retain(|_, end| *end > now);
            let end = lease.names.entry(request.name.clone()).or_insert(until);
            *end = (*end).max(until);
            shorten(&mut lease.names, &request.name);
            let set: BTreeSet<Name> = lease.names.keys().cloned().collect();
            if self.classes.count(request.host) >= MAX_CLASSES_PER_HOST && !self.classes.has(request.host, &set) {
                return Err(LeaseError::Full);
            }
            let Some((class, made)) = self.classes.of(request.host, &set, false) else {
                return Err(LeaseError::Kernel("all class numbers of this table are used".into()));
            };
            lease.class = class;
            lease.until = lease.names.values().copied().max().unwrap_or(until);
            self.classes.extend(class, lease.until, &request.links);
            if made {
                out.made.push(class);
            }
            let shut = self.doors.get(&class).is_none_or(|door| door.until.is_some_and(|until| until <= utc));
            if shut && let Some(fresh) = self.classes.get(class) {
                // A window may have closed since the decision; then another decision is due.
                let Some(door) = doors::door(fresh, &snapshot, utc) else { return Err(LeaseError::Stale) };
                self.doors.insert(class, door);
                opened.insert(class, door);
                out.opened.push(class);
            }
            let value =
                Value { data: Data::Mark(class), timeout_ms: Some(lease.until.saturating_sub(now)), comment: None };
            let family = usize::from(!address.is_ipv4());
            puts[family].insert(Key::MarkAddress(u32::from(request.host.0), *address), value);
            if self.leases.insert(key, lease).is_none() {
                *self.held.entry(request.host).or_default() += 1;
            }
            out.touched.push(key);
        }
        Ok(())
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
        self.recount();
    }

    /// Counts the leases of each host.
    pub(super) fn recount(&mut self) {
        self.held.clear();
        for (host, _) in self.leases.keys() {
            *self.held.entry(*host).or_default() += 1;
        }
    }

    /// Drops what ended before `now` from memory (the kernel drops its own).
    pub fn sweep(&mut self, now: u64) {
        self.leases.retain(|_, lease| lease.until > now);
        self.recount();
    }

    /// What windows open and shut at this moment: the transaction that opens, the one that shuts, and the new doors for
    /// [`State::ticked`].
    pub fn tick(&self, now: impl Into<Now>) -> (Vec<Op>, Vec<Op>, Doors) {
        let now = now.into();
        let Some(snapshot) = &self.snapshot else { return (Vec::new(), Vec::new(), self.doors.clone()) };
        let fresh = doors::open(&self.classes, &self.net_classes, snapshot, now.utc);
        let (open, shut) = doors::difference(&self.doors, &fresh, |id, door| {
            doors::element(id, door, &self.classes, self.host_name(door.host), now.utc)
        });
        (open, shut, fresh)
    }

    /// The kernel has taken what [`State::tick`] said.
    pub fn ticked(&mut self, doors: Doors) {
        self.doors = doors;
    }

    /// The clock was set: every timeout that the kernel counts down is for a moment that has moved.
    pub fn clock_stepped(&mut self) {
        for door in self.doors.values_mut() {
            // No door ends at the beginning of time, so each one that ends at all is written anew.
            door.until = door.until.map(|_| DateTime::UNIX_EPOCH);
        }
    }

    /// The name of a host by its number; `None` also for [`HostId::NOBODY`].
    pub fn host_name(&self, id: HostId) -> Option<&HostName> {
        self.hosts.iter().find(|(_, number)| **number == id).map(|(name, _)| name)
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

/// The element of `dst4` or `dst6`.
pub(super) fn lease_value(class: u32, until: u64, now: u64) -> Value {
    Value { data: Data::Mark(class), timeout_ms: Some(until.saturating_sub(now).max(1)), comment: None }
}
