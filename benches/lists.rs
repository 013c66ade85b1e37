//! A denylist of a million names in a file: how long from the start to the first right answer, how long until a changed
//! file is in force and what queries notice of it, and what it takes of memory.

#[allow(dead_code, reason = "each benchmark uses a part")]
mod measure;
#[allow(dead_code, unused_imports, reason = "the lab's world; no benchmark uses all of it")]
#[path = "../tests/lab/world/mod.rs"]
mod world;

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use serde_json::json;

use measure::million::{FIRST, IN_FORCE, PEAK, RESIDENT};
use measure::{Table, bar, median, memory, percentile, rounds, spread, timed};
use world::World;

/// Rules of the list.
const SIZE: u32 = 1_000_000;

fn main() {
    let Some(mut world) = World::build() else { return };
    world.internet.upstream.host("always.example.com", &["151.101.9.9"]);
    let file = world.gateway.path("list");
    for format in ["domains", "rpz"] {
        let mut table = Table::new(
            &format!("A denylist of {SIZE} rules in a file ({format})"),
            &["what", "median", "spread", "bar", "meanwhile"],
        );
        let write =
            |turn: usize| std::fs::write(&file, list(format, turn)).expect("the temporary directory is writable");
        write(0);
        let lists = json!([{ "name": "threats", "file": file, "format": format }]);
        world.gateway.store(
            json!({ "version": 1, "allow": { "domains": ["*.example.com"] }, "deny": { "domain_lists": lists } }),
        );
        world.gateway.start();
        let (mut starts, mut changes, mut residents, mut peaks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut notes = Queries::default();
        for round in 0..rounds() {
            world.gateway.kill9();
            let ((), time) = timed(|| {
                world.gateway.start();
                wait(&world, "always.example.com", ResponseCode::NoError);
                wait(&world, &format!("turn{}.example.com", round % 2), ResponseCode::NXDomain);
            });
            starts.push(time);
            std::thread::sleep(Duration::from_secs(3));
            let (resident, _) = memory(world.gateway.pid().expect("the daemon runs"));
            residents.push(resident);
            let asking = Asking::start(&world);
            write((round + 1) % 2);
            let (ran, time) = timed(|| world.gateway.tool(&["apply"]));
            ran.must_succeed();
            changes.push(time);
            wait(&world, &format!("turn{}.example.com", (round + 1) % 2), ResponseCode::NXDomain);
            notes.add(asking.stop());
            let (_, peak) = memory(world.gateway.pid().expect("the daemon runs"));
            peaks.push(peak / resident);
        }
        let row = |table: &mut Table, what: &str, values: &[f64], decimals: usize, most: f64, notes: String| {
            let middle = median(values);
            let bar = bar(middle <= most, &format!("<= {most}"));
            table.row([what.to_owned(), format!("{middle:.decimals$}"), spread(values, decimals), bar, notes]);
        };
        row(&mut table, "start to the first right answers, ms", &starts, 0, FIRST, String::new());
        row(&mut table, "a changed file in force by apply, ms", &changes, 0, IN_FORCE, notes.told());
        row(&mut table, "resident, MB", &residents, 0, RESIDENT, String::new());
        row(&mut table, "highest while it changes, to resident", &peaks, 2, PEAK, String::new());
        table.print();
        world.gateway.kill9();
        let _ = std::fs::remove_file(world.gateway.path("state/enforced.json"));
    }
}

/// Threats as feeds have them. One name is another one in the next turn.
fn list(format: &str, turn: usize) -> String {
    let mut text = String::with_capacity(32 << 20);
    let end = if format == "rpz" { " CNAME ." } else { "" };
    for n in 0..SIZE - 1 {
        let wildcard = if format == "rpz" && n % 2 == 1 { "*." } else { "" };
        let name = if format == "rpz" { n / 2 } else { n };
        let _ = writeln!(text, "{wildcard}threat-{name:x}.feed{}.example{end}", name % 977);
    }
    let _ = writeln!(text, "turn{turn}.example.com{end}");
    text
}

fn socket(world: &World) -> UdpSocket {
    let socket = world.a.netns.enter(|| UdpSocket::bind("0.0.0.0:0")).expect("an agent has sockets");
    socket.connect((world.a.router4, 53)).expect("there is a route");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout is legal");
    socket
}

fn ask(socket: &UdpSocket, name: &str) -> Option<ResponseCode> {
    let question = world::question(name, RecordType::A);
    let mut buffer = [0; 2048];
    socket.send(&question).ok()?;
    loop {
        let length = socket.recv(&mut buffer).ok()?;
        if buffer[..2] == question[..2] {
            return Some(Message::from_vec(&buffer[..length]).ok()?.metadata.response_code);
        }
    }
}

fn wait(world: &World, name: &str, code: ResponseCode) {
    let socket = socket(world);
    while ask(&socket, name) != Some(code) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Queries for an allowed and a denied name, one after the other, while something changes.
struct Asking(Arc<AtomicBool>, std::thread::JoinHandle<Queries>);

#[derive(Default)]
struct Queries {
    asked: usize,
    wrong: usize,
    times: Vec<f64>,
}

impl Queries {
    fn add(&mut self, more: Self) {
        self.asked += more.asked;
        self.wrong += more.wrong;
        self.times.extend(more.times);
    }

    fn told(&self) -> String {
        let slowest = percentile(&self.times, 100.0);
        format!("{} of {} answers wrong or missing, slowest {slowest:.0} ms", self.wrong, self.asked)
    }
}

impl Asking {
    fn start(world: &World) -> Self {
        let (over, socket) = (Arc::new(AtomicBool::new(false)), socket(world));
        let ended = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut queries = Queries::default();
            while !ended.load(Ordering::Relaxed) {
                for (name, code) in
                    [("always.example.com", ResponseCode::NoError), ("threat-0.feed0.example", ResponseCode::NXDomain)]
                {
                    let (got, time) = timed(|| ask(&socket, name));
                    queries.asked += 1;
                    queries.wrong += usize::from(got != Some(code));
                    queries.times.push(time);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            queries
        });
        Self(over, thread)
    }

    fn stop(self) -> Queries {
        self.0.store(true, Ordering::Relaxed);
        self.1.join().expect("the asking thread does not panic")
    }
}
