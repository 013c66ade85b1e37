//! The way back: `rollback`, and policies that go away by themselves unless somebody confirms them (SPEC section 3).

use std::time::Duration;

use serde_json::{Value, json};

use crate::faults::Disk;
use crate::world::{Ran, World};
use crate::{OTHER, SITE, rounds};

/// Going back is due within this, the wait included.
const SOON: Duration = Duration::from_secs(5);

/// Lets the one address through and not the other.
fn only(address: &str) -> String {
    json!({ "version": 1, "allow": { "ips": [address] } }).to_string()
}

/// SITE is open, OTHER is not, and the other way around.
#[track_caller]
fn must_allow(world: &World, address: &str) {
    let (open, shut) = if address == SITE { (SITE, OTHER) } else { (OTHER, SITE) };
    world.a.tcp(open, 443).must_reach();
    world.a.tcp(shut, 443).must_be_reset();
}

#[track_caller]
fn wait_for(world: &World, address: &str) {
    let what = format!("only {address} is open");
    // The kernel comes first, the files behind it.
    world.gateway.wait_until(&what, SOON, |_| world.a.tcp(address, 443).reached() && !waits(world));
    must_allow(world, address);
}

fn try_out(world: &World, policy: &str, seconds: &str) -> Ran {
    world.gateway.tool_reading(&["apply", "--policy", "-", "--confirm", seconds], policy)
}

fn stored(world: &World) -> String {
    std::fs::read_to_string(world.gateway.path("policy.json")).expect("a policy is stored")
}

fn waits(world: &World) -> bool {
    let checks = world.gateway.status()["checks"].clone();
    checks.as_array().expect("a list").iter().any(|check| check["name"] == "confirm")
}

/// Number, origin of the revisions, newest first.
fn history(world: &World) -> Vec<(u64, String)> {
    let history = world.gateway.tool(&["history", "--json"]).json();
    let list = history["revisions"].as_array().expect("a list").clone();
    let entry = |meta: &Value| (meta["revision"].as_u64().unwrap(), meta["origin"].as_str().unwrap().to_owned());
    list.iter().map(entry).collect()
}

#[test]
fn rollback_returns_to_the_revision_before_and_stores_it() {
    let mut world = world!();
    world.gateway.enforce(only(SITE));
    world.gateway.import(only(OTHER));
    must_allow(&world, OTHER);
    let ran = world.gateway.tool(&["rollback", "--json"]);
    ran.must_succeed();
    let told = ran.json();
    assert_eq!((&told["to"], &told["revision"], &told["stored"]), (&json!(1), &json!(3), &json!(true)), "{told}");
    must_allow(&world, SITE);
    assert_eq!(stored(&world), only(SITE), "the text as it was written");
    let expected = [(3, "rollback".to_owned()), (2, "import".to_owned()), (1, "boot".to_owned())];
    assert_eq!(history(&world), expected);
    world.gateway.kill9();
    world.gateway.start();
    must_allow(&world, SITE);
    // A second one returns to what the first one left.
    world.gateway.tool(&["rollback"]).must_succeed();
    must_allow(&world, OTHER);
    world.gateway.tool(&["rollback", "1"]).must_succeed();
    must_allow(&world, SITE);
    assert_eq!(world.gateway.tool(&["health"]).code, Some(0));
}

#[test]
fn a_rollback_to_nowhere_changes_nothing() {
    let mut world = world!();
    world.gateway.enforce(only(SITE));
    let ran = world.gateway.tool(&["rollback"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("no earlier revision"), "{}", ran.stderr);
    let ran = world.gateway.tool(&["rollback", "77"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("77") && ran.stderr.contains("clawgress history"), "{}", ran.stderr);
    must_allow(&world, SITE);
    assert_eq!(history(&world).len(), 1);
}

#[test]
fn what_nobody_confirms_goes_back_by_itself() {
    let mut world = world!();
    world.gateway.enforce(only(SITE));
    let told = try_out(&world, &only(OTHER), "2");
    assert!(told.must_succeed().contains("clawgress confirm"), "{}", told.stdout);
    must_allow(&world, OTHER);
    assert!(waits(&world), "status says so");
    wait_for(&world, SITE);
    assert!(!waits(&world));
    assert_eq!(history(&world)[0], (3, "rollback".to_owned()));
    assert_eq!(stored(&world), only(SITE));
    let late = world.gateway.tool(&["confirm"]);
    assert_eq!(late.code, Some(1));
    assert!(late.stderr.contains("no revision waits"), "{}", late.stderr);
}

#[test]
fn what_is_confirmed_stays() {
    let mut world = world!();
    world.gateway.enforce(only(SITE));
    try_out(&world, &only(OTHER), "3").must_succeed();
    world.gateway.tool(&["confirm"]).must_succeed();
    std::thread::sleep(Duration::from_millis(3500));
    must_allow(&world, OTHER);
    assert!(!waits(&world));
    assert_eq!(stored(&world), only(SITE), "a file is applied and not stored");
    world.gateway.kill9();
    world.gateway.start();
    must_allow(&world, SITE);
}

#[test]
fn another_change_ends_the_wait() {
    let mut world = world!();
    world.gateway.enforce(only(SITE));
    try_out(&world, &only(OTHER), "4").must_succeed();
    world.gateway.import(json!({ "version": 1, "allow": { "ips": [OTHER], "ports": [443] } }));
    assert!(!waits(&world));
    std::thread::sleep(Duration::from_millis(4500));
    must_allow(&world, OTHER);
}

#[test]
fn what_waits_is_not_what_another_one_goes_back_to() {
    let mut world = world!();
    world.gateway.enforce(only(SITE));
    try_out(&world, &only(OTHER), "60").must_succeed();
    try_out(&world, r#"{ "version": 1 }"#, "1").must_succeed();
    world.a.tcp(OTHER, 443).must_be_reset();
    wait_for(&world, SITE);
    // And by hand.
    try_out(&world, &only(OTHER), "60").must_succeed();
    world.gateway.tool(&["rollback"]).must_succeed();
    must_allow(&world, SITE);
    assert!(!waits(&world));
}

#[test]
fn a_stored_policy_on_trial_does_not_come_back() {
    let mut world = world!();
    world.gateway.enforce(only(SITE));
    world.gateway.store(only(OTHER));
    world.gateway.tool(&["apply", "--confirm", "1"]).must_succeed();
    must_allow(&world, OTHER);
    wait_for(&world, SITE);
    assert_eq!(stored(&world), only(SITE));
    assert_eq!(world.gateway.tool(&["health"]).code, Some(0));
    world.gateway.kill9();
    world.gateway.start();
    must_allow(&world, SITE);
}

#[test]
fn a_wait_outlives_the_daemon() {
    let mut world = world!();
    world.gateway.enforce(only(SITE));
    // Back before the deadline: it still waits, and can be confirmed.
    try_out(&world, &only(OTHER), "60").must_succeed();
    world.gateway.kill9();
    world.gateway.start();
    must_allow(&world, OTHER);
    assert!(waits(&world));
    world.gateway.hangup();
    world.gateway.wait_until("it is told", SOON, |gateway| gateway.log().contains("while one is on trial"));
    world.gateway.tool(&["confirm"]).must_succeed();
    must_allow(&world, OTHER);
    world.gateway.import(only(SITE));
    // Before it, and not confirmed.
    try_out(&world, &only(OTHER), "2").must_succeed();
    world.gateway.kill9();
    world.gateway.start();
    wait_for(&world, SITE);
    // After it: nothing of it is in force any more when the daemon is ready.
    try_out(&world, &only(OTHER), "3").must_succeed();
    world.gateway.kill9();
    std::thread::sleep(Duration::from_millis(3200));
    must_allow(&world, OTHER);
    world.gateway.start();
    must_allow(&world, SITE);
    // And where nothing is left in the kernel, as after a reboot.
    try_out(&world, &only(OTHER), "3").must_succeed();
    world.gateway.kill9();
    std::thread::sleep(Duration::from_millis(3200));
    world.gateway.tool(&["teardown"]).must_succeed();
    world.gateway.start();
    must_allow(&world, SITE);
    assert_eq!(history(&world)[0].1, "rollback");
    assert!(!waits(&world));
}

#[test]
fn kill_9_on_the_way_leaves_the_old_policy_or_one_that_waits() {
    let mut world = world!();
    world.gateway.enforce(only(SITE));
    for round in 0..u64::try_from(rounds(12)).expect("not that many") {
        let gateway = &world.gateway;
        let daemon = nix::unistd::Pid::from_raw(gateway.pid().expect("it runs").cast_signed());
        let told = std::thread::scope(|scope| {
            let told = scope.spawn(|| try_out(&world, &only(OTHER), "30").code == Some(0));
            std::thread::sleep(Duration::from_millis(round * 2));
            nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGKILL).expect("it is our child");
            told.join().expect("the tool ends")
        });
        world.gateway.kill9();
        world.gateway.start();
        if waits(&world) {
            must_allow(&world, OTHER);
            world.gateway.tool(&["rollback"]).must_succeed();
        } else {
            assert!(!told, "round {round}: what was answered is in force");
        }
        must_allow(&world, SITE);
        assert_eq!(stored(&world), only(SITE));
        assert_eq!(world.gateway.tool(&["health"]).code, Some(0));
    }
}

#[test]
fn without_room_for_the_way_back_nothing_is_tried_out() {
    let mut world = world!();
    let disk = Disk::mount(&world.gateway.path("state"));
    world.gateway.enforce(only(SITE));
    disk.fill();
    let ran = try_out(&world, &only(OTHER), "60");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("disk is full"), "{}", ran.stderr);
    must_allow(&world, SITE);
    assert!(!waits(&world));
    // The way back itself needs none.
    disk.clear();
    try_out(&world, &only(OTHER), "2").must_succeed();
    disk.fill();
    wait_for(&world, SITE);
    assert_eq!(world.gateway.tool(&["health"]).code, Some(1), "that it is not recorded is said");
    world.gateway.kill9();
    world.gateway.start();
    must_allow(&world, SITE);
    // The record still has the one that nobody confirmed as the last that was in force.
    world.gateway.kill9();
    world.gateway.store("{");
    world.gateway.start();
    must_allow(&world, SITE);
    world.gateway.kill9();
}

#[test]
fn a_stored_policy_on_trial_that_cannot_be_replaced_is_not_enforced_by_a_start() {
    // The small disk has the policy alone, or all that the daemon writes.
    for directory in ["etc", "state"] {
        let mut world = world!();
        std::fs::create_dir_all(world.gateway.path(directory)).expect("it is writable");
        let disk = Disk::mount(&world.gateway.path(directory));
        let (settings, policy) =
            (world.gateway.path("clawgress.toml"), world.gateway.path(directory).join("policy.json"));
        let text = std::fs::read_to_string(&settings).expect("the lab wrote it");
        let text = text.replace("/policy.json", &format!("/{directory}/policy.json"));
        std::fs::write(settings, text).expect("it is writable");
        std::fs::write(&policy, only(SITE)).expect("it is writable");
        world.gateway.start();
        std::fs::write(&policy, only(OTHER)).expect("it is writable");
        world.gateway.tool(&["apply", "--confirm", "2"]).must_succeed();
        disk.fill();
        wait_for(&world, SITE);
        for _ in 0..2 {
            world.gateway.kill9();
            world.gateway.start();
            must_allow(&world, SITE);
            assert_eq!(std::fs::read_to_string(&policy).expect("it is there"), only(OTHER), "there is no room");
            assert_eq!(world.gateway.tool(&["health"]).code, Some(1), "that is said");
        }
        disk.clear();
        world.gateway.kill9();
        world.gateway.start();
        must_allow(&world, SITE);
        assert_eq!(std::fs::read_to_string(&policy).expect("it is there"), only(SITE));
        assert_eq!(world.gateway.tool(&["health"]).code, Some(0));
        world.gateway.kill9();
    }
}

#[test]
fn a_damaged_promise_leaves_the_stored_policy() {
    let mut world = world!();
    world.gateway.enforce(only(SITE));
    try_out(&world, &only(OTHER), "60").must_succeed();
    world.gateway.kill9();
    std::fs::write(world.gateway.path("state/unconfirmed.json"), "rubbish\n").expect("it is there");
    world.gateway.start();
    must_allow(&world, SITE);
    assert!(world.gateway.log().contains("unconfirmed.json is damaged"), "{}", world.gateway.log());
    assert!(!world.gateway.path("state/unconfirmed.json").exists(), "the next start has no trouble with it");
    assert_eq!(world.gateway.tool(&["health"]).code, Some(0));
}

#[test]
fn a_way_back_without_a_stored_policy_is_in_good_health() {
    let mut world = world!();
    world.gateway.launch();
    world.gateway.wait_until("the daemon answers", SOON, |gateway| gateway.tool(&["status"]).code == Some(0));
    world.gateway.tool_reading(&["apply", "--policy", "-"], &only(SITE)).must_succeed();
    try_out(&world, &only(OTHER), "2").must_succeed();
    assert_eq!(world.gateway.tool(&["health"]).code, Some(0));
    wait_for(&world, SITE);
    assert_eq!(world.gateway.tool(&["health"]).code, Some(0));
    assert!(!world.gateway.path("policy.json").exists());
}

#[test]
fn the_first_policy_has_nothing_to_go_back_to() {
    let mut world = world!();
    world.gateway.launch();
    world.gateway.wait_until("the daemon answers", SOON, |gateway| gateway.tool(&["status"]).code == Some(0));
    let ran = try_out(&world, &only(SITE), "60");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("none to go back to"), "{}", ran.stderr);
    world.a.tcp(OTHER, 443).must_reach();
}
