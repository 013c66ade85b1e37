//! The zones as texts.

use super::*;
use crate::policy::parse;

fn policy(text: &str) -> Policy {
    parse(text).unwrap()
}

/// The records of a zone, without its head.
fn records(zones: &[Zone], name: &str) -> Vec<String> {
    let zone = zones.iter().find(|zone| zone.name == name).unwrap_or_else(|| panic!("no zone {name}"));
    zone.text.lines().skip(4).map(str::to_owned).collect()
}

#[test]
fn an_allowlist_and_the_zone_that_denies_the_rest() {
    let policy = policy(r#"{"version": 1, "allow": {"domains": ["b.example.com", "*.A.example.com"]}}"#);
    let zones = zones(&policy, 7, None);
    assert_eq!(
        zones[0].text,
        "; global.allow.rpz.clawgress. revision 7: names that may be asked for\n$TTL 10\n\
         @ SOA localhost. nobody.invalid. 7 60 60 86400 10\n@ NS localhost.\n\
         *.a.example.com CNAME rpz-passthru. ; /allow/domains/1\n\
         b.example.com CNAME rpz-passthru. ; /allow/domains/0\n"
    );
    assert_eq!(records(&zones, "deny.rpz.clawgress."), ["* CNAME ."]);
    assert_eq!(order(&policy, None, false), ["global.allow.rpz.clawgress.", "deny.rpz.clawgress."]);
}

#[test]
fn wildcards_are_closed_over_what_exists_below_them() {
    let policy = policy(r#"{"version": 1, "allow": {"domains": ["*.clo.test", "m.clo.test", "u.v.clo.test"]}}"#);
    assert_eq!(
        records(&zones(&policy, 1, None), "global.allow.rpz.clawgress."),
        [
            "*.clo.test CNAME rpz-passthru. ; /allow/domains/0",
            "*.m.clo.test CNAME rpz-passthru. ; /allow/domains/0 (*.clo.test)",
            "*.u.v.clo.test CNAME rpz-passthru. ; /allow/domains/0 (*.clo.test)",
            "*.v.clo.test CNAME rpz-passthru. ; /allow/domains/0 (*.clo.test)",
            "m.clo.test CNAME rpz-passthru. ; /allow/domains/1",
            "u.v.clo.test CNAME rpz-passthru. ; /allow/domains/2",
            "v.clo.test CNAME rpz-passthru. ; /allow/domains/0 (*.clo.test)",
        ]
    );
}

#[test]
fn hosts_share_what_they_inherit() {
    let policy = policy(
        r#"{"version": 1, "allow": {"domains": ["a.test"]}, "deny": {"domains": ["d.test"]}, "hosts": {
            "same": {"sources": ["192.0.2.1"]},
            "list": {"sources": ["192.0.2.2"], "allow": {"domains": []}},
            "deny": {"sources": ["192.0.2.3"], "deny": {"domains": ["e.test"]}}}}"#,
    );
    let host = |name: &str| policy.hosts.keys().find(|host| host.as_str() == name);
    let last = "deny.rpz.clawgress.";
    let (global, denied) = ("global.allow.rpz.clawgress.", "global.denied.rpz.clawgress.");
    assert_eq!(order(&policy, host("same"), false), [denied, global, last]);
    assert_eq!(order(&policy, host("list"), false), [denied, "list.allow.rpz.clawgress.", last]);
    assert_eq!(order(&policy, host("deny"), false), ["deny.denied.rpz.clawgress.", global, last]);
    let zones = zones(&policy, 1, None);
    assert_eq!(zones.iter().map(|zone| zone.view.as_str()).collect::<Vec<_>>(), ["*", "deny", "*", "list", "**"]);
    assert_eq!(
        records(&zones, "deny.denied.rpz.clawgress."),
        ["d.test CNAME . ; /deny/domains/0", "e.test CNAME . ; /hosts/deny/deny/domains/0"]
    );
    assert!(records(&zones, "list.allow.rpz.clawgress.").is_empty());
}

#[test]
fn views_never_share_a_label() {
    let names = ["a.b", "a-b", "A-b", "a-B", "global", "_", "-", ".", "a_b", &"x".repeat(63)];
    let labels: std::collections::BTreeSet<String> =
        names.iter().map(|name| label(Some(&HostName((*name).into())))).chain([label(None)]).collect();
    assert_eq!(labels.len(), names.len() + 1, "{labels:?}");
    assert!(labels.iter().all(|label| label.len() <= MAX_LABEL && !label.contains('.')), "{labels:?}");
}

#[test]
fn what_does_not_fit_is_not_allowed_and_is_denied_more_widely() {
    let long = format!("{0}.{0}.{0}.{1}.test", "l".repeat(60), "k".repeat(60));
    let text = format!(
        r#"{{"version": 1, "allow": {{"domains": ["{long}", "8.8.8.8.rpz-ip"]}}, "deny": {{"domains": ["{long}"]}}}}"#
    );
    let zones = zones(&policy(&text), 1, None);
    let allow = records(&zones, "global.allow.rpz.clawgress.");
    assert!(allow.len() == 2 && allow.iter().all(|line| line.starts_with("; left out")), "{allow:?}");
    let denied = records(&zones, "global.denied.rpz.clawgress.");
    assert!(denied.len() == 1 && denied[0].starts_with("*.l") && denied[0].contains(" CNAME . ;"), "{denied:?}");
}

#[test]
fn the_serial_is_the_revision_and_wraps() {
    let policy = policy(r#"{"version": 1}"#);
    assert!(zones(&policy, u64::from(u32::MAX) + 3, None)[0].text.contains(" nobody.invalid. 2 60 "));
}

#[test]
fn the_rendering_says_who_uses_what() {
    let policy = policy(
        r#"{"version": 1, "hosts": {"a.b": {"sources": ["192.0.2.1", "192.0.2.8/29"]},
        "own": {"sources": ["192.0.2.2"], "allow": {"domains": []}}}}"#,
    );
    let text = render(&policy, 3, None, None);
    assert!(text.contains(";   a.b (192.0.2.1/32, 192.0.2.8/29): global.allow.rpz.clawgress. deny."), "{text}");
    assert!(text.contains("\n; ---- zone deny.rpz.clawgress. ----\n"), "{text}");
    assert!(text.contains("; ---- zone own.allow.rpz.clawgress. ----\n"), "{text}");
    let own = policy.hosts.keys().find(|host| host.as_str() == "own");
    let text = render(&policy, 3, own, None);
    assert!(!text.contains("a.b") && !text.contains("global") && text.contains("zone own.allow."), "{text}");
}
