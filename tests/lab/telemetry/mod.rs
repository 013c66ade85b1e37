//! Telemetry says what was really sent and refused (SPEC section 3): held against counters beyond the gateway, where
//! nothing of clawgress runs.

mod denials;
mod limits;
mod usage;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::world::{Agent, Gateway, Netns, World};

/// How long an exchange may stall; policy swaps and dead daemons are within it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Counts at the servers' end what arrives from an agent for an address (up) and what is sent back (down).
pub struct Scales {
    netns: Arc<Netns>,
    pairs: Vec<(IpAddr, IpAddr)>,
}

impl Scales {
    pub fn new(world: &World, pairs: &[(IpAddr, IpAddr)]) -> Self {
        let (mut counters, mut arrive, mut leave) = (String::new(), String::new(), String::new());
        for (place, (agent, site)) in pairs.iter().enumerate() {
            let ip = if agent.is_ipv4() { "ip" } else { "ip6" };
            counters += &format!("counter up{place} {{ }}\ncounter down{place} {{ }}\n");
            arrive += &format!("{ip} saddr {agent} {ip} daddr {site} counter name up{place}\n");
            leave += &format!("{ip} saddr {site} {ip} daddr {agent} counter name down{place}\n");
        }
        let table = format!(
            "table inet scales {{\n{counters}
             chain arrive {{ type filter hook prerouting priority -400; policy accept;\n{arrive}}}
             chain leave {{ type filter hook postrouting priority 400; policy accept;\n{leave}}}\n}}"
        );
        let mut command = world.internet.peer.netns.command("nft");
        let mut child =
            command.args(["-f", "-"]).stdin(std::process::Stdio::piped()).spawn().expect("nft is installed");
        child.stdin.take().expect("piped").write_all(table.as_bytes()).expect("nft reads");
        assert!(child.wait().expect("nft ends").success());
        Self { netns: world.internet.peer.netns.clone(), pairs: pairs.to_vec() }
    }

    /// Octets up and down of one pair so far.
    pub fn octets(&self, agent: IpAddr, site: IpAddr) -> (u64, u64) {
        let place = self.pairs.iter().position(|pair| *pair == (agent, site)).expect("a pair that is weighed");
        let mut command = self.netns.command("nft");
        let out = command.args(["-j", "list", "counters", "table", "inet", "scales"]).output().expect("nft runs");
        let value: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        let of = |name: &str| {
            let mut counters = value["nftables"].as_array().expect("a list").iter().map(|entry| &entry["counter"]);
            counters.find(|counter| counter["name"] == name).and_then(|counter| counter["bytes"].as_u64())
        };
        let both = of(&format!("up{place}")).zip(of(&format!("down{place}")));
        both.expect("the counters are there")
    }
}

/// `clawgress telemetry --json` with further words.
#[track_caller]
pub fn telemetry(gateway: &Gateway, words: &[&str]) -> Value {
    let ran = gateway.tool(&[&["telemetry", "--json", "--window", "24h"], words].concat());
    ran.must_succeed();
    ran.json()
}

/// Panics unless both are the same but for one in a hundred.
#[track_caller]
pub fn alike(what: &str, told: &Value, weighed: u64) {
    let told = told.as_u64().unwrap_or_else(|| panic!("{what} is not told: {told}"));
    println!("{what}: told {told}, weighed {weighed}");
    assert!(told.abs_diff(weighed) * 100 <= weighed, "{what}: told {told}, weighed {weighed}");
}

/// Panics unless a host's or domain's octets are those that were weighed.
#[track_caller]
pub fn alike_both(what: &str, told: &Value, weighed: (u64, u64)) {
    alike(&format!("{what} up"), &told["bytes_up"], weighed.0);
    alike(&format!("{what} down"), &told["bytes_down"], weighed.1);
}

/// A connection to an echo server over which octets go and come back.
pub struct Exchange {
    stream: TcpStream,
}

impl Exchange {
    pub fn open(agent: &Agent, address: IpAddr) -> Self {
        let to = SocketAddr::new(address, 443);
        let stream = agent.netns.enter(|| TcpStream::connect_timeout(&to, PATIENCE)).expect("it is allowed");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout is legal");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout is legal");
        Self { stream }
    }

    /// Sends so many octets and reads them back.
    pub fn turn(&mut self, octets: usize) {
        self.try_turn(octets).expect("the echo comes");
    }

    /// The same where the flow may end.
    pub fn try_turn(&mut self, octets: usize) -> std::io::Result<()> {
        let mut reader = self.stream.try_clone()?;
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || reader.read_exact(&mut vec![0; octets]));
            let written = self.stream.write_all(&vec![7; octets]);
            reader.join().expect("it does not panic").and(written)
        })
    }
}
