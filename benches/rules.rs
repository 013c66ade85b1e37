//! A million rules in the policy itself: how long from the start to the first right answers, how long until one rule
//! more or less is in force, what queries notice of it, and what it takes of memory.
//!
//! The daemon and its answers have one processor together; the client asks over loopback.

#[allow(dead_code, reason = "each benchmark uses a part")]
mod measure;
#[allow(dead_code, reason = "of the others only their rules are needed")]
mod peers;
#[allow(dead_code, unused_imports, reason = "the lab's world; no benchmark uses all of it")]
#[path = "../tests/lab/world/mod.rs"]
mod world;

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use measure::million::{FIRST, IN_FORCE, PEAK, RESIDENT};
use measure::upstream::{ADDRESS as UPSTREAM, Upstream, name_in, question};
use measure::{Table, bar, median, memory, ms, pin_this_thread, quick, rounds, spread, timed};
use peers::Rules;
use world::World;

/// Where the daemon listens.
const OURS: &str = "127.0.0.1:53";
/// The daemon's processor; everything else runs on the other one.
const SERVER_CPU: usize = 0;
const OTHER_CPU: usize = 1;
/// A question without an answer for this long counts as lost.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long the daemon may take until it answers.
const START: Duration = Duration::from_secs(60);
/// How long the daemon has for tidying up before its memory is looked at.
const TIDY: Duration = Duration::from_secs(3);
/// Questions a second while rules change.
const RATE: f64 = 5000.0;

fn main() {
    let Some(mut world) = World::build() else { return };
    let socket = world.internet.peer.netns.enter(|| UdpSocket::bind(UPSTREAM)).expect("the port is free");
    Upstream::start(socket, OTHER_CPU);
    name_in(&world.gateway.path("clawgress.toml"), "receivers = 1");
    pin_this_thread(OTHER_CPU);
    let rules = Rules(if quick() { 100_000 } else { 1_000_000 });
    let texts = [0, 1].map(|more| policy(rules, more));
    world.gateway.store(&texts[0]);
    start(&mut world, rules, 0);
    let (mut starts, mut imports, mut residents, mut peaks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut answers = Answers::default();
    for round in 0..rounds() as u32 {
        let now: u32 = (round + 1) % 2;
        world.gateway.kill9();
        starts.push(start(&mut world, rules, round % 2));
        std::thread::sleep(TIDY);
        let pid = world.gateway.pid().expect("the daemon runs");
        let resident = memory(pid).0;
        let asking = Asking::start(&world);
        let ((), time) = timed(|| world.gateway.import(&texts[now as usize]));
        imports.push(time);
        answers.add(&asking.stop());
        residents.push(resident);
        peaks.push(memory(pid).1 / resident);
    }
    world.gateway.tool(&["status"]).must_succeed();
    world.gateway.tool(&["show"]).must_succeed();
    std::thread::sleep(TIDY);
    let after = memory(world.gateway.pid().expect("the daemon runs")).0;
    let mut table = Table::new(
        &format!("{} rules in the policy; one more or less under {RATE} questions a second", rules.0),
        &["what", "median", "spread", "bar"],
    );
    for (what, values, decimals, most) in [
        ("kill -9 to the first right answers, ms", &starts, 0, FIRST),
        ("clawgress import until it is in force, ms", &imports, 0, IN_FORCE),
        ("resident, MB", &residents, 0, RESIDENT),
        ("highest while it changes, to resident", &peaks, 2, PEAK),
    ] {
        let middle = median(values);
        let bar = bar(middle <= most, &format!("<= {most}"));
        table.row([what.to_owned(), format!("{middle:.decimals$}"), spread(values, decimals), bar]);
    }
    table.row([
        "resident after `status` and `show`, MB".to_owned(),
        format!("{after:.0}"),
        String::new(),
        String::new(),
    ]);
    let lost = answers.sent - answers.answered;
    let lost_of = format!("{lost} of {}", answers.sent);
    table.row(["questions without an answer".to_owned(), lost_of, String::new(), bar(lost == 0, "0")]);
    let longest = format!("{:.0}", ms(answers.longest));
    table.row(["longest time between two answers, ms".to_owned(), longest, String::new(), String::new()]);
    table.print();
}

fn policy(rules: Rules, more: u32) -> String {
    let mut domains = rules.patterns();
    domains.extend((0..more).map(|number| format!("more{number}.example.com")));
    json!({ "version": 1, "allow": { "domains": domains } }).to_string()
}

/// Starts the daemon; milliseconds until it gives an address to a name that is allowed, none to another one, and knows
/// whether the policy has one rule more.
fn start(world: &mut World, rules: Rules, more: u32) -> f64 {
    let begin = Instant::now();
    pin_this_thread(SERVER_CPU);
    world.gateway.start();
    pin_this_thread(OTHER_CPU);
    let socket = client(world);
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout is legal");
    let (mut buffer, mut id) = ([0; 1024], 0_u16);
    let right =
        [(rules.rule(1).1, 0), (blocked(1), 3), ("more0.example.com".to_owned(), if more == 0 { 3 } else { 0 })];
    for (name, code) in right {
        loop {
            assert!(begin.elapsed() < START, "{name} has no right answer");
            id += 1;
            let _ = socket.send(&question(id, &name));
            // Late answers to earlier questions are none.
            let found = std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|_| (buffer[0], buffer[1], buffer[3])));
            let own = found.into_iter().find(|(high, low, _)| [*high, *low] == id.to_be_bytes());
            if own.is_some_and(|(_, _, flags)| flags & 15 == code) {
                break;
            }
        }
    }
    ms(begin.elapsed())
}

fn client(world: &World) -> UdpSocket {
    let socket = world.gateway.netns.enter(|| UdpSocket::bind("127.0.0.1:0")).expect("the gateway has sockets");
    socket.connect(OURS).expect("loopback is there");
    socket
}

/// A name that no rule allows, in the zones of those that some do.
fn blocked(number: u32) -> String {
    format!("x{number}.z{}.example.com", number % 1000)
}

/// What became of questions for refused names.
#[derive(Default)]
struct Answers {
    sent: usize,
    answered: usize,
    longest: Duration,
}

impl Answers {
    fn add(&mut self, more: &Self) {
        self.sent += more.sent;
        self.answered += more.answered;
        self.longest = self.longest.max(more.longest);
    }
}

/// A steady stream of questions.
struct Asking {
    stop: Arc<AtomicBool>,
    sender: std::thread::JoinHandle<usize>,
    counter: std::thread::JoinHandle<(usize, Duration)>,
}

impl Asking {
    fn start(world: &World) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let socket = client(world);
        // What comes at once after a pause is not to be lost here.
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(8 << 20)).expect("root may");
        let receiver = socket.try_clone().expect("one more descriptor");
        receiver.set_read_timeout(Some(PATIENCE)).expect("a timeout is legal");
        let (ends, over) = (stop.clone(), stop.clone());
        let sender = std::thread::spawn(move || {
            let names: Vec<_> = (0..1000_u16).map(|id| question(id, &blocked(u32::from(id)))).collect();
            let (start, mut sent) = (Instant::now(), 0_usize);
            while !ends.load(Ordering::Relaxed) {
                while (sent as f64) < start.elapsed().as_secs_f64() * RATE {
                    let _ = socket.send(&names[sent % names.len()]);
                    sent += 1;
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            sent
        });
        let counter = std::thread::spawn(move || {
            let (mut answered, mut buffer, mut last, mut longest) = (0, [0; 600], Instant::now(), Duration::ZERO);
            loop {
                match receiver.recv(&mut buffer) {
                    Ok(_) => answered += 1,
                    Err(_) if over.load(Ordering::Relaxed) => break,
                    Err(_) => continue,
                }
                assert_eq!(buffer[3] & 15, 3, "a refused name is refused all the time");
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            (answered, longest)
        });
        std::thread::sleep(Duration::from_millis(300));
        Self { stop, sender, counter }
    }

    fn stop(self) -> Answers {
        self.stop.store(true, Ordering::Relaxed);
        let (sent, (answered, longest)) = (self.sender.join().expect("it ends"), self.counter.join().expect("it ends"));
        Answers { sent, answered, longest }
    }
}
