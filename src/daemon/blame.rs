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

impl Refused {
    /// A refusal for which no line of the policy is to blame.
    pub fn plain(what: String) -> Self {
        Self { what, path: None }
    }
}

/// The JSON Pointer of the line; `None`: the operation comes from no single line.
pub fn policy_line(op: &Op, policy: &Policy, hosts: &BTreeMap<HostName, HostId>) -> Option<String> {
    match op {
        Op::AddRule(_, rule) => rule.comment.starts_with('/').then(|| rule.comment.clone()),
        Op::AddSet(name, _)
        | Op::Fill(name, _)
        | Op::AddElements(name, _)
        | Op::DelElements(name, _)
        | Op::PutElements(name, _) => set_line(name, policy, hosts),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::ir::{Data, Key, KeyType, Rule, SetSpec, Value};
    use crate::plan::table::names::{self, Owner};
    use crate::policy::parse;

    #[test]
    fn every_operation_of_a_list_names_its_line() {
        let policy = parse(
            r#"{"version": 1, "scope": {"sources": ["192.168.0.0/16"]},
                "allow": {"ips": ["192.0.2.0/24"], "ports": [443]}, "deny": {"ips": ["192.0.2.7"]},
                "hosts": {"agent-1": {"sources": ["192.168.1.1"], "allow": {"ips": ["198.51.100.0/24"]},
                    "deny": {"ips": ["198.51.100.1"]}}}}"#,
        )
        .unwrap();
        let id = HostId(7);
        let hosts = policy.hosts.keys().map(|name| (name.clone(), id)).collect();
        let line = |op: Op| policy_line(&op, &policy, &hosts);
        let v4 = crate::plan::ir::Family::V4;
        let element = vec![(Key::Mark(1), Value::plain(Data::None))];
        for (set, path) in [
            (names::ports(Owner::Global), Some("/allow/ports")),
            (names::addresses("allow", v4, true, Owner::Global), Some("/allow/ips")),
            (names::addresses("deny", v4, false, Owner::Global), Some("/deny/ips")),
            (names::addresses("allow", v4, true, Owner::Host(id)), Some("/hosts/agent-1/allow/ips")),
            (names::addresses("deny", v4, false, Owner::Host(id)), Some("/hosts/agent-1/deny/ips")),
            (
                format!("{}.0badcafe", names::addresses("allow", v4, true, Owner::Host(id))).into(),
                Some("/hosts/agent-1/allow/ips"),
            ),
            ("host4.0badcafe".into(), Some("/hosts")),
            ("scope6.0badcafe".into(), Some("/scope/sources")),
            ("dst4".into(), None),
        ] {
            assert_eq!(line(Op::AddElements(set.clone(), element.clone())).as_deref(), path, "{set}");
        }
        let spec = SetSpec {
            key: KeyType::Port,
            data: crate::plan::ir::DataType::None,
            interval: false,
            timeout: false,
            counter: false,
            size: None,
        };
        assert_eq!(line(Op::AddSet("ports_global".into(), spec)).as_deref(), Some("/allow/ports"));
        let rule = |comment: &str| Rule { conds: Vec::new(), actions: Vec::new(), comment: comment.into() };
        assert_eq!(line(Op::AddRule("view4_h7".into(), rule("/deny/ips"))).as_deref(), Some("/deny/ips"));
        assert_eq!(line(Op::AddRule("view4_h7".into(), rule("echo"))), None);
    }
}
