//! Usage and denials over time: who sent how much where, and what was refused.
//!
//! ```text
//! elements of up and down ─▶ registry: what came since the last reading ─┐
//! DNS, refused packets ────────────────────────────────────────────────┼─▶ Tally ─▶ ring ─▶ report
//!                                                                        └─▶ journal (store)
//! ```
//!
//! Nothing is sampled: octets and packets are the kernel's own counters of classes, queries are counted one by one
//! (docs/decisions/0011).

mod metrics;
mod registry;
mod report;
mod ring;
mod stats;

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use metrics::{Gauges, exposition};
pub use registry::{Baseline, ChainCount, Counted, Element, Registry};
pub use report::{Agent, CapLine, Denies, Export, Facts, Report, Traffic, Unseen, View, report, usage};
pub use ring::{MAX_DENIED, MAX_HOSTS, MAX_REACHED, Ring, Window};
pub use stats::{Stats, stats};

/// What stands for sources in scope that belong to no host.
pub const NOBODY: &str = "*";
/// What stands for the domains of a host beyond as many as are told apart. No domain has such a name.
pub const OTHER: &str = "(other)";
/// What stands for flows that `allow.ips` let through, which have no domain. No domain has such a name.
pub const NETWORKS: &str = "(allow.ips)";
/// What stands for flows that pass only because nothing is enforced on the host. No domain has such a name.
pub const MONITORED: &str = "(monitored)";

/// What was counted of one host or domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Counts {
    /// Octets of IP packets that the agents sent and the gateway forwarded. The headers of packets that were merged on
    /// the way (GRO) count once.
    pub bytes_up: u64,
    /// The same towards the agents.
    pub bytes_down: u64,
    /// Packets that the agents sent and the gateway forwarded; several that were merged count once.
    pub packets_up: u64,
    /// The same towards the agents.
    pub packets_down: u64,
    /// DNS queries on which the policy was asked.
    pub queries: u64,
    /// Those that it allowed.
    pub allows: u64,
    /// Queries and packets that were refused, or would have been if the policy were enforced.
    pub denies: u64,
}

impl Counts {
    /// Nothing was counted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether there was more than refusals.
    fn is_reached(&self) -> bool {
        self.allows > 0 || self.packets_up > 0 || self.packets_down > 0
    }

    fn fields(&mut self) -> [&mut u64; 7] {
        let Self { bytes_up, bytes_down, packets_up, packets_down, queries, allows, denies } = self;
        [bytes_up, bytes_down, packets_up, packets_down, queries, allows, denies]
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        let mut other = *other;
        for (own, more) in self.fields().into_iter().zip(other.fields()) {
            *own = own.saturating_add(*more);
        }
    }
}

/// A host and one of its domains.
pub type Place = (Arc<str>, Arc<str>);

/// What was counted in some time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By host, all of it.
    pub hosts: BTreeMap<Arc<str>, Counts>,
    /// By host and domain. Flows to an address that a host was given for several names count for each of them.
    pub domains: BTreeMap<Place, Counts>,
    /// Refused queries and packets by reason, also those of which nobody knows the host.
    pub reasons: BTreeMap<Arc<str>, u64>,
}

impl Tally {
    /// Nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.domains.is_empty() && self.reasons.is_empty()
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        for (host, counts) in &other.hosts {
            self.hosts.entry(Arc::clone(host)).or_default().add(counts);
        }
        for (place, counts) in &other.domains {
            self.domains.entry(place.clone()).or_default().add(counts);
        }
        for (reason, count) in &other.reasons {
            let own = self.reasons.entry(Arc::clone(reason)).or_default();
            *own = own.saturating_add(*count);
        }
    }

    /// Counts for a host, and for a domain of it.
    pub fn count(&mut self, host: &Arc<str>, domain: Option<&Arc<str>>, counts: &Counts) {
        self.hosts.entry(Arc::clone(host)).or_default().add(counts);
        if let Some(domain) = domain {
            self.domains.entry((Arc::clone(host), Arc::clone(domain))).or_default().add(counts);
        }
    }
}
