//! Which line of the policy a refused kernel operation comes from.

use std::collections::BTreeMap;

use crate::plan::ids::HostId;
use crate::plan::ops::Op;
use crate::policy::Policy;
use crate::policy::model::{HostName, List};

/// Why a revision is not in force. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Refused {
    /// What the kernel said, in words.
    pub what: String,
    /// The line of the policy that the kernel refused, if it was one line.
    pub path: Option<String>,
}

/// The JSON Pointer of the line; `None`: the operation comes from no single line.
pub fn policy_line(op: &Op, policy: &Policy, hosts: &BTreeMap<HostName, HostId>) -> Option<String> {
    match op {
        Op::AddRule(_, rule) => rule.comment.starts_with('/').then(|| rule.comment.clone()),
        Op::AddSet(name, _) | Op::AddElements(name, _) | Op::DelElements(name, _) | Op::PutElements(name, _) => {
            set_line(name, policy, hosts)
        }
        _ => None,
    }
}

/// Sets are named by their list and its owner; see [`crate::plan::table::names`].
fn set_line(set: &str, policy: &Policy, hosts: &BTreeMap<HostName, HostId>) -> Option<String> {
    // Interval sets have a digest behind their name.
    let set = set.split_once('.').map_or(set, |(name, _)| name);
    match set {
        "host4" | "host6" | "hosts" | "view4" | "view6" | "reply4" | "reply6" => return Some("/hosts".into()),
        "scope4" | "scope6" => return policy.scope.sources.as_ref().map(|list| list.path.to_string()),
        _ => {}
    }
    let (stem, owner) = set.rsplit_once('_')?;
    let host = owner.strip_prefix('h').and_then(|id| id.parse().ok()).and_then(|id| {
        let name = hosts.iter().find(|(_, number)| **number == HostId(id)).map(|(name, _)| name)?;
        policy.hosts.get(name)
    });
    let (allow, deny) = host.map_or((&policy.allow, &policy.deny), |host| (&host.allow, &host.deny));
    match stem.trim_end_matches(['n', '4', '6']) {
        "ports" => pointer(allow.ports.as_ref()),
        "allow" => pointer(allow.ips.as_ref()),
        "deny" => pointer(deny.ips.as_ref()),
        _ => None,
    }
}

fn pointer<T>(list: Option<&List<T>>) -> Option<String> {
    list.map(|list| list.path.to_string())
}
