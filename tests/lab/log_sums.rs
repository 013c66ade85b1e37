//! The decision log adds up, and what goes wrong with it costs no refusal.

use std::time::Duration;

use clawgress::decisions::{Filter, Layer, Record};
use clawgress::plan::table::refusals::{GROUP, REFUSALS};
use hickory_proto::rr::RecordType;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::log::{PATIENCE, find, policy};
use crate::world::{Agent, Gateway};
use crate::{OTHER, SITE};

/// Within this the daemon has asked for a group again that another program had.
const AGAIN: Duration = Duration::from_secs(8);

/// What the kernel says that it refused.
pub fn counted(gateway: &Gateway) -> u64 {
    let text = gateway.nft(&["list", "table", "inet", "clawgress"]).stdout;
    let chains = text.split("chain ").filter(|chain| REFUSALS.iter().any(|refusal| chain.starts_with(refusal.chain)));
    let packets = |chain: &str| chain.split("counter packets ").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    chains.filter_map(packets).sum()
}

/// What the records on disk stand for.
pub fn recorded(gateway: &Gateway, layer: Layer) -> u64 {
    let records = clawgress::decisions::read(&gateway.path("state/decisions"));
    records.filter(|record| record.layer == layer).map(|record| record.suppressed + 1).sum()
}

/// Datagrams to ever new places, which are refused.
fn flood(agent: &Agent, packets: u32) {
    agent.netns.enter(|| {
        let socket = std::net::UdpSocket::bind((agent.v4, 0)).expect("a port is free");
        for n in 0..packets {
            let to = std::net::Ipv4Addr::from_bits(0x9765_0000 | (n % 4096));
            let _ = socket.send_to(&[7; 20], (to, 443));
        }
    });
}

#[test]
fn records_stand_for_exactly_what_was_refused() {
    let mut world = world!();
    world.gateway.enforce(policy());
    let names: Vec<String> = (0..400).map(|n| format!("n{n}.elsewhere.example")).collect();
    for name in names.iter().chain(&names[..50]) {
        let _ = world.a.lookup(name, RecordType::A);
    }
    // Some by one, then a scan that no ration covers.
    for _ in 0..3 {
        world.a.tcp(OTHER, 443).must_be_reset();
        world.b.tcp(OTHER, 443).must_be_reset();
    }
    flood(&world.a, 50_000);
    // Loss on the way shows in the sums as well: for a moment nobody takes in what the kernel copies.
    let daemon = Pid::from_raw(world.gateway.pid().expect("it runs").cast_signed());
    kill(daemon, Signal::SIGSTOP).expect("our child");
    flood(&world.b, 20_000);
    kill(daemon, Signal::SIGCONT).expect("our child");
    let kernel = counted(&world.gateway);
    assert!(kernel >= 70_000, "the kernel refused {kernel}");
    world.gateway.terminate();
    assert_eq!(recorded(&world.gateway, Layer::Packet), kernel);
    assert_eq!(recorded(&world.gateway, Layer::Dns), 450);
    let records = clawgress::decisions::read(&world.gateway.path("state/decisions")).count();
    assert!(records < 2500, "{records} records of a flood");
}

#[test]
fn without_nflog_refusals_go_on_and_health_says_so() {
    let mut world = world!();
    let busy = world.gateway.netns.enter(|| clawgress::nft::Receiver::bind(GROUP).expect("nobody listens yet"));
    world.gateway.enforce(policy());
    world.a.tcp(OTHER, 443).must_be_reset();
    let health = world.gateway.tool(&["health", "--json"]);
    assert_eq!(health.code, Some(1));
    let health = health.json();
    let check = health["checks"].as_array().expect("a list").iter().find(|check| check["name"] == "decision-log");
    let check = check.expect("the check");
    assert_eq!(check["ok"], false);
    assert!(check["message"].as_str().expect("a text").contains("another program listens"), "{check}");
    assert_eq!(world.gateway.status()["state"], "degraded");
    // DNS is recorded, and packets are known by their number.
    let _ = world.a.lookup("elsewhere.example", RecordType::A);
    world.gateway.wait_until("the query is recorded", PATIENCE, |gateway| find(gateway, Filter::default()).len() == 1);
    drop(busy);
    world.gateway.wait_until("the group is free", AGAIN, |gateway| gateway.tool(&["health"]).code == Some(0));
    world.a.tcp(OTHER, 443).must_be_reset();
    world
        .gateway
        .wait_until("packets are recorded again", PATIENCE, |gateway| find(gateway, Filter::default()).len() >= 2);
    world.gateway.terminate();
    assert!(recorded(&world.gateway, Layer::Packet) >= 2, "the one before is counted");
}

#[test]
fn a_full_disk_costs_records_and_no_refusal() {
    let mut world = world!();
    let disk = crate::faults::Disk::mount(&world.gateway.path("state"));
    world.gateway.enforce(policy());
    world.a.tcp(OTHER, 443).must_be_reset();
    world.gateway.wait_until("it is written", PATIENCE, |gateway| recorded(gateway, Layer::Packet) == 1);
    disk.fill();
    for port in 1000..1100 {
        world.a.tcp(OTHER, port).must_be_reset();
        world.a.tcp(SITE, 443).must_reach();
    }
    world.gateway.wait_until("status says so", PATIENCE, |gateway| gateway.status()["state"] == "degraded");
    let told = crate::faults::failed_check(&world, "decision-log");
    assert!(told.contains("disk is full") && told.contains("not written"), "{told}");
    world.gateway.wait_until("in memory they are all", PATIENCE, |gateway| {
        find(gateway, Filter { limit: Some(1000), ..Filter::default() }).len() == 101
    });
    disk.clear();
    world.a.tcp(OTHER, 1200).must_be_reset();
    world.gateway.wait_until("it is well again", PATIENCE, |gateway| gateway.tool(&["health"]).code == Some(0));
    assert_eq!(recorded(&world.gateway, Layer::Packet), 102, "what waited is written");
    let whole = std::fs::read_dir(world.gateway.path("state/decisions")).expect("the directory").all(|file| {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
        text.lines().all(|line| serde_json::from_str::<Record>(line).is_ok())
    });
    assert!(whole, "no line is torn");
    world.gateway.kill9();
}
