//! Ports: the destination port of TCP and UDP alike, for names and addresses alike (SPEC section 2, meaning 2).

use hickory_proto::rr::RecordType;
use serde_json::json;

use crate::world::{FOREIGN, Over};
use crate::{OTHER, SITE, SITE6};

#[test]
fn absent_ports_are_web_ports() {
    let mut world = world!();
    world.gateway.unlimited_icmp();
    world.gateway.enforce(json!({ "version": 1, "allow": { "ips": [SITE, SITE6] } }));
    for site in [SITE, SITE6] {
        for port in [80, 443] {
            world.a.tcp(site, port).must_reach();
            world.a.udp(site, port).must_reach();
        }
        for port in [22, 8443] {
            world.a.tcp(site, port).must_be_reset();
            world.a.udp(site, port).must_be_prohibited();
        }
    }
}

#[test]
fn ports_hold_for_names_as_for_addresses() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[SITE]);
    let allow = json!({ "domains": ["api.example.com"], "ips": [OTHER], "ports": [8443] });
    world.gateway.enforce(json!({ "version": 1, "allow": allow }));
    world.a.reach("api.example.com", 8443).must_reach();
    world.a.udp(SITE, 8443).must_reach();
    world.a.udp(OTHER, 8443).must_reach();
    for address in [SITE, OTHER] {
        world.a.tcp(address, 443).must_be_reset();
        world.a.udp(address, 443).must_be_prohibited();
    }
}

#[test]
fn port_53_never_means_any_resolver() {
    let mut world = world!();
    let allow = json!({ "domains": ["api.example.com"], "ips": FOREIGN, "ports": [53, 443] });
    world.gateway.enforce(json!({ "version": 1, "allow": allow }));
    for name in ["api.example.com", "other.example.com"] {
        world.internet.upstream.host(name, &[SITE]);
        world.internet.foreign.host(name, &[OTHER]);
    }
    for server in FOREIGN {
        for over in [Over::Udp, Over::Tcp] {
            let reply = world.a.dig("api.example.com", RecordType::A, server, over).expect("our own DNS answers");
            assert_eq!(reply.addresses(), [SITE.parse::<std::net::IpAddr>().unwrap()]);
            let reply = world.a.dig("other.example.com", RecordType::A, server, over).expect("our own DNS answers");
            assert_eq!((reply.code().as_str(), reply.ede().map(|(code, _)| code)), ("NXDOMAIN", Some(15)));
        }
    }
    assert_eq!(world.internet.foreign.asked(), [], "the other resolver must never be asked");
}
