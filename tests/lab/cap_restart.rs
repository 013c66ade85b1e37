//! What was used of a cap survives whatever happens to the daemon, its table and its policy (SPEC section 2, meaning 6).

use std::time::Duration;

use serde_json::{Value, json};

use crate::scales::{SINK, Scales, TRYING, capped, connect, hammer, pour, upload};
use crate::world::World;
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
    let count = rounds(4) as u64;
    let cap = 40_000_000 * count;
    begin(&mut world, capped(&[(NAME, cap)]));
    Scales::new(&world);
    for round in 0..count {
        let gateway = &mut world.gateway;
        let agent = &world.a;
        std::thread::scope(|scope| {
            for address in [SITE, SITE6] {
                scope.spawn(move || hammer(agent, address, Duration::from_millis(700)));
            }
            std::thread::sleep(Duration::from_millis(50 + 37 * round % 300));
            if round % 4 == 3 {
                gateway.terminate();
            } else {
                gateway.kill9();
            }
            gateway.start();
        });
        let sent = sent(&world);
        println!("round {round}: {sent} of {cap}");
        assert!(sent <= cap, "round {round}: {sent} of {cap}");
    }
    for address in [SITE, SITE6, SITE] {
        while sent(&world) < cap && connect(&world.a, None, address).is_some() {
            upload(&world.a, address);
        }
    }
    Scales::of(&world).must_be_used_up("all rounds", sent(&world), cap);
    world.gateway.kill9();
    world.gateway.start();
    upload(&world.a, SITE);
    Scales::of(&world).must_be_used_up("afterwards", sent(&world), cap);
    world.a.tcp(OTHER, 80).must_reach();
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
        let agent = &world.a;
        let before = sent(&world);
        let stream = connect(agent, None, SITE).expect("something is left");
        pour_about(stream, 700_000);
        assert!(sent(&world) > before);
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

/// Sends so many octets.
fn pour_about(mut stream: std::net::TcpStream, octets: usize) {
    use std::io::Write;
    stream.set_write_timeout(Some(TRYING)).expect("a timeout is legal");
    stream.write_all(&vec![7; octets]).expect("so much is left");
}

#[test]
fn a_torn_down_table_counts_on_after_the_next_import() {
    let mut world = world!();
    let cap = 4_000_000;
    begin(&mut world, capped(&[(NAME, cap)]));
    Scales::new(&world);
    for _ in 0..3 {
        pour_about(connect(&world.a, None, SITE).expect("something is left"), 600_000);
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
    let scales = Scales::new(&world);
    let pour_in_background = |world: &World| {
        let stream = connect(&world.a, None, SITE).expect("it is allowed");
        std::thread::spawn(move || pour(stream, TRYING))
    };
    // Added: what was sent before it is not counted.
    let flow = pour_in_background(&world);
    world.gateway.wait_until("the flow flows", TRYING, |_| scales.sent_by(&world.a, &[SITE]) > 10_000_000);
    let cap = 20_000_000;
    let least = scales.sent_by(&world.a, &[SITE]);
    world.gateway.import(capped(&[(NAME, cap)]));
    let most = scales.sent_by(&world.a, &[SITE]);
    flow.join().expect("it is cut");
    let total = scales.sent_by(&world.a, &[SITE]);
    println!("added: {} to {} of {cap} since", total - most, total - least);
    assert!(total - most <= cap && total + cap / 20 >= cap + least, "the open flow is charged");
    world.a.tcp(SITE, 80).must_be_reset();
    // Raised, with a flow open; lowered below what was used.
    world.gateway.import(capped(&[(NAME, 3 * cap)]));
    let flow = pour_in_background(&world);
    world.gateway.wait_until("it flows again", TRYING, |_| scales.sent_by(&world.a, &[SITE]) > total + 1_000_000);
    world.gateway.import(capped(&[(NAME, cap)]));
    let lowered = scales.sent_by(&world.a, &[SITE]);
    flow.join().expect("it is cut");
    let after = scales.sent_by(&world.a, &[SITE]);
    assert!(after - lowered <= 0, "{} octets after a cap was lowered", after - lowered);
    world.a.tcp(SITE, 80).must_be_reset();
    // Raised to what is used and a little more, and used up.
    let used = after - least;
    world.gateway.import(capped(&[(NAME, used + 2_000_000)]));
    upload(&world.a, SITE6);
    let more = scales.sent_by(&world.a, &[SITE6]);
    println!("raised: {more} of at most {} more", 2_000_000);
    assert!(more <= 2_000_000 + (most - least), "{more}");
    // Removed: open; added back: what was used of it still is.
    world.gateway.import(capped(&[("other.example.com", cap)]));
    world.a.tcp(SITE, 80).must_reach();
    upload(&world.a, SITE);
    world.gateway.import(capped(&[(NAME, used + 2_000_000)]));
    resolve(&world);
    let before = scales.sent_by(&world.a, &[SITE, SITE6]);
    upload(&world.a, SITE);
    let more = scales.sent_by(&world.a, &[SITE, SITE6]) - before;
    assert!(more <= 200_000, "{more} octets of a cap that was used up before it was removed");
    world.a.tcp(SITE, 80).must_be_reset();
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
        // A cap of another name is closed as well: what was used of it is not known.
        std::fs::write(&ledger, &whole).expect("it is writable");
        let _ = json!(null);
        world.gateway.terminate();
        world.gateway.nft(&["delete", "table", "inet", "clawgress"]);
        std::fs::remove_file(&ledger).expect("it is there");
        world.gateway.start();
        resolve(&world);
        world.a.tcp(SITE, 80).must_reach();
    }
}
