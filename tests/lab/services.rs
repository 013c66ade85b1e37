//! The gateway itself: what of it the agents may use (SPEC section 2, meaning 10).

use serde_json::json;

use crate::{A, AGENTS, SITE};

fn policy() -> serde_json::Value {
    json!({ "version": 1, "scope": { "sources": AGENTS }, "allow": { "domains": ["example.com"] },
            "hosts": { "a": { "sources": A } } })
}

#[test]
fn a_hosts_sources_reach_none_of_the_gateways_services() {
    let mut world = world!();
    world.gateway.unlimited_icmp();
    world.gateway.servers.echo(&[22, 161]);
    world.gateway.enforce(policy());
    // Every address of the gateway, not only the near one.
    let far = [world.c.router4, world.c.router6, world.internet.peer.router4, world.internet.peer.router6];
    for address in [world.a.router4, world.a.router6].into_iter().chain(far) {
        world.a.tcp(address, 22).must_be_reset();
        world.a.udp(address, 161).must_be_prohibited();
    }
    assert_eq!(world.gateway.servers.arrivals(), []);
}

#[test]
fn a_hosts_sources_may_use_dns_and_echo() {
    let mut world = world!();
    world.internet.upstream.host("example.com", &[SITE]);
    world.gateway.enforce(policy());
    world.a.ping(world.a.router4).must_reach();
    world.a.ping(world.a.router6).must_reach();
    world.a.reach("example.com", 443).must_reach();
}

#[test]
fn an_administrator_is_never_locked_out() {
    let mut world = world!();
    world.gateway.servers.echo(&[22, 161]);
    world.gateway.enforce(policy());
    // c is out of scope, b is in scope but belongs to no host, and the outside is neither.
    for admin in [&world.c, &world.b, &world.internet.peer] {
        for address in [admin.router4, admin.router6] {
            admin.tcp(address, 22).must_reach();
            admin.udp(address, 161).must_reach();
            admin.ping(address).must_reach();
        }
    }
}

#[test]
fn the_gateway_may_still_open_flows_to_a_host() {
    let mut world = world!();
    let inside = crate::world::Servers::new(world.a.netns.clone());
    inside.echo(&[2222]);
    world.gateway.enforce(policy());
    for address in [world.a.v4, world.a.v6] {
        let to = std::net::SocketAddr::new(address, 2222);
        let opened = world.gateway.netns.enter(|| std::net::TcpStream::connect_timeout(&to, crate::world::PATIENCE));
        assert!(opened.is_ok(), "replies to the gateway's own flows: {opened:?}");
    }
}
