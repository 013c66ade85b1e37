//! Leases: an address is open for the host that was given it, and for no longer (SPEC section 2, meaning 7).

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::rr::RecordType;
use serde_json::json;

use crate::world::Address;
use crate::{A, B, SITE, SITE6, rounds};

/// The shortest lease (60 s) and what the kernel may take on top until it is gone.
const SHORTEST: Duration = Duration::from_secs(63);

#[test]
fn an_address_opens_when_it_was_answered_and_not_before() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[SITE, SITE6]);
    world.gateway.enforce(json!({ "version": 1, "hosts": {
        "a": { "sources": A, "allow": { "domains": ["api.example.com"] } } } }));
    for site in [SITE, SITE6] {
        world.a.tcp(site, 443).must_be_reset();
    }
    world.a.reach("api.example.com", 443).must_reach();
    world.a.tcp(SITE6, 443).must_be_reset();
    world.a.reach6("api.example.com", 443).must_reach();
    world.a.tcp(SITE, 8443).must_be_reset();
}

#[test]
fn a_lease_is_the_asking_hosts_alone() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[SITE]);
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["api.example.com"] }, "hosts": {
        "a": { "sources": A }, "b": { "sources": B } } }));
    world.a.reach("api.example.com", 443).must_reach();
    world.b.tcp(SITE, 443).must_be_reset();
    // From the cache by now, and leased all the same.
    world.b.reach("api.example.com", 443).must_reach();
    assert_eq!(world.internet.upstream.times_asked("api.example.com"), 1, "the second answer is a cache hit");
}

#[test]
fn a_lease_serves_all_sources_of_its_host() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[SITE, SITE6]);
    let sources: Vec<&str> = A.into_iter().chain(B).collect();
    world.gateway.enforce(json!({ "version": 1, "hosts": {
        "both": { "sources": sources, "allow": { "domains": ["api.example.com"] } } } }));
    // Asked over IPv4 by one machine, used over IPv6 by the other.
    let reply = world.a.lookup("api.example.com", RecordType::AAAA).expect("an answer");
    assert_eq!(reply.addresses(), [SITE6.parse::<IpAddr>().unwrap()]);
    world.b.tcp(SITE6, 443).must_reach();
}

#[test]
fn answer_then_connect_at_once_never_fails() {
    let mut world = world!();
    let addresses: Vec<IpAddr> = (1..=200).map(|n| IpAddr::from([151, 101, 0, n])).collect();
    world.internet.upstream.rotate("turn.example.com", addresses, 1);
    world.internet.upstream.host("api.example.com", &[SITE]);
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["*.example.com"] } }));
    for round in 0..rounds(500) {
        for name in ["turn.example.com", "api.example.com"] {
            let outcome = world.a.reach(name, 443);
            assert!(outcome.reached(), "round {round}, {name}: {outcome}");
        }
    }
}

#[test]
fn every_address_of_an_answer_is_leased() {
    let mut world = world!();
    let many: Vec<String> = (1..=20).map(|n| format!("151.101.1.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    world.internet.upstream.host("many.example.com", &many);
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["many.example.com"] } }));
    let addresses = world.a.addresses("many.example.com");
    assert!(!addresses.is_empty());
    for address in addresses {
        world.a.tcp(address, 443).must_reach();
    }
}

#[test]
fn an_answer_outlives_the_network_that_covered_its_address() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[SITE]);
    world.gateway.enforce(json!({ "version": 1, "allow": { "ips": [SITE], "domains": ["api.example.com"] } }));
    world.a.reach("api.example.com", 443).must_reach();
    let mut flow = world.a.flow(SITE, 443);
    world.gateway.import(json!({ "version": 1, "allow": { "domains": ["api.example.com"] } }));
    world.a.tcp(SITE, 443).must_reach();
    assert!(flow.alive());
    world.gateway.import(json!({ "version": 1 }));
    world.a.tcp(SITE, 443).must_be_reset();
    assert!(!flow.alive());
}

#[test]
fn a_lease_ends_and_open_flows_do_not() {
    let mut world = world!();
    world.internet.upstream.host_for("api.example.com", &[SITE], 1);
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["api.example.com"] } }));
    let address = world.a.addresses("api.example.com")[0];
    let mut flow = world.a.flow(address, 443);
    std::thread::sleep(SHORTEST / 2);
    world.a.tcp(address, 443).must_reach();
    std::thread::sleep(SHORTEST / 2 + Duration::from_secs(1));
    assert!(flow.alive(), "a flow that is open goes on");
    world.a.tcp(address, 443).must_be_reset();
    world.a.reach("api.example.com", 443).must_reach();
}

/// Whoever asks grants leases itself; where the kernel refuses, the gate's thread mends the table and grants them.
#[test]
fn a_name_is_answered_while_somebody_removes_the_table() {
    let mut world = world!();
    world.gateway.settings("[kernel]\nlock_table = false\n");
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["*.example.com"] } }));
    for number in 0..5 {
        let name = format!("n{number}.example.com");
        world.internet.upstream.host(&name, &[SITE]);
        // The watch waits for the end of a burst of changes, so this comes first.
        world.gateway.nft(&["delete", "table", "inet", "clawgress"]).must_succeed();
        let asked = world.a.addresses(&name);
        assert_eq!(asked, [SITE.address()]);
        world.a.tcp(SITE, 443).must_reach();
    }
}
