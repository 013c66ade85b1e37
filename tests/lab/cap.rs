//! Exfil caps (SPEC section 2, meaning 6): never more than the cap gets through in a period, open flows included.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{Address, Agent, PATIENCE, World};
use crate::{A, B, OTHER, SITE, SITE6, rounds};

/// What one packet may leave unused of a cap: the longest that the kernel forwards in one piece.
const LONGEST: u64 = 65_536;
/// Where uploads go.
const SINK: u16 = 9000;
/// How long an agent tries to send more.
const TRYING: Duration = Duration::from_secs(5);

/// Counts IP octets of an agent as they arrive beyond the gateway, cut into packets as they go over a wire.
struct Scales<'w>(&'w World);

impl<'w> Scales<'w> {
    fn new(world: &'w World) -> Self {
        // Whole packets leave the gateway, whatever the agent's kernel put together.
        world.gateway.netns.ip("link set dev wan gso_max_segs 1\n");
        let netns = &world.internet.peer.netns;
        let table = "table inet scales {
            counter of_a { }
            counter of_b { }
            chain arrive { type filter hook prerouting priority -400; policy accept;
                ip saddr 192.168.10.10 counter name of_a
                ip6 saddr fd00:10::10 counter name of_a
                ip saddr 192.168.11.10 counter name of_b
                ip6 saddr fd00:11::10 counter name of_b
            }
        }";
        let mut child = netns
            .command("nft")
            .args(["-f", "-"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("nft is installed");
        child.stdin.take().expect("piped").write_all(table.as_bytes()).expect("nft reads");
        assert!(child.wait().expect("nft ends").success());
        Self(world)
    }

    /// Octets of one agent so far.
    fn octets(&self, name: &str) -> u64 {
        let out =
            self.0.internet.peer.netns.command("nft").args(["-j", "list", "counter", "inet", "scales", name]).output();
        let value: Value = serde_json::from_slice(&out.expect("nft runs").stdout).expect("JSON");
        let counters = value["nftables"].as_array().expect("a list").iter();
        counters.filter_map(|entry| entry["counter"]["bytes"].as_u64()).sum()
    }
}

/// Sends until it is cut or nothing goes any more.
fn upload(agent: &Agent, address: IpAddr) {
    let Some(mut stream) = connect(agent, address) else { return };
    let end = Instant::now() + TRYING;
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout is legal");
    let chunk = vec![7; 256 << 10];
    while Instant::now() < end && stream.write_all(&chunk).is_ok() {}
}

fn connect(agent: &Agent, address: IpAddr) -> Option<TcpStream> {
    let to = SocketAddr::new(address, SINK);
    agent.netns.enter(|| TcpStream::connect_timeout(&to, PATIENCE)).ok()
}

fn policy(bytes: u64, period: &str) -> Value {
    json!({ "version": 1, "time_zone": "UTC", "hosts": {
        "a": { "sources": A, "allow": { "domains": ["api.example.com", "other.example.com"], "ports": [80, 443, SINK] },
               "exfil": { "domains": { "api.example.com": { "bytes": bytes, "period": period } } } },
        "b": { "sources": B, "allow": { "domains": ["api.example.com"] } } } })
}

#[test]
fn never_more_than_the_cap_gets_through_one_flow() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[SITE, SITE6]);
    world.internet.servers.sink(&[SINK]);
    for (cap, address) in [(1 << 20, SITE), (5_000_000, SITE6), (100_000, SITE)] {
        world.gateway.kill9();
        world.gateway.nft(&["delete", "table", "inet", "clawgress"]);
        let _ = std::fs::remove_file(world.gateway.path("state/ledger"));
        world.gateway.enforce(policy(cap, "day"));
        world.a.reach("api.example.com", 80);
        world.a.reach6("api.example.com", 80);
        let meter = Scales::new(&world);
        let before = meter.octets("of_a");
        for _ in 0..rounds(1) {
            upload(&world.a, address.address());
        }
        let sent = meter.octets("of_a") - before;
        println!("cap {cap}: {sent} octets arrived, {} unused", cap as i64 - sent as i64);
        assert!(sent <= cap, "{sent} of {cap}");
        // Headers of merged packets are estimated, with up to two in a hundred to spare.
        assert!(sent + LONGEST + cap / 50 >= cap, "{sent} of {cap}");
        world.a.tcp(address, 80).must_be_reset();
        world.a.tcp(OTHER, 443).must_be_reset();
        world.b.reach("api.example.com", 80).must_reach();
        let _ = world.internet.peer.netns.command("nft").args(["delete", "table", "inet", "scales"]).status();
    }
}
