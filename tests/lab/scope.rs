//! Scope: what the policy is about, and that everything else is left alone (SPEC section 2, `scope`).

use hickory_proto::rr::RecordType;
use serde_json::json;

use crate::world::{Arrival, FOREIGN, OUTSIDE, Over, Servers};
use crate::{A, AGENTS, SITE, SITE6};

#[test]
fn in_scope_the_default_is_block() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "scope": { "sources": AGENTS } }));
    for site in [SITE, SITE6] {
        world.a.tcp(site, 443).must_be_reset();
        world.a.udp(site, 443).must_be_prohibited();
        world.b.ping(site).must_be_prohibited();
    }
    assert_eq!(world.internet.servers.arrivals(), [], "nothing may arrive");
}

#[test]
fn sources_outside_the_scope_are_untouched() {
    let mut world = world!();
    world.internet.foreign.host("any.example.net", &[SITE]);
    world.internet.servers.sniff(47);
    world.gateway.enforce(json!({ "version": 1, "scope": { "sources": AGENTS } }));
    for site in [SITE, SITE6] {
        world.c.tcp(site, 22).must_reach();
        world.c.udp(site, 8443).must_reach();
        world.c.ping(site).must_reach();
    }
    world.c.raw(47, SITE, b"anything").must_time_out();
    assert_eq!(world.internet.servers.count(|arrival| arrival.protocol == 47), 1);
    for over in [Over::Udp, Over::Tcp] {
        world.c.dig("any.example.net", RecordType::A, FOREIGN[0], over).expect("the resolver that was asked answers");
    }
    assert_eq!(world.internet.foreign.times_asked("any.example.net"), 2, "port 53 out of scope is not redirected");
}

#[test]
fn interfaces_bound_the_scope() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "scope": { "interfaces": ["lan1"] } }));
    for site in [SITE, SITE6] {
        world.a.tcp(site, 443).must_be_reset();
        world.b.tcp(site, 443).must_reach();
    }
}

#[test]
fn both_scope_fields_must_hold() {
    let mut world = world!();
    let scope = json!({ "sources": AGENTS, "interfaces": ["lan1"] });
    world.gateway.enforce(json!({ "version": 1, "scope": scope }));
    world.a.tcp(SITE, 443).must_be_reset();
    world.b.tcp(SITE, 443).must_reach();
    world.c.tcp(SITE, 443).must_reach();
}

#[test]
fn without_scope_every_forwarded_packet_is_policed() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1 }));
    for agent in [&world.a, &world.b, &world.c] {
        agent.tcp(SITE, 443).must_be_reset();
        agent.tcp(SITE6, 443).must_be_reset();
    }
}

#[test]
fn replies_to_flows_from_outside_are_the_agents_traffic() {
    let mut world = world!();
    let inside = Servers::new(world.a.netns.clone());
    inside.echo(&[443, 2222]);
    let policy = |ips: &[&str]| {
        json!({ "version": 1, "scope": { "sources": AGENTS },
                "hosts": { "a": { "sources": A, "allow": { "ips": ips, "ports": [443] } } } })
    };
    world.gateway.enforce(policy(&[]));
    for address in [world.a.v4, world.a.v6] {
        assert!(!world.internet.peer.udp(address, 443).reached(), "the reply may not leave");
        assert!(!world.internet.peer.tcp(address, 443).reached(), "the reply may not leave");
    }
    let datagrams = |arrival: &Arrival| arrival.protocol == 17;
    assert_eq!(inside.count(datagrams), 2, "the direction towards the agent is untouched");

    world.gateway.import(policy(&OUTSIDE));
    for address in [world.a.v4, world.a.v6] {
        world.internet.peer.tcp(address, 443).must_reach();
        world.internet.peer.udp(address, 443).must_reach();
        assert!(!world.internet.peer.tcp(address, 2222).reached(), "a port that is not in ports");
    }
}
