//! A revision while agents have used many names: for how long a name that needs a lease waits for it.
//!
//! What an agent may go on with is decided anew, name by name, and whoever asks for another name meanwhile waits.

#[allow(dead_code, reason = "each benchmark uses a part")]
mod measure;
#[allow(dead_code, unused_imports, reason = "the lab's world; no benchmark uses all of it")]
#[path = "../tests/lab/world/mod.rs"]
mod world;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use measure::upstream::{ADDRESS as UPSTREAM, Upstream, closed_loop, name_in, question};
use measure::{Table, bar, median, ms, percentile, quick, rounds, spread, timed};
use world::{Agent, World};

/// The upstream's processor.
const OTHER_CPU: usize = 1;
/// Questions under way at a time while names are used.
const WINDOW: u32 = 64;
/// No answer may be held up for longer, milliseconds.
const LONGEST: f64 = 10.0;

fn main() {
    let Some(mut world) = World::build() else { return };
    let socket = world.internet.peer.netns.enter(|| UdpSocket::bind(UPSTREAM)).expect("the port is free");
    Upstream::start(socket, OTHER_CPU);
    name_in(&world.gateway.path("clawgress.toml"), "");
    world.gateway.enforce(policy(0));
    let names = if quick() { 10_000 } else { 30_000 };
    let used = client(&world.a);
    let (_, answered) = closed_loop(&used, WINDOW, 0..names, |number| asked("used", number));
    assert!(answered > names * 9 / 10, "{answered} of {names} names were given an address");
    let mut table = Table::new(
        &format!("A revision while agents have used {names} names; another asks for new ones meanwhile"),
        &["what", "median", "spread", "bar"],
    );
    for (what, changes) in [("one address denied or no more", true), ("the same policy again", false)] {
        let (mut times, mut longest) = (Vec::new(), Vec::new());
        for round in 0..u32::try_from(rounds()).expect("few rounds") {
            let asking = Asking::start(&world, round + if changes { 0 } else { 1000 });
            let text = policy(if changes { (round + 1) % 2 } else { 0 }).to_string();
            let file = world.gateway.path("new.json");
            std::fs::write(&file, text).expect("the temporary directory is writable");
            let file = file.to_str().expect("a plain path").to_owned();
            let (ran, time) = timed(|| world.gateway.tool(&["import", "--policy", &file]));
            ran.must_succeed();
            times.push(time);
            longest.push(percentile(&asking.stop(), 100.0));
        }
        let row = |name: &str, values: &[f64], bar: String| {
            [format!("{what}: {name}"), format!("{:.0}", median(values)), spread(values, 0), bar]
        };
        table.row(row("import, ms", &times, String::new()));
        table.row(row("the longest wait for a lease, ms", &longest, bar(median(&longest) <= LONGEST, "<= 10")));
    }
    table.print();
}

fn policy(denied: u32) -> serde_json::Value {
    let denied: Vec<String> = (0..denied).map(|number| format!("203.0.113.{number}")).collect();
    json!({ "version": 1, "allow": { "domains": ["*.bench.example.com"] }, "deny": { "ips": denied },
        "hosts": { "a": { "sources": ["192.168.10.10/32"] }, "b": { "sources": ["192.168.11.10/32"] } } })
}

fn asked(prefix: &str, number: u32) -> Vec<u8> {
    question(number as u16, &format!("{prefix}{number}.bench.example.com"))
}

fn client(agent: &Agent) -> UdpSocket {
    let socket = agent.netns.enter(|| UdpSocket::bind("0.0.0.0:0")).expect("an agent has sockets");
    socket.connect(SocketAddr::new(agent.router4, 53)).expect("there is a route");
    socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout is legal");
    socket
}

/// One new name after the other, asked for by agent b; how long each answer took, milliseconds.
struct Asking {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<f64>>,
}

impl Asking {
    fn start(world: &World, round: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (ended, socket) = (over.clone(), client(&world.b));
        let thread = std::thread::spawn(move || {
            let (mut times, mut buffer, mut number) = (Vec::new(), [0; 1024], 0);
            while !ended.load(Ordering::Relaxed) {
                let start = Instant::now();
                socket.send(&asked(&format!("new{round}-"), number)).expect("a question can be sent");
                let length = socket.recv(&mut buffer).expect("the gateway answers");
                assert!(buffer[3] & 15 == 0 && length > 40, "a new name should have an address");
                times.push(ms(start.elapsed()));
                number += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            times
        });
        std::thread::sleep(Duration::from_millis(100));
        Self { over, thread }
    }

    fn stop(self) -> Vec<f64> {
        std::thread::sleep(Duration::from_millis(100));
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}
