//! A large policy: how long until it is in force, how long a change takes, what flows and queries notice meanwhile,
//! and what it takes of memory.

#[allow(dead_code, reason = "each benchmark uses a part")]
mod measure;
#[allow(dead_code, unused_imports, reason = "the lab's world; no benchmark uses all of it")]
#[path = "../tests/lab/world/mod.rs"]
mod world;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use measure::{Table, bar, median, memory, ms, percentile, rounds, spread, timed};
use world::{Agent, World};

/// Entries of the domain list, and of the address list.
const SIZE: u32 = 100_000;
/// An address that every revision allows, and one that none does.
const ALWAYS: &str = "93.184.216.34";
const NEVER: &str = "93.184.216.99";
/// Bars of the specification: in force, changed (milliseconds), resident (MB).
const IN_FORCE: f64 = 2000.0;
const CHANGED: f64 = 1000.0;
const RESIDENT: f64 = 150.0;

fn main() {
    let Some(mut world) = World::build() else { return };
    world.gateway.unlimited_icmp();
    let small = json!({ "version": 1, "allow": { "ips": [ALWAYS], "domains": ["always.example.com"] } });
    world.internet.upstream.host("always.example.com", &["151.101.9.9"]);
    let mut table = Table::new(
        &format!("A policy of {SIZE} domains and {SIZE} addresses"),
        &["what", "median ms", "spread", "bar", "notes"],
    );
    let rounds = rounds().min(7);

    // From nothing: a new daemon and a new table each time.
    let (mut first, mut loaded) = (Vec::new(), (f64::NAN, f64::NAN));
    for round in 0..rounds {
        let mut fresh = World::build().expect("the first one was built");
        fresh.gateway.enforce(&small);
        first.push(import(&fresh, &policy(0, 0)));
        if round + 1 == rounds {
            loaded = settled(&fresh);
            world = fresh;
        }
    }
    row(&mut table, "import into a gateway with a small policy", &first, IN_FORCE, "");
    memory_row(&mut table, "memory after it", loaded);
    world.internet.upstream.host("always.example.com", &["151.101.9.9"]);

    for (percent, what) in [(1, "swap that changes 1 %"), (50, "swap that changes 50 %")] {
        let watch = Watched::start(&world);
        let mut times = Vec::new();
        for round in 1..=rounds {
            times.push(import(&world, &policy(percent, u32::try_from(round).expect("few rounds") % 2)));
        }
        let notes = watch.stop();
        row(&mut table, what, &times, CHANGED, &notes);
    }
    memory_row(&mut table, "memory after all swaps", settled(&world));

    let mut starts = Vec::new();
    for _ in 0..rounds {
        let watch = Watched::packets(&world);
        let ((), down) = timed(|| {
            world.gateway.kill9();
            world.gateway.start();
        });
        starts.push(down);
        let notes = watch.stop();
        assert!(notes.contains("0 lost") && notes.contains("0 leaked"), "a restart was noticed: {notes}");
    }
    row(&mut table, "kill -9 until the next daemon is ready", &starts, f64::INFINITY, "flows noticed nothing");
    memory_row(&mut table, "memory after a restart", settled(&world));
    let (_, status) = timed(|| world.gateway.status());
    row(&mut table, "status", &[status], f64::INFINITY, "");
    table.print();
}

/// How long `clawgress import` takes until it says that the policy is in force, milliseconds.
fn import(world: &World, text: &str) -> f64 {
    let file = world.gateway.path("new.json");
    std::fs::write(&file, text).expect("the temporary directory is writable");
    let file = file.to_str().expect("a plain path").to_owned();
    let (ran, time) = timed(|| world.gateway.tool(&["import", "--policy", &file]));
    ran.must_succeed();
    time
}

/// Memory once the daemon has tidied up, which it does every two seconds.
fn settled(world: &World) -> (f64, f64) {
    std::thread::sleep(Duration::from_secs(4));
    memory(world.gateway.pid().expect("the daemon runs"))
}

fn row(table: &mut Table, what: &str, times: &[f64], least: f64, notes: &str) {
    let met = median(times) < least;
    let bar = if least.is_finite() { bar(met, &format!("< {least} ms")) } else { String::new() };
    let middle = format!("{:.0}", median(times));
    table.row([what.to_owned(), middle, spread(times, 0), bar, notes.to_owned()]);
}

fn memory_row(table: &mut Table, what: &str, (now, most): (f64, f64)) {
    let text = format!("resident {now:.0} MB, at its highest {most:.0} MB");
    table.row([what.to_owned(), String::new(), String::new(), bar(now < RESIDENT, &format!("< {RESIDENT} MB")), text]);
}

/// The large policy. Of each list `percent` entries differ between two turns.
fn policy(percent: u32, turn: u32) -> String {
    let generation = |n: u32| if n % 100 < percent { turn + 1 } else { 0 };
    let domains = (0..SIZE).map(|n| match n % 10 {
        0 => format!("*.zone{}-{n}.example.net", generation(n)),
        _ => format!("api{n}.service{}-{}.example.com", generation(n), n % 977),
    });
    let addresses = (0..SIZE).map(|n| {
        let (high, low) = (n >> 8, n & 255);
        match n % 20 {
            // Networks: a tenth of the list.
            0 => format!("{}.{}.{low}.0/28", 60 + generation(n), high % 256),
            1 => format!("2a00:{:x}:{high:x}:{low:x}::/64", generation(n)),
            2..=5 => format!("2a01:{:x}::{high:x}:{low:x}", generation(n)),
            _ => format!("{}.{}.{}.{low}", 70 + generation(n), high / 256, high % 256),
        }
    });
    let ips: Vec<String> = addresses.chain([ALWAYS.to_owned()]).collect();
    let names: Vec<String> = domains.chain(["always.example.com".to_owned()]).collect();
    let policy: Value = json!({ "version": 1, "allow": { "domains": names, "ips": ips },
        "hosts": { "a": { "sources": ["192.168.10.10/32"] }, "b": { "sources": ["192.168.11.10/32"] } } });
    policy.to_string()
}

/// One allowed and one denied flow with a packet each millisecond, and queries for an allowed and a blocked name.
struct Watched {
    allowed: world::Probe,
    denied: world::Probe,
    queries: Option<(Arc<AtomicBool>, JoinHandle<Queries>)>,
}

#[derive(Default)]
struct Queries {
    asked: usize,
    wrong: Vec<String>,
    times: Vec<f64>,
}

impl Watched {
    fn start(world: &World) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (ended, socket) = (over.clone(), asking(&world.b));
        let thread = std::thread::spawn(move || ask_until(&socket, &ended));
        Self { queries: Some((over, thread)), ..Self::packets(world) }
    }

    fn packets(world: &World) -> Self {
        let (allowed, denied) = (world.a.probe_udp(ALWAYS, 443), world.a.probe_udp(NEVER, 443));
        Self { allowed, denied, queries: None }
    }

    fn stop(self) -> String {
        std::thread::sleep(Duration::from_millis(100));
        let (allowed, denied) = (self.allowed.stop(), self.denied.stop());
        let mut text = format!(
            "{} lost of {}, {} leaked of {}",
            allowed.lost.len() + allowed.errors.len(),
            allowed.sent,
            denied.answered,
            denied.sent
        );
        if let Some((over, thread)) = self.queries {
            over.store(true, Ordering::Relaxed);
            let queries = thread.join().expect("the asking thread does not panic");
            text += &format!(
                ", {} of {} answers wrong, slowest {:.0} ms",
                queries.wrong.len(),
                queries.asked,
                percentile(&queries.times, 100.0)
            );
            if let Some(first) = queries.wrong.first() {
                text += &format!(" (first: {first})");
            }
        }
        text
    }
}

fn asking(agent: &Agent) -> UdpSocket {
    let router: IpAddr = agent.router4;
    let socket = agent.netns.enter(|| UdpSocket::bind("0.0.0.0:0")).expect("an agent has sockets");
    socket.connect(SocketAddr::new(router, 53)).expect("there is a route");
    socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout is legal");
    socket
}

fn ask_until(socket: &UdpSocket, over: &AtomicBool) -> Queries {
    let mut queries = Queries::default();
    let mut buffer = [0; 2048];
    while !over.load(Ordering::Relaxed) {
        for (name, code) in
            [("always.example.com", ResponseCode::NoError), ("never.example.com", ResponseCode::NXDomain)]
        {
            let question = world::question(name, RecordType::A);
            let start = Instant::now();
            let said = socket.send(&question).and_then(|_| {
                loop {
                    let length = socket.recv(&mut buffer)?;
                    if buffer[..2] == question[..2] {
                        return Ok(length);
                    }
                }
            });
            queries.asked += 1;
            queries.times.push(ms(start.elapsed()));
            let right = said.as_ref().ok().and_then(|length| Message::from_vec(&buffer[..*length]).ok());
            match right {
                Some(reply) if reply.metadata.response_code == code => {}
                Some(reply) => queries.wrong.push(format!("{name}: {:?}", reply.metadata.response_code)),
                None => queries.wrong.push(format!("{name}: {said:?}")),
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    queries
}
