//! ICMP, ICMPv6 and what is neither TCP nor UDP (SPEC section 2, meaning 2).

use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;

use crate::world::{Agent, Kind, OUTSIDE, Outcome, echoes, ipv4, udp, unreachable};
use crate::{A, AGENTS, OTHER, OTHER6, SITE, SITE6};

#[test]
fn echo_passes_to_allowed_addresses_only() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "allow": { "ips": [SITE, SITE6], "ports": [] } }));
    for (site, other) in [(SITE, OTHER), (SITE6, OTHER6)] {
        world.a.ping(site).must_reach();
        world.a.ping(other).must_be_prohibited();
    }
}

#[test]
fn echo_passes_to_leased_addresses() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[SITE]);
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["api.example.com"] } }));
    world.a.ping(SITE).must_be_prohibited();
    let addresses = world.a.addresses("api.example.com");
    world.a.ping(addresses[0]).must_reach();
}

#[test]
fn errors_of_live_flows_come_back() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "allow": { "ips": [SITE, SITE6], "ports": [81] } }));
    for site in [SITE, SITE6] {
        let outcome = world.a.udp(site, 81);
        assert!(matches!(outcome, Outcome::Unreachable { kind: Kind::Port, .. }), "{outcome}");
    }
}

#[test]
fn other_icmp_is_refused_even_to_allowed_addresses() {
    let mut world = world!();
    world.internet.servers.sniff(1);
    world.gateway.enforce(json!({ "version": 1, "allow": { "ips": [SITE, SITE6] } }));
    // Timestamp request (RFC 792), and a node information query (RFC 4620), for which the kernel sets the checksum.
    let timestamp = with_checksum([&[13, 0, 0, 0, 0, 1, 0, 1][..], &[0; 12]].concat());
    world.a.raw(1, SITE, &timestamp).must_be_prohibited();
    world.a.raw(58, SITE6, &[139, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).must_be_prohibited();
    assert_eq!(world.internet.servers.arrivals(), []);
}

#[test]
fn other_protocols_are_refused_even_to_allowed_addresses() {
    let mut world = world!();
    world.gateway.unlimited_icmp();
    for protocol in [47, 132, 50, 4, 41] {
        world.internet.servers.sniff(protocol);
    }
    world.gateway.enforce(json!({ "version": 1, "allow": { "ips": [SITE, SITE6] } }));
    for site in [SITE, SITE6] {
        for protocol in [47, 132, 50] {
            println!("protocol {protocol} to {site}");
            world.a.raw(protocol, site, &[0; 40]).must_be_prohibited();
        }
        // The kernel's reject answers no packet whose checksum is wrong, and takes tunnels for protocols that have one.
        for protocol in [4, 41] {
            assert!(!world.a.raw(protocol, site, &[0; 40]).reached());
        }
    }
    assert_eq!(world.internet.servers.arrivals(), []);
}

#[test]
fn an_error_of_the_agents_own_making_opens_no_closed_port() {
    let mut world = world!();
    let policy = |ports: &[u16]| json!({ "version": 1, "allow": { "ips": [SITE], "ports": ports } });
    world.gateway.enforce(policy(&[443, 8443]));
    let socket = world.a.datagrams(5555);
    assert!(echoes(&socket, SITE, 8443));
    world.gateway.import(policy(&[443]));
    assert!(!echoes(&socket, SITE, 8443), "closed now");
    complain(&world.a, SITE.parse().unwrap(), 8443, 5555);
    assert!(!echoes(&socket, SITE, 8443) && !echoes(&socket, SITE, 8443), "and stays so");
}

#[test]
fn an_error_opens_no_closed_port_of_a_flow_from_outside() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "scope": { "sources": AGENTS },
        "hosts": { "a": { "sources": A, "allow": { "ips": OUTSIDE, "ports": [443] } } } }));
    let (inside, outside) = (world.a.datagrams(2222), world.internet.peer.datagrams(7777));
    outside.send_to(b"hello", (world.a.v4, 2222)).unwrap();
    let mut buffer = [0; 16];
    let (_, from) = inside.recv_from(&mut buffer).expect("towards the agent is open");
    for _ in 0..2 {
        let _ = inside.send_to(b"leak", from);
        // An error that the agent's own refusal left would come first.
        let got = outside.recv_from(&mut buffer).map(|(length, _)| buffer[..length].to_vec());
        assert_ne!(got.ok().as_deref(), Some(&b"leak"[..]), "port 2222 is not in ports");
        complain(&world.a, world.internet.peer.v4, 7777, 2222);
        let _ = inside.send_to(b"leak", from);
    }
    let got = outside.recv_from(&mut buffer).map(|(length, _)| buffer[..length].to_vec());
    assert_ne!(got.ok().as_deref(), Some(&b"leak"[..]), "port 2222 is not in ports");
}

/// The agent says that a datagram which came to its port found nobody there.
fn complain(agent: &Agent, peer: IpAddr, peer_port: u16, port: u16) {
    let about = ipv4(peer, agent.v4, 17, &udp(peer_port, port, b"whatever"));
    agent.send_packet(&ipv4(agent.v4, peer, 1, &unreachable(&about)));
    std::thread::sleep(Duration::from_millis(50));
}

/// The Internet checksum (RFC 1071) in its place of an ICMP message.
fn with_checksum(mut message: Vec<u8>) -> Vec<u8> {
    let mut sum: u32 =
        message.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    message
}
