//! What a forwarded packet costs: nothing at all, connection tracking, our table with few and with many classes, and with limits
//! for each of them.
//!
//! Six labs stand beside each other, one for each way, and take turns. 64 octets of UDP payload, one sender; what
//! arrives beyond the gateway is counted by the interface there and dropped at once.

#[allow(dead_code, reason = "each benchmark uses a part")]
mod measure;
#[allow(dead_code, unused_imports, reason = "the lab's world; no benchmark uses all of it")]
#[path = "../tests/lab/world/mod.rs"]
mod world;

use std::io::{IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use serde_json::{Value, json};

use measure::{Table, bar, first_in_line, median, order, pin_this_thread, quick, ratio, rounds, spread};
use world::World;

/// UDP payload, octets.
const PAYLOAD: [u8; 64] = [7; 64];
/// Packets handed over by one system call.
const BATCH: usize = 64;
/// The port that is flooded; nobody answers on it.
const PORT: u16 = 4433;
/// Where the TCP sink listens.
const SINK: u16 = 9000;
/// One measurement.
const SPAN: Duration = Duration::from_millis(400);
/// The processor of the sender, and so of everything a packet meets on its way.
const CPU: usize = 1;
/// The least share of "conntrack + accept all": at 10 and at 10 000 classes, and those capped and limited.
const BARS: [f64; 4] = [0.90, 0.90, 0.85, 0.85];
/// Kilobits a second that no processor reaches.
const ENDLESS_KBPS: u64 = 100_000_000;
/// Octets of a cap that no run uses up.
const ENDLESS: u64 = 1 << 50;

/// One way to forward.
struct Way {
    name: &'static str,
    world: World,
    /// Hosts and names that have a class each.
    classes: (u8, u16),
    clawgress: bool,
}

/// What a packet meets besides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limits {
    None,
    /// A cap of its own for each name of each host, never used up.
    Caps,
    /// A bucket for each host inside the one for all, never empty.
    Rates,
}

fn main() {
    let Some(ways) = build() else { return };
    pin_this_thread(CPU);
    first_in_line();
    let flows = |way: &Way, many: bool| if many { flows(100, 10) } else { last_flow(way) };
    let mut results: Vec<[Vec<f64>; 3]> = ways.iter().map(|_| Default::default()).collect();
    for round in 0..rounds() {
        for index in order(round, ways.len()) {
            let way = &ways[index];
            results[index][0].push(packets_per_second(way, &flows(way, false)));
            results[index][1].push(packets_per_second(way, &flows(way, true)));
            results[index][2].push(gigabits_per_second(way));
        }
    }
    let columns = ["way", "rate", "spread", "to plain", "to ct", "bar"];
    for (kind, title) in [
        "UDP, 64 octets, one flow, packets/s",
        "UDP, 64 octets, 1000 flows in turn, packets/s",
        "TCP, one stream, Gbit/s (for information)",
    ]
    .into_iter()
    .enumerate()
    {
        let mut table = Table::new(title, &columns);
        for (index, way) in ways.iter().enumerate() {
            let own = &results[index][kind];
            let to_ct = ratio(own, &results[1][kind]);
            let bar = match (kind, index.checked_sub(2)) {
                (0, Some(place)) => bar(to_ct >= BARS[place], &format!(">= {:.2}", BARS[place])),
                _ => String::new(),
            };
            let decimals = if kind == 2 { 2 } else { 0 };
            table.row([
                way.name.to_owned(),
                format!("{:.decimals$}", median(own)),
                spread(own, decimals),
                format!("{:.3}", ratio(own, &results[0][kind])),
                format!("{to_ct:.3}"),
                bar,
            ]);
        }
        table.print();
    }
}

fn build() -> Option<Vec<Way>> {
    let plain = lab("no rules, no conntrack", (2, 5))?;
    let tracked = lab("conntrack + accept all", (2, 5))?;
    tracked.world.gateway.nft_load(
        "table inet other { chain forward { type filter hook forward priority 0; policy accept; \
         ct state new,established,related accept; }; }",
    );
    let mut ways = vec![plain, tracked];
    for (name, classes, limits) in [
        ("clawgress, 10 classes", (2, 5), Limits::None),
        ("clawgress, 10 000 classes", (100, 100), Limits::None),
        ("1000 classes, every one capped", (10, 100), Limits::Caps),
        ("1000 classes, with rate limits", (10, 100), Limits::Rates),
    ] {
        let mut way = lab(name, classes)?;
        way.clawgress = true;
        way.world.gateway.enforce(policy(classes, limits));
        lease_all(&way);
        ways.push(way);
    }
    Some(ways)
}

/// A world in which agent a has 100 addresses and everything that is flooded is dropped behind the counter.
fn lab(name: &'static str, classes: (u8, u16)) -> Option<Way> {
    let world = World::build()?;
    world.a.netns.ip("route add local 10.77.0.0/24 dev lo\n");
    world.gateway.netns.ip(&format!("route add 10.77.0.0/24 via {} dev lan1\n", world.a.v4));
    for rule in [
        "add table inet sink".to_owned(),
        "add chain inet sink in { type filter hook prerouting priority -400 ; }".to_owned(),
        format!("add rule inet sink in udp dport {PORT} drop"),
    ] {
        let mut nft = world.internet.peer.netns.command("nft");
        assert!(nft.arg(rule).status().is_ok_and(|status| status.success()), "is nft installed? run `make setup`");
    }
    let listener = world.internet.peer.netns.enter(|| TcpListener::bind(("0.0.0.0", SINK))).expect("the port is free");
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || drain(stream));
        }
    });
    for n in 0..100 {
        world.internet.upstream.host(&domain(n), &[&site(n).to_string()]);
    }
    Some(Way { name, world, classes, clawgress: false })
}

fn drain(mut stream: TcpStream) {
    let mut buffer = vec![0; 1 << 18];
    while matches!(stream.read(&mut buffer), Ok(1..)) {}
}

fn source(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, n + 1)
}

fn site(n: u16) -> Ipv4Addr {
    Ipv4Addr::new(151, 101, 7, u8::try_from(n).expect("there are 100 sites") + 1)
}

fn domain(n: u16) -> String {
    format!("n{n}.bench.example.com")
}

fn policy((hosts, names): (u8, u16), limits: Limits) -> Value {
    let host = |n: u8| {
        let mut host = json!({ "sources": [format!("{}/32", source(n))],
                "allow": { "domains": ["*.bench.example.com"], "ips": [format!("45.60.1.{n}")], "ports": [443, PORT, SINK] } });
        match limits {
            Limits::None => {}
            Limits::Caps => {
                let cap = |n: u16| (domain(n), json!({ "bytes": ENDLESS, "period": "day" }));
                let caps: serde_json::Map<String, Value> = (0..names).map(cap).collect();
                host["exfil"] = json!({ "domains": caps });
            }
            Limits::Rates => host["limits"] = json!({ "egress_kbps": ENDLESS_KBPS }),
        }
        host
    };
    let all: serde_json::Map<String, Value> = (0..hosts).map(|n| (format!("host-{n}"), host(n))).collect();
    let mut policy = json!({ "version": 1, "hosts": all });
    if limits == Limits::Rates {
        policy["limits"] = json!({ "egress_kbps": ENDLESS_KBPS });
    }
    policy
}

/// Every host asks for every name, so that each pair has a class and a lease.
fn lease_all(way: &Way) {
    let (hosts, names) = way.classes;
    for host in 0..hosts {
        let socket =
            way.world.a.netns.enter(|| UdpSocket::bind((source(host), 0))).expect("the address is the agent's");
        socket.connect((way.world.a.router4, 53)).expect("there is a route");
        socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout is legal");
        for name in 0..names {
            socket.send(&world::question(&domain(name), RecordType::A)).expect("a question can be sent");
            let mut answer = [0; 2048];
            let length = socket.recv(&mut answer).expect("the gateway answers");
            assert!(answer[3] & 15 == 0 && length > 40, "the gateway should give an address of {}", domain(name));
        }
    }
    let status = way.world.gateway.nft(&["list", "map", "inet", "clawgress", "dst4"]).stdout;
    let leases = status.matches("expires").count();
    assert_eq!(leases, usize::from(hosts) * usize::from(names), "every pair has a lease");
}

/// Senders with the places each one sends to.
type Flows = Vec<(Ipv4Addr, Vec<Ipv4Addr>)>;

/// The flow of the last host to the last name: nothing is special about it.
fn last_flow(way: &Way) -> Flows {
    vec![(source(way.classes.0 - 1), vec![site(way.classes.1 - 1)])]
}

/// So many senders with so many receivers each, all within the classes that the largest lab has.
fn flows(senders: u8, receivers: u16) -> Flows {
    (0..senders).map(|n| (source(n), (0..receivers).map(site).collect())).collect()
}

fn packets_per_second(way: &Way, flows: &Flows) -> f64 {
    // The small lab has fewer hosts and names: its flows repeat.
    let (hosts, names) = if way.clawgress { way.classes } else { (100, 100) };
    let flows: Flows = flows
        .iter()
        .enumerate()
        .map(|(n, (_, sites))| {
            let own = |place: usize| if sites.len() == 1 { sites[0] } else { site(place as u16 % names) };
            let from = if flows.len() == 1 { flows[0].0 } else { source(n as u8 % hosts) };
            (from, (0..sites.len()).map(own).collect())
        })
        .collect();
    way.world.a.netns.enter(|| flood(way, &flows))
}

fn flood(way: &Way, flows: &Flows) -> f64 {
    pin_this_thread(CPU);
    let senders: Vec<(UdpSocket, Vec<Option<SockaddrIn>>)> = flows
        .iter()
        .map(|(from, sites)| {
            let socket = UdpSocket::bind((*from, 0)).expect("the address is the agent's");
            if let [only] = sites[..] {
                socket.connect((only, PORT)).expect("there is a route");
                return (socket, vec![None; BATCH]);
            }
            let sites = sites.iter().cycle().take(BATCH);
            (socket, sites.map(|to| Some(SockaddrIn::from(SocketAddrV4::new(*to, PORT)))).collect())
        })
        .collect();
    let packet = [IoSlice::new(&PAYLOAD)];
    let packets: Vec<_> = (0..BATCH).map(|_| packet).collect();
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let mut send = |(socket, sites): &(UdpSocket, Vec<Option<SockaddrIn>>)| {
        // A full queue is the measurement's normal state; what arrives is counted elsewhere.
        let _ = sendmmsg(socket.as_raw_fd(), &mut headers, &packets, sites, [], MsgFlags::empty()).map(|_| ());
    };
    senders.iter().for_each(&mut send);
    std::thread::sleep(Duration::from_millis(20));
    let before = arrived(way);
    let start = Instant::now();
    let mut turn = senders.iter().cycle();
    while start.elapsed() < SPAN {
        turn.by_ref().take(4).for_each(&mut send);
    }
    let span = start.elapsed();
    // What is still in a queue of this processor gets its time.
    std::thread::sleep(Duration::from_millis(5));
    (arrived(way) - before) as f64 / span.as_secs_f64()
}

/// Packets that the internet's interface has received.
fn arrived(way: &Way) -> u64 {
    let text = way.world.internet.peer.netns.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
    let text = text.expect("proc is mounted");
    let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:")).expect("the internet has eth0");
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a line of counters")
}

fn gigabits_per_second(way: &Way) -> f64 {
    let (from, to) = &last_flow(way)[0];
    let mut stream = way.world.a.netns.enter(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((*from, 0)).into())?;
        socket.connect(&SocketAddr::from((to[0], SINK)).into())?;
        Ok::<TcpStream, std::io::Error>(socket.into())
    });
    let stream = stream.as_mut().unwrap_or_else(|e| panic!("{}: {from} should reach {}: {e}", way.name, to[0]));
    let data = vec![0; 1 << 18];
    let (start, mut sent) = (Instant::now(), 0);
    while start.elapsed() < if quick() { SPAN / 2 } else { SPAN } {
        sent += stream.write(&data).expect("an open connection takes data");
    }
    sent as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9
}
