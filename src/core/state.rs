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

use super::caps::Caps;
use super::classes::{Classes, Way};
use super::doors::{self, Doors, Nets, Now, Scribe};
use super::egress::Egress;
use super::lease::LeaseError;
use super::metering::Charged;
use crate::plan::ids::HostId;
use crate::plan::ir::{Data, Ident, Value};
use crate::plan::ops::{Op, Table};
use crate::plan::situation::{DnsDoor, Reports};
use crate::plan::snapshot::Snapshot;
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
    pub(super) nets: Nets,
    /// The classes that the kernel holds open.
    pub(super) doors: Doors,
    /// The policy in force, compiled.
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// The limits of the policy in force.
    pub(super) egress: Arc<Egress>,
    /// Exfil caps and what was used of them.
    pub caps: Caps,
    /// Addresses that a capped name led a host to.
    pub(super) charged: Charged,
    pub(super) leases: HashMap<(HostId, IpAddr), Lease>,
    /// How many of them each host has.
    pub(super) held: HashMap<HostId, usize>,
    pub(super) next_host: u16,
    /// Hosts whose flows are being made ready for a revision that judges them at each packet ([`super::ahead`]).
    pub(super) rechecking: BTreeSet<HostId>,
}

/// What a revision took the place of, to be dropped.
pub struct Past(#[expect(dead_code, reason = "it is held only")] pub(super) Box<dyn Send>);

/// Operations for a group of leases, and what each request gets if they succeed.
#[must_use]
#[derive(Debug, Default)]
pub struct Leased {
    /// One transaction; empty if the kernel holds everything already.
    pub ops: Vec<Op>,
    /// By request, in order.
    pub results: Vec<Result<(), LeaseError>>,
    /// An address came to be charged to a cap: live flows may have to be, too ([`State::recharge`]).
    pub recharges: bool,
    /// What was asked for before under the same name, and is asked for again.
    pub again: Vec<(HostId, IpAddr)>,
    /// Hosts of which a class has forgotten names that led to its addresses, because there were too many.
    pub forgot: BTreeSet<HostId>,
    /// What was written, again or for the first time.
    pub touched: Vec<(HostId, IpAddr)>,
    pub(super) made: Vec<u32>,
    pub(super) opened: Vec<u32>,
    /// Chains made for it.
    pub(super) chains: Vec<Ident>,
    /// Addresses in `allow.ips` with the class they had before.
    pub(super) charged: Vec<((HostId, IpAddr, Way), Option<u32>)>,
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
            nets: Nets::default(),
            doors: Doors::new(),
            snapshot: None,
            egress: Arc::default(),
            caps: Caps::new(1),
            charged: Charged::default(),
            leases: HashMap::new(),
            held: HashMap::new(),
            next_host: HostId::FIRST.0,
            rechecking: BTreeSet::new(),
        }
    }

    /// The number of live classes and of addresses leased at `now`.
    pub fn counts(&self, now: u64) -> (usize, usize) {
        (self.classes.len(), self.leases.values().filter(|lease| lease.until > now).count())
    }

    /// Whether flows that carry a class are let through.
    pub fn is_open(&self, class: u32) -> bool {
        self.doors.contains_key(&class)
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
        self.charged.sweep(now);
        self.recount();
    }

    /// What windows open and shut at this moment: the transaction that opens, the one that shuts, and the new doors for
    /// [`State::ticked`].
    pub fn tick(&self, now: impl Into<Now>) -> (Vec<Op>, Vec<Op>, Doors) {
        let now = now.into();
        let Some(snapshot) = &self.snapshot else { return (Vec::new(), Vec::new(), self.doors.clone()) };
        let fresh = doors::open(&self.classes, &self.nets, snapshot, &self.egress, now.utc);
        let scribe = Scribe { classes: &self.classes, host: &|id| self.host_name(id), utc: now.utc };
        let (open, shut) = doors::difference(&self.doors, &fresh, &scribe);
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

    /// The names of the objects that the kernel should have.
    pub fn fixed_objects(&self) -> impl Iterator<Item = &Ident> {
        self.fixed.objects.keys()
    }

    /// The name of a host by its number; `None` also for [`HostId::NOBODY`].
    pub fn host_name(&self, id: HostId) -> Option<&HostName> {
        self.hosts.iter().find(|(_, number)| **number == id).map(|(name, _)| name)
    }
}

/// The element of `dst4` or `dst6`.
pub(super) fn lease_value(class: u32, until: u64, now: u64) -> Value {
    Value { data: Data::Mark(class), timeout_ms: Some(until.saturating_sub(now).max(1)), comment: None }
}
