//! Borrowed source addresses: a host cannot act as another (DESIGN section 2, source sanity).

use hickory_proto::rr::RecordType;
use serde_json::json;

use crate::world::{FOREIGN, HELLO, UPSTREAM, echoes, question};
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

#[test]
fn nobody_speaks_in_a_live_flow_of_another_host() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "scope": { "sources": AGENTS }, "hosts": {
        "a": { "sources": A }, "b": { "sources": B, "allow": { "ips": [SITE] } } } }));
    let honest = world.b.datagrams(4242);
    assert!(echoes(&honest, SITE, 443));
    let before = world.internet.servers.arrivals().len();
    assert!(!world.a.udp_from((world.b.v4, 4242), (SITE, 443), HELLO).reached());
    assert_eq!(world.internet.servers.arrivals().len(), before, "a datagram of a's in b's flow");
    assert!(echoes(&honest, SITE, 443), "b notices nothing");
}

#[test]
fn nobody_answers_in_the_name_of_somebody_out_of_scope() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "scope": { "sources": AGENTS } }));
    // A friend outside opens a flow to c, who need not know of it: c's side of it is free to borrow.
    let friend = world.internet.peer.datagrams(7777);
    friend.send_to(b"open", (world.c.v4, 4444)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    let _ = world.a.udp_from((world.c.v4, 4444), (world.internet.peer.v4, 7777), b"leak");
    let mut buffer = [0; 16];
    let got = friend.recv_from(&mut buffer).map(|(length, _)| buffer[..length].to_vec());
    assert_ne!(got.ok().as_deref(), Some(&b"leak"[..]), "a speaks as c");
}

#[test]
fn an_agent_cannot_answer_in_the_upstreams_name() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "scope": { "sources": AGENTS }, "hosts": { "a": { "sources": A } } }));
    world.internet.upstream.silent(true);
    let near = std::net::SocketAddr::new(world.internet.peer.router4, 3333);
    let asking = world.gateway.netns.enter(|| std::net::UdpSocket::bind(near)).unwrap();
    asking.connect((UPSTREAM[0], 53)).unwrap();
    asking.set_read_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
    asking.send(&question("example.com", RecordType::A)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    let _ = world.a.udp_from((UPSTREAM[0], 53), (near.ip(), near.port()), b"forged");
    assert!(asking.recv(&mut [0; 16]).is_err(), "a speaks as the upstream");
}
