//! A daemon that dies, ends or starts again: what is enforced stays enforced (SPEC section 4).

use std::time::Duration;

use serde_json::json;

use crate::{A, OTHER, OTHER6, SITE, SITE6, rounds};

fn policy() -> serde_json::Value {
    json!({ "version": 1, "allow": { "ips": [SITE, SITE6], "domains": ["api.example.com"] } })
}

#[test]
fn kill_9_neither_loses_nor_leaks_a_packet() {
    let mut world = world!();
    world.gateway.unlimited_icmp();
    world.gateway.enforce(policy());
    let allowed = [world.a.probe_tcp(SITE, 443), world.b.probe_udp(SITE6, 443)];
    let denied = [world.a.probe_udp(OTHER, 443), world.b.probe_udp(OTHER6, 443)];
    for _ in 0..rounds(5) {
        world.gateway.kill9();
        world.a.tcp(OTHER, 443).must_be_reset();
        world.a.tcp(SITE, 443).must_reach();
        world.gateway.start();
    }
    let (allowed, denied) = (allowed.map(|probe| probe.stop()), denied.map(|probe| probe.stop()));
    for report in allowed {
        report.must_be_whole();
    }
    for report in denied {
        report.must_be_dead();
    }
}

#[test]
fn a_dead_daemon_answers_no_name_and_opens_nothing() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[OTHER]);
    world.internet.foreign.host("api.example.com", &[OTHER]);
    world.gateway.enforce(policy());
    world.a.reach("api.example.com", 443).must_reach();
    world.gateway.kill9();
    world.a.tcp(OTHER, 443).must_reach();
    assert!(!world.b.resolve_and("other.example", hickory_proto::rr::RecordType::A, |a| world.b.tcp(a, 443)).reached());
    let server = crate::world::FOREIGN[0];
    let asked = world.b.dig("api.example.com", hickory_proto::rr::RecordType::A, server, crate::world::Over::Udp);
    assert!(asked.is_err(), "no other resolver may answer meanwhile");
    assert_eq!(world.internet.foreign.asked(), []);
    world.gateway.start();
    world.a.tcp(OTHER, 443).must_reach();
}

#[test]
fn sigterm_ends_cleanly_and_leaves_enforcement() {
    let mut world = world!();
    world.gateway.enforce(policy());
    let mut flow = world.a.flow(SITE, 443);
    assert!(world.gateway.terminate().success());
    for (site, other) in [(SITE, OTHER), (SITE6, OTHER6)] {
        world.a.tcp(site, 443).must_reach();
        world.a.tcp(other, 443).must_be_reset();
    }
    world.gateway.start();
    assert!(flow.alive());
}

#[test]
fn a_broken_stored_policy_leaves_the_last_good_one() {
    let mut world = world!();
    world.gateway.enforce(policy());
    world.gateway.terminate();
    world.gateway.store("{ \"version\": 1, ");
    world.gateway.start();
    world.a.tcp(SITE, 443).must_reach();
    world.a.tcp(OTHER, 443).must_be_reset();
    assert_ne!(world.gateway.status()["state"], "enforcing", "it is said");
}

#[test]
fn only_teardown_opens() {
    let mut world = world!();
    world.gateway.enforce(policy());
    world.gateway.tool(&["teardown"]).must_succeed();
    world.a.tcp(OTHER, 443).must_reach();
    assert_ne!(world.gateway.nft(&["list", "table", "inet", "clawgress"]).code, Some(0), "the table is gone");
}

#[test]
fn flows_of_a_table_that_was_torn_down_have_no_class_in_the_next() {
    let mut world = world!();
    for n in 0..100 {
        world.internet.upstream.host(&format!("n{n}.example.com"), &[&format!("151.101.3.{n}")]);
        world.internet.upstream.host(&format!("n{n}.example.org"), &[&format!("151.101.4.{n}")]);
    }
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["*.example.com"] } }));
    // More classes in a second than the clock sets numbers aside for.
    let address = |n: u8| world.a.addresses(&format!("n{n}.example.com"))[0];
    let mut flows: Vec<_> = (0..100).map(|n| world.a.flow(address(n), 443)).collect();
    world.gateway.tool(&["teardown"]).must_succeed();
    world.gateway.import(json!({ "version": 1, "allow": { "domains": ["*.example.org"] } }));
    for n in 0..100 {
        world.b.addresses(&format!("n{n}.example.org"));
    }
    let alive = flows.iter_mut().filter_map(|flow| flow.send(Duration::from_millis(50)).ok()).count();
    assert_eq!(alive, 0, "flows live on under somebody's number");
}

#[test]
fn what_a_policy_takes_back_while_the_daemon_is_dead_ends_when_it_is_back() {
    let mut world = world!();
    world.internet.upstream.host("one.example.com", &[SITE]);
    world.internet.upstream.host("two.example.com", &[OTHER]);
    let policy = |deny: &[&str], ports: &[u16], names: &[&str]| {
        json!({ "version": 1, "hosts": { "a": { "sources": A,
                "allow": { "domains": names, "ports": ports }, "deny": { "ips": deny } } } })
    };
    let both = ["one.example.com", "two.example.com"];
    world.gateway.enforce(policy(&[], &[443, 8443], &both));
    world.a.addresses("one.example.com");
    world.a.addresses("two.example.com");
    let (mut one, mut two) = (world.a.flow(SITE, 443), world.a.flow(OTHER, 443));
    let mut port = world.a.flow(SITE, 8443);
    let mut while_dead = |policy: serde_json::Value| {
        world.gateway.kill9();
        world.gateway.store(policy);
        world.gateway.start();
    };
    while_dead(policy(&[], &[443], &both));
    assert!(one.alive() && two.alive() && !port.alive(), "a port is closed");
    while_dead(policy(&[SITE], &[443], &both));
    assert!(!one.alive() && two.alive(), "an address is denied");
    while_dead(policy(&[SITE], &[443], &both[..1]));
    assert!(!two.alive(), "a name is gone");
    world.a.tcp(OTHER, 443).must_be_reset();
    world.a.tcp(SITE, 443).must_be_reset();
}

#[test]
fn a_foreign_change_is_repaired_within_a_second() {
    let mut world = world!();
    world.gateway.settings("[kernel]\nlock_table = false\n");
    world.gateway.enforce(policy());
    let changes: [&[&str]; 5] = [
        &["flush", "table", "inet", "clawgress"],
        &["delete", "table", "inet", "clawgress"],
        &["flush", "ruleset"],
        &["insert", "rule", "inet", "clawgress", "forward", "accept"],
        &["flush", "map", "inet", "clawgress", "up"],
    ];
    for change in changes {
        world.gateway.nft(change).must_succeed();
        world.gateway.wait_until(&change.join(" "), Duration::from_secs(10), |_| {
            !world.a.tcp(OTHER, 443).reached() && world.a.tcp(SITE, 443).reached()
        });
        world.a.tcp(OTHER, 443).must_be_reset();
    }
    assert!(world.gateway.log().contains("restored"), "somebody must be told");
}

#[test]
fn a_locked_table_cannot_be_changed_by_others() {
    let mut world = world!();
    world.gateway.enforce(policy());
    for change in [&["flush", "table", "inet", "clawgress"][..], &["delete", "table", "inet", "clawgress"]] {
        assert_ne!(world.gateway.nft(change).code, Some(0), "the kernel must refuse {change:?}");
    }
    world.gateway.nft(&["flush", "ruleset"]).must_succeed();
    world.a.tcp(OTHER, 443).must_be_reset();
    world.a.tcp(SITE, 443).must_reach();
    world.gateway.kill9();
    world.a.tcp(OTHER, 443).must_be_reset();
    world.a.tcp(SITE, 443).must_reach();
}

#[test]
fn sighup_reads_the_stored_policy_again() {
    let mut world = world!();
    world.gateway.enforce(policy());
    world.gateway.store(json!({ "version": 1, "allow": { "ips": [OTHER] } }));
    world.gateway.hangup();
    let patience = Duration::from_secs(10);
    world.gateway.wait_until("the new policy is in force", patience, |_| !world.a.tcp(SITE, 443).reached());
    world.a.tcp(SITE, 443).must_be_reset();
    world.a.tcp(OTHER, 443).must_reach();
}
