//! Refusals are fast and readable, and the packet, the answer and `explain` say the same (SPEC section 2, meaning 8).

use hickory_proto::rr::RecordType;
use serde_json::json;

use crate::{A, OTHER, OTHER6, SITE, SITE6};

fn policy() -> serde_json::Value {
    json!({ "version": 1, "deny": { "ips": ["93.184.216.99"], "domains": ["bad.example.com"] }, "hosts": {
        "a": { "sources": A, "allow": {
            "domains": ["api.example.com", "*.example.com"], "ips": [SITE, SITE6, OTHER], "ports": [443] } } } })
}

#[test]
fn refusals_are_fast_in_both_families() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "hosts": { "a": { "sources": A } } }));
    for site in [SITE, SITE6] {
        world.a.tcp(site, 443).must_be_reset();
        world.a.udp(site, 443).must_be_prohibited();
        world.a.ping(site).must_be_prohibited();
        world.a.raw(47, site, &[0; 16]).must_be_prohibited();
    }
    world.a.reach("any.example", 443).must_be_blocked_by_name();
}

#[test]
fn a_reset_carries_on_where_the_connection_was_cut() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "allow": { "ips": [SITE] } }));
    let mut flow = world.a.flow(SITE, 443);
    world.gateway.import(json!({ "version": 1 }));
    let error = flow.send(crate::world::PATIENCE).expect_err("the flow is not allowed any more");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "a reset, not silence");
}

#[test]
fn explain_says_what_the_packets_say() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &["151.101.0.1"]);
    world.gateway.enforce(policy());
    let cases = [
        (SITE, 443, "allow", "allowed", "/hosts/a/allow/ips/0"),
        (SITE6, 443, "allow", "allowed", "/hosts/a/allow/ips/1"),
        (SITE, 80, "block", "port-not-allowed", "/hosts/a/allow/ports"),
        (OTHER, 443, "block", "denied", "/deny/ips/0"),
    ];
    for (address, port, verdict, reason, path) in cases {
        let source = if address.contains(':') { world.a.v6 } else { world.a.v4 };
        let said = world.gateway.explain(source, &["--ip", address, "--port", &port.to_string()]);
        assert_eq!(
            (said["verdict"].as_str(), said["reason"].as_str(), said["path"].as_str(), said["host"].as_str()),
            (Some(verdict), Some(reason), Some(path), Some("a")),
            "{address} {port}"
        );
        assert_eq!(world.a.tcp(address, port).reached(), verdict == "allow", "{address} {port}");
    }
    let said = world.gateway.explain(world.a.v6, &["--ip", OTHER6, "--port", "443"]);
    assert_eq!(said["verdict"], "block");
    assert!(["not-allowlisted", "no-lease"].contains(&said["reason"].as_str().unwrap_or_default()), "{said}");
    world.a.tcp(OTHER6, 443).must_be_reset();
}

#[test]
fn explain_says_what_the_answers_say() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &["151.101.0.1"]);
    world.gateway.enforce(policy());
    let cases = [
        ("api.example.com", "allow", "allowed", Some("/hosts/a/allow/domains/0")),
        ("bad.example.com", "block", "denied", Some("/deny/domains/0")),
        ("elsewhere.example", "block", "not-allowlisted", None),
    ];
    for (name, verdict, reason, path) in cases {
        let said = world.gateway.explain(world.a.v4, &["--domain", name, "--port", "443"]);
        assert_eq!((said["verdict"].as_str(), said["reason"].as_str()), (Some(verdict), Some(reason)), "{name}");
        if path.is_some() {
            assert_eq!(said["path"].as_str(), path, "{name}");
        }
        let reply = world.a.lookup(name, RecordType::A).expect("an answer");
        assert_eq!(reply.ede().is_none(), verdict == "allow", "{name}");
        if let Some((_, text)) = reply.ede() {
            assert!(text.contains(reason), "the reason in words: {text}");
        }
    }
}

#[test]
fn fragments_are_judged_as_what_they_make() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "allow": { "ips": [SITE, SITE6] } }));
    for (source, site, other) in [(world.a.v4, SITE, OTHER), (world.a.v6, SITE6, OTHER6)] {
        let socket = world.a.netns.enter(|| std::net::UdpSocket::bind((source, 0))).unwrap();
        socket.set_read_timeout(Some(crate::world::PATIENCE)).unwrap();
        let mut buffer = [0; 5000];
        let to = |text: &str| std::net::SocketAddr::new(text.parse().unwrap(), 443);
        // A fragment may be lost where the machine is busy, and the datagram with it.
        let mut comes_back = |_| {
            socket.send_to(&[7; 4000], to(site)).unwrap();
            socket.recv(&mut buffer).ok()
        };
        assert_eq!((0..3).find_map(&mut comes_back), Some(4000));
        socket.send_to(&[7; 4000], to(other)).unwrap();
        assert!(socket.recv(&mut buffer).is_err());
        assert_eq!(world.internet.servers.count(|arrival| arrival.to == to(other).ip()), 0);
    }
}
