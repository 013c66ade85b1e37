//! Monitor mode against those who would profit from it: what passes for a watched host passes for nobody else.

use serde_json::{Value, json};

use crate::{A, B, OTHER, OTHER6, SITE};

/// Hosts under a policy that only watches, but for those that say otherwise.
fn watched(hosts: Value) -> Value {
    json!({ "version": 1, "mode": "monitor", "time_zone": "UTC", "allow": { "ips": [SITE], "ports": [443] },
        "hosts": hosts })
}

#[test]
fn a_source_that_becomes_an_enforced_host_takes_no_flow_along() {
    let mut world = world!();
    world.gateway.enforce(watched(json!({ "b": { "sources": B } })));
    let (mut flow, mut flow6) = (world.a.flow(OTHER, 443), world.a.flow(OTHER6, 443));
    let mut other = world.c.flow(OTHER, 443);
    assert!(flow.alive() && flow6.alive() && other.alive(), "nobody's sources are watched");
    let hosts = json!({ "a": { "sources": A, "mode": "enforce" }, "b": { "sources": B } });
    world.gateway.import(watched(hosts));
    assert!(!flow.alive(), "a flow from when it was watched goes on over IPv4");
    assert!(!flow6.alive(), "a flow from when it was watched goes on over IPv6");
    assert!(other.alive(), "others are watched still");
}

#[test]
fn a_source_that_moves_to_an_enforced_host_takes_no_flow_along() {
    let mut world = world!();
    let both: Vec<&str> = A.into_iter().chain(B).collect();
    world.gateway.enforce(watched(json!({ "old": { "sources": both } })));
    let (mut moved, mut stayed) = (world.a.flow(OTHER, 443), world.b.flow(OTHER, 443));
    assert!(moved.alive() && stayed.alive());
    let hosts = json!({ "old": { "sources": B }, "new": { "sources": A, "mode": "enforce" } });
    world.gateway.import(watched(hosts));
    assert!(!moved.alive(), "the flow of a source that moved to an enforced host goes on");
    assert!(stayed.alive(), "b is watched still");
    world.a.tcp(OTHER, 443).must_be_reset();
}
