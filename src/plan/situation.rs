//! Everything that a plan depends on besides the policy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::plan::ids::HostId;
use crate::plan::meter::{CapId, CapState, Meter};
use crate::policy::model::HostName;

/// Where port-53 traffic of one address family goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsDoor {
    /// To this port, at whatever address of ours the packet came in by (a wildcard listener).
    Redirect(u16),
    /// To this very listener.
    To(IpAddr, u16),
    /// Nowhere: no listener of that family, or redirection is switched off. The traffic is refused.
    Closed,
}

/// Of which packets the kernel sends a copy to the decision log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reports {
    /// Of none.
    None,
    /// Of those that are refused.
    #[default]
    Refused,
    /// Of the first packet of flows that pass, too.
    All,
}

/// What the world looks like to the compiler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Situation {
    /// The kernel's numbers for the hosts of the policy; every host has one, from 2 up.
    pub hosts: BTreeMap<HostName, HostId>,
    /// The class of flows that `allow.ips` lets through, by host.
    pub net_classes: BTreeMap<HostId, u32>,
    /// The class of flows that `allow.ips` lets somebody outside open to a host.
    pub inbound_classes: BTreeMap<HostId, u32>,
    /// Hosts on which nothing is enforced, with the class of what would have been refused.
    pub monitored: BTreeMap<HostId, u32>,
    /// The meters of all classes.
    pub meters: BTreeSet<Meter>,
    /// The caps of the policy with their limits.
    pub caps: BTreeMap<CapId, CapState>,
    /// Addresses in `allow.ips` that caps are charged for: host, address, whether somebody there opened the flow, class.
    pub capped: BTreeMap<(HostId, IpAddr, bool), u32>,
    /// Hosts whose live flows must be judged again at each packet, because their rules changed under them.
    pub recheck: BTreeSet<HostId>,
    /// The way to our DNS over IPv4.
    pub dns4: DnsDoor,
    /// The way to our DNS over IPv6.
    pub dns6: DnsDoor,
    /// The ports on which our DNS listens.
    pub dns_ports: BTreeSet<u16>,
    /// Interfaces behind which policed sources live. What comes in by them with a source that has no route back by them
    /// is dropped, so that nobody there can pass for somebody else, in scope or out of it.
    pub guarded: BTreeSet<String>,
    /// Whether another table switches connection tracking off, so that ours must hold it on.
    pub keep_tracking: bool,
    /// Of which packets the decision log gets a copy.
    pub reports: Reports,
}

impl Situation {
    /// The class of a host's `allow.ips` flows.
    pub fn net_class(&self, host: HostId, inbound: bool) -> Option<u32> {
        let classes = if inbound { &self.inbound_classes } else { &self.net_classes };
        classes.get(&host).copied()
    }

    /// The kernel's number of a host; [`HostId::NOBODY`] for none.
    pub fn id(&self, host: Option<&HostName>) -> HostId {
        host.and_then(|name| self.hosts.get(name)).copied().unwrap_or(HostId::NOBODY)
    }
}
