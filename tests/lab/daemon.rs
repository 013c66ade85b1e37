//! The daemon and the tool around it: states, refusals in words, nothing lost (SPEC sections 3 and 4).

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::json;

use crate::{OTHER, SITE};

/// Long enough for a start that is not announced, because nothing is enforced.
const START: Duration = Duration::from_secs(5);

fn policy() -> serde_json::Value {
    json!({ "version": 1, "allow": { "ips": [SITE] } })
}

#[test]
fn without_a_policy_nothing_is_enforced_and_that_is_said() {
    let mut world = world!();
    world.gateway.launch();
    world.gateway.wait_until("the daemon answers", START, |gateway| gateway.tool(&["status"]).code == Some(0));
    assert_eq!(world.gateway.status()["state"], "unconfigured");
    let words = world.gateway.tool(&["status"]);
    assert!(words.must_succeed().contains("import"), "how to go on: {}", words.stdout);
    world.a.tcp(OTHER, 22).must_reach();
    world.gateway.import(policy());
    assert_eq!(world.gateway.status()["state"], "enforcing");
    world.a.tcp(OTHER, 443).must_be_reset();
}

#[test]
fn a_running_daemon_can_be_read() {
    let mut world = world!();
    world.gateway.enforce(policy());
    let status = world.gateway.status();
    assert_eq!((status["state"].as_str(), status["drift"].as_bool()), (Some("enforcing"), Some(false)), "{status}");
    assert_eq!(world.gateway.tool(&["health", "--json"]).json()["healthy"], true);
    for command in ["show", "history", "rpz"] {
        world.gateway.tool(&[command, "--json"]).must_succeed();
    }
    assert!(world.gateway.tool(&["firewall"]).must_succeed().contains("clawgress"));
    let mode = std::fs::metadata(world.gateway.path("run/clawgress.sock")).expect("the socket is there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600, "root's alone");
}

#[test]
fn without_a_daemon_the_tool_says_so_in_one_line() {
    let world = world!();
    for command in ["status", "health", "history", "firewall"] {
        let ran = world.gateway.tool(&[command]);
        assert_eq!((ran.code, ran.stderr.lines().count()), (Some(1), 1), "{command}: {}", ran.stderr);
    }
    let ran = world.gateway.tool_reading(&["check", "--policy", "-"], &policy().to_string());
    ran.must_succeed();
}

#[test]
fn what_is_not_enforced_yet_is_refused() {
    let mut world = world!();
    world.gateway.enforce(policy());
    let parts = [
        ("/limits", json!({ "limits": { "egress_kbps": 100_000_001 } })),
        (
            "/deny/domain_lists/0/file: cannot read /nowhere",
            json!({ "deny": { "domain_lists": [{ "name": "a", "file": "/nowhere", "format": "hosts" }] } }),
        ),
    ];
    for (place, part) in parts {
        let mut whole = policy();
        for (key, value) in part.as_object().expect("an object") {
            whole[key] = value.clone();
        }
        let ran = world.gateway.tool_reading(&["import", "--policy", "-"], &whole.to_string());
        assert_eq!(ran.code, Some(1), "{place} must not be half enforced");
        assert!(ran.stderr.contains(place), "{place} is named: {}", ran.stderr);
        world.a.tcp(SITE, 443).must_reach();
        world.a.tcp(OTHER, 443).must_be_reset();
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let mut world = world!();
    world.gateway.servers.echo(&[53]);
    world.gateway.store(policy());
    let ran = world.gateway.fail_to_start();
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("53"), "which port: {}", ran.stderr);
}

#[test]
fn an_unknown_setting_is_named() {
    let mut world = world!();
    world.gateway.store(policy());
    world.gateway.settings("redirct = true\n");
    let ran = world.gateway.fail_to_start();
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("redirct") && ran.stderr.contains("redirect"), "and the nearest: {}", ran.stderr);
}

#[test]
fn an_upstream_that_cannot_be_reached_blocks_no_verdict() {
    let mut world = world!();
    let text = std::fs::read_to_string(world.gateway.path("clawgress.toml")).expect("the lab wrote it");
    // Nobody has this address, and nobody says so.
    let text = text.replace("[\"9.9.9.9\"]", "[\"198.18.0.1\"]");
    std::fs::write(world.gateway.path("clawgress.toml"), text).expect("the temporary directory is writable");
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["example.com"], "ips": [SITE] } }));
    world.a.tcp(SITE, 443).must_reach();
    world.a.reach("blocked.example", 443).must_be_blocked_by_name();
    let reply = world.a.lookup("example.com", hickory_proto::rr::RecordType::A).expect("an answer, not silence");
    assert_eq!(reply.code(), "SERVFAIL");
}

#[test]
fn other_tables_are_left_alone() {
    let mut world = world!();
    world
        .gateway
        .nft_load("table inet other {\n chain forward {\n type filter hook forward priority 10\n counter\n }\n}\n");
    world.gateway.enforce(policy());
    world.gateway.import(json!({ "version": 1 }));
    world.gateway.tool(&["teardown"]).must_succeed();
    let left = world.gateway.nft(&["list", "tables"]).stdout;
    assert_eq!(left.trim(), "table inet other");
}
