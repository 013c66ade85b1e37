//! Denylists: what may never be reached, whatever else the policy says (SPEC section 2, `deny` and meaning 1).

use serde_json::json;

use crate::{A, B, OTHER, OTHER6, SITE, SITE6};

#[test]
fn denied_addresses_win_over_allowed_ones() {
    let mut world = world!();
    world.gateway.enforce(json!({
        "version": 1,
        "allow": { "ips": ["93.184.216.0/24", "2606:4700::/64"] },
        "deny": { "ips": [SITE, SITE6] }
    }));
    for (site, other) in [(SITE, OTHER), (SITE6, OTHER6)] {
        world.a.tcp(site, 443).must_be_reset();
        world.a.udp(site, 443).must_be_prohibited();
        world.a.tcp(other, 443).must_reach();
    }
}

#[test]
fn the_global_denylist_binds_every_host_and_a_hosts_only_itself() {
    let mut world = world!();
    let both = json!({ "ips": ["93.184.216.0/24", "2606:4700::/64"] });
    world.gateway.enforce(json!({
        "version": 1, "deny": { "ips": [SITE, SITE6] },
        "hosts": {
            "a": { "sources": A, "allow": both, "deny": { "ips": [OTHER, OTHER6] } },
            "b": { "sources": B, "allow": both },
        }
    }));
    for (site, other) in [(SITE, OTHER), (SITE6, OTHER6)] {
        world.a.tcp(site, 443).must_be_reset();
        world.b.tcp(site, 443).must_be_reset();
        world.a.tcp(other, 443).must_be_reset();
        world.b.tcp(other, 443).must_reach();
    }
}

#[test]
fn denied_names_win_over_allowed_ones_and_are_not_asked_for() {
    let mut world = world!();
    for name in ["bad.example.com", "deep.bad.example.com", "good.example.com"] {
        world.internet.upstream.host(name, &[SITE]);
    }
    world.gateway.enforce(json!({
        "version": 1, "allow": { "domains": ["*.example.com"] },
        "deny": { "domains": ["bad.example.com", "*.bad.example.com"] }
    }));
    world.a.reach("bad.example.com", 443).must_be_blocked_by_name();
    world.a.reach("deep.bad.example.com", 443).must_be_blocked_by_name();
    world.a.reach("good.example.com", 443).must_reach();
    assert_eq!(world.internet.upstream.times_asked("bad.example.com"), 0);
    assert_eq!(world.internet.upstream.times_asked("deep.bad.example.com"), 0);
}

#[test]
fn a_denied_name_anywhere_in_the_chain_blocks_the_answer() {
    let mut world = world!();
    let upstream = &world.internet.upstream;
    upstream.alias("www.example.com", "cdn.example.net");
    upstream.alias("cdn.example.net", "edge.tracker.example");
    upstream.host("edge.tracker.example", &[SITE]);
    world.gateway.enforce(json!({
        "version": 1, "allow": { "domains": ["www.example.com"] }, "deny": { "domains": ["*.tracker.example"] }
    }));
    world.a.reach("www.example.com", 443).must_be_blocked_by_name();
    world.a.tcp(SITE, 443).must_be_reset();
}

#[test]
fn a_denied_address_stays_closed_when_an_allowed_name_points_at_it() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[SITE]);
    world.gateway.enforce(json!({
        "version": 1, "allow": { "domains": ["api.example.com"] }, "deny": { "ips": ["93.184.216.0/24"] }
    }));
    assert!(!world.a.reach("api.example.com", 443).reached());
    world.a.tcp(SITE, 443).must_be_reset();
}

/// With so many names in use the flows are made ready piece by piece before the revision comes
/// (`clawgress::core::ahead`).
#[test]
fn a_denied_address_cuts_its_flow_and_no_other_however_many_names_are_in_use() {
    let mut world = world!();
    let names: Vec<String> = (0..2100).map(|number| format!("n{number}.example.com")).collect();
    names.iter().for_each(|name| world.internet.upstream.host(name, &[SITE]));
    world.internet.upstream.host("other.example.com", &[OTHER]);
    world.gateway.settings("queries_per_second = 0\n");
    let policy =
        |denied: &[&str]| json!({ "version": 1, "allow": { "domains": ["*.example.com"] }, "deny": { "ips": denied } });
    world.gateway.enforce(policy(&[]));
    for name in names.iter().chain([&"other.example.com".to_owned()]) {
        assert_eq!(world.a.addresses(name).len(), 1, "{name}");
    }
    let (mut stays, mut goes) = (world.a.flow(SITE, 443), world.a.flow(OTHER, 443));
    assert!(stays.alive() && goes.alive());
    world.gateway.import(policy(&[OTHER]));
    assert!(stays.alive() && !goes.alive());
    let up = world.gateway.nft(&["list", "map", "inet", "clawgress", "up"]).must_succeed().to_owned();
    let judged = up.matches("goto recheck_").count();
    assert!(judged > names.len() && up.matches(": accept").count() < 10, "{judged} are judged at each packet");
    world.a.tcp(OTHER, 443).must_be_reset();
    world.a.reach("n2.example.com", 443).must_reach();
    // And back: what is denied no more is reached again, and the flow of before goes on.
    world.gateway.import(policy(&[]));
    assert!(stays.alive());
    world.a.reach("other.example.com", 443).must_reach();
}
