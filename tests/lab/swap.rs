//! Changing the policy under traffic: no gap, no leak (SPEC section 2, end; DESIGN section 2).

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{HELLO, echoes};
use crate::{A, AGENTS, B, OTHER, OTHER6, SITE, SITE6, rounds};

/// Two policies that agree on what [`SITE`] and [`OTHER`] mean and on nothing else.
fn policy(turn: usize) -> Value {
    let extra: Vec<String> = (0..50).map(|n| format!("45.60.{}.{n}", turn % 2)).collect();
    let mut ips: Vec<&str> = extra.iter().map(String::as_str).collect();
    // Elsewhere in the list each time: an index is not an identity.
    ips.insert((turn * 7) % 50, SITE);
    ips.insert((turn * 3) % 50, SITE6);
    let domain = format!("d{turn}.example.com");
    let ports = if turn.is_multiple_of(2) { json!([443]) } else { json!([80, 443]) };
    json!({ "version": 1, "hosts": {
        "a": { "sources": A, "allow": { "ips": ips, "domains": [domain], "ports": ports } },
        format!("b{}", turn % 3): { "sources": B, "allow": { "ips": ips } } } })
}

#[test]
fn swaps_neither_lose_nor_leak_a_packet() {
    let mut world = world!();
    world.gateway.unlimited_icmp();
    world.gateway.enforce(policy(0));
    let allowed = [world.a.probe_tcp(SITE, 443), world.a.probe_udp(SITE6, 443), world.b.probe_udp(SITE, 443)];
    let denied = [world.a.probe_udp(OTHER, 443), world.b.probe_udp(OTHER6, 443)];
    for turn in 1..=rounds(50) {
        world.gateway.import(policy(turn));
    }
    std::thread::sleep(Duration::from_millis(100));
    let (allowed, denied) = (allowed.map(|probe| probe.stop()), denied.map(|probe| probe.stop()));
    for report in allowed {
        report.must_be_whole();
    }
    for report in denied {
        report.must_be_dead();
    }
    let leaked = |to: &str| to.parse().unwrap();
    assert_eq!(world.internet.servers.count(|arrival| [leaked(OTHER), leaked(OTHER6)].contains(&arrival.to)), 0);
}

/// A set of ranges that is new cannot be searched while its transaction is under way. Flows to a name's addresses that
/// are judged anew meet that set, and this one takes long enough for their packets to come meanwhile.
#[test]
fn flows_that_are_judged_anew_find_the_ranges_that_changed() {
    let mut world = world!();
    world.gateway.unlimited_icmp();
    world.internet.upstream.host("site.example.com", &[SITE]);
    world.internet.upstream.host("other.example.com", &[OTHER]);
    let policy = |turn: usize| {
        let ranges = |count| (0..count).map(move |n| format!("10.{}.{}.{}/30", n / 64, n % 64 * 4, turn % 8 * 8));
        let sources: Vec<String> = ranges(4000).chain(A.map(Into::into)).collect();
        let denied: Vec<String> = ranges(2000).collect();
        let host = json!({ "sources": sources, "allow": { "domains": ["*.example.com"] }, "deny": { "ips": denied } });
        json!({ "version": 1, "hosts": { "a": host } })
    };
    world.gateway.enforce(policy(0));
    for name in ["site.example.com", "other.example.com"] {
        world.a.reach(name, 443).must_reach();
    }
    let mut flows: Vec<_> = (0..4).map(|_| world.a.flow(SITE, 443)).collect();
    let probes = [world.a.probe_udp(SITE, 443), world.a.probe_udp(OTHER, 443)];
    for turn in 1..=rounds(16) {
        world.gateway.import(policy(turn));
        for flow in &mut flows {
            assert!(flow.alive(), "a flow that stays allowed must not notice change {turn}");
        }
    }
    for probe in probes {
        probe.stop().must_be_whole();
    }
}

#[test]
fn flows_that_the_new_policy_does_not_allow_are_cut() {
    let mut world = world!();
    let policy = |ips: &[&str]| json!({ "version": 1, "allow": { "ips": ips } });
    world.gateway.enforce(policy(&[SITE, SITE6, OTHER, OTHER6]));
    let mut kept = [world.a.flow(SITE, 443), world.a.flow(SITE6, 443)];
    let mut cut = [world.a.flow(OTHER, 443), world.a.flow(OTHER6, 443)];
    assert!(kept.iter_mut().chain(&mut cut).all(|flow| flow.alive()));
    world.gateway.import(policy(&[SITE, SITE6]));
    for flow in &mut kept {
        assert!(flow.alive(), "an allowed flow must not notice");
    }
    for flow in &mut cut {
        assert!(!flow.alive(), "a flow that is not allowed any more must end");
    }
    world.gateway.import(policy(&[SITE, SITE6, OTHER, OTHER6]));
    world.a.tcp(OTHER, 443).must_reach();
}

#[test]
fn leases_of_names_that_stay_outlive_the_swap_and_others_end() {
    let mut world = world!();
    world.internet.upstream.host("stays.example.com", &[SITE]);
    world.internet.upstream.host("goes.example.com", &[OTHER]);
    let policy = |names: &[&str]| json!({ "version": 1, "allow": { "domains": names } });
    world.gateway.enforce(policy(&["goes.example.com", "stays.example.com"]));
    world.a.reach("stays.example.com", 443).must_reach();
    world.a.reach("goes.example.com", 443).must_reach();
    let (mut stays, mut goes) = (world.a.flow(SITE, 443), world.a.flow(OTHER, 443));
    world.gateway.import(policy(&["stays.example.com"]));
    world.a.tcp(SITE, 443).must_reach();
    world.a.tcp(OTHER, 443).must_be_reset();
    assert!(stays.alive());
    assert!(!goes.alive());
}

#[test]
fn an_invalid_policy_changes_nothing() {
    let mut world = world!();
    world.gateway.enforce(json!({ "version": 1, "allow": { "ips": [SITE] } }));
    let before = (world.gateway.status(), world.gateway.nft(&["list", "table", "inet", "clawgress"]).stdout);
    let mut flow = world.a.flow(SITE, 443);
    let broken = r#"{ "version": 1, "alow": {}, "allow": { "ips": ["93.184.216.34/8"], "domains": ["*.com"] } }"#;
    let ran = world.gateway.tool_reading(&["import", "--policy", "-"], broken);
    assert_eq!(ran.code, Some(1));
    for place in ["/alow", "/allow/ips/0", "/allow/domains/0"] {
        assert!(ran.stderr.contains(place), "every mistake is named, {place} is not: {}", ran.stderr);
    }
    assert!(flow.alive());
    world.a.tcp(OTHER, 443).must_be_reset();
    let after = world.gateway.status();
    assert_eq!((&before.0["revision"], &before.0["sha256"]), (&after["revision"], &after["sha256"]));
    let stored = std::fs::read_to_string(world.gateway.path("policy.json")).unwrap();
    assert!(stored.contains(SITE) && !stored.contains("alow"), "the stored policy is the old one");
}

#[test]
fn a_source_that_moves_to_another_host_takes_nothing_with_it() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[SITE]);
    let policy = |rich: &str, rich_sources: [&str; 2], poor_sources: [&str; 2]| {
        json!({ "version": 1, "hosts": {
            rich: { "sources": rich_sources, "allow": { "domains": ["api.example.com"], "ips": [OTHER] } },
            "poor": { "sources": poor_sources } } })
    };
    world.gateway.enforce(policy("rich", A, B));
    world.a.addresses("api.example.com");
    let (mut leased, mut net) = (world.a.flow(SITE, 443), world.a.flow(OTHER, 443));
    world.gateway.import(policy("rich", B, A));
    assert!(!leased.alive() && !net.alive());
    world.a.tcp(SITE, 443).must_be_reset();
    // A host of another name is another host: what the old one was given is gone.
    world.gateway.import(policy("heir", B, A));
    world.b.tcp(SITE, 443).must_be_reset();
    world.b.tcp(OTHER, 443).must_reach();
}

#[test]
fn an_address_goes_on_under_the_names_that_are_left() {
    let mut world = world!();
    world.internet.upstream.host("one.example.com", &[SITE]);
    world.internet.upstream.host("two.example.com", &[SITE]);
    let policy = |names: &[&str]| json!({ "version": 1, "allow": { "domains": names } });
    world.gateway.enforce(policy(&["one.example.com", "two.example.com"]));
    world.a.addresses("one.example.com");
    world.a.addresses("two.example.com");
    let mut flow = world.a.flow(SITE, 443);
    world.gateway.import(policy(&["two.example.com"]));
    world.a.tcp(SITE, 443).must_reach();
    assert!(flow.alive());
    world.gateway.import(policy(&[]));
    world.a.tcp(SITE, 443).must_be_reset();
    assert!(!flow.alive());
}

/// Packets of one flow are judged on several processors at once, here one for each direction; what they write into
/// the flow's mark must not lead one of them past what refuses it.
#[test]
fn a_storm_in_both_directions_opens_no_closed_port() {
    /// Long enough: when the guard hung on the mark, the port was open after 0.5 to 6 s (on a machine that is not busy).
    const STORM: Duration = Duration::from_secs(8);
    let mut world = world!();
    world.gateway.unlimited_icmp();
    // What the host lost, others still have: the guard of somebody else would let it pass.
    let policy = |ports: &[u16]| {
        json!({ "version": 1, "scope": { "sources": AGENTS }, "allow": { "ips": [SITE], "ports": [443, 8443] },
                "hosts": { "a": { "sources": A, "allow": { "ports": ports } } } })
    };
    world.gateway.enforce(policy(&[443, 8443]));
    let inside = world.a.datagrams(5555);
    assert!(echoes(&inside, SITE, 8443));
    let here = SocketAddr::new(SITE.parse().unwrap(), 8443);
    let outside = world.internet.peer.netns.enter(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&here.into()).unwrap();
        UdpSocket::from(socket)
    });
    outside.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    world.gateway.import(policy(&[443]));
    let agent = SocketAddr::new(world.a.v4, 5555);
    let over = AtomicBool::new(false);
    let storm = |socket: &UdpSocket, to: SocketAddr| {
        while !over.load(Ordering::Relaxed) {
            let _ = socket.send_to(HELLO, to);
        }
    };
    let leaked = std::thread::scope(|scope| {
        for (socket, to) in [(&inside, here), (&inside, here), (&outside, agent)] {
            let storm = &storm;
            scope.spawn(move || storm(socket, to));
        }
        let start = Instant::now();
        let mut leaked = None;
        while leaked.is_none() && start.elapsed() < STORM {
            leaked = outside.recv_from(&mut [0; 64]).ok().map(|_| start.elapsed());
        }
        over.store(true, Ordering::Relaxed);
        leaked
    });
    assert_eq!(leaked, None, "a datagram got through");
}

#[test]
fn an_answer_on_its_way_opens_nothing_under_the_next_policy() {
    let mut world = world!();
    for n in 0..100 {
        world.internet.upstream.host_for(&format!("n{n}.example.com"), &[&format!("151.101.9.{n}")], 1);
    }
    let policy = |name: &str| json!({ "version": 1, "allow": { "domains": [name] } });
    world.gateway.enforce(policy("*.example.com"));
    let over = AtomicBool::new(false);
    let agent = &world.a;
    let open = std::thread::scope(|scope| {
        for start in 0..3 {
            let over = &over;
            scope.spawn(move || {
                let names = (0..100).cycle().skip(start * 33).take_while(|_| !over.load(Ordering::Relaxed));
                names.for_each(|n| drop(agent.lookup(&format!("n{n}.example.com"), hickory_proto::rr::RecordType::A)));
            });
        }
        let mut open: Vec<u8> = Vec::new();
        for _ in 0..rounds(20) {
            world.gateway.import(policy("*.example.org"));
            open.extend((0..100_u8).filter(|n| agent.tcp(std::net::IpAddr::from([151, 101, 9, *n]), 443).reached()));
            world.gateway.import(policy("*.example.com"));
            std::thread::sleep(Duration::from_millis(30));
        }
        over.store(true, Ordering::Relaxed);
        open
    });
    assert_eq!(open, [] as [u8; 0], "addresses that were open after the policy had gone");
}
