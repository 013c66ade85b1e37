//! Faults around the daemon: files, disks, tables, neighbours. Each is told with what to do about it, nothing is lost and
//! nothing is opened.

use std::time::Duration;

use hickory_proto::rr::RecordType;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::world::{World, binary};
use crate::{OTHER, SITE, rounds};

/// A repair, or news in `status`, is there within this.
const SOON: Duration = Duration::from_secs(1);

fn policy() -> Value {
    json!({ "version": 1, "allow": { "ips": [SITE] } })
}

/// The message of a failed check in `health --json`; the exit status must say it as well.
#[track_caller]
pub fn failed_check(world: &World, name: &str) -> String {
    let health = world.gateway.tool(&["health", "--json"]);
    assert_eq!(health.code, Some(1), "a fault must show: {}", health.stdout);
    let health = health.json();
    let checks = health["checks"].as_array().expect("a list");
    let failed = checks.iter().find(|check| check["name"] == name && check["ok"] == false);
    failed.unwrap_or_else(|| panic!("{name} must fail: {health}"))["message"].as_str().expect("a text").to_owned()
}

#[test]
fn the_table_is_locked_again_after_each_start() {
    let mut world = world!();
    world.gateway.enforce(policy());
    for kill in [false, true] {
        if kill {
            world.gateway.kill9();
        } else {
            world.gateway.terminate();
        }
        world.gateway.start();
        assert_ne!(world.gateway.nft(&["flush", "table", "inet", "clawgress"]).code, Some(0), "kill -9: {kill}");
        world.a.tcp(OTHER, 443).must_be_reset();
    }
}

#[test]
fn a_table_of_another_shape_is_made_anew() {
    let mut world = world!();
    world.gateway.settings("[kernel]\nlock_table = false\n");
    world.gateway.enforce(policy());
    let chain = "delete chain inet clawgress forward; add chain inet clawgress forward";
    let changes = [
        chain.to_owned(),
        format!("{chain} {{ type filter hook output priority 5; }}"),
        format!("{chain} {{ type filter hook forward priority 5; policy drop; }}"),
        "add table inet clawgress { flags dormant; }".to_owned(),
        "flush table inet clawgress; delete map inet clawgress dst4; \
         add map inet clawgress dst4 { type ipv4_addr : mark; }"
            .to_owned(),
        "add map inet clawgress strange { type ipv4_addr . inet_service : verdict; }".to_owned(),
    ];
    for (times, change) in changes.iter().enumerate() {
        world.gateway.nft(&[change]).must_succeed();
        // By the name of who did it; the first look at the table may have found it besides.
        let told = |gateway: &crate::world::Gateway| gateway.log().matches("nft (process").count();
        world.gateway.wait_until(change, Duration::from_secs(10), |gateway| told(gateway) > times);
        world.a.tcp(OTHER, 443).must_be_reset();
        world.a.tcp(SITE, 443).must_reach();
        assert_eq!(told(&world.gateway), times + 1, "each change is told once: {change}\n{}", world.gateway.log());
    }
    assert!(!world.gateway.nft(&["list", "table", "inet", "clawgress"]).stdout.contains("strange"), "it is removed");
}

#[test]
fn a_table_that_was_changed_while_no_daemon_ran_is_made_anew() {
    let mut world = world!();
    let chain = "delete chain inet clawgress forward; add chain inet clawgress forward";
    let changes = [
        chain.to_owned(),
        format!("{chain} {{ type filter hook output priority 5; }}"),
        "add table inet clawgress { flags dormant; }".to_owned(),
        "flush table inet clawgress; delete map inet clawgress dst4; \
         add map inet clawgress dst4 { type ipv4_addr : mark; }"
            .to_owned(),
        "flush table inet clawgress".to_owned(),
    ];
    for lock in [true, false] {
        world.gateway.settings(&format!("[kernel]\nlock_table = {lock}\n"));
        world.gateway.enforce(policy());
        // A table that was locked once cannot be switched off by an `nft` that does not know such tables.
        for change in changes.iter().filter(|change| !(lock && change.contains("dormant"))) {
            world.gateway.terminate();
            world.gateway.nft(&[change]).must_succeed();
            world.gateway.start();
            // At once, without the repair of a watched table.
            world.a.tcp(OTHER, 443).must_be_reset();
            world.a.tcp(SITE, 443).must_reach();
            assert_eq!(world.gateway.tool(&["health"]).code, Some(0), "{change}");
        }
        world.gateway.terminate();
    }
}

#[test]
fn every_foreign_change_is_told() {
    let mut world = world!();
    world.gateway.settings("[kernel]\nlock_table = false\n");
    world.gateway.enforce(policy());
    for times in 1..=3 {
        world.gateway.nft(&["flush", "chain", "inet", "clawgress", "egress"]).must_succeed();
        // By the name of who did it; the first look at the table may have found it besides.
        let told = |gateway: &crate::world::Gateway| gateway.log().matches("nft (process").count();
        world.gateway.wait_until("it is told", Duration::from_secs(10), |gateway| told(gateway) == times);
        world.a.tcp(OTHER, 443).must_be_reset();
    }
}

#[test]
fn a_foreign_table_of_our_name_is_neither_used_nor_removed() {
    let mut world = world!();
    let table = "table inet clawgress {\n chain mine {\n type filter hook forward priority 10\n counter\n }\n}\n";
    world.gateway.launch();
    world.gateway.wait_until("the daemon answers", SOON * 5, |gateway| gateway.tool(&["status"]).code == Some(0));
    world.gateway.nft_load(table);
    let told = failed_check(&world, "kernel");
    assert!(told.contains("not ours") && told.contains("nft delete table inet clawgress"), "{told}");
    for command in [&["import", "--policy", "-"][..], &["teardown"]] {
        let ran = world.gateway.tool_reading(command, &policy().to_string());
        assert_eq!(ran.code, Some(1), "{command:?}");
        assert!(ran.stderr.contains("not ours"), "{}", ran.stderr);
    }
    assert!(!world.gateway.path("policy.json").exists(), "what is not enforced is not stored");
    world.gateway.terminate();
    assert!(world.gateway.fail_to_start().stderr.contains("not ours"));
    let left = world.gateway.nft(&["list", "table", "inet", "clawgress"]).stdout;
    assert!(left.contains("chain mine") && !left.contains("forward {"), "{left}");
    world.gateway.nft(&["delete", "table", "inet", "clawgress"]).must_succeed();
}

#[test]
fn a_disk_without_room_for_the_revision_refuses_an_import_as_a_whole() {
    let mut world = world!();
    let disk = Disk::mount(&world.gateway.path("state"));
    world.gateway.enforce(policy());
    disk.fill();
    let other = json!({ "version": 1, "allow": { "ips": [OTHER] } }).to_string();
    let ran = world.gateway.tool_reading(&["import", "--policy", "-"], &other);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("disk is full") && ran.stderr.contains("make room"), "{}", ran.stderr);
    world.a.tcp(SITE, 443).must_reach();
    world.a.tcp(OTHER, 443).must_be_reset();
    assert_eq!(std::fs::read_to_string(world.gateway.path("policy.json")).expect("it is there"), policy().to_string());
    // What is to be written all the time, such as records, has no room either, and that is told.
    let status = world.gateway.status();
    let mut checks = status["checks"].as_array().expect("a list").iter();
    assert!(checks.all(|check| check["name"] != "policy" || check["ok"] == true), "nothing changed: {status}");

    // Without storing it works, because closing something must not wait for room; that it is not recorded is said.
    let ran = world.gateway.tool_reading(&["apply", "--policy", "-"], &other);
    ran.must_succeed();
    assert!(ran.stderr.contains("not recorded"), "{}", ran.stderr);
    world.a.tcp(SITE, 443).must_be_reset();
    assert!(failed_check(&world, "policy").contains("not recorded"));
    world.gateway.terminate();
    world.gateway.start();
    world.a.tcp(SITE, 443).must_reach();
    disk.clear();
    world.gateway.import(&other);
    world.a.tcp(SITE, 443).must_be_reset();
    world.gateway.kill9();
}

#[test]
fn a_stored_policy_that_is_lost_while_the_daemon_runs_is_told() {
    let mut world = world!();
    world.gateway.enforce(policy());
    std::fs::remove_file(world.gateway.path("policy.json")).expect("it is there");
    assert!(failed_check(&world, "stored").contains("import"));
    world.gateway.store("{");
    assert!(failed_check(&world, "stored").contains("clawgress check"));
    assert_eq!(world.gateway.status()["drift"], true);
    world.a.tcp(OTHER, 443).must_be_reset();
}

#[test]
fn links_in_a_circle_leave_the_last_good_policy() {
    let mut world = world!();
    world.gateway.enforce(policy());
    world.gateway.terminate();
    let path = world.gateway.path("policy.json");
    std::fs::remove_file(&path).expect("it is there");
    std::os::unix::fs::symlink("policy.json", &path).expect("the directory is writable");
    // As after a reboot: nothing is left in the kernel.
    world.gateway.tool(&["teardown"]).must_succeed();
    world.gateway.start();
    world.a.tcp(SITE, 443).must_reach();
    world.a.tcp(OTHER, 443).must_be_reset();
    assert!(failed_check(&world, "policy").contains("symbolic links"));
}

#[test]
fn a_damaged_record_is_made_anew() {
    let mut world = world!();
    world.gateway.enforce(policy());
    world.gateway.terminate();
    std::fs::write(world.gateway.path("state/enforced.json"), "rubbish").expect("it is writable");
    world.gateway.start();
    assert!(world.gateway.log().contains("enforced.json is damaged"), "{}", world.gateway.log());
    assert_eq!(world.gateway.tool(&["health"]).code, Some(0), "it was mended");
    world.gateway.terminate();
    world.gateway.store("{");
    world.gateway.start();
    world.a.tcp(SITE, 443).must_reach();
    world.a.tcp(OTHER, 443).must_be_reset();
}

#[test]
fn a_second_daemon_is_turned_away_and_disturbs_nobody() {
    let mut world = world!();
    world.gateway.settings("[kernel]\nlock_table = false\n");
    world.gateway.enforce(policy());
    let told = second_daemon(&world, "clawgress.toml");
    assert!(told.contains("another clawgress runs"), "the port would be a misleading reason: {told}");
    // Other settings, the same socket.
    let text = std::fs::read_to_string(world.gateway.path("clawgress.toml")).expect("the lab wrote it");
    let text = text.replace(":53\"", ":5353\"").replace("/state\"", "/state2\"").replace("/policy.json", "/other.json");
    std::fs::write(world.gateway.path("second.toml"), text).expect("the temporary directory is writable");
    std::fs::write(world.gateway.path("other.json"), "{ \"version\": 1, \"allow\": { \"ips\": [\"0.0.0.0/0\"] } }")
        .expect("the temporary directory is writable");
    let told = second_daemon(&world, "second.toml");
    assert!(told.contains("another daemon answers"), "{told}");
    world.a.tcp(OTHER, 443).must_be_reset();
    world.gateway.tool(&["status"]).must_succeed();
}

/// What a second daemon says that does not start.
#[track_caller]
fn second_daemon(world: &World, settings: &str) -> String {
    let mut command = world.gateway.netns.command("timeout");
    command.arg("5").arg(binary()).args(["run", "--config"]).arg(world.gateway.path(settings));
    let done = command.output().expect("iproute2 is installed");
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{told}");
    told
}

#[test]
fn an_upstream_that_is_this_daemon_is_refused() {
    let mut world = world!();
    world.gateway.store(policy());
    let path = world.gateway.path("clawgress.toml");
    let text = std::fs::read_to_string(&path).expect("the lab wrote it");
    for own in ["127.0.0.1", "192.168.10.1", "::1"] {
        std::fs::write(&path, text.replace("9.9.9.9", own)).expect("the temporary directory is writable");
        let ran = world.gateway.fail_to_start();
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains(own) && ran.stderr.contains("this daemon itself"), "{}", ran.stderr);
    }
}

#[test]
fn upstreams_that_say_nothing_make_the_gateway_unhealthy_until_they_answer() {
    let mut world = world!();
    world.internet.upstream.host("a.example.com", &[SITE]);
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["*.example.com"] } }));
    assert_eq!(world.gateway.tool(&["health"]).code, Some(0));
    world.gateway.netns.ip("link set wan down\n");
    for n in 0..6 {
        let _ = world.a.lookup(&format!("n{n}.example.com"), RecordType::A);
    }
    assert!(failed_check(&world, "upstreams").contains("dns.upstreams"));
    assert_eq!(world.gateway.status()["state"], "degraded");
    world.gateway.netns.ip("link set wan up\nroute replace default via 45.60.255.2\n");
    world.gateway.wait_until("upstreams answer again", Duration::from_secs(15), |gateway| {
        let _ = world.a.lookup("a.example.com", RecordType::A);
        gateway.tool(&["health"]).code == Some(0)
    });
}

#[test]
fn an_import_on_its_way_is_ended_and_answered_before_the_daemon_ends() {
    let mut world = world!();
    world.gateway.enforce(policy());
    for round in 0..u32::try_from(rounds(12)).expect("not that many") {
        let new =
            json!({ "version": 1, "allow": { "ips": [SITE, std::net::Ipv4Addr::from_bits(0x2d00_0000 + round)] } });
        let new = new.to_string();
        let (gateway, daemon) = (&world.gateway, world.gateway.pid().expect("it runs").cast_signed());
        let ran = std::thread::scope(|scope| {
            let import = scope.spawn(|| gateway.tool_reading(&["import", "--policy", "-"], &new));
            std::thread::sleep(Duration::from_millis(u64::from(round % 6) * 4 + 6));
            kill(Pid::from_raw(daemon), Signal::SIGTERM).expect("the daemon is our child");
            import.join().expect("the tool ends")
        });
        world.gateway.terminate();
        let stored = std::fs::read_to_string(world.gateway.path("policy.json")).expect("it is there");
        assert_eq!(ran.code == Some(0), stored == new, "the tool says what was done: {}{}", ran.stdout, ran.stderr);
        assert!(!ran.stderr.contains("without an answer"), "round {round}: {}", ran.stderr);
        world.gateway.start();
        assert_eq!(world.gateway.tool(&["health"]).code, Some(0));
    }
}

#[test]
fn a_signal_right_after_readiness_is_understood() {
    let mut world = world!();
    world.gateway.store(policy());
    for _ in 0..rounds(10) {
        world.gateway.start();
        world.gateway.hangup();
        let told = world.gateway.tool(&["status"]);
        assert_eq!(told.code, Some(0), "the daemon is alive: {}{}", told.stderr, world.gateway.log());
        assert!(world.gateway.terminate().success());
    }
}

#[test]
fn names_are_looked_up_when_no_descriptor_is_left() {
    let mut world = world!();
    let names: Vec<String> = (0..100).map(|number| format!("n{number}.example.com")).collect();
    names.iter().for_each(|name| world.internet.upstream.host(name, &[SITE]));
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["*.example.com"] } }));
    // Each thread that asks has its sockets now.
    let (before, after) = names.split_at(40);
    before.iter().for_each(|name| assert_eq!(world.a.addresses(name).len(), 1, "{name}"));
    let pid = world.gateway.pid().expect("the daemon runs").to_string();
    run("prlimit", &["--nofile=3:", "--pid", &pid]);
    after.iter().for_each(|name| assert_eq!(world.a.addresses(name).len(), 1, "{name}"));
    let table = world.gateway.nft(&["list", "map", "inet", "clawgress", "dst4"]);
    assert!(table.must_succeed().contains(SITE), "leases were granted");
}

/// A small disk of its own over a directory; gone with the value.
pub(crate) struct Disk(std::path::PathBuf);

impl Disk {
    #[track_caller]
    pub(crate) fn mount(path: &std::path::Path) -> Self {
        run("mount", &["-t", "tmpfs", "-o", "size=128k", "tmpfs", &path.display().to_string()]);
        Self(path.to_owned())
    }

    pub(crate) fn fill(&self) {
        let filled = std::fs::write(self.0.join("ballast"), vec![b'x'; 256 * 1024]);
        assert!(filled.is_err(), "the disk is small");
    }

    pub(crate) fn clear(&self) {
        std::fs::remove_file(self.0.join("ballast")).expect("it is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["--lazy", &self.0.display().to_string()]);
    }
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let status = std::process::Command::new(program).args(arguments).status();
    assert!(status.is_ok_and(|status| status.success()), "{program} {arguments:?}");
}
