//! Hosts: whose policy holds for a packet (SPEC section 2, meaning 3).

use serde_json::json;

use crate::{A, B, OTHER, OTHER6, SITE, SITE6};

#[test]
fn the_most_specific_source_wins() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "hosts": {
        "segment": { "sources": ["192.168.10.0/24", "fd00:10::/64"], "allow": { "ips": [SITE, SITE6] } },
        "agent": { "sources": A, "allow": { "ips": [OTHER, OTHER6] } },
        "everything": { "sources": ["192.168.0.0/16", "fd00::/16"], "allow": { "ips": [SITE, SITE6] } },
    } }));
    for (site, other) in [(SITE, OTHER), (SITE6, OTHER6)] {
        world.a.tcp(site, 443).must_be_reset();
        world.a.tcp(other, 443).must_reach();
        world.b.tcp(site, 443).must_reach();
        world.b.tcp(other, 443).must_be_reset();
    }
}

#[test]
fn absent_fields_are_inherited_and_empty_lists_mean_none() {
    let mut world = world!();
    world.gateway.enforce(json!({
        "version": 1, "allow": { "ips": [SITE, SITE6], "ports": [443] },
        "hosts": {
            "a": { "sources": A, "allow": { "ips": [] } },
            "b": { "sources": B, "allow": { "ports": [8443] } },
        }
    }));
    for site in [SITE, SITE6] {
        world.a.tcp(site, 443).must_be_reset();
        world.b.tcp(site, 8443).must_reach();
        world.b.tcp(site, 443).must_be_reset();
    }
}

#[test]
fn an_empty_list_of_ports_opens_no_port() {
    let mut world = world!();
    world.gateway.enforce(json!({
        "version": 1, "allow": { "ips": [SITE] }, "hosts": { "a": { "sources": A, "allow": { "ports": [] } } }
    }));
    world.a.tcp(SITE, 443).must_be_reset();
    world.a.udp(SITE, 80).must_be_prohibited();
    world.b.tcp(SITE, 443).must_reach();
}

#[test]
fn sources_in_no_host_get_the_global_policy() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[OTHER]);
    world.gateway.enforce(json!({
        "version": 1, "allow": { "domains": ["api.example.com"], "ips": [SITE, SITE6] },
        "hosts": { "a": { "sources": A, "allow": { "domains": [], "ips": [] } } }
    }));
    for site in [SITE, SITE6] {
        world.c.tcp(site, 443).must_reach();
        world.a.tcp(site, 443).must_be_reset();
    }
    world.c.reach("api.example.com", 443).must_reach();
    world.a.reach("api.example.com", 443).must_be_blocked_by_name();
}
