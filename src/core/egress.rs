//! Which limits the policy sets for whom, compiled: what a class meets on its way out.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::caps::Caps;
use crate::plan::ids::HostId;
use crate::plan::meter::{CapId, Meter};
use crate::policy::model::{HostName, Mode, Policy};
use crate::policy::name::{Name, Pattern};

/// The caps of one host by name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Index {
    exact: HashMap<Name, CapId>,
    below: HashMap<Name, CapId>,
}

/// The limits of a policy.
#[derive(Debug, Default)]
pub struct Egress {
    all: bool,
    rated: HashSet<HostId>,
    /// Hosts on which nothing is enforced.
    monitored: HashSet<HostId>,
    caps: HashMap<HostId, Index>,
}

impl Egress {
    /// Compiles.
    pub fn of(policy: &Policy, caps: &Caps, id: impl Fn(&HostName) -> Option<HostId>) -> Self {
        let mut egress = Self { all: policy.egress_kbps.is_some(), ..Self::default() };
        if policy.effective(None).mode == Mode::Monitor {
            egress.monitored.insert(HostId::NOBODY);
        }
        for (name, host) in &policy.hosts {
            let Some(id) = id(name) else { continue };
            if policy.effective(Some(name)).mode == Mode::Monitor {
                egress.monitored.insert(id);
            }
            if host.egress_kbps.is_some() {
                egress.rated.insert(id);
            }
            for pattern in host.caps.keys() {
                let Some(cap) = caps.id(name, pattern) else { continue };
                let index = egress.caps.entry(id).or_default();
                match pattern {
                    Pattern::Exact(name) => index.exact.insert(name.clone(), cap),
                    Pattern::Below(apex) => index.below.insert(apex.clone(), cap),
                };
            }
        }
        egress
    }

    /// Hosts on which nothing is enforced; nobody may be among them.
    pub fn monitored(&self) -> impl Iterator<Item = HostId> {
        self.monitored.iter().copied()
    }

    /// The hosts that have other caps than in `old`.
    pub fn differs(&self, old: &Self) -> BTreeSet<HostId> {
        let hosts = self.caps.keys().chain(old.caps.keys()).copied();
        hosts.filter(|host| self.caps.get(host) != old.caps.get(host)).collect()
    }

    /// Whether a host has caps at all.
    pub fn is_capped(&self, host: HostId) -> bool {
        self.caps.contains_key(&host)
    }

    /// Whether no host has caps.
    pub fn has_no_caps(&self) -> bool {
        self.caps.is_empty()
    }

    /// Every cap that a name could be charged to.
    pub fn caps_of<'n>(&self, host: HostId, names: impl IntoIterator<Item = &'n Name>) -> BTreeSet<CapId> {
        let Some(index) = self.caps.get(&host) else { return BTreeSet::new() };
        let each = names.into_iter().flat_map(|name| {
            let below = name.parents().filter_map(|apex| index.below.get(apex));
            index.exact.get(name).into_iter().chain(below).copied()
        });
        each.collect()
    }

    /// What a class meets.
    pub fn meter(&self, host: HostId, caps: &BTreeSet<CapId>, recheck: bool) -> Meter {
        let enforced = !self.monitored.contains(&host);
        Meter {
            rate: (enforced && self.rated.contains(&host)).then_some(host),
            all: enforced && self.all,
            caps: caps.clone(),
            recheck: recheck.then_some(host),
        }
    }
}
