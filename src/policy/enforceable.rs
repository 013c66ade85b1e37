//! What the policy language can say and this version does not yet do. A policy that asks for it is refused: a limit
//! that is written but does not hold is worse than none.

use super::diagnostic::Diagnostic;
use super::model::{Located, Policy};

/// The highest rate that can be enforced: 100 Gbit/s.
pub const MAX_KBPS: u64 = 100_000_000;

/// Every place at which the policy asks for something that this version does not enforce. Empty: the policy can be
/// applied.
pub fn not_yet_enforced(policy: &Policy) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    rate(&mut found, policy.egress_kbps.as_ref());
    for host in policy.hosts.values() {
        rate(&mut found, host.egress_kbps.as_ref());
    }
    unread(&mut found, policy);
    found
}

/// Whoever enforces a policy reads its files first.
fn unread(found: &mut Vec<Diagnostic>, policy: &Policy) {
    for (path, list) in policy.domain_lists().filter(|(_, list)| list.contents.is_none()) {
        found.push(Diagnostic {
            path: path.to_string(),
            message: format!("{} was not read, so this policy is not applied", list.file),
            hint: Some("see whether the file is there".to_owned()),
        });
    }
}

/// The kernel multiplies a rate by the nanoseconds of a second, in 64 bits.
fn rate(found: &mut Vec<Diagnostic>, rate: Option<&Located<u64>>) {
    if let Some(rate) = rate.filter(|rate| rate.value > MAX_KBPS) {
        found.push(Diagnostic {
            path: rate.path.to_string(),
            message: format!("no limit above {MAX_KBPS} kbit/s can be enforced, so this policy is not applied"),
            hint: Some("remove it to set no limit".to_owned()),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::lists::Reader;
    use crate::policy::model::ListFormat;
    use crate::policy::parse;

    #[test]
    fn every_promise_that_is_not_kept_is_named() {
        let policy = parse(
            r#"{"version": 1, "mode": "monitor", "time_zone": "UTC",
                "allow": {"domain_lists": [{"name": "a", "file": "/a", "format": "hosts"}]},
                "deny": {"domain_lists": [{"name": "a", "file": "/a", "format": "hosts"}]},
                "time_window": {"days": ["mon"]},
                "domain_time_windows": {"A.example.com": {"days": ["mon"]}},
                "limits": {"egress_kbps": 100000001},
                "hosts": {"h": {"sources": ["192.0.2.1"], "mode": "monitor", "time_window": {"days": ["mon"]},
                    "allow": {"domain_lists": [{"name": "a", "file": "/a", "format": "hosts"}]},
                    "deny": {"domain_lists": [{"name": "a", "file": "/a", "format": "hosts"}]},
                    "domain_time_windows": {"a.example.com": {"days": ["mon"]}}, "limits": {"egress_kbps": 100000000},
                    "exfil": {"domains": {"a.example.com": {"bytes": 1, "period": "day"}}}}}}"#,
        )
        .unwrap();
        let found: Vec<String> = not_yet_enforced(&policy).into_iter().map(|diagnostic| diagnostic.path).collect();
        assert_eq!(
            found,
            [
                "/limits/egress_kbps",
                "/allow/domain_lists/0",
                "/deny/domain_lists/0",
                "/hosts/h/allow/domain_lists/0",
                "/hosts/h/deny/domain_lists/0",
            ]
        );
    }

    #[test]
    fn what_is_enforced_is_not_complained_of() {
        let policy = parse(
            r#"{"version": 1, "mode": "enforce", "time_zone": "Europe/Berlin", "scope": {"interfaces": ["eth1"]},
                "allow": {"domains": ["a.example.com"], "ips": ["192.0.2.0/24"], "ports": [443], "domain_lists": []},
                "deny": {"domains": ["b.example.com"]}, "labels": {"a.example.com": "a"}, "limits": {},
                "hosts": {"h": {"sources": ["192.0.2.1"], "mode": "enforce", "exfil": {"domains": {}}}}}"#,
        )
        .unwrap();
        assert_eq!(not_yet_enforced(&policy), []);
    }

    #[test]
    fn a_list_that_was_read_is_enforced() {
        let text = r#"{"version": 1, "deny": {"domain_lists": [{"name": "a", "file": "/a", "format": "hosts"}]}}"#;
        let policy = parse(text).unwrap();
        let contents = Reader::new(ListFormat::Hosts, 0, 1).finish().unwrap();
        let read = |file: &str| [((file.to_owned(), ListFormat::Hosts), Arc::new(contents.clone()))].into();
        assert_eq!(not_yet_enforced(&policy.clone().with_contents(&read("/a"))), []);
        assert_eq!(not_yet_enforced(&policy.with_contents(&read("/b"))).len(), 1);
    }
}
