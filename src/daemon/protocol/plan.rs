//! What `plan` answers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::compare::Change;
use crate::policy::Diagnostic;
use crate::policy::decision::Reason;
use crate::settings::Decisions;

/// `plan --json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "What would change if a policy were applied.")]
pub struct Plan {
    /// The revision in force, against which it is planned; `null`: none is.
    pub revision: Option<u64>,
    /// The digest of the new policy.
    pub sha256: String,
    /// The new policy is the one in force.
    pub same: bool,
    /// The differences between the two policies. Where none is in force there are none.
    pub changes: Changes,
    /// The live flows that would be cut; `null`: the kernel could not list them.
    pub flows: Option<Flows>,
    /// The leases that would end.
    pub leases: Leases,
    /// The recorded decisions, decided again; `null`: no policy is in force to compare with.
    pub replay: Option<Replay>,
    /// What is odd about the policy though legal.
    pub warnings: Vec<Diagnostic>,
    /// What could not be found out, one sentence each.
    pub trouble: Vec<String>,
}

/// Differences between two policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "Differences between two policies.")]
pub struct Changes {
    /// How many there are.
    pub count: usize,
    /// How many of them open more.
    pub widen: usize,
    /// How many of them open less; one may do both.
    pub narrow: usize,
    /// Those that widen first; a thousand at most.
    pub listed: Vec<Change>,
}

/// Live flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "Live flows that would be cut.")]
pub struct Flows {
    /// How many flows are let through now.
    pub live: usize,
    /// How many of them would be cut at once.
    pub cut: usize,
    /// How many would be cut later, by a window.
    pub later: usize,
    /// Those that would be cut at once, by the reason.
    pub by_reason: BTreeMap<String, usize>,
    /// Those that would be cut at once, then the others in the order of their ends; a hundred at most.
    pub listed: Vec<Flow>,
}

/// A flow that would be cut.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "A flow that would be cut.")]
pub struct Flow {
    /// When a window would cut it; `null`: at once.
    pub at: Option<DateTime<Utc>>,
    /// Whose; `null`: a source of no host.
    pub host: Option<String>,
    /// The agent.
    pub source: IpAddr,
    /// The names for which the host was given the address.
    pub domains: Vec<String>,
    /// The other end.
    pub address: IpAddr,
    /// The port that it was opened to.
    pub port: Option<u16>,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, else the IANA number.
    pub protocol: String,
    /// Why.
    pub reason: Reason,
}

/// Leases that would end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "Leases that would end.")]
pub struct Leases {
    /// How many.
    pub ended: usize,
    /// A hundred at most.
    pub listed: Vec<Lease>,
}

/// A lease that would end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "A lease that would end.")]
pub struct Lease {
    /// Whose; `null`: of sources of no host.
    pub host: Option<String>,
    /// The name.
    pub domain: String,
    /// The address.
    pub address: IpAddr,
}

/// Recorded decisions, decided again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "Recorded decisions, decided again.")]
pub struct Replay {
    /// Records from then on.
    pub since: DateTime<Utc>,
    /// What is recorded: where only refusals are, nothing can be found that would newly break.
    pub recorded: Decisions,
    /// How many records.
    pub records: u64,
    /// How many decisions they stand for.
    pub decisions: u64,
    /// Decisions of which the record does not tell enough.
    pub unclear: u64,
    /// Lines of the log that are no records.
    pub damaged: u64,
    /// What passes under the policy in force, and would not any more.
    pub breaks: Differing,
    /// What is refused under the policy in force, and would pass.
    pub opens: Differing,
}

/// Decisions that would differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "Decisions that would differ.")]
pub struct Differing {
    /// How many.
    pub decisions: u64,
    /// How many hosts they are of.
    pub hosts: usize,
    /// By host, those with most first; a hundred at most.
    pub listed: Vec<OfHost>,
}

/// Decisions of one host that would differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "Decisions of one host that would differ.")]
pub struct OfHost {
    /// The host as it was recorded; `null`: sources of no host.
    pub host: Option<String>,
    /// How many decisions.
    pub decisions: u64,
    /// To how many places; more than some ten thousand are counted together.
    pub places: usize,
    /// Those with most first; twenty at most.
    pub listed: Vec<Place>,
}

/// One place that an agent went to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "One place that an agent went to.")]
pub struct Place {
    /// The name.
    pub domain: Option<String>,
    /// The address; `null`: it was a query.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: Option<u16>,
    /// The protocol; of a query that by which it came.
    pub protocol: Option<String>,
    /// Why it would be refused, or is.
    pub reason: Reason,
    /// How many decisions.
    pub decisions: u64,
}
