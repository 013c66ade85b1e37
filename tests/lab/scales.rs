//! What agents send, weighed as it arrives beyond the gateway, and ways to send as much as one can.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::A;
use crate::world::{Address, Agent, PATIENCE, World};

/// Where uploads go.
pub const SINK: u16 = 9000;
/// What one packet may leave unused of a cap: the longest that the kernel forwards in one piece, with the headers of its
/// parts.
pub const LONGEST: u64 = 65_536 + 45 * 72;
/// How long an agent tries to send more.
pub const TRYING: Duration = Duration::from_secs(5);

/// Counts IP octets as they arrive, cut into packets as they go over a wire.
pub struct Scales<'w>(&'w World);

impl<'w> Scales<'w> {
    /// From now on; one for a world.
    pub fn new(world: &'w World) -> Self {
        // Whole packets leave the gateway, whatever the agent's kernel put together.
        world.gateway.netns.ip("link set dev wan gso_max_segs 1\n");
        let table = "table inet scales {
            set sent4 { type ipv4_addr . ipv4_addr; size 65535; flags dynamic; counter; }
            set sent6 { type ipv6_addr . ipv6_addr; size 65535; flags dynamic; counter; }
            chain arrive { type filter hook prerouting priority -500; policy accept;
                iif != eth0 accept
                update @sent4 { ip saddr . ip daddr }
                update @sent6 { ip6 saddr . ip6 daddr }
            }
        }";
        let scales = Self(world);
        scales.load(table);
        scales
    }

    fn load(&self, table: &str) {
        let mut command = self.0.internet.peer.netns.command("nft");
        let mut child = command.args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft is installed");
        child.stdin.take().expect("piped").write_all(table.as_bytes()).expect("nft reads");
        assert!(child.wait().expect("nft ends").success());
    }

    /// From now on what comes to the sinks is also counted by the seconds of the clock, for so many of them.
    pub fn count_seconds(&self, seconds: u64) {
        let first = u64::try_from(chrono::Utc::now().timestamp()).expect("a time of ours");
        let each = |second: u64| {
            format!(
                "add counter inet scales s{second}\nadd rule inet scales arrive th dport {SINK} \
                 meta time >= {second} meta time < {} counter name s{second}\n",
                second + 1
            )
        };
        self.load(&(first..first + seconds).map(each).collect::<String>());
    }

    /// Those that were put up before.
    pub fn of(world: &'w World) -> Self {
        Self(world)
    }

    fn elements(&self, set: &str) -> Vec<(Value, u64)> {
        let mut command = self.0.internet.peer.netns.command("nft");
        let out = command.args(["-j", "list", "set", "inet", "scales", set]).output().expect("nft runs");
        let value: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        let sets = value["nftables"].as_array().expect("a list").iter();
        let elements = sets.filter_map(|entry| entry["set"]["elem"].as_array()).flatten();
        let count = |element: &Value| element["elem"]["counter"]["bytes"].as_u64().expect("a counter");
        elements.map(|element| (element["elem"]["val"].clone(), count(element))).collect()
    }

    /// Octets from these sources to these destinations so far.
    pub fn sent(&self, from: &[IpAddr], to: &[&str]) -> u64 {
        let (from, to): (Vec<String>, Vec<String>) =
            (from.iter().map(ToString::to_string).collect(), to.iter().map(|to| to.address().to_string()).collect());
        let weighed = ["sent4", "sent6"].into_iter().flat_map(|set| self.elements(set));
        let ours = weighed.filter(|(key, _)| {
            let text = |index: usize| key["concat"][index].as_str().expect("an address").to_owned();
            from.contains(&text(0)) && to.contains(&text(1))
        });
        ours.map(|(_, octets)| octets).sum()
    }

    /// What an agent sent there.
    pub fn sent_by(&self, agent: &Agent, to: &[&str]) -> u64 {
        self.sent(&[agent.v4, agent.v6], to)
    }

    /// Octets to the sinks in each of the seconds that [`Scales::count_seconds`] named.
    pub fn by_second(&self) -> BTreeMap<String, u64> {
        let mut command = self.0.internet.peer.netns.command("nft");
        let out = command.args(["-j", "list", "counters", "table", "inet", "scales"]).output().expect("nft runs");
        let value: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        let counters = value["nftables"].as_array().expect("a list").iter();
        let count = |entry: &Value| Some((entry["name"].as_str()?.to_owned(), entry["bytes"].as_u64()?));
        counters.filter_map(|entry| count(&entry["counter"])).collect()
    }

    /// Panics unless a cap was kept, and used but for one packet and what the estimate of headers spares.
    #[track_caller]
    pub fn must_be_used_up(&self, what: &str, sent: u64, cap: u64) {
        self.must_be_used(what, sent, cap, 2);
    }

    /// The same where the estimate spares so many in a hundred.
    #[track_caller]
    pub fn must_be_used(&self, what: &str, sent: u64, cap: u64, spared: u64) {
        println!("{what}: {sent} of {cap} octets arrived, {} unused", cap.cast_signed() - sent.cast_signed());
        assert!(sent <= cap, "{what}: {sent} of {cap}");
        assert!(sent + LONGEST + cap * spared / 100 >= cap, "{what}: only {sent} of {cap}");
    }
}

/// Connects and sends until it is cut or nothing goes any more.
pub fn upload(agent: &Agent, to: impl Address) {
    if let Some(stream) = connect(agent, None, to) {
        pour(stream, TRYING);
    }
}

/// The same from one of several sources.
pub fn upload_from(agent: &Agent, from: &str, to: impl Address) {
    if let Some(stream) = connect(agent, Some(from.address()), to) {
        pour(stream, TRYING);
    }
}

/// One connection after the other, as long as it lasts.
pub fn hammer(agent: &Agent, to: impl Address, time: Duration) {
    let (end, to) = (Instant::now() + time, to.address());
    while Instant::now() < end {
        if let Some(stream) = connect(agent, None, to) {
            pour(stream, end.saturating_duration_since(Instant::now()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends over an open connection until it is cut, nothing goes any more, or the time is over.
pub fn pour(mut stream: TcpStream, time: Duration) {
    let end = Instant::now() + time;
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout is legal");
    let chunk = vec![7; 256 << 10];
    while Instant::now() < end && stream.write_all(&chunk).is_ok() {}
}

/// A connection to a sink.
pub fn connect(agent: &Agent, from: Option<IpAddr>, to: impl Address) -> Option<TcpStream> {
    let to = SocketAddr::new(to.address(), SINK);
    agent.netns.enter(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).ok()?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into()).ok()?;
        }
        socket.connect_timeout(&to.into(), PATIENCE).ok()?;
        Some(socket.into())
    })
}

/// Sends datagrams until they are refused.
pub fn upload_datagrams(agent: &Agent, to: impl Address, octets: usize) {
    let to = SocketAddr::new(to.address(), SINK);
    let here: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket =
        agent.netns.enter(|| UdpSocket::bind((here, 0)).and_then(|socket| socket.connect(to).map(|()| socket)));
    let (socket, end) = (socket.expect("a socket"), Instant::now() + TRYING);
    let payload = vec![7; octets];
    while Instant::now() < end && socket.send(&payload).is_ok() {}
}

/// A policy with caps for names of host a, each with its octets, in a period in which no test is cut in two.
pub fn capped(caps: &[(&str, u64)]) -> Value {
    capped_in(caps, "day")
}

/// The same with a period.
pub fn capped_in(caps: &[(&str, u64)], period: &str) -> Value {
    let caps: serde_json::Map<String, Value> =
        caps.iter().map(|(name, bytes)| ((*name).to_owned(), json!({ "bytes": bytes, "period": period }))).collect();
    json!({ "version": 1, "time_zone": quiet_zone(),
        "allow": { "domains": ["*.example.com", "*.example.net"], "ports": [80, 443, SINK] },
        "hosts": { "a": { "sources": A, "exfil": { "domains": caps } },
                   "b": { "sources": crate::B } } })
}

/// A zone in which it is about noon. One for all: another zone makes another day, in which a cap begins anew.
fn quiet_zone() -> &'static str {
    static ZONE: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    ZONE.get_or_init(|| {
        let ahead = 12 - i32::try_from(chrono::Timelike::hour(&chrono::Utc::now())).expect("small");
        // The signs in these names are the other way round.
        format!("Etc/GMT{}{}", if ahead < 0 { '+' } else { '-' }, ahead.abs())
    })
}

impl Agent {
    /// Asks for a name; panics unless it leads to the address.
    #[track_caller]
    pub fn resolved(&self, name: &str, to: impl Address) {
        let to = to.address();
        let kind = if to.is_ipv4() { RecordType::A } else { RecordType::AAAA };
        let reply = self.lookup(name, kind).unwrap_or_else(|outcome| panic!("{name}: {outcome}"));
        assert!(reply.addresses().contains(&to), "{name}: {} {:?}", reply.code(), reply.ede());
    }
}
