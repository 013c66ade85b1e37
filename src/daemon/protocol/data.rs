//! What answers are made of, by command.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::caps::CapUse;
use crate::decisions::Record;
use crate::policy::Diagnostic;
use crate::store::{Origin, RevisionMeta};

/// The state in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StateWord {
    /// The policy is enforced.
    Enforcing,
    /// The policy is in force and blocks nothing.
    Monitoring,
    /// Enforced, but a check fails.
    Degraded,
    /// No policy can be read or enforced: everything in scope is blocked.
    Blocked,
    /// No policy was ever stored.
    Unconfigured,
}

impl StateWord {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Enforcing, Self::Monitoring, Self::Degraded, Self::Blocked, Self::Unconfigured];
}

/// One check of `status` and `health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What is looked at: one word.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was seen, one line.
    pub message: String,
}

/// `status --json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The state.
    pub state: StateWord,
    /// The revision in force.
    pub revision: Option<u64>,
    /// The digest of its policy.
    pub sha256: Option<String>,
    /// What applied it.
    pub origin: Option<Origin>,
    /// When, RFC 3339.
    #[serde(with = "maybe_seconds")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub applied_at: Option<DateTime<Utc>>,
    /// How many hosts it has.
    pub hosts: usize,
    /// How many entries its domain lists have.
    pub domains: usize,
    /// Whether what is stored or in the kernel is not what was applied.
    pub drift: bool,
    /// The checks.
    pub checks: Vec<Check>,
    /// The exfil caps with what was used of them; of broken ones nothing is known but that they are closed.
    #[serde(default)]
    pub caps: Vec<CapUse>,
    /// The rate limits.
    #[serde(default)]
    pub limits: Limits,
    /// The name servers that follow the zones.
    #[serde(default)]
    pub secondaries: Vec<Follower>,
}

/// A name server that follows the zones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Follower {
    /// Its address, with the port at which it is told of changes.
    pub address: String,
    /// Whether it must sign.
    pub signed: bool,
    /// Whether it has what is served, or had no time yet to fetch it.
    pub ok: bool,
    /// The zones that it may have.
    pub zones: Vec<FollowedZone>,
    /// What went wrong last; `null`: nothing since the start.
    pub last_error: Option<String>,
    /// When, RFC 3339.
    #[serde(with = "maybe_seconds")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub last_error_at: Option<DateTime<Utc>>,
}

/// A zone of such a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FollowedZone {
    /// Its name, with the trailing dot.
    pub zone: String,
    /// The serial that is served.
    pub serial: u32,
    /// The serial of the last NOTIFY that the server answered; `null`: of none since the start.
    pub notified: Option<u32>,
    /// The serial that it took, or said that it has; `null`: not known since the start.
    pub confirmed: Option<u32>,
}

/// The rate limits of the policy in force, kilobits (1000 bits) per second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    /// Of all egress in scope.
    pub egress_kbps: Option<u64>,
    /// Of single hosts besides.
    pub hosts: BTreeMap<String, u64>,
}

/// `health --json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// Whether every check is well.
    pub healthy: bool,
    /// The checks.
    pub checks: Vec<Check>,
}

/// `firewall --json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The table, lines.
    pub text: String,
}

/// A piece of the zones. The tool puts all of them together as `{"text": …}` (`rpz --json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Lines; a piece may end within one.
    pub text: String,
    /// Whether another answer with a piece follows. The last one ends the connection.
    #[serde(default)]
    pub more: bool,
}

/// The stored policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its text as imported; `None`: none is stored.
    pub policy: Option<String>,
}

/// What `apply` and `import` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    /// The revision in force now; `null`: none is.
    pub revision: Option<u64>,
    /// The digest of the policy.
    pub sha256: String,
    /// Whether the kernel has it.
    pub applied: bool,
    /// Whether it is the stored policy, which a start enforces.
    #[serde(default)]
    pub stored: bool,
    /// How many things in the kernel were changed for it.
    pub changes: u64,
    /// When it goes away by itself unless it is confirmed, RFC 3339.
    #[serde(default, with = "maybe_seconds", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub confirm_by: Option<DateTime<Utc>>,
    /// What is odd about the policy though legal.
    #[serde(default)]
    pub warnings: Vec<Diagnostic>,
    /// What went wrong after it came into force, one sentence each: the disk was full and the like.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trouble: Vec<String>,
}

/// What `rollback` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolledBack {
    /// The revision whose policy is in force again, under a new number.
    pub to: u64,
    /// The rest.
    #[serde(flatten)]
    pub applied: Applied,
}

/// What `confirm` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Confirmed {
    /// The revision that stays.
    pub revision: u64,
    /// Whether confirming stored its policy.
    pub stored: bool,
}

/// `history --json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Newest first.
    pub revisions: Vec<RevisionMeta>,
    /// Files of the history that are no good, one sentence each.
    #[serde(default)]
    pub damage: Vec<String>,
}

/// Decision records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Logged {
    /// Oldest first.
    pub records: Vec<Arc<Record>>,
    /// Records that came faster than they were taken, if one follows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What `teardown` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TornDown {
    /// Whether there was a table to remove.
    pub removed: bool,
    /// What is open now, one line.
    pub message: String,
}

/// Times as RFC 3339 to the second, or `null`.
mod maybe_seconds {
    use chrono::{DateTime, Utc};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Option<DateTime<Utc>>, to: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => crate::store::seconds::serialize(time, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<DateTime<Utc>>, D::Error> {
        Option::<DateTime<Utc>>::deserialize(from)
    }
}
