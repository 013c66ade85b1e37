//! Exfil caps against an agent that counts differently than the gateway, and against flows that were there before.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use crate::world::{Address, Agent, Outcome, PATIENCE, World};
use crate::{A, OTHER, SITE};

/// Where uploads go.
const SINK: u16 = 9000;
/// How long an agent tries to send more.
const TRYING: Duration = Duration::from_secs(2);
/// The names of these tests: PLAIN has no cap, CAPPED has one once the policy says so.
const PLAIN: &str = "plain.example.com";
const CAPPED: &str = "api.example.com";

fn policy(cap: Option<u64>) -> Value {
    let mut host = json!({ "sources": A, "allow": { "domains": [PLAIN, CAPPED], "ports": [443, SINK] } });
    if let Some(bytes) = cap {
        host["exfil"] = json!({ "domains": { CAPPED: { "bytes": bytes, "period": "day" } } });
    }
    json!({ "version": 1, "time_zone": "UTC", "hosts": { "a": host } })
}

/// Counts the IP octets of agent a as they go over the wire beyond the gateway, each fragment with its header.
fn weigh(world: &World) {
    world.gateway.netns.ip("link set dev wan gso_max_segs 1\n");
    let table = "table inet scales {
        counter of_a { }
        chain arrive { type filter hook prerouting priority -450; policy accept;
            ip saddr 192.168.10.10 counter name of_a
            ip6 saddr fd00:10::10 counter name of_a
        }
    }";
    let mut child = world.internet.peer.netns.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(table.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn octets(world: &World) -> u64 {
    let mut list = world.internet.peer.netns.command("nft");
    let out = list.args(["-j", "list", "counter", "inet", "scales", "of_a"]).output().unwrap();
    let value: Value = serde_json::from_slice(&out.stdout).unwrap();
    value["nftables"].as_array().unwrap().iter().filter_map(|entry| entry["counter"]["bytes"].as_u64()).sum()
}

fn open(agent: &Agent, address: &str) -> TcpStream {
    let to = SocketAddr::new(address.address(), SINK);
    agent.netns.enter(|| TcpStream::connect_timeout(&to, PATIENCE)).expect("it is allowed")
}

fn upload(mut stream: &TcpStream, most: usize) {
    let end = Instant::now() + TRYING;
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let (chunk, mut sent) = (vec![7; 64 << 10], 0);
    while sent < most && Instant::now() < end && stream.write_all(&chunk).is_ok() {
        sent += chunk.len();
    }
}

/// Waits until nothing arrives any more.
fn settled(world: &World) -> u64 {
    let mut before = octets(world);
    loop {
        std::thread::sleep(Duration::from_millis(150));
        let now = octets(world);
        if now == before {
            return now;
        }
        before = now;
    }
}

fn learn(agent: &Agent, name: &str) {
    agent.resolve_and(name, RecordType::A, |_| Outcome::TimedOut);
}

#[test]
fn a_new_cap_charges_flows_whose_name_led_over_the_capped_one() {
    const CAP: u64 = 300_000;
    let mut world = world!();
    world.internet.upstream.alias(PLAIN, CAPPED);
    world.internet.upstream.host(CAPPED, &[SITE]);
    world.internet.servers.sink(&[SINK]);
    world.gateway.enforce(policy(None));
    learn(&world.a, PLAIN);
    let old = open(&world.a, SITE);
    world.gateway.import(policy(Some(CAP)));
    weigh(&world);
    upload(&old, 4 << 20);
    let sent = settled(&world);
    assert!(sent <= CAP, "{sent} octets left over a flow from before the cap, the cap is {CAP}");
    // The lease from before opens nothing more either.
    world.a.tcp(SITE, SINK).must_be_reset();
}

#[test]
fn datagrams_in_small_fragments_are_charged_as_they_go_over_the_wire() {
    const CAP: u64 = 200_000;
    let mut world = world!();
    world.internet.upstream.host(CAPPED, &[SITE]);
    world.internet.servers.sink(&[SINK]);
    world.gateway.enforce(policy(Some(CAP)));
    learn(&world.a, CAPPED);
    weigh(&world);
    world.a.netns.ip("link set dev eth0 mtu 68\n");
    let socket = world.a.netns.enter(|| UdpSocket::bind((world.a.v4, 0))).unwrap();
    let to = SocketAddr::new(SITE.address(), SINK);
    for _ in 0..400 {
        let _ = socket.send_to(&[7; 1400], to);
        std::thread::sleep(Duration::from_millis(1));
    }
    let sent = settled(&world);
    println!("{sent} octets of {CAP}");
    assert!(sent <= CAP, "{sent} octets left the gateway in fragments, the cap is {CAP}");
}

#[test]
fn segments_that_an_agent_makes_small_are_charged_as_they_go_over_the_wire() {
    const CAP: u64 = 2_000_000;
    let mut world = world!();
    world.internet.upstream.host(CAPPED, &[SITE]);
    world.internet.servers.sink(&[SINK]);
    world.gateway.enforce(policy(Some(CAP)));
    learn(&world.a, CAPPED);
    weigh(&world);
    world.a.netns.ip("route replace default via 192.168.10.1 mtu lock 200\n");
    upload(&open(&world.a, SITE), 8 << 20);
    let sent = settled(&world);
    println!("{sent} octets of {CAP}");
    assert!(sent <= CAP, "{sent} octets left the gateway in small segments, the cap is {CAP}");
}

#[test]
fn a_flow_under_another_name_is_charged_from_when_its_address_is_the_capped_ones_too() {
    const CAP: u64 = 300_000;
    let mut world = world!();
    world.internet.upstream.host(PLAIN, &[SITE, OTHER]);
    world.internet.upstream.host(CAPPED, &[SITE]);
    world.internet.servers.sink(&[SINK]);
    world.gateway.enforce(policy(Some(CAP)));
    learn(&world.a, PLAIN);
    let old = open(&world.a, SITE);
    learn(&world.a, CAPPED);
    weigh(&world);
    upload(&old, 4 << 20);
    let sent = settled(&world);
    assert!(sent <= CAP, "{sent} octets left to an address that the agent knows to be the capped one's, cap {CAP}");
}
