//! Rate limits (SPEC section 2, meaning 5): one bucket for all egress in scope, one for each host that has its own, both
//! for both families, all protocols, and flows of either opener.
//!
//! What is measured is payload that arrives, against the limit, which counts IP packets. A bucket holds one second of its
//! rate and 64 KiB, and is full at first.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::scales::{SINK, connect};
use crate::world::{Address, Agent, OUTSIDE, World};
use crate::{A, AGENTS, B, SITE, SITE6, rounds};

/// Payload of a datagram.
const DATAGRAM: usize = 1400;
/// Senders of datagrams offer so many times the limit.
const OFFERED: f64 = 1.5;
/// The queue behind the shaping bucket: not every kernel has one that is fair.
const QUEUE: &str = "pfifo limit 100";
/// Octets a second in one kbit/s.
const OCTETS: f64 = 125.0;
/// How long the tests measure that are not about figures, from the beginning on.
const SPAN: Duration = Duration::from_secs(3);

/// What an agent sends.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// So many connections, every other one over IPv6.
    Tcp(usize),
    /// The same, opened from outside; the agent's upload are the answers.
    Inbound(usize),
    /// So many flows of datagrams, together [`OFFERED`] times as much as so many kbit/s.
    Udp(usize, u64),
}

fn policy(all: Option<u64>, a: Option<u64>) -> Value {
    let limits = |kbps: Option<u64>| kbps.map_or(json!({}), |kbps| json!({ "egress_kbps": kbps }));
    json!({ "version": 1, "limits": limits(all), "scope": { "sources": AGENTS },
        "allow": { "ips": [SITE, SITE6, OUTSIDE[0], OUTSIDE[1]], "ports": [80, SINK] },
        "hosts": { "a": { "sources": A, "limits": limits(a) }, "b": { "sources": B } } })
}

/// Sinks, and packets that leave one by one.
fn prepare(world: &World) {
    world.internet.servers.sink(&[SINK]);
    world.gateway.netns.ip("link set dev wan gso_max_segs 1\n");
}

/// The share of a limit, in kbit/s, at which payload arrives.
fn share(world: &World, kbps: u64, senders: &[(&Agent, Load)], warm_up: Duration, span: Duration) -> f64 {
    let time = warm_up + span + Duration::from_millis(100);
    std::thread::scope(|scope| {
        for &(agent, load) in senders {
            let (Load::Tcp(flows) | Load::Inbound(flows) | Load::Udp(flows, _)) = load;
            for index in 0..flows {
                scope.spawn(move || {
                    let to = if index % 2 == 0 { SITE } else { SITE6 };
                    match load {
                        Load::Tcp(_) => send(open(agent, to), time),
                        Load::Inbound(_) => send(opened_from_outside(world, agent, index % 2 == 0), time),
                        Load::Udp(_, kbps) => datagrams(agent, to, time, OFFERED * OCTETS * kbps as f64 / flows as f64),
                    }
                });
            }
        }
        std::thread::sleep(warm_up);
        let (before, start) = (world.internet.servers.taken(), Instant::now());
        std::thread::sleep(span);
        (world.internet.servers.taken() - before) as f64 / start.elapsed().as_secs_f64() / (OCTETS * kbps as f64)
    })
}

/// A connection, also through a bucket that is empty.
fn open(agent: &Agent, to: &str) -> TcpStream {
    let tries = std::iter::repeat_with(|| connect(agent, None, to)).take(40);
    tries.flatten().next().expect("it is allowed")
}

/// Sends as much as goes, and takes back what has not gone. A flow of many may wait for seconds.
fn send(mut stream: TcpStream, time: Duration) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a connection lingers or does not");
    stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout is legal");
    let (end, chunk) = (Instant::now() + time, [7; 64 << 10]);
    while Instant::now() < end {
        match stream.write(&chunk) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

/// The agent's end of a connection that somebody beyond the gateway opened and reads from. One of a family at a time,
/// because the port must be one of the policy's.
fn opened_from_outside(world: &World, agent: &Agent, v4: bool) -> TcpStream {
    let here = if v4 { agent.v4 } else { agent.v6 };
    let listener = agent.netns.enter(|| TcpListener::bind((here, SINK))).expect("the port is free");
    let stream = world.internet.peer.netns.enter(|| TcpStream::connect((here, SINK))).expect("towards agents is open");
    world.internet.servers.take_in(stream);
    listener.accept().expect("somebody connected").0
}

/// Datagrams at so many octets of payload a second.
fn datagrams(agent: &Agent, to: impl Address, time: Duration, pace: f64) {
    let to = SocketAddr::new(to.address(), SINK);
    let here: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket =
        agent.netns.enter(|| UdpSocket::bind((here, 0)).and_then(|socket| socket.connect(to).map(|()| socket)));
    let (socket, start, mut sent) = (socket.expect("a socket"), Instant::now(), 0.0);
    while start.elapsed() < time {
        while sent < pace * start.elapsed().as_secs_f64() {
            let _ = socket.send(&[7; DATAGRAM]);
            sent += DATAGRAM as f64;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Never more than the rate and one bucket; and not much less, however busy the machine is.
#[track_caller]
fn must_hold(what: &str, kbps: u64, share: f64) {
    let bucket = 1.0 + 65_536.0 / (OCTETS * kbps as f64);
    let most = 1.0 + (bucket + 0.1) / SPAN.as_secs_f64();
    println!("{what}: {share:.3} of the limit, {most:.3} with the bucket that was full at first");
    assert!(share > 0.5 && share <= most, "{what}: {share:.3} of the limit");
}

#[test]
fn a_hosts_bucket_holds_for_all_its_flows_and_for_nobody_elses() {
    let mut world = world!();
    prepare(&world);
    let kbps = 8000;
    world.gateway.enforce(policy(None, Some(kbps)));
    for load in [Load::Tcp(1), Load::Tcp(8), Load::Udp(2, kbps)] {
        must_hold(&format!("{load:?}"), kbps, share(&world, kbps, &[(&world.a, load)], Duration::ZERO, SPAN));
    }
    let free = share(&world, kbps, &[(&world.b, Load::Tcp(1))], Duration::ZERO, SPAN);
    assert!(free > 5.0, "another host has no limit: {free:.3}");
}

#[test]
fn the_bucket_of_all_holds_for_both_hosts_and_a_hosts_own_inside_it() {
    let mut world = world!();
    prepare(&world);
    world.gateway.enforce(policy(Some(8000), Some(2000)));
    let both = [(&world.a, Load::Tcp(2)), (&world.b, Load::Tcp(2))];
    must_hold("both hosts", 8000, share(&world, 8000, &both, Duration::ZERO, SPAN));
    must_hold("the one with its own", 2000, share(&world, 2000, &both[..1], Duration::ZERO, SPAN));
    must_hold("the other alone", 8000, share(&world, 8000, &both[1..], Duration::ZERO, SPAN));
}

#[test]
fn flows_opened_from_outside_are_limited_and_so_are_open_ones_when_a_limit_comes() {
    let mut world = world!();
    prepare(&world);
    let kbps = 8000;
    world.gateway.enforce(policy(None, Some(kbps)));
    let answers = [(&world.a, Load::Inbound(2))];
    must_hold("from outside", kbps, share(&world, kbps, &answers, Duration::ZERO, SPAN));
    world.gateway.import(policy(None, None));
    let (agent, gateway) = (&world.a, &world.gateway);
    std::thread::scope(|scope| {
        scope.spawn(|| send(open(agent, SITE), SPAN + Duration::from_millis(600)));
        std::thread::sleep(Duration::from_millis(300));
        gateway.import(policy(Some(kbps), None));
        let before = world.internet.servers.taken();
        std::thread::sleep(SPAN);
        let octets = (world.internet.servers.taken() - before) as f64;
        must_hold("a limit for an open flow", kbps, octets / SPAN.as_secs_f64() / (OCTETS * kbps as f64));
    });
}

/// The kernel's counters of TCP of a machine: segments sent, and those sent again.
fn segments(agent: &Agent) -> (u64, u64) {
    let text = agent.netns.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).expect("procfs is mounted");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let all: BTreeMap<&str, &str> = names.split(' ').zip(values.split(' ')).collect();
    let value = |name: &str| all[name].parse().expect("a number");
    (value("OutSegs"), value("RetransSegs"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The figures of docs/benchmarks.md: policing, as it is done, and shaping by the queue of the wan interface, as it is not.
/// Several buckets long, so that it matters little how full one was at the beginning and at the end.
#[test]
#[ignore = "takes a quarter of an hour"]
fn figures() {
    println!("| limit, kbit/s | flows | policing: share of the limit | sent again | HTB: share | sent again |");
    println!("|---|---|---|---|---|---|");
    std::thread::scope(|scope| {
        for kbps in [1000, 8000, 100_000] {
            scope.spawn(move || figures_of(kbps));
        }
    });
}

fn figures_of(kbps: u64) {
    let mut world = world!();
    prepare(&world);
    world.gateway.enforce(policy(None, None));
    // Connections that share little wait for their timers, for seconds now and then: a short span tells of luck.
    let (warm_up, span) = if kbps <= 1000 { (5, 25) } else { (3, 10) };
    let (warm_up, span, runs) = (Duration::from_secs(warm_up), Duration::from_secs(span), rounds(5));
    for load in [Load::Tcp(1), Load::Tcp(8), Load::Inbound(2), Load::Udp(1, kbps), Load::Udp(8, kbps)] {
        let mut cells = Vec::new();
        for shaping in [false, true] {
            world.gateway.import(policy(None, Some(kbps).filter(|_| !shaping)));
            if shaping {
                shape(&world, kbps);
            }
            let (mut shares, mut again) = (Vec::new(), Vec::new());
            for _ in 0..runs {
                let before = segments(&world.a);
                shares.push(share(&world, kbps, &[(&world.a, load)], warm_up, span));
                let after = segments(&world.a);
                again.push((after.1 - before.1) as f64 / (after.0 - before.0).max(1) as f64);
            }
            if shaping {
                tc(&world, "qdisc del dev wan root");
            }
            cells.push(format!("{:.3} | {:.1} %", median(shares), 100.0 * median(again)));
        }
        println!("| {kbps} | {load:?} | {} |", cells.join(" | "));
    }
    world.gateway.import(policy(Some(2 * kbps), Some(kbps)));
    let both = [(&world.a, Load::Tcp(2)), (&world.b, Load::Tcp(2))];
    let all = median((0..runs).map(|_| share(&world, 2 * kbps, &both, warm_up, span)).collect());
    let own = median((0..runs).map(|_| share(&world, kbps, &both[..1], warm_up, span)).collect());
    println!("| {} for all, {kbps} for a | two each | both {all:.3}, a alone {own:.3} | | | |", 2 * kbps);
}

/// A bucket and a queue before the wan interface.
fn shape(world: &World, kbps: u64) {
    tc(world, "qdisc add dev wan root handle 1: htb default 1");
    tc(world, &format!("class add dev wan parent 1: classid 1:1 htb rate {kbps}kbit ceil {kbps}kbit"));
    tc(world, &format!("qdisc add dev wan parent 1:1 {QUEUE}"));
}

fn tc(world: &World, arguments: &str) {
    let mut command = world.gateway.netns.command("tc");
    let status = command.args(arguments.split(' ')).status();
    assert!(status.is_ok_and(|status| status.success()), "tc {arguments}");
}
