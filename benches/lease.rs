//! The lease on the way of an answer: what the kernel step costs, how many fresh names a second, and what a silent
//! upstream does.
//!
//! The upstream here is a bare loop that answers at once, so that what is measured is the gateway.

#[allow(dead_code, reason = "each benchmark uses a part")]
mod measure;
#[allow(dead_code, unused_imports, reason = "the lab's world; no benchmark uses all of it")]
#[path = "../tests/lab/world/mod.rs"]
mod world;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clawgress::nft::{Kernel, Options};
use clawgress::plan::ir::{Data, Family, Ident, Key, Value, Verdict};
use clawgress::plan::ops::Op;
use clawgress::plan::table::{CLASSES, leases};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use measure::upstream::{ADDRESS as UPSTREAM, Upstream, closed_loop, epoch, name_in};
use measure::{
    Table, bar, first_in_line, first_in_line_process, median, memory, ms, percentile, pin_process, pin_this_thread,
    quick, ratio, rounds, spread, take_turns_process, wanted,
};
use world::{Agent, World};

/// The gateway's processor in the race; everything else runs on the other one.
const SERVER_CPU: usize = 0;
const OTHER_CPU: usize = 1;
/// Questions under way at a time in the race.
const WINDOW: u32 = 64;
/// The flood against a silent upstream: questions a second, and how long.
const FLOOD: u32 = 8000;
const FLOOD_TIME: Duration = Duration::from_secs(5);

fn main() {
    let Some(mut world) = World::build() else { return };
    let upstream = upstream(&world);
    name_in(&world.gateway.path("clawgress.toml"), "");
    world.gateway.enforce(json!({ "version": 1, "scope": { "interfaces": ["lan1", "lan2"] },
        "allow": { "domains": ["*.bench.example.com"], "ips": ["10.66.0.0/16"] } }));
    first_in_line();
    first_in_line_process(world.gateway.pid().expect("the daemon runs"));
    if wanted("step") {
        kernel_step(&world, &upstream);
    }
    if wanted("race") {
        race(&world);
    }
    if wanted("silence") {
        // The race kept the daemon on one processor, where no thread of those that are first in line makes way for another.
        take_turns_process(world.gateway.pid().expect("the daemon runs"));
        silence(&world, &upstream);
    }
}

fn upstream(world: &World) -> Arc<Upstream> {
    let socket = world.internet.peer.netns.enter(|| UdpSocket::bind(UPSTREAM)).expect("the port is free");
    Upstream::start(socket, OTHER_CPU)
}

/// A question for `PREFIX NUMBER .bench.example.com`.
fn question(id: u16, prefix: &str, number: u32) -> Vec<u8> {
    measure::upstream::question(id, &format!("{prefix}{number}.bench.example.com"))
}

fn client(agent: &Agent) -> UdpSocket {
    let router: IpAddr = agent.router4;
    let socket = agent.netns.enter(|| UdpSocket::bind("0.0.0.0:0")).expect("an agent has sockets");
    socket.connect(SocketAddr::new(router, 53)).expect("there is a route");
    socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout is legal");
    socket
}

/// One question at a time, with and without something to lease: from the question to our answer, and the part of it that
/// is ours alone, from the upstream's reply.
fn kernel_step(world: &World, upstream: &Upstream) {
    let socket = client(&world.a);
    let count = if quick() { 2000 } else { 10_000 };
    let kinds = [("nothing to lease (allow.ips)", "o"), ("a new lease and class", "f")];
    let (mut whole, mut ours) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut buffer = [0; 1024];
    for number in 0..count {
        for (place, (_, prefix)) in kinds.iter().enumerate() {
            let start = epoch().elapsed().as_nanos() as u64;
            socket.send(&question(number as u16, prefix, number)).expect("a question can be sent");
            let length = socket.recv(&mut buffer).expect("the gateway answers");
            let now = epoch().elapsed().as_nanos() as u64;
            assert!(buffer[3] & 15 == 0 && length > 40, "{prefix}{number} should have an address");
            whole[place].push((now - start) as f64 / 1e3);
            ours[place].push(now.saturating_sub(upstream.sent.load(Ordering::Acquire)) as f64 / 1e3);
        }
    }
    let mut table = Table::new(
        &format!("One answer at a time, {count} names each, in turn (µs)"),
        &["answer", "from the question", "p99", "from the upstream's reply", "p99"],
    );
    let spans = [&whole, &ours];
    for (place, (name, _)) in kinds.iter().enumerate() {
        let cells = spans.map(|times| [50.0, 99.0].map(|percent| format!("{:.0}", percentile(&times[place], percent))));
        table.row([vec![(*name).to_owned()], cells.concat()].concat());
    }
    let steps = spans.map(|[without, with]| {
        [50.0, 99.0].map(|percent| format!("{:+.0}", percentile(with, percent) - percentile(without, percent)))
    });
    table.row([vec!["the kernel step".to_owned()], steps.concat()].concat());
    for (name, elements) in [("the same transaction alone, nothing around it", 3), ("one element alone", 1)] {
        let times = alone(elements, count);
        let cells = [50.0, 99.0].map(|percent| format!("{:.0}", percentile(&times, percent)));
        table.row([vec![name.to_owned(), String::new(), String::new()], cells.to_vec()].concat());
    }
    let [share, our_share] = spans.map(|[without, with]| median(with) / median(without));
    let bar = bar(share <= 1.2, "<= 1.20");
    table.row(["with the step, to without it".to_owned(), format!("{share:.2}"), bar, format!("{our_share:.2}")]);
    table.print();
}

/// Transactions of a lease, one at a time as the gateway makes them, in a namespace of their own: with the two elements of
/// its class, which count, or without. Microseconds of each.
fn alone(elements: usize, count: u32) -> Vec<f64> {
    let work = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may");
        first_in_line();
        let mut kernel = Kernel::open(Options { own_table: true, old_kernel: false }).expect("the packet filter");
        let [down, up, dst] = ["down", "up", "dst4"].map(Ident::from);
        let sets = [(&down, CLASSES), (&up, CLASSES), (&dst, leases(Family::V4))];
        let made = sets.map(|(name, spec)| Op::AddSet(name.clone(), spec));
        kernel.commit(&[&[Op::AddTable][..], &made].concat()).expect("a table");
        let comment: std::sync::Arc<str> = "a f100000.bench.example.com".into();
        let mut times = Vec::new();
        for number in 0..count {
            let class =
                Value { data: Data::Verdict(Verdict::Accept), timeout_ms: None, comment: Some(comment.clone()) };
            let class = vec![(Key::Mark(number), class)];
            let address = IpAddr::from((0x9700_0000 + number).to_be_bytes());
            let lease = Value { data: Data::Mark(number), timeout_ms: Some(301_000), comment: None };
            let ops = [
                Op::AddElements(down.clone(), class.clone()),
                Op::AddElements(up.clone(), class),
                Op::PutElements(dst.clone(), vec![(Key::MarkAddress(1, address), lease)]),
            ];
            // As long as a question is under way, so that nothing is warmer than it is there.
            std::thread::sleep(Duration::from_micros(100));
            let start = Instant::now();
            kernel.commit(&ops[3 - elements..]).expect("a lease");
            times.push(ms(start.elapsed()) * 1e3);
        }
        times
    };
    std::thread::spawn(work).join().expect("it does not panic")
}

/// dnsmasq in the gateway's place, in a world of its own.
struct Peer {
    world: World,
    process: Option<Child>,
}

impl Peer {
    fn build() -> Self {
        let world = World::build().expect("the first one was built");
        upstream(&world);
        world
            .gateway
            .nft_load("table inet peer { set leased { type ipv4_addr; flags timeout; timeout 1h; size 1048576; }; }");
        Self { world, process: None }
    }

    /// A new process with an empty cache for each round: its cache slows it down once it is full.
    fn restart(&mut self) -> bool {
        self.stop();
        let flush = self.world.gateway.nft(&["flush", "set", "inet", "peer", "leased"]);
        flush.must_succeed();
        let mut command = self.world.gateway.netns.command("dnsmasq");
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--user=root"]);
        command.args(["--pid-file=", "--cache-size=100000", "--dns-forward-max=10000", "--local-service"]);
        command.arg(format!("--server={}", UPSTREAM.replace(':', "#")));
        command.arg("--nftset=/bench.example.com/4#inet#peer#leased");
        let Ok(process) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else { return false };
        self.process = Some(process);
        let socket = client(&self.world.a);
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout is legal");
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            let _ = socket.send(&question(1, "warm", 1));
            if socket.recv(&mut [0; 1024]).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Fresh names a second, each with its address in the kernel before the answer, one processor for the server.
fn race(world: &World) {
    let mut peer = Peer::build();
    if !peer.restart() {
        println!("\ndnsmasq does not run here (`packaging/setup bench` installs it): no comparison");
        return;
    }
    // All rounds together stay within the classes that one host may have (core::classes::MAX_CLASSES_PER_HOST).
    let count = 2400;
    let (mut ours, mut theirs, mut lost) = (Vec::new(), Vec::new(), [0, 0]);
    for round in 0..u32::try_from(rounds()).expect("few rounds") {
        let first = 100_000 + round * count;
        for place in measure::order(round as usize, 2) {
            let (agent, pid, results) = if place == 0 {
                (&world.a, world.gateway.pid().expect("the daemon runs"), &mut ours)
            } else {
                assert!(peer.restart(), "dnsmasq ran before");
                (&peer.world.a, peer.process.as_ref().expect("it has just started").id(), &mut theirs)
            };
            pin_process(pid, SERVER_CPU);
            first_in_line_process(pid);
            let (rate, missing) = fresh_names(agent, first, count);
            results.push(rate);
            lost[place] += missing;
        }
    }
    let held = peer.world.gateway.nft(&["list", "set", "inet", "peer", "leased"]).stdout.matches("expires").count();
    assert!(held > count as usize / 2, "dnsmasq should have put addresses into its set, there are {held}");
    let mut table = Table::new(
        &format!("Fresh names a second, {count} a round, {WINDOW} under way, one processor for the server"),
        &["server", "answers/s", "spread", "unanswered", "ratio", "bar"],
    );
    let to_peer = ratio(&ours, &theirs);
    for (name, results, lost, ratio, bar) in [
        ("clawgress", &ours, lost[0], format!("{to_peer:.2}"), bar(to_peer >= 3.0, ">= 3.00")),
        ("dnsmasq --nftset", &theirs, lost[1], "1.00".to_owned(), String::new()),
    ] {
        let middle = format!("{:.0}", median(results));
        table.row([name.to_owned(), middle, spread(results, 0), lost.to_string(), ratio, bar]);
    }
    table.print();
}

/// Answers a second, and how many questions had none.
fn fresh_names(agent: &Agent, first: u32, count: u32) -> (f64, usize) {
    pin_this_thread(OTHER_CPU);
    let socket = client(agent);
    let (time, answered) =
        closed_loop(&socket, WINDOW, first..first + count, |number| question(number as u16, "f", number));
    (f64::from(answered) / time.as_secs_f64(), (count - answered) as usize)
}

/// A flood of allowed names that the upstream never answers, from one agent; another asks for blocked ones.
fn silence(world: &World, upstream: &Upstream) {
    let pid = world.gateway.pid().expect("the daemon runs");
    let quiet = refusals(world, 200);
    let (before, _) = memory(pid);
    upstream.silent.store(true, Ordering::Relaxed);
    let socket = client(&world.a);
    let (times, most, unanswered) = std::thread::scope(|scope| {
        let flood = scope.spawn(move || {
            let start = Instant::now();
            let mut sent = 0;
            while start.elapsed() < FLOOD_TIME {
                let due = (start.elapsed().as_secs_f64() * f64::from(FLOOD)) as u32;
                while sent < due {
                    let _ = socket.send(&question(sent as u16, "s", sent));
                    sent += 1;
                }
                // Answers are not read: an agent that floods does not read them either.
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let unanswered = scope.spawn(|| unanswered(world));
        let (mut times, mut most) = (Vec::new(), 0_f64);
        while !flood.is_finished() {
            times.extend(refusals(world, 20));
            most = most.max(memory(pid).0);
        }
        (times, most, unanswered.join().expect("it does not panic"))
    });
    std::thread::sleep(Duration::from_secs(3));
    upstream.silent.store(false, Ordering::Relaxed);
    let mut table = Table::new(
        &format!("Silent upstream, {FLOOD} questions a second for {} s", FLOOD_TIME.as_secs()),
        &["what", "before", "meanwhile"],
    );
    for percent in [50.0, 99.0, 100.0] {
        let cell = |times: &[f64]| format!("{:.2} ms", percentile(times, percent));
        table.row([format!("a blocked name is refused, p{percent:.0}"), cell(&quiet), cell(&times)]);
    }
    let waited = format!("{:.0} ms", percentile(&unanswered, 100.0));
    table.row(["an allowed name that nobody answers is told so, p100".to_owned(), String::new(), waited]);
    table.row(["blocked names asked".to_owned(), quiet.len().to_string(), times.len().to_string()]);
    table.row(["resident memory, MB".to_owned(), format!("{before:.1}"), format!("{most:.1}")]);
    table.print();
}

/// So many questions of agent b for names that are blocked; how long each refusal took, milliseconds.
fn refusals(world: &World, count: u16) -> Vec<f64> {
    let socket = client(&world.b);
    let mut times = Vec::new();
    for id in 0..count {
        let mut wire = question(id, "blocked", u32::from(id));
        // Another domain of the same length.
        let place = wire.windows(5).position(|part| part == b"bench").expect("the question has it");
        wire[place..place + 5].copy_from_slice(b"wrong");
        let start = Instant::now();
        socket.send(&wire).expect("a question can be sent");
        let mut buffer = [0; 1024];
        socket.recv(&mut buffer).expect("a blocked name is refused, whatever the upstream does");
        assert_eq!(buffer[3] & 15, 3, "a blocked name does not exist");
        times.push(ms(start.elapsed()));
    }
    times
}

/// Questions of agent b, one after the other, for names that are allowed and that the silent upstream does not answer; how
/// long it took until each was told so, milliseconds.
fn unanswered(world: &World) -> Vec<f64> {
    let socket = client(&world.b);
    let ask = |id: u16| {
        let start = Instant::now();
        socket.send(&question(id, "t", u32::from(id))).expect("a question can be sent");
        let mut buffer = [0; 1024];
        socket.recv(&mut buffer).expect("the gateway says that nobody answers");
        assert_eq!(buffer[3] & 15, 2, "no upstream answers");
        ms(start.elapsed())
    };
    [0, 1].map(ask).to_vec()
}
