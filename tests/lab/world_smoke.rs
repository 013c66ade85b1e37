//! The lab itself, without the daemon: what is open is reached, and what a ruleset refuses looks as it should.

use std::time::Duration;

use hickory_proto::rr::RecordType;

use crate::world::{FOREIGN, HELLO, Kind, Outcome, Over, UPSTREAM};
use crate::{SITE, SITE6};

#[test]
fn everything_is_open_without_rules() {
    let world = world!();
    for agent in [&world.a, &world.b, &world.c] {
        for site in [SITE, SITE6] {
            agent.tcp(site, 443).must_reach();
            agent.udp(site, 443).must_reach();
            agent.ping(site).must_reach();
        }
        agent.ping(agent.router4).must_reach();
        agent.ping(agent.router6).must_reach();
    }
    let from_a = |arrival: &crate::world::Arrival| arrival.from == world.a.v4 && arrival.port == 443;
    assert_eq!(world.internet.servers.count(from_a), 2, "one connection and one datagram");
}

#[test]
fn nobody_listening_is_not_taken_for_a_policy() {
    let world = world!();
    world.a.tcp(SITE, 81).must_be_reset();
    for site in [SITE, SITE6] {
        let outcome = world.a.udp(site, 81);
        assert!(matches!(outcome, Outcome::Unreachable { kind: Kind::Port, .. }), "{outcome}");
    }
}

#[test]
fn resolvers_answer_and_remember() {
    let world = world!();
    let upstream = &world.internet.upstream;
    upstream.host("api.example.com", &[SITE, SITE6]);
    upstream.alias("www.example.com", "api.example.com");
    upstream.rotate("turn.example.com", vec!["45.60.1.1".parse().unwrap(), "45.60.1.2".parse().unwrap()], 1);
    upstream.https("api.example.com", &[SITE]);
    upstream.text("long.example.com", &"x".repeat(200));
    for server in UPSTREAM {
        for over in [Over::Udp, Over::Tcp] {
            let reply = world.a.dig("www.example.com", RecordType::A, server, over).expect("an answer");
            assert_eq!(reply.addresses(), [SITE.parse::<std::net::IpAddr>().unwrap()]);
            assert_eq!(reply.message.answers.len(), 2, "the alias and the address");
        }
    }
    assert_eq!(upstream.times_asked("www.example.com"), 4);
    let turns: Vec<_> = (0..3)
        .map(|_| world.a.dig("turn.example.com", RecordType::A, UPSTREAM[0], Over::Udp).unwrap().addresses()[0])
        .collect();
    assert_eq!(turns[0], turns[2]);
    assert_ne!(turns[0], turns[1]);
    let hint = world.a.dig("api.example.com", RecordType::HTTPS, UPSTREAM[0], Over::Udp).unwrap();
    assert_eq!(hint.message.answers.len(), 1);
    let none = world.a.dig("no.example.com", RecordType::A, UPSTREAM[0], Over::Udp).unwrap();
    assert_eq!(none.code(), "NXDOMAIN");
    let nodata = world.a.dig("long.example.com", RecordType::A, UPSTREAM[0], Over::Udp).unwrap();
    assert_eq!((nodata.code().as_str(), nodata.addresses().len()), ("NOERROR", 0));
    upstream.failing(true);
    assert_eq!(world.a.dig("api.example.com", RecordType::A, UPSTREAM[0], Over::Udp).unwrap().code(), "SERVFAIL");
    assert!(world.internet.foreign.asked().is_empty());
    world.a.dig("api.example.com", RecordType::A, FOREIGN[1], Over::Udp).expect("the other resolver answers too");
    assert_eq!(world.internet.foreign.times_asked("api.example.com"), 1);
}

#[test]
fn a_silent_resolver_is_silent() {
    let world = world!();
    world.internet.upstream.silent(true);
    let outcome = world.a.dig("api.example.com", RecordType::A, UPSTREAM[0], Over::Udp).unwrap_err();
    outcome.must_time_out();
    assert_eq!(world.internet.upstream.times_asked("api.example.com"), 1);
}

#[test]
fn refusals_look_like_what_they_are() {
    let world = world!();
    world.gateway.nft_load(
        "table inet lab {
           chain forward {
             type filter hook forward priority 0
             tcp dport 443 reject with tcp reset
             tcp dport 80 reject with icmpx admin-prohibited
             udp dport 443 reject with icmpx admin-prohibited
             meta l4proto { icmp, icmpv6, gre } reject with icmpx admin-prohibited
             th dport 22 drop
           }
         }",
    );
    for site in [SITE, SITE6] {
        world.a.tcp(site, 443).must_be_reset();
        world.a.udp(site, 443).must_be_prohibited();
        world.a.ping(site).must_be_prohibited();
        world.a.tcp(site, 22).must_time_out();
        world.a.udp(site, 22).must_time_out();
        // An ICMP error that comes while connect(2) still holds the socket counts only at the next SYN, 1 s later.
        // That is why refused connections get a reset.
        let outcome = world.a.tcp_within(site, 80, Duration::from_secs(3));
        assert!(matches!(outcome, Outcome::Unreachable { .. }), "{outcome}");
        world.a.raw(47, site, b"not really GRE").must_be_prohibited();
        world.a.tcp(site, 8443).must_reach();
    }
    let reached = |arrival: &crate::world::Arrival| arrival.port != 8443;
    assert_eq!(world.internet.servers.count(reached), 0, "refused packets must not arrive");
}

#[test]
fn other_protocols_and_borrowed_sources_arrive() {
    let world = world!();
    world.internet.servers.sniff(47);
    world.a.raw(47, SITE, b"not really GRE").must_time_out();
    // Somebody else's address: the answer goes to the owner, the packet arrives all the same.
    world.a.udp_from((world.b.v4, 4242), (SITE, 443), HELLO).must_time_out();
    world.a.udp_from((world.b.v6, 4242), (SITE6, 443), HELLO).must_time_out();
    assert_eq!(world.internet.servers.count(|arrival| arrival.protocol == 47 && arrival.from == world.a.v4), 1);
    assert_eq!(world.internet.servers.count(|arrival| arrival.from == world.b.v4), 1);
    assert_eq!(world.internet.servers.count(|arrival| arrival.from == world.b.v6), 1);
}

#[test]
fn the_outside_can_open_flows() {
    let world = world!();
    let inside = crate::world::Servers::new(world.a.netns.clone());
    inside.echo(&[2222]);
    world.gateway.servers.echo(&[22]);
    world.internet.peer.tcp(world.a.v4, 2222).must_reach();
    world.internet.peer.udp(world.a.v6, 2222).must_reach();
    world.a.tcp(world.a.router4, 22).must_reach();
    assert_eq!(inside.arrivals().len(), 2);
}

#[test]
fn probes_see_a_gap() {
    let world = world!();
    let (tcp, udp) = (world.a.probe_tcp(SITE, 443), world.b.probe_udp(SITE6, 443));
    std::thread::sleep(Duration::from_millis(300));
    let (tcp, udp) = (tcp.stop(), udp.stop());
    tcp.must_be_whole();
    udp.must_be_whole();
    assert!(tcp.sent > 150 && udp.sent > 150, "about one each millisecond: {} and {}", tcp.sent, udp.sent);

    let mut flow = world.a.flow(SITE, 443);
    let (tcp, udp) = (world.a.probe_tcp(SITE, 443), world.b.probe_udp(SITE6, 443));
    std::thread::sleep(Duration::from_millis(100));
    assert!(flow.alive());
    world.gateway.nft_load(
        "table inet lab {
           chain forward {
             type filter hook forward priority 0
             iifname lan1 meta l4proto tcp reject with tcp reset
             iifname lan2 drop
           }
         }",
    );
    std::thread::sleep(Duration::from_millis(100));
    let (tcp, udp) = (tcp.stop(), udp.stop());
    assert!(!tcp.errors.is_empty(), "a reset ends the connection");
    assert!(udp.answered > 50 && udp.lost.len() > 50, "{} answered, {} lost", udp.answered, udp.lost.len());
    assert!(!flow.alive());
    let dead = world.b.probe_udp(SITE6, 443);
    std::thread::sleep(Duration::from_millis(50));
    dead.stop().must_be_dead();
}
