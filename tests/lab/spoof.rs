//! Borrowed source addresses: a host cannot act as another (DESIGN section 2, source sanity).

use hickory_proto::rr::RecordType;
use serde_json::json;

use crate::world::{FOREIGN, HELLO, question};
use crate::{A, AGENTS, B, SITE, SITE6};

#[test]
fn another_hosts_source_gets_nowhere() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "scope": { "sources": AGENTS }, "hosts": {
        "a": { "sources": A }, "b": { "sources": B, "allow": { "ips": [SITE, SITE6] } } } }));
    world.b.udp(SITE, 443).must_reach();
    world.b.udp(SITE6, 443).must_reach();
    let honest = world.internet.servers.arrivals().len();
    assert!(!world.a.udp_from((world.b.v4, 4242), (SITE, 443), HELLO).reached());
    assert!(!world.a.udp_from((world.b.v6, 4242), (SITE6, 443), HELLO).reached());
    assert_eq!(world.internet.servers.arrivals().len(), honest, "nothing of it may arrive");
}

#[test]
fn a_source_out_of_scope_is_no_way_out() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "scope": { "sources": AGENTS } }));
    for (source, site) in [(world.c.v4, SITE), (world.c.v6, SITE6)] {
        assert!(!world.a.udp_from((source, 4242), (site, 443), HELLO).reached());
    }
    for (source, site) in [("151.101.7.7", SITE), ("2606:4700::7:7", SITE6)] {
        assert!(!world.a.udp_from((source, 4242), (site, 443), HELLO).reached());
    }
    assert_eq!(world.internet.servers.arrivals(), [], "nothing may arrive");
}

#[test]
fn a_borrowed_source_opens_no_lease_for_its_owner() {
    let mut world = world!();
    world.internet.upstream.host("b.example.com", &[SITE]);
    world.gateway.enforce(json!({ "version": 1, "hosts": {
        "a": { "sources": A }, "b": { "sources": B, "allow": { "domains": ["b.example.com"] } } } }));
    for server in [world.a.router4, FOREIGN[0].parse().unwrap()] {
        let question = question("b.example.com", RecordType::A);
        assert!(!world.a.udp_from((world.b.v4, 4242), (server, 53), &question).reached());
    }
    assert_eq!(world.internet.upstream.asked(), [], "the question must not even be heard");
    world.b.tcp(SITE, 443).must_be_reset();
}
