//! What was used of a cap survives whatever happens to the daemon, its table and its policy (SPEC section 2, meaning 6).

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::scales::{SINK, Scales, TRYING, capped, connect, upload};
use crate::world::{PATIENCE, World};
use crate::{OTHER, SITE, SITE6, rounds};

const NAME: &str = "api.example.com";

fn begin(world: &mut World, policy: Value) {
    world.internet.servers.sink(&[SINK]);
    world.internet.upstream.host(NAME, &[SITE, SITE6]);
    world.internet.upstream.host("other.example.com", &[OTHER]);
    world.gateway.enforce(policy);
    resolve(world);
}

fn resolve(world: &World) {
    world.a.resolved(NAME, SITE);
    world.a.resolved(NAME, SITE6);
    world.a.resolved("other.example.com", OTHER);
}

fn sent(world: &World) -> u64 {
    Scales::of(world).sent_by(&world.a, &[SITE, SITE6])
}

#[test]
fn deaths_in_the_middle_of_transfers_give_nothing_back() {
    let mut world = world!();
    world.internet.servers.sink(&[SINK]);
    let cap = 20_000_000;
    // One name a round, with two addresses.
    let names: Vec<_> = (0..rounds(3))
        .map(|n| (format!("n{n}.example.com"), format!("151.101.7.{n}"), format!("2606:4700:7::{n:x}")))
        .collect();
    for (name, v4, v6) in &names {
        world.internet.upstream.host(name, &[v4, v6]);
    }
    let caps: Vec<_> = names.iter().map(|(name, ..)| (name.as_str(), cap)).collect();
    world.gateway.enforce(capped(&caps));
    Scales::new(&world);
    for (round, (name, v4, v6)) in (0..).zip(&names) {
        world.a.resolved(name, v4.as_str());
        world.a.resolved(name, v6.as_str());
        let (gateway, agent) = (&mut world.gateway, &world.a);
        std::thread::scope(|scope| {
            for address in [v4, v6] {
                scope.spawn(move || upload(agent, address.as_str()));
            }
            std::thread::sleep(Duration::from_millis(7 * round % 50));
            if round % 4 == 3 {
                gateway.terminate();
            } else {
                gateway.kill9();
            }
            gateway.start();
        });
        for address in [v4, v6] {
            upload(&world.a, address.as_str());
        }
        let scales = Scales::of(&world);
        scales.must_be_used_up(name, scales.sent_by(&world.a, &[v4, v6]), cap);
        world.a.tcp(v4.as_str(), 80).must_be_reset();
    }
    world.gateway.kill9();
    world.gateway.start();
    for (name, v4, v6) in &names {
        upload(&world.a, v4.as_str());
        let scales = Scales::of(&world);
        scales.must_be_used_up(name, scales.sent_by(&world.a, &[v4, v6]), cap);
    }
}

#[test]
fn a_table_that_is_gone_takes_a_grant_with_it_at_most() {
    let mut world = world!();
    let cap = 16_000_000;
    world.gateway.settings("[kernel]\nlock_table = false\n");
    begin(&mut world, capped(&[(NAME, cap)]));
    Scales::new(&world);
    let grant = cap / 8;
    let mut lost = 0;
    for reboot in [false, true, false, true] {
        // Some of it, in the middle of a grant.
        upload_some(&world, 700_000);
        if reboot {
            world.gateway.kill9();
        }
        world.gateway.nft(&["delete", "table", "inet", "clawgress"]).must_succeed();
        if reboot {
            world.gateway.start();
        } else {
            std::thread::sleep(Duration::from_secs(1));
        }
        resolve(&world);
        lost += grant;
    }
    while connect(&world.a, None, SITE).is_some() {
        upload(&world.a, SITE);
    }
    let sent = sent(&world);
    println!("{sent} of {cap} octets arrived, up to {lost} may be lost");
    assert!(sent <= cap && sent + lost + cap / 20 >= cap, "{sent} of {cap}");
    world.gateway.tool(&["teardown"]).must_succeed();
    world.gateway.import(capped(&[(NAME, cap)]));
    resolve(&world);
    let before = self::sent(&world);
    upload(&world.a, SITE);
    let more = self::sent(&world) - before;
    assert!(sent + more <= cap, "a teardown gives nothing back: {sent} and {more}");
}

/// Sends so many octets; returns when they have arrived.
#[track_caller]
fn upload_some(world: &World, octets: usize) {
    let before = sent(world);
    let mut stream = connect(&world.a, None, SITE).expect("something is left");
    stream.set_write_timeout(Some(TRYING)).expect("a timeout is legal");
    stream.write_all(&vec![7; octets]).expect("so much is left");
    wait_until_sent(world, before + octets as u64);
}

#[test]
fn a_torn_down_table_counts_on_after_the_next_import() {
    let mut world = world!();
    let cap = 4_000_000;
    begin(&mut world, capped(&[(NAME, cap)]));
    Scales::new(&world);
    for _ in 0..3 {
        upload_some(&world, 600_000);
        world.gateway.tool(&["teardown"]).must_succeed();
        world.gateway.import(capped(&[(NAME, cap)]));
        resolve(&world);
    }
    upload(&world.a, SITE6);
    Scales::of(&world).must_be_used_up("after teardowns", sent(&world), cap);
}

#[test]
fn open_flows_follow_a_cap_that_is_added_lowered_raised_removed_and_added_back() {
    let mut world = world!();
    begin(&mut world, capped(&[]));
    Scales::new(&world);
    let only = |cap: u64| capped(&[(NAME, cap)]);
    // Added: what was sent before it is not counted, what an open flow sends from then on is.
    let flow = trickle(&world);
    wait_until_sent(&world, 500_000);
    let before = sent(&world);
    world.gateway.import(only(3_000_000));
    let since = sent(&world);
    flow.join().expect("it is cut");
    let total = sent(&world);
    println!("added: {} to {} octets since", total - since, total - before);
    assert!(total - since <= 3_000_000 && total - before + 200_000 >= 3_000_000);
    world.a.tcp(SITE, 80).must_be_reset();
    // Raised: it goes on. Lowered below what was used: an open flow stops at once.
    world.gateway.import(only(30_000_000));
    let flow = trickle(&world);
    wait_until_sent(&world, total + 1_000_000);
    world.gateway.import(only(2_000_000));
    let lowered = sent(&world);
    flow.join().expect("it is cut");
    assert_eq!(sent(&world), lowered, "octets got through after the cap was lowered");
    world.a.tcp(SITE, 80).must_be_reset();
    // Raised to a little more than was used.
    let (least, most) = (lowered - since, lowered - before);
    world.gateway.import(only(least + 1_000_000));
    upload(&world.a, SITE6);
    let used = sent(&world) - since;
    println!("raised: {used} of {} octets", least + 1_000_000);
    assert!(used <= least + 1_000_000 && used + (most - least) + 200_000 >= least + 1_000_000);
    // Removed: everything passes. Added back: it is used up still.
    world.gateway.import(capped(&[("other.example.com", 1_000_000)]));
    upload_some(&world, 5_000_000);
    world.gateway.import(only(least + 1_000_000));
    resolve(&world);
    let before = sent(&world);
    upload(&world.a, SITE);
    assert!(sent(&world) - before < 200_000, "{} octets of a cap that was used up", sent(&world) - before);
    world.a.tcp(SITE, 80).must_be_reset();
}

/// An open flow that sends 20 MB in a second, until it is cut.
fn trickle(world: &World) -> std::thread::JoinHandle<()> {
    let mut stream = connect(&world.a, None, SITE).expect("it is allowed");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout is legal");
    std::thread::spawn(move || {
        let end = Instant::now() + TRYING;
        while Instant::now() < end && stream.write_all(&[7; 20_000]).is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
    })
}

fn wait_until_sent(world: &World, octets: u64) {
    world.gateway.wait_until("the flow flows", TRYING, |_| sent(world) > octets);
}

#[test]
fn a_broken_ledger_closes_the_caps_and_says_so() {
    let mut world = world!();
    let cap = 4_000_000;
    begin(&mut world, capped(&[(NAME, cap)]));
    world.a.tcp(SITE, 80).must_reach();
    let ledger = world.gateway.path("state/ledger");
    let whole = std::fs::read(&ledger).expect("there is a ledger");
    for damage in ["flipped", "truncated", "removed"] {
        world.gateway.terminate();
        match damage {
            "flipped" => {
                let mut octets = whole.clone();
                let middle = octets.len() / 2;
                octets[middle] ^= 1;
                std::fs::write(&ledger, octets).expect("it is writable");
            }
            "truncated" => std::fs::write(&ledger, &whole[..10]).expect("it is writable"),
            _ => std::fs::remove_file(&ledger).expect("it is there"),
        }
        world.gateway.start();
        world.a.tcp(SITE, 80).must_be_reset();
        world.a.tcp(SITE6, 443).must_be_reset();
        world.a.tcp(OTHER, 80).must_reach();
        let log = world.gateway.log();
        assert!(log.contains("closed until their periods turn"), "{damage}: {log}");
        let health = world.gateway.tool(&["health", "--json"]);
        assert_eq!(health.code, Some(1), "{damage}: {}", health.stdout);
        assert!(health.stdout.contains("closed until their periods turn"), "{damage}: {}", health.stdout);
        // And stays so, when the next start finds a ledger without a fault.
        world.gateway.kill9();
        world.gateway.start();
        world.a.tcp(SITE, 80).must_be_reset();
        // Begin again, as on a new machine.
        world.gateway.terminate();
        world.gateway.nft(&["delete", "table", "inet", "clawgress"]).must_succeed();
        std::fs::remove_file(&ledger).expect("it is there");
        world.gateway.start();
        resolve(&world);
        world.a.tcp(SITE, 80).must_reach();
    }
}
