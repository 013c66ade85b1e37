//! Monitor mode: everything passes, and `explain` says what would have been blocked (SPEC sections 1 and 2, `mode`).

use serde_json::json;

use crate::{A, B, OTHER, SITE, SITE6};

#[test]
fn monitoring_lets_everything_pass() {
    let mut world = world!();
    world.internet.upstream.host("any.example.net", &[OTHER]);
    world.gateway.enforce(json!({ "version": 1, "mode": "monitor", "deny": { "ips": [SITE] } }));
    for site in [SITE, SITE6] {
        world.a.tcp(site, 22).must_reach();
        world.a.udp(site, 8443).must_reach();
        world.a.ping(site).must_reach();
    }
    world.a.reach("any.example.net", 443).must_reach();
    let said = world.gateway.explain(world.a.v4, &["--ip", SITE, "--port", "443"]);
    assert_eq!((said["verdict"].as_str(), said["mode"].as_str()), (Some("block"), Some("monitor")), "{said}");
}

#[test]
fn a_hosts_mode_is_its_own() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "mode": "monitor", "hosts": {
        "a": { "sources": A, "mode": "enforce" }, "b": { "sources": B } } }));
    for site in [SITE, SITE6] {
        world.a.tcp(site, 443).must_be_reset();
        world.b.tcp(site, 443).must_reach();
    }
}

#[test]
fn the_change_from_monitor_to_enforce_cuts_what_is_not_allowed() {
    let mut world = world!();
    let policy = |mode: &str| json!({ "version": 1, "mode": mode, "allow": { "ips": [SITE] } });
    world.gateway.enforce(policy("monitor"));
    let (mut allowed, mut other) = (world.a.flow(SITE, 443), world.a.flow(OTHER, 443));
    assert!(allowed.alive() && other.alive());
    world.gateway.import(policy("enforce"));
    assert!(allowed.alive());
    assert!(!other.alive());
}
