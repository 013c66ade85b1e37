//! Exfil caps (SPEC section 2, meaning 6): never more than the cap gets through in a period, open flows included.

use serde_json::json;

use crate::scales::{SINK, Scales, capped, upload, upload_datagrams, upload_from};
use crate::world::Address;
use crate::{OTHER, OTHER6, SITE, SITE6};

const THIRD: &str = "45.60.1.1";

#[test]
fn never_more_than_the_cap_gets_through_one_flow() {
    let mut world = world!();
    world.internet.servers.sink(&[SINK]);
    let caps = [("n1", 1 << 20, SITE), ("n2", 5_000_000, SITE6), ("n3", 100_000, OTHER), ("n4", 30_000_000, OTHER6)];
    let names: Vec<(String, u64)> = caps.iter().map(|(name, cap, _)| (format!("{name}.example.com"), *cap)).collect();
    for ((name, _), (_, _, address)) in names.iter().zip(caps) {
        world.internet.upstream.host(name, &[address]);
    }
    let named: Vec<(&str, u64)> = names.iter().map(|(name, cap)| (name.as_str(), *cap)).collect();
    world.gateway.enforce(capped(&named));
    let scales = Scales::new(&world);
    for ((name, cap), (_, _, address)) in names.iter().zip(caps) {
        world.a.resolved(name, address);
        upload(&world.a, address);
        scales.must_be_used_up(name, scales.sent_by(&world.a, &[address]), *cap);
        world.a.tcp(address, 80).must_be_reset();
        world.a.udp(address, 443).must_be_prohibited();
    }
    world.a.tcp(THIRD, 443).must_be_reset();
    for _ in 0..3 {
        upload(&world.a, OTHER6);
    }
    scales.must_be_used_up("further tries", scales.sent_by(&world.a, &[OTHER6]), 30_000_000);
}

#[test]
fn all_addresses_families_ports_and_flows_of_a_name_share_its_cap_and_nobody_else_does() {
    let mut world = world!();
    world.internet.servers.sink(&[SINK]);
    let all = [SITE, OTHER, SITE6, OTHER6];
    world.internet.upstream.host("api.example.com", &all);
    world.internet.upstream.host("free.example.com", &[THIRD]);
    let cap = 8_000_000;
    world.gateway.enforce(capped(&[("api.example.com", cap)]));
    world.a.resolved("api.example.com", SITE);
    world.a.resolved("api.example.com", SITE6);
    world.a.resolved("free.example.com", THIRD);
    world.b.resolved("api.example.com", SITE);
    let other = world.a.probe_tcp(THIRD, 443);
    let (scales, agent) = (Scales::new(&world), &world.a);
    std::thread::scope(|scope| {
        for address in all.iter().cycle().take(16) {
            scope.spawn(move || upload(agent, *address));
        }
    });
    scales.must_be_used_up("16 flows", scales.sent_by(agent, &all), cap);
    for address in all {
        agent.tcp(address, 443).must_be_reset();
    }
    other.stop().must_be_whole();
    upload(&world.b, SITE);
    assert!(scales.sent_by(&world.b, &[SITE]) > cap, "another host has no such cap");
}

/// Where nothing on the way merges segments (no GRO), nothing is estimated.
#[test]
fn where_packets_come_one_by_one_a_cap_is_used_up_but_for_a_few_a_flow() {
    let mut world = world!();
    world.a.netns.ip("link set dev eth0 gso_max_segs 1\n");
    world.internet.servers.sink(&[SINK]);
    let all = [SITE, OTHER, SITE6, OTHER6];
    world.internet.upstream.host("api.example.com", &all);
    let cap = 30_000_000;
    world.gateway.enforce(capped(&[("api.example.com", cap)]));
    world.a.resolved("api.example.com", SITE);
    world.a.resolved("api.example.com", SITE6);
    let (scales, agent) = (Scales::new(&world), &world.a);
    std::thread::scope(|scope| {
        for address in all.iter().cycle().take(16) {
            scope.spawn(move || upload(agent, *address));
        }
    });
    let sent = scales.sent_by(agent, &all);
    println!("{} octets unused", cap.saturating_sub(sent));
    // Those of each flow that were on their way when it was refused. The estimate of merged ones would spare 300 000.
    assert!(sent <= cap && sent + 16 * 4 * 1500 >= cap, "{sent} of {cap}");
}

#[test]
fn small_and_long_datagrams_are_charged_to_the_octet() {
    let mut world = world!();
    world.internet.servers.sink(&[SINK]);
    for (name, address) in [("small", SITE), ("long", OTHER), ("long6", SITE6)] {
        world.internet.upstream.host(&format!("{name}.example.com"), &[address]);
    }
    let cap = 1_500_000;
    world.gateway.enforce(capped(&[
        ("small.example.com", 200_000),
        ("long.example.com", cap),
        ("long6.example.com", cap),
    ]));
    let scales = Scales::new(&world);
    for (name, address, octets, cap) in
        [("small", SITE, 1, 200_000), ("long", OTHER, 60_000, cap), ("long6", SITE6, 60_000, cap)]
    {
        world.a.resolved(&format!("{name}.example.com"), address);
        upload_datagrams(&world.a, address, octets);
        // Fragments have shorter headers than those that merged packets are taken to have.
        scales.must_be_used(name, scales.sent_by(&world.a, &[address]), cap, 3);
        world.a.tcp(address, 443).must_be_reset();
    }
}

#[test]
fn all_sources_of_a_host_share_its_cap() {
    let mut world = world!();
    world.internet.servers.sink(&[SINK]);
    world.internet.upstream.host("api.example.com", &[SITE, SITE6]);
    let sources = ["192.168.10.10", "192.168.10.11", "192.168.10.12", "fd00:10::10", "fd00:10::11"];
    world.a.netns.ip("addr add 192.168.10.11/24 dev eth0\naddr add 192.168.10.12/24 dev eth0\n\
                      addr add fd00:10::11/64 dev eth0 nodad\n");
    let cap = 5_000_000;
    let mut policy = capped(&[("api.example.com", cap)]);
    policy["hosts"]["a"]["sources"] = json!(["192.168.10.0/24", "fd00:10::/64"]);
    world.gateway.enforce(policy);
    world.a.resolved("api.example.com", SITE);
    world.a.resolved("api.example.com", SITE6);
    let (scales, agent) = (Scales::new(&world), &world.a);
    std::thread::scope(|scope| {
        for from in sources {
            scope.spawn(move || upload_from(agent, from, if from.contains(':') { SITE6 } else { SITE }));
        }
    });
    scales.must_be_used_up("five sources", scales.sent(&sources.map(|from| from.address()), &[SITE, SITE6]), cap);
    for from in sources {
        upload_from(agent, from, if from.contains(':') { SITE6 } else { SITE });
    }
    scales.must_be_used_up("once more", scales.sent(&sources.map(|from| from.address()), &[SITE, SITE6]), cap);
}

#[test]
fn a_wildcard_cap_is_one_cap_for_all_names_below() {
    let mut world = world!();
    world.internet.servers.sink(&[SINK]);
    world.internet.upstream.host("one.example.com", &[SITE]);
    world.internet.upstream.host("deep.two.example.com", &[OTHER]);
    world.internet.upstream.host("one.example.net", &[THIRD]);
    let cap = 3_000_000;
    world.gateway.enforce(capped(&[("*.example.com", cap)]));
    world.a.resolved("one.example.com", SITE);
    world.a.resolved("deep.two.example.com", OTHER);
    world.a.resolved("one.example.net", THIRD);
    let (scales, agent) = (Scales::new(&world), &world.a);
    std::thread::scope(|scope| {
        for address in [SITE, OTHER] {
            scope.spawn(move || upload(agent, address));
        }
    });
    scales.must_be_used_up("two names", scales.sent_by(agent, &[SITE, OTHER]), cap);
    agent.tcp(SITE, 80).must_be_reset();
    agent.tcp(OTHER, 80).must_be_reset();
    agent.tcp(THIRD, 80).must_reach();
}
