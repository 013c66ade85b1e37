//! Answers that are ready: told at once, and never where the policy, the clock or the kernel would not have it.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{SubsecRound, TimeDelta, Utc};
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use crate::world::{Agent, Netns, Over, Reply, question};
use crate::{A, B, OTHER, SITE, SITE6, rounds};

/// A busy machine answers late; whoever waits this long has lost something.
const PATIENCE: Duration = Duration::from_secs(10);
/// The shortest lease (60 s) and some more.
const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(66);

/// Tells a thread to stop, also where the test fails before: who waits for the thread would wait for ever.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One question and what became of it.
struct Told {
    sent: Instant,
    /// The response code, and whether there was an address.
    answer: (u8, bool),
}

/// Asks for a name without a pause until told to stop, one question after the other.
fn ask_on(agent: &Agent, name: &str, stop: &AtomicBool) -> Vec<Told> {
    agent.netns.enter(|| {
        let socket = UdpSocket::bind((agent.v4, 0)).expect("a port is free");
        socket.connect((agent.router4, 53)).expect("a route");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout is legal");
        let (mut wire, mut told, mut buffer) = (question(name, RecordType::A), Vec::new(), [0; 1500]);
        while !stop.load(Ordering::Relaxed) {
            wire[..2].copy_from_slice(&(told.len() as u16).to_be_bytes());
            let sent = Instant::now();
            socket.send(&wire).expect("a route");
            let length = socket.recv(&mut buffer).expect("an answer to every question");
            assert!(length > 12 && buffer[..2] == wire[..2], "the answer to this question");
            told.push(Told { sent, answer: (buffer[3] & 15, buffer[7] > 0) });
        }
        told
    })
}

const ALLOWED: (u8, bool) = (0, true);
const REFUSED: (u8, bool) = (3, false);

/// The name is told to `a` again and again, so that its answer is ready.
fn make_ready(agent: &Agent, name: &str) {
    for _ in 0..20 {
        agent.addresses(name);
    }
}

#[test]
fn after_a_swap_only_the_new_policy_answers() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[SITE]);
    world.internet.upstream.host("other.example.com", &[SITE]);
    let with = |names: &[&str]| json!({ "version": 1, "allow": { "domains": names } });
    let (both, one) = (with(&["other.example.com", "api.example.com"]), with(&["other.example.com"]));
    world.gateway.settings("queries_per_second = 0\n");
    world.gateway.enforce(&both);
    make_ready(&world.a, "other.example.com");
    let (a, gateway) = (&world.a, &world.gateway);
    let stop = AtomicBool::new(false);
    let mut periods = Vec::new();
    let told = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask_on(a, "api.example.com", &stop));
        let stops = Stops(&stop);
        for turn in 0..rounds(10) {
            std::thread::sleep(Duration::from_millis(50));
            let (policy, answer) = if turn % 2 == 0 { (&one, REFUSED) } else { (&both, ALLOWED) };
            let begins = Instant::now();
            gateway.import(policy);
            periods.push((begins, Instant::now(), answer));
            // The other name keeps the address, under the same host.
            a.reach("other.example.com", 443).must_reach();
        }
        std::thread::sleep(Duration::from_millis(50));
        drop(stops);
        asking.join().expect("every question has its answer")
    });
    for (place, (_, from, answer)) in periods.iter().enumerate() {
        let to = periods.get(place + 1).map(|(begins, ..)| *begins);
        let within = told.iter().filter(|told| told.sent > *from && to.is_none_or(|to| told.sent < to));
        // Of the last one before the next change it is not known when it was decided.
        let within: Vec<_> = within.map(|told| told.answer).collect();
        let Some((_, sure)) = within.split_last() else { continue };
        assert!(sure.iter().all(|given| given == answer), "turn {place}: {answer:?} is due, {sure:?} was told");
    }
    assert!(told.len() > 20 * periods.len(), "{} questions", told.len());
}

#[test]
fn after_the_closing_edge_nothing_is_told() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[SITE]);
    let edge = (Utc::now() + TimeDelta::seconds(4)).trunc_subsecs(0);
    let time = |at: chrono::DateTime<Utc>| at.format("%H:%M:%S").to_string();
    world.gateway.settings("queries_per_second = 0\n");
    let window = json!({ "start": time(edge - TimeDelta::hours(1)), "end": time(edge) });
    world.gateway.enforce(json!({ "version": 1, "time_zone": "UTC", "hosts": {
        "a": { "sources": A, "allow": { "domains": ["api.example.com"] }, "time_window": window } } }));
    let stop = AtomicBool::new(false);
    let (told, end) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask_on(&world.a, "api.example.com", &stop));
        let stops = Stops(&stop);
        let left = (edge - Utc::now()).to_std().unwrap_or_default();
        let end = Instant::now() + left;
        std::thread::sleep(left + Duration::from_millis(500));
        drop(stops);
        (asking.join().expect("every question has its answer"), end)
    });
    let (before, after): (Vec<&Told>, Vec<&Told>) = told.iter().partition(|told| told.sent < end);
    assert!(before.iter().any(|told| told.answer == ALLOWED), "it was open for a while");
    // Two clocks were read one after the other.
    let sure = after.iter().filter(|told| told.sent > end + Duration::from_millis(5));
    let given: Vec<(u8, bool)> = sure.map(|told| told.answer).collect();
    assert!(!given.is_empty() && given.iter().all(|given| *given == REFUSED), "{given:?}");
    world.a.tcp(SITE, 443).must_be_reset();
}

/// Whoever deletes leases behind our back: once the table is restored, what is told is open again.
#[test]
fn a_lease_that_somebody_deleted_is_there_before_it_is_told_again() {
    let mut world = world!();
    world.gateway.settings("[kernel]\nlock_table = false\n");
    world.internet.upstream.host("api.example.com", &[SITE]);
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["api.example.com"] } }));
    for turn in 1..=rounds(3) {
        make_ready(&world.a, "api.example.com");
        let leases = world.gateway.nft(&["list", "map", "inet", "clawgress", "dst4"]).stdout;
        let host = leases.split(&format!(" . {SITE}")).next().and_then(|text| text.split_whitespace().last());
        let element = format!("{} . {SITE}", host.expect("the lease is in the kernel"));
        world.gateway.nft(&["delete", "element", "inet", "clawgress", "dst4", "{", &element, "}"]).must_succeed();
        world
            .gateway
            .wait_until("the table is restored", PATIENCE, |gateway| gateway.log().matches("restored").count() == turn);
        world.a.reach("api.example.com", 443).must_reach();
    }
}

/// The TTL is short, so the answer is asked for anew many times; the lease has to be written again all the while.
#[test]
fn what_is_told_is_open_however_long_it_has_been_told() {
    let mut world = world!();
    world.internet.upstream.host_for("short.example.com", &[SITE, SITE6], 3);
    world.internet.upstream.host_for("usual.example.com", &[OTHER], 90);
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["*.example.com"] } }));
    let end = Instant::now() + LONGER_THAN_A_LEASE;
    while Instant::now() < end {
        for name in ["short.example.com", "usual.example.com"] {
            world.a.reach(name, 443).must_reach();
        }
        world.a.reach6("short.example.com", 443).must_reach();
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(world.internet.upstream.times_asked("short.example.com") > 10, "it came from upstream again and again");
}

#[test]
fn an_answer_that_has_ended_is_told_as_the_policy_says_and_leased() {
    let mut world = world!();
    world.internet.upstream.host_for("api.example.com", &[SITE], 1);
    let policy = |of_b: &[&str]| {
        json!({ "version": 1, "hosts": {
            "a": { "sources": A, "allow": { "domains": ["api.example.com"] } },
            "b": { "sources": B, "allow": { "domains": of_b } } } })
    };
    world.gateway.enforce(policy(&[]));
    world.a.reach("api.example.com", 443).must_reach();
    world.internet.upstream.silent(true);
    std::thread::sleep(Duration::from_millis(1100));
    let stale = |reply: &Reply| {
        assert_eq!((reply.code().as_str(), reply.ttl()), ("NOERROR", Some(30)));
        assert_eq!(reply.ede().map(|(code, _)| code), Some(3), "it says that it has ended");
    };
    stale(&world.a.lookup("api.example.com", RecordType::A).expect("an answer"));
    world.b.reach("api.example.com", 443).must_be_blocked_by_name();
    world.b.tcp(SITE, 443).must_be_reset();
    world.gateway.import(policy(&["api.example.com"]));
    // b never had a lease.
    stale(&world.b.dig("api.example.com", RecordType::A, world.b.router4, Over::Udp).expect("an answer"));
    world.b.tcp(SITE, 443).must_reach();
    world.gateway.import(policy(&[]));
    world.b.reach("api.example.com", 443).must_be_blocked_by_name();
    world.b.tcp(SITE, 443).must_be_reset();
    world.a.reach("api.example.com", 443).must_reach();
}

/// What the DNS server has counted.
pub fn counters(gateway: &crate::world::Gateway) -> Value {
    gateway.tool(&["stats", "--json"]).json()["dns"].clone()
}

/// Sends as fast as it can until told to stop; how many answers of each code came back.
fn flood(
    netns: &Netns,
    from: std::net::IpAddr,
    to: std::net::IpAddr,
    wires: &[Vec<u8>],
    stop: &AtomicBool,
) -> [u64; 16] {
    netns.enter(|| {
        let socket = UdpSocket::bind((from, 0)).expect("a port is free");
        socket.connect((to, 53)).expect("a route");
        socket.set_nonblocking(true).expect("a socket may be asked without waiting");
        let (mut codes, mut buffer) = ([0; 16], [0; 1500]);
        let mut take = |codes: &mut [u64; 16]| {
            while socket.recv(&mut buffer).is_ok() {
                codes[usize::from(buffer[3] & 15)] += 1;
            }
        };
        for wire in wires.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let _ = socket.send(wire);
            take(&mut codes);
        }
        std::thread::sleep(Duration::from_millis(300));
        take(&mut codes);
        codes
    })
}

#[test]
fn a_host_that_floods_is_cut_and_written_down_and_costs_others_nothing() {
    const RATE: u64 = 100;
    let mut world = world!();
    world.gateway.settings(&format!("queries_per_second = {RATE}\n"));
    world.internet.upstream.host("api.example.com", &[SITE]);
    world.gateway.enforce(json!({ "version": 1, "hosts": {
        "a": { "sources": A, "allow": { "domains": ["*.flood.example"] } },
        "b": { "sources": B, "allow": { "domains": ["*.example.com"] } } } }));
    let mut wires: Vec<Vec<u8>> = (0..64).map(|n| question(&format!("n{n}.evil.example"), RecordType::A)).collect();
    // One that only the full reader takes, and one that is allowed: all of them count.
    wires.push(question("evil.invalid", RecordType::A));
    wires.push(question("n.flood.example", RecordType::A));
    let (a, b, stop) = (&world.a, &world.b, AtomicBool::new(false));
    let start = Instant::now();
    let codes = std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&a.netns, a.v4, a.router4, &wires, &stop));
        let stops = Stops(&stop);
        for turn in 0..100 {
            let name = if turn % 2 == 0 { "api.example.com" } else { "evil.example" };
            let reply = b.lookup(name, RecordType::A).unwrap_or_else(|outcome| panic!("{turn}: {outcome}"));
            assert_eq!(reply.code(), if turn % 2 == 0 { "NOERROR" } else { "NXDOMAIN" });
            // Within its own share.
            std::thread::sleep(Duration::from_millis(15));
        }
        drop(stops);
        flood.join().expect("the flood ends")
    });
    let most = RATE * (start.elapsed().as_secs() + 3);
    let [answered, refused] = [codes[0] + codes[3], codes[5]];
    assert!(answered > RATE && answered <= most, "{answered} answers to a flood, at most {most} are due");
    assert!(refused > 0, "some are told why: {codes:?}");
    let counted = counters(&world.gateway);
    let count = |what: &str| counted[what].as_u64().unwrap_or_else(|| panic!("{what} is counted: {counted}"));
    let over = count("over_budget");
    assert!(over > 10 * refused, "{counted}");
    assert_eq!(count("queries"), count("blocked") + count("allowed") + over, "{counted}");
    world.gateway.terminate();
    let records: Vec<_> = clawgress::decisions::read(&world.gateway.path("state/decisions")).collect();
    let (told, others): (Vec<_>, Vec<_>) = records.iter().partition(|record| record.reason.as_str() == "rate-limited");
    let sum =
        |records: &[&clawgress::decisions::Record]| records.iter().map(|record| record.suppressed + 1).sum::<u64>();
    assert_eq!(sum(&told), over, "each query over the budget is in a record");
    assert_eq!(sum(&others), count("blocked"));
    // What comes too fast to be told apart is counted together, without a host.
    let hosts: std::collections::BTreeSet<&str> = told.iter().filter_map(|record| record.host.as_deref()).collect();
    assert_eq!(hosts, ["a"].into(), "b is within its share");
}
