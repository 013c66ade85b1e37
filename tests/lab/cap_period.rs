//! Periods of caps turn on the clock (SPEC section 2, meaning 6); what a full disk and a window do to caps.

use std::time::{Duration, Instant};

use chrono::{SubsecRound, TimeDelta, Utc};
use serde_json::json;

use crate::faults::Disk;
use crate::scales::{LONGEST, SINK, Scales, TRYING, capped, capped_in, hammer, upload};
use crate::{OTHER, SITE, SITE6};

#[test]
fn each_second_of_the_clock_has_its_cap_and_no_more() {
    let mut world = world!();
    world.internet.servers.sink(&[SINK]);
    world.internet.upstream.host("api.example.com", &[SITE, SITE6]);
    let cap = 1_000_000;
    world.gateway.enforce(capped_in(&[("api.example.com", cap)], "second"));
    world.a.resolved("api.example.com", SITE);
    world.a.resolved("api.example.com", SITE6);
    let (scales, agent) = (Scales::new(&world), &world.a);
    scales.count_seconds(5);
    std::thread::scope(|scope| {
        for address in [SITE, SITE6] {
            scope.spawn(move || hammer(agent, address, Duration::from_secs(5)));
        }
    });
    let sent: Vec<u64> = scales.by_second().into_values().collect();
    println!("{sent:?}");
    assert_eq!(sent.len(), 5);
    assert!(sent.iter().all(|sent| *sent <= cap), "{sent:?}");
    // The first is not whole.
    assert!(sent[1..].iter().all(|sent| sent + LONGEST + cap / 50 >= cap), "{sent:?}");
}

#[test]
fn what_is_left_of_a_period_is_not_added_to_the_next() {
    let mut world = world!();
    world.internet.servers.sink(&[SINK]);
    world.internet.upstream.host("api.example.com", &[SITE]);
    let cap = 2_000_000;
    world.gateway.enforce(capped_in(&[("api.example.com", cap)], "second"));
    world.a.resolved("api.example.com", SITE);
    let scales = Scales::new(&world);
    scales.count_seconds(9);
    for _ in 0..3 {
        // Nothing is used in most of a second; the flood begins shortly before its end and goes on behind it.
        let turn = (Utc::now() + TimeDelta::milliseconds(1500)).trunc_subsecs(0);
        std::thread::sleep((turn - TimeDelta::milliseconds(2) - Utc::now()).to_std().unwrap_or_default());
        hammer(&world.a, SITE, Duration::from_millis(500));
    }
    let sent: Vec<u64> = scales.by_second().into_values().collect();
    println!("{sent:?} of {cap} a second");
    // What passes in the moment until the turn is noticed counts in the new second.
    assert!(sent.iter().all(|sent| *sent <= cap), "{sent:?}");
    assert!(sent.iter().filter(|sent| **sent > cap / 2).count() >= 2, "{sent:?}");
}

/// What a file on a disk in memory grows by.
const PAGE: u64 = 4096;

#[test]
fn a_full_disk_refuses_and_does_not_keep_waiting() {
    let mut world = world!();
    world.internet.servers.sink(&[SINK]);
    world.internet.upstream.host("api.example.com", &[SITE]);
    world.internet.upstream.host("other.example.com", &[OTHER]);
    let disk = Disk::mount(&world.gateway.path("state"));
    let cap = 8_000_000;
    world.gateway.enforce(capped(&[("api.example.com", cap)]));
    // What is written first would fit into the page that the file has already.
    let ledger = world.gateway.path("state/ledger");
    let length = || std::fs::metadata(&ledger).expect("there is a ledger").len();
    let first = length();
    for n in 0..200 {
        let before = length();
        world.gateway.import(capped(&[("api.example.com", cap), (&format!("n{n}.example.com"), cap)]));
        let (line, room) = (length() - before, PAGE - length() % PAGE);
        if room < line.min(first) {
            break;
        }
    }
    world.a.resolved("api.example.com", SITE);
    world.a.resolved("other.example.com", OTHER);
    let scales = Scales::new(&world);
    disk.fill();
    let start = Instant::now();
    upload(&world.a, SITE);
    assert!(start.elapsed() < TRYING, "it is refused, not kept waiting");
    world.a.tcp(SITE, 80).must_be_reset();
    world.a.tcp(OTHER, 80).must_reach();
    let health = world.gateway.tool(&["health", "--json"]);
    assert!(health.code == Some(1) && health.stdout.contains("disk is full"), "{}", health.stdout);
    assert!(world.gateway.log().contains("disk is full"), "{}", world.gateway.log());
    disk.clear();
    world.gateway.wait_until("it goes on", TRYING, |_| world.a.tcp(SITE, 80).reached());
    world.gateway.wait_until("it is well again", TRYING, |gateway| gateway.tool(&["health"]).code == Some(0));
    upload(&world.a, SITE);
    scales.must_be_used_up("after room was made", scales.sent_by(&world.a, &[SITE]), cap);
    world.a.tcp(SITE, 80).must_be_reset();
    // Before its disk is taken away.
    world.gateway.kill9();
}

#[test]
fn windows_and_caps_hold_together() {
    let mut world = world!();
    world.internet.servers.sink(&[SINK]);
    world.internet.upstream.host("api.example.com", &[SITE]);
    let cap = 4_000_000;
    let policy = |window: Option<(chrono::DateTime<Utc>, chrono::DateTime<Utc>)>| {
        let mut policy = capped(&[("api.example.com", cap)]);
        policy["time_zone"] = json!("UTC");
        if let Some((start, end)) = window {
            let text = |at: chrono::DateTime<Utc>| at.format("%H:%M:%S").to_string();
            policy["hosts"]["a"]["time_window"] = json!({ "start": text(start), "end": text(end) });
        }
        policy
    };
    let edge = (Utc::now() + TimeDelta::seconds(3)).trunc_subsecs(0);
    world.gateway.enforce(policy(Some((edge - TimeDelta::hours(1), edge))));
    world.a.resolved("api.example.com", SITE);
    let scales = Scales::new(&world);
    let mut flow = world.a.flow(SITE, 443);
    assert!(flow.alive());
    std::thread::sleep((edge + TimeDelta::milliseconds(100) - Utc::now()).to_std().unwrap_or_default());
    assert!(!flow.alive());
    world.a.tcp(SITE, 80).must_be_reset();
    // Shut and opened again: the cap counts on, to its end.
    world.gateway.import(policy(None));
    world.a.resolved("api.example.com", SITE);
    upload(&world.a, SITE);
    scales.must_be_used_up("behind a window", scales.sent_by(&world.a, &[SITE]), cap);
    world.a.tcp(SITE, 80).must_be_reset();
}

/// Waits for the turn of a minute, so nobody but a person asks for it.
#[test]
#[ignore = "takes up to two minutes"]
fn a_broken_ledger_opens_again_at_the_turn() {
    let mut world = world!();
    world.internet.servers.sink(&[SINK]);
    world.internet.upstream.host("api.example.com", &[SITE]);
    let cap = 4_000_000;
    world.gateway.enforce(capped_in(&[("api.example.com", cap)], "minute"));
    world.a.resolved("api.example.com", SITE);
    let scales = Scales::new(&world);
    upload(&world.a, SITE);
    world.a.tcp(SITE, 80).must_be_reset();
    let next_minute = || {
        let now = Utc::now().timestamp();
        chrono::DateTime::from_timestamp(now - now % 60 + 60, 0).expect("a time")
    };
    let wait_for = |at: chrono::DateTime<Utc>| std::thread::sleep((at - Utc::now()).to_std().unwrap_or_default());
    wait_for(next_minute() + TimeDelta::milliseconds(100));
    let before = scales.sent_by(&world.a, &[SITE]);
    upload(&world.a, SITE);
    scales.must_be_used_up("the next minute", scales.sent_by(&world.a, &[SITE]) - before, cap);
    world.gateway.terminate();
    std::fs::write(world.gateway.path("state/ledger"), "rubbish").expect("it is writable");
    world.gateway.start();
    world.a.tcp(SITE, 80).must_be_reset();
    wait_for(next_minute() + TimeDelta::milliseconds(100));
    world.a.tcp(SITE, 80).must_reach();
    assert_eq!(world.gateway.tool(&["health"]).code, Some(0), "it is over");
    let scales = Scales::of(&world);
    let before = scales.sent_by(&world.a, &[SITE]);
    upload(&world.a, SITE);
    let sent = scales.sent_by(&world.a, &[SITE]) - before;
    assert!(sent <= cap && sent + LONGEST + cap / 25 >= cap, "{sent}");
}
