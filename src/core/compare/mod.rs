//! What differs between two policies, in the words of the format: which entry came, went or changed, and whether that
//! opens more or less.
//!
//! Each entry is compared by what it covers, not by its text: a name that a wildcard covers already opens nothing. Where
//! sources move from one host to another (or to none) the lists of both are compared. The promise, which a test holds with
//! random policies: whatever one policy lets through and the other refuses lies under a change that says so.

mod entries;
mod notes;
mod owners;
mod views;
mod windows;

use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::notes::Notes;
use crate::policy::model::Policy;

/// What happened to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(description = "What happened to an entry.")]
pub enum Kind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It says something else.
    Changed,
}

/// What a change does to what may be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(description = "What a change does to what may be reached.")]
pub enum Effect {
    /// Nothing: what it is about was open, or shut, before.
    #[default]
    None,
    /// It opens more.
    Widens,
    /// It opens less.
    Narrows,
    /// It opens more in one place, or at one time, and less in another.
    Both,
}

impl Effect {
    /// The effect of two changes together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::of(self.widens() || other.widens(), self.narrows() || other.narrows())
    }

    /// From its parts.
    pub fn of(widens: bool, narrows: bool) -> Self {
        match (widens, narrows) {
            (false, false) => Self::None,
            (true, false) => Self::Widens,
            (false, true) => Self::Narrows,
            (true, true) => Self::Both,
        }
    }

    /// Whether it opens anything.
    pub fn widens(self) -> bool {
        matches!(self, Self::Widens | Self::Both)
    }

    /// Whether it shuts anything.
    pub fn narrows(self) -> bool {
        matches!(self, Self::Narrows | Self::Both)
    }
}

/// The part of the policy that a change is in, as the format calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "The part of the policy that a change is in.")]
pub enum Field {
    /// `scope.sources`
    #[serde(rename = "scope.sources")]
    ScopeSources,
    /// `scope.interfaces`
    #[serde(rename = "scope.interfaces")]
    ScopeInterfaces,
    /// `mode`
    #[serde(rename = "mode")]
    Mode,
    /// `hosts`
    #[serde(rename = "hosts")]
    Hosts,
    /// `sources` of a host
    #[serde(rename = "sources")]
    Sources,
    /// `allow.domains`
    #[serde(rename = "allow.domains")]
    AllowDomains,
    /// `allow.domain_lists`
    #[serde(rename = "allow.domain_lists")]
    AllowDomainLists,
    /// `allow.ips`
    #[serde(rename = "allow.ips")]
    AllowIps,
    /// `allow.ports`
    #[serde(rename = "allow.ports")]
    AllowPorts,
    /// `deny.domains`
    #[serde(rename = "deny.domains")]
    DenyDomains,
    /// `deny.domain_lists`
    #[serde(rename = "deny.domain_lists")]
    DenyDomainLists,
    /// `deny.ips`
    #[serde(rename = "deny.ips")]
    DenyIps,
    /// `time_zone`
    #[serde(rename = "time_zone")]
    TimeZone,
    /// `time_window`
    #[serde(rename = "time_window")]
    TimeWindow,
    /// `domain_time_windows`
    #[serde(rename = "domain_time_windows")]
    DomainTimeWindows,
    /// `limits.egress_kbps`
    #[serde(rename = "limits.egress_kbps")]
    EgressKbps,
    /// `exfil.domains`
    #[serde(rename = "exfil.domains")]
    Exfil,
    /// `labels`
    #[serde(rename = "labels")]
    Labels,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "One difference between two policies.")]
pub struct Change {
    /// What it does to what may be reached.
    pub effect: Effect,
    /// What happened to the entry.
    pub change: Kind,
    /// Whose; `null`: the global part, which holds for every source and host that has nothing of its own there.
    pub host: Option<String>,
    /// The part of the policy.
    pub field: Field,
    /// The entry: a name, a network, a port, a host; `null`: the field has one value only.
    pub item: Option<String>,
    /// What it said before, where it says more than that it is there.
    pub before: Option<String>,
    /// What it says now.
    pub after: Option<String>,
    /// Where it is written, as a JSON Pointer (RFC 6901): in the new policy, or in the old one where it was removed.
    pub path: Option<String>,
}

/// Every difference from `old` to `new`, what widens first. `zone` is the gateway's own, for policies that name none.
pub fn compare(old: &Policy, new: &Policy, zone: Tz) -> Vec<Change> {
    let mut notes = Notes::default();
    notes::top(old, new, zone, &mut notes);
    owners::hosts(old, new, &mut notes);
    notes.into_changes()
}

#[cfg(test)]
mod tests;
