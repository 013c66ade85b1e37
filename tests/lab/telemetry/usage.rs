//! Octets and queries, per host and domain, both ways.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use super::{Exchange, PATIENCE, Scales, alike, alike_both, telemetry};
use crate::world::{Address, World};
use crate::{A, B, OTHER, SITE, SITE6, rounds};

#[path = "../../nft_namespace/mod.rs"]
mod namespace;

/// An address that `allow.ips` opens.
const NET: &str = "151.101.7.7";
const MIB: usize = 1 << 20;

fn policy(turn: usize) -> Value {
    json!({ "version": 1, "labels": { "api.example.com": "llm-provider" }, "hosts": {
        "a": { "sources": A, "allow": { "domains": ["api.example.com", "*.files.example", format!("d{turn}.example")],
               "ips": [NET, format!("45.60.1.{turn}")], "ports": if turn.is_multiple_of(2) { vec![443] } else { vec![443, 80] } } },
        "b": { "sources": B, "allow": { "domains": ["api.example.com"] } } } })
}

fn names(world: &World) {
    world.internet.upstream.host("api.example.com", &[SITE, SITE6]);
    world.internet.upstream.host("one.files.example", &[OTHER]);
}

#[test]
fn what_is_told_is_what_servers_received() {
    let mut world = world!();
    names(&world);
    world.gateway.enforce(policy(0));
    let (a, b, site, other, net) = (world.a.v4, world.b.v4, SITE.address(), OTHER.address(), NET.address());
    let (a6, site6) = (world.a.v6, SITE6.address());
    for name in ["api.example.com", "one.files.example"] {
        world.a.addresses(name);
    }
    world.a.lookup("api.example.com", RecordType::AAAA).expect("an answer");
    world.b.addresses("api.example.com");
    let scales = Scales::new(&world, &[(a, site), (a, other), (a, net), (b, site), (a6, site6)]);
    for (agent, address, octets) in [
        (&world.a, site, 5 * MIB),
        (&world.a, other, 2 * MIB),
        (&world.a, net, MIB),
        (&world.b, site, 3 * MIB),
        (&world.a, site6, MIB),
    ] {
        Exchange::open(agent, address).turn(octets);
    }
    world.a.udp(SITE, 443).must_reach();
    let told = telemetry(&world.gateway, &[]);
    let sum = |pairs: &[(u64, u64)]| pairs.iter().fold((0, 0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    let api = sum(&[scales.octets(a, site), scales.octets(a6, site6)]);
    let (files, nets, of_b) = (scales.octets(a, other), scales.octets(a, net), scales.octets(b, site));
    let of_a = &told["agents"]["a"];
    alike_both("a to api.example.com", &of_a["domains"]["api.example.com"], api);
    alike_both("a to one.files.example", &of_a["domains"]["one.files.example"], files);
    alike_both("a to allow.ips", &of_a["domains"]["(allow.ips)"], nets);
    alike_both("a", of_a, sum(&[api, files, nets]));
    alike_both("b", &told["agents"]["b"], of_b);
    alike_both("b to api.example.com", &told["agents"]["b"]["domains"]["api.example.com"], of_b);
    alike_both("api.example.com", &told["domains"]["api.example.com"], sum(&[api, of_b]));
    alike_both("all", &told["usage"], sum(&[api, files, nets, of_b]));
    assert_eq!(told["domains"]["api.example.com"]["label"], "llm-provider");
    assert_eq!((&of_a["queries"], &of_a["allows"], &of_a["denies"]), (&json!(3), &json!(3), &json!(0)), "{of_a}");
    let one = telemetry(&world.gateway, &["domain", "api.example.com"]);
    assert_eq!(one["agents"]["b"]["bytes_up"], told["agents"]["b"]["bytes_up"], "{one}");
    let unseen = world.gateway.tool(&["telemetry", "agent", "nobody"]);
    assert_eq!(unseen.code, Some(1));
    assert!(unseen.stderr.contains("nothing was seen of an agent named nobody"), "{}", unseen.stderr);
    for (words, shown) in [
        (&["telemetry"][..], "one.files.example"),
        (&["telemetry", "agent", "a"], "(llm-provider)"),
        (&["stats"], "top agents"),
    ] {
        let table = world.gateway.tool(words);
        assert!(table.must_succeed().contains(shown), "{}", table.stdout);
    }
}

#[test]
fn nothing_is_lost_or_counted_twice_over_swaps_kills_and_restarts() {
    let mut world = world!();
    names(&world);
    world.gateway.enforce(policy(0));
    let (a, site, other, net) = (world.a.v4, SITE.address(), OTHER.address(), NET.address());
    world.a.addresses("api.example.com");
    world.a.addresses("one.files.example");
    let pairs = [(a, site), (a, other), (a, net)];
    let scales = Scales::new(&world, &pairs);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (_, address) in pairs {
            let (agent, stop) = (&world.a, &stop);
            scope.spawn(move || {
                let mut exchange = Exchange::open(agent, address);
                while !stop.load(Ordering::Relaxed) {
                    // A swap may cost a flow; the agent opens another one.
                    if exchange.try_turn(MIB / 4).is_err() {
                        exchange = Exchange::open(agent, address);
                    }
                }
            });
        }
        for turn in 1..=rounds(12) {
            match turn % 4 {
                0 => {
                    world.gateway.kill9();
                    world.gateway.start();
                }
                2 if turn > 4 => {
                    world.gateway.terminate();
                    world.gateway.start();
                }
                _ => world.gateway.import(policy(turn)),
            }
            std::thread::sleep(Duration::from_millis(150));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let told = telemetry(&world.gateway, &[]);
    let of_a = &told["agents"]["a"]["domains"];
    for (name, address) in [("api.example.com", site), ("one.files.example", other), ("(allow.ips)", net)] {
        let weighed = scales.octets(a, address);
        assert!(weighed.0 > MIB as u64, "{name}: traffic went on ({weighed:?})");
        alike_both(name, &of_a[name], weighed);
    }
    // Once more after a restart: what was told before is told again, and nothing is added.
    world.gateway.kill9();
    world.gateway.start();
    let again = telemetry(&world.gateway, &[]);
    let before = told["usage"]["bytes_up"].as_u64().expect("a number");
    alike("after a restart", &again["usage"]["bytes_up"], before);
    assert_eq!(again["agents"]["a"]["queries"], told["agents"]["a"]["queries"], "queries are kept");
}

#[test]
fn a_class_that_ends_is_counted_to_its_end() {
    let mut world = world!();
    ends(&mut world);
    assert_eq!(listeners(&world), 0, "the kernel writes a message for each lease to whoever listens");
}

/// There all changes are listened to.
#[test]
fn a_class_that_ends_is_counted_to_its_end_where_the_table_is_not_ours_alone() {
    let mut world = world!();
    world.gateway.settings("[kernel]\nlock_table = false\n");
    ends(&mut world);
    assert!(listeners(&world) > 0);
}

#[test]
fn who_hears_of_caps_that_are_used_up_listens_only_while_there_are_caps() {
    let mut world = world!();
    let mut policy = policy(0);
    world.gateway.enforce(policy.clone());
    assert_eq!(listeners(&world), 0);
    policy["hosts"]["a"]["exfil"] = json!({ "domains": { "api.example.com": { "bytes": MIB, "period": "day" } } });
    for round in 0..2 {
        world.gateway.import(policy.clone());
        world.gateway.wait_until("somebody listens", PATIENCE, |_| listeners(&world) == 1);
        world.gateway.import(self::policy(round));
        world.gateway.wait_until("nobody listens", PATIENCE, |_| listeners(&world) == 0);
    }
}

/// How many sockets on the gateway listen to changes of the packet filter.
fn listeners(world: &World) -> usize {
    world.gateway.netns.enter(namespace::listeners)
}

fn ends(world: &mut World) {
    names(world);
    world.gateway.enforce(policy(0));
    world.a.addresses("api.example.com");
    let (a, site) = (world.a.v4, SITE.address());
    let scales = Scales::new(world, &[(a, site)]);
    Exchange::open(&world.a, site).turn(4 * MIB);
    // At once: nobody has read the counters since.
    world
        .gateway
        .import(json!({ "version": 1, "hosts": { "a": { "sources": A, "allow": { "domains": ["x.example"] } } } }));
    let told = telemetry(&world.gateway, &["agent", "a"]);
    alike_both("api.example.com", &told["agents"]["a"]["domains"]["api.example.com"], scales.octets(a, site));
    world.gateway.kill9();
    world.gateway.start();
    let told = telemetry(&world.gateway, &["agent", "a"]);
    alike_both("after kill -9", &told["agents"]["a"]["domains"]["api.example.com"], scales.octets(a, site));
}
