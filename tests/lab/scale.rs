//! Many names, many addresses, many leases: the promises of the other chapters at a size where shortcuts would show.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use crate::world::{World, question};
use crate::{A, B, OTHER, OTHER6, SITE, SITE6, rounds};

/// Resolutions of an hour, when a name is asked for once a second.
const HOUR: usize = 3600;
/// Sources that stand for as many hosts, and names that each of them asks for.
const HOSTS: u8 = 100;
const NAMES: u8 = 100;
/// Entries of each list of the large policy.
const LARGE: u32 = 30_000;

#[test]
fn an_hour_of_a_name_that_rotates_is_never_refused() {
    let mut world = world!();
    let addresses: Vec<IpAddr> = (1..=200).map(|n| IpAddr::from([151, 101, 0, n])).collect();
    // The cache would hold back the next answer for a second; without a lifetime the hour takes seconds.
    world.internet.upstream.rotate("turn.example.com", addresses, 0);
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["turn.example.com"] } }));
    let mut seen = Vec::new();
    for round in 0..rounds(HOUR) {
        let address = world.a.addresses("turn.example.com")[0];
        let outcome = world.a.tcp(address, 443);
        assert!(outcome.reached(), "round {round}, {address}: {outcome}");
        seen.push(address);
        // What a program remembers for a minute is open that long.
        let earlier = seen[seen.len().saturating_sub(60)];
        if round % 20 == 0 {
            let outcome = world.a.tcp(earlier, 443);
            assert!(outcome.reached(), "round {round}, {earlier} of 60 answers before: {outcome}");
        }
    }
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len().min(200), "every answer had the next address");
}

fn source(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, n + 1)
}

fn hosts(change: bool) -> Value {
    let host = |n: u8| {
        let mut names = vec!["*.many.example.com".to_owned()];
        names.extend(change.then(|| format!("new{n}.example.com")));
        json!({ "sources": [source(n)], "allow": { "domains": names } })
    };
    let hosts: serde_json::Map<String, Value> = (0..HOSTS).map(|n| (format!("host-{n}"), host(n))).collect();
    json!({ "version": 1, "allow": { "ips": [SITE] }, "hosts": hosts })
}

#[test]
fn ten_thousand_leases_outlive_a_swap() {
    let mut world = world!();
    let site = |n: u8| Ipv4Addr::new(151, 101, 7, n + 1);
    for n in 0..NAMES {
        world.internet.upstream.host_for(&format!("n{n}.many.example.com"), &[&site(n).to_string()], 3600);
    }
    world.a.netns.ip("route add local 10.77.0.0/24 dev lo\n");
    world.gateway.netns.ip(&format!("route add 10.77.0.0/24 via {} dev lan1\n", world.a.v4));
    world.gateway.enforce(hosts(false));
    for host in 0..HOSTS {
        lease_all(&world, host);
    }
    assert_eq!(leases(&world), usize::from(HOSTS) * usize::from(NAMES));
    let probe = world.a.probe_tcp(SITE, 443);
    world.gateway.import(hosts(true));
    std::thread::sleep(Duration::from_millis(100));
    probe.stop().must_be_whole();
    assert_eq!(leases(&world), usize::from(HOSTS) * usize::from(NAMES), "a swap ends no lease of a name that stays");
    for n in [0, NAMES / 2, NAMES - 1] {
        let from = (IpAddr::from(source(HOSTS - 1 - n % HOSTS)), 40_000);
        let _ = world.a.udp_from(from, (IpAddr::from(site(n)), 443), b"after the swap");
        let arrived = world.internet.servers.count(|arrival| arrival.from == from.0 && arrival.to == site(n));
        assert_eq!(arrived, 1, "{} is open for {}", site(n), from.0);
    }
}

/// One host asks for all names, over one socket.
fn lease_all(world: &World, host: u8) {
    let socket = world.a.netns.enter(|| UdpSocket::bind((source(host), 0))).expect("the address is the agent's");
    socket.connect((world.a.router4, 53)).expect("there is a route");
    socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout is legal");
    for n in 0..NAMES {
        socket.send(&question(&format!("n{n}.many.example.com"), RecordType::A)).expect("a question can be sent");
        let mut answer = [0; 1024];
        socket.recv(&mut answer).expect("the gateway answers");
        assert_eq!(answer[3] & 15, 0, "name {n} is allowed to host {host}");
    }
}

fn leases(world: &World) -> usize {
    world.gateway.nft(&["list", "map", "inet", "clawgress", "dst4"]).stdout.matches("expires").count()
}

/// Of both lists a tenth differs between two turns.
fn large(turn: u32) -> Value {
    let generation = |n: u32| if n.is_multiple_of(10) { turn % 2 } else { 0 };
    let domains: Vec<String> = (0..LARGE).map(|n| format!("api{n}.service{}.example.com", generation(n))).collect();
    let addresses = (0..LARGE).map(|n| match n % 5 {
        0 => format!("60.{}.{}.{}/30", generation(n), n >> 8, n & 252),
        1 => format!("2a01:{:x}::{n:x}", generation(n)),
        _ => format!("70.{}.{}.{}", generation(n), n >> 8, n & 255),
    });
    let ips: Vec<String> = addresses.chain([SITE, SITE6].map(str::to_owned)).collect();
    json!({ "version": 1, "allow": { "domains": domains, "ips": ips }, "hosts": { "a": { "sources": A }, "b": { "sources": B } } })
}

#[test]
fn a_large_policy_is_swapped_without_a_wrong_packet() {
    let mut world = world!();
    world.gateway.unlimited_icmp();
    world.gateway.enforce(json!({ "version": 1, "allow": { "ips": [SITE, SITE6] },
        "hosts": { "a": { "sources": A }, "b": { "sources": B } } }));
    let allowed = [world.a.probe_tcp(SITE, 443), world.a.probe_udp(SITE6, 443)];
    let denied = [world.a.probe_udp(OTHER, 443), world.b.probe_udp(OTHER6, 443)];
    for turn in 0..3 {
        world.gateway.import(large(turn));
    }
    std::thread::sleep(Duration::from_millis(100));
    let (allowed, denied) = (allowed.map(|probe| probe.stop()), denied.map(|probe| probe.stop()));
    for report in allowed {
        report.must_be_whole();
    }
    for report in denied {
        report.must_be_dead();
    }
    let status = world.gateway.status();
    assert_eq!(status["domains"], LARGE, "the large policy is in force: {status}");
}

/// The sets that hold `allow.ips` now.
fn sets(world: &World) -> Vec<String> {
    let listed = world.gateway.nft(&["-t", "list", "table", "inet", "clawgress"]).stdout;
    let names = listed.lines().filter_map(|line| line.trim().strip_prefix("set allow")?.strip_suffix(" {"));
    names.map(str::to_owned).collect()
}

/// Large sets are filled piece by piece before anything refers to them.
#[test]
fn a_large_policy_that_is_cut_short_on_its_way_leaves_nothing_behind() {
    let mut world = world!();
    world.gateway.unlimited_icmp();
    world.gateway.enforce(large(0));
    let whole = sets(&world).len();
    assert!(whole >= 3, "{:?}", sets(&world));
    let tidy = |world: &World| {
        let patience = Duration::from_secs(20);
        world.gateway.wait_until("what was begun is removed", patience, |_| sets(world).len() == whole);
    };
    world.gateway.import(large(1));
    tidy(&world);
    let (allowed, denied) = (world.a.probe_udp(SITE6, 443), world.a.probe_udp(OTHER, 443));
    for round in 2..u32::try_from(rounds(4)).expect("not that many") + 2 {
        let daemon = nix::unistd::Pid::from_raw(world.gateway.pid().expect("it runs").cast_signed());
        let gateway = &world.gateway;
        std::thread::scope(|scope| {
            let import = scope.spawn(|| gateway.tool_reading(&["import", "--policy", "-"], &large(round).to_string()));
            // As soon as there is something of it.
            while !import.is_finished() && sets(&world).len() == whole {}
            nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGKILL).expect("it is our child");
        });
        world.gateway.kill9();
        println!("round {round}: {} sets are there, {whole} are usual", sets(&world).len());
        world.gateway.start();
        world.a.tcp(OTHER, 443).must_be_reset();
        world.a.tcp(SITE, 443).must_reach();
        tidy(&world);
    }
    allowed.stop().must_be_whole();
    denied.stop().must_be_dead();
}
