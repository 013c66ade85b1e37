//! Many writers at once, and daemons that die while one writes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{Answer, JSON, WRITE, await_listener, connect, exchange, post, request, serve};
use crate::{OTHER, SITE, rounds};

fn only(address: &str) -> Value {
    json!({ "version": 1, "allow": { "ips": [address] } })
}

/// The policy of the nth writer.
fn nth(n: u32) -> Value {
    only(&Ipv4Addr::from_bits(0x2d00_0000 + n).to_string())
}

#[test]
fn fifty_writers_make_one_order_of_revisions() {
    const WRITERS: u32 = 50;
    let mut world = world!();
    serve(&mut world, &only(SITE));
    let answers: BTreeMap<u64, (u32, Answer)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| {
                let world = &world;
                scope.spawn(move || (n, post(world, "/clawgress/policy", WRITE, json!({ "policy": nth(n) }))))
            })
            .collect();
        let answers = writers.into_iter().map(|writer| writer.join().expect("a writer ends"));
        answers.map(|(n, answer)| (answer.done()["revision"].as_u64().expect("a number"), (n, answer))).collect()
    });
    let numbers: Vec<u64> = answers.keys().copied().collect();
    assert_eq!(numbers, (2..2 + u64::from(WRITERS)).collect::<Vec<_>>(), "each has a number of its own");
    // What the history has under a number is what its writer was told, and the last one is in force and stored.
    let history = world.gateway.tool(&["history", "--json"]).json();
    let history = history["revisions"].as_array().expect("a list");
    assert_eq!(history.len(), 50, "the last fifty are kept");
    for meta in history {
        let (_, answer) = &answers[&meta["revision"].as_u64().expect("a number")];
        assert_eq!(meta["sha256"], answer.done()["sha256"]);
    }
    let (last, answer) = &answers[&(1 + u64::from(WRITERS))];
    let status = world.gateway.status();
    assert_eq!((&status["sha256"], &status["drift"]), (&answer.done()["sha256"], &json!(false)), "{status}");
    let stored = std::fs::read_to_string(world.gateway.path("policy.json")).expect("it is stored");
    assert_eq!(serde_json::from_str::<Value>(&stored).expect("JSON"), nth(*last));
}

#[test]
fn of_writers_that_expect_the_same_revision_one_wins() {
    let mut world = world!();
    serve(&mut world, &only(SITE));
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let world = &world;
        let body = |n| json!({ "policy": nth(n), "expect_revision": 1 });
        let writers: Vec<_> =
            (0..20).map(|n| scope.spawn(move || post(world, "/clawgress/policy", WRITE, body(n)))).collect();
        writers.into_iter().map(|writer| writer.join().expect("a writer ends")).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!((won.len(), lost.len()), (1, 19));
    lost.iter().for_each(|answer| assert!(answer.refused(409).contains("revision 2 is in force"), "{answer:?}"));
    assert_eq!(world.gateway.status()["sha256"], won[0].done()["sha256"]);
}

#[test]
fn a_writer_that_goes_away_does_not_leave_half_a_change() {
    let mut world = world!();
    serve(&mut world, &only(SITE));
    // Long enough that it can be interrupted.
    let names: Vec<String> = (0..20_000).map(|n| format!("n{n}.example.com")).collect();
    let large = |address: &str| json!({ "version": 1, "allow": { "ips": [address], "domains": names } });
    for round in 0..u64::try_from(rounds(24)).expect("not that many") {
        let address = if round % 2 == 0 { OTHER } else { SITE };
        let body = json!({ "key": WRITE, "policy": large(address) }).to_string();
        let mut stream = connect(&world);
        std::io::Write::write_all(&mut stream, request("POST", "/clawgress/policy", JSON, &body).as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(round * 6));
        drop(stream);
        // Whatever came of it: what the daemon says, what the kernel does and what is stored are one.
        world.gateway.wait_until("daemon, kernel and file agree", Duration::from_secs(5), |gateway| {
            let told = gateway.explain(world.a.v4, &["--ip", OTHER, "--port", "443"])["verdict"] == "allow";
            let stored = std::fs::read_to_string(gateway.path("policy.json")).expect("it is stored").contains(OTHER);
            told == world.a.tcp(OTHER, 443).reached() && told == stored && gateway.status()["drift"] == false
        });
    }
    assert!(world.gateway.status()["revision"].as_u64() > Some(3), "some of them were in time");
}

#[test]
fn kill_9_during_a_write_leaves_the_old_policy_or_the_new_one() {
    let mut world = world!();
    serve(&mut world, &only(SITE));
    let (mut old, mut new) = (SITE, OTHER);
    for round in 0..u64::try_from(rounds(12)).expect("not that many") {
        let daemon = Pid::from_raw(world.gateway.pid().expect("it runs").cast_signed());
        let body = json!({ "key": WRITE, "policy": only(new) }).to_string();
        let told = std::thread::scope(|scope| {
            let stream = connect(&world);
            let post = request("POST", "/clawgress/policy", JSON, &body);
            let told = scope.spawn(move || exchange(stream, post.as_bytes()));
            std::thread::sleep(Duration::from_micros(500 * round));
            kill(daemon, Signal::SIGKILL).expect("the daemon is our child");
            told.join().expect("the client ends")
        });
        world.gateway.kill9();
        world.gateway.start();
        await_listener(&world);
        let is_new = world.a.tcp(new, 443).reached();
        world.a.tcp(if is_new { old } else { new }, 443).must_be_reset();
        world.a.tcp(if is_new { new } else { old }, 443).must_reach();
        assert!(is_new || !told.starts_with("HTTP/1.1 200"), "round {round}: what was answered is in force");
        assert_eq!(world.gateway.tool(&["health"]).code, Some(0));
        assert_eq!(world.gateway.status()["drift"], false, "round {round}: stored and enforced are one");
        if is_new {
            std::mem::swap(&mut old, &mut new);
        }
    }
}
