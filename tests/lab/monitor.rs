//! Monitor mode (SPEC section 2): everything passes, and every record says what enforcement would have done.

use std::time::{Duration, Instant};

use clawgress::decisions::{Action, Filter, Record};
use clawgress::policy::decision::Reason;
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use crate::log::{PATIENCE, find};
use crate::world::{Gateway, World};
use crate::{A, B, OTHER, OTHER6, SITE, SITE6};

/// In which nothing but SITE at port 443 is allowed.
fn policy(mode: &str, host_mode: Option<&str>) -> Value {
    let mut policy = json!({ "version": 1, "mode": mode, "time_zone": "UTC",
        "allow": { "ips": [SITE, SITE6], "ports": [443] },
        "deny": { "domains": ["bad.example.com"] },
        "hosts": { "a": { "sources": A }, "b": { "sources": B } } });
    if let Some(mode) = host_mode {
        policy["hosts"]["a"]["mode"] = json!(mode);
    }
    policy
}

fn would_be_refused(gateway: &Gateway, is: impl Fn(&Record) -> bool) -> Vec<Record> {
    let end = Instant::now() + PATIENCE;
    loop {
        let filter = Filter { action: Some(Action::Monitor), limit: Some(1000), ..Filter::default() };
        let found: Vec<Record> = find(gateway, filter).into_iter().filter(|record| is(record)).collect();
        if !found.is_empty() || Instant::now() > end {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn must_be_told(world: &World, reason: Reason, to: &str, port: u16) {
    let found = would_be_refused(&world.gateway, |record| {
        (record.reason, record.port, record.protocol.as_deref()) == (reason, Some(port), Some("tcp"))
            && record.address == to.parse().ok()
    });
    assert_eq!(found.len(), 1, "one record of {to}:{port} for {reason:?}: {found:?}");
    assert_eq!(found[0].host.as_deref(), Some("a"));
}

#[test]
fn everything_passes_and_is_told() {
    let mut world = world!();
    world.gateway.enforce(policy("monitor", None));
    world.internet.upstream.host("somewhere.example", &[OTHER]);
    world.internet.upstream.host("bad.example.com", &[OTHER]);
    for (address, port) in [(SITE, 443), (SITE, 80), (OTHER, 443), (OTHER6, 443), (SITE6, 8443)] {
        world.a.tcp(address, port).must_reach();
        world.a.udp(address, port).must_reach();
    }
    world.a.ping(OTHER).must_reach();
    for name in ["somewhere.example", "bad.example.com"] {
        world.a.resolve_and(name, RecordType::A, |address| world.a.tcp(address, 443)).must_reach();
    }
    // A flow that goes on is told once.
    let mut flow = world.a.flow(OTHER, 22);
    assert!((0..5).all(|_| flow.alive()));
    must_be_told(&world, Reason::PortNotAllowed, OTHER, 22);
    must_be_told(&world, Reason::PortNotAllowed, SITE6, 8443);
    for (name, reason) in [("somewhere.example", Reason::NotAllowlisted), ("bad.example.com", Reason::Denied)] {
        let found = would_be_refused(&world.gateway, |r| r.domain.as_deref() == Some(name) && r.reason == reason);
        assert!(!found.is_empty(), "{name}");
    }
    let blocked = find(&world.gateway, Filter { action: Some(Action::Block), ..Filter::default() });
    assert_eq!(blocked, [], "nothing was refused");
    let status = world.gateway.status();
    assert_eq!(status["state"], "monitoring", "{status}");
    let text = world.gateway.tool(&["status"]).must_succeed().to_owned();
    assert!(text.contains("nothing is blocked"), "{text}");
    let told = world.gateway.explain(world.a.v4, &["--ip", OTHER, "--port", "443"]);
    assert_eq!((&told["verdict"], &told["mode"]), (&json!("block"), &json!("monitor")), "{told}");
}

#[test]
fn one_host_is_watched_while_the_others_are_refused() {
    let mut world = world!();
    world.gateway.enforce(policy("enforce", Some("monitor")));
    world.a.tcp(OTHER, 443).must_reach();
    world.b.tcp(OTHER, 443).must_be_reset();
    world.b.udp(OTHER, 443).must_be_prohibited();
    let status = world.gateway.status();
    assert_eq!(status["state"], "enforcing", "{status}");
    let text = world.gateway.tool(&["status"]).must_succeed().to_owned();
    assert!(text.contains("nothing is blocked for a"), "{text}");

    // The other way round.
    world.gateway.import(policy("monitor", Some("enforce")));
    world.a.tcp(OTHER, 443).must_be_reset();
    world.b.tcp(OTHER, 443).must_reach();
    world.c.tcp(OTHER, 443).must_reach();
}

#[test]
fn switching_back_cuts_what_would_have_been_refused_and_nothing_else() {
    let mut world = world!();
    world.gateway.enforce(policy("monitor", None));
    let (mut good, mut bad, mut bad6) = (world.a.flow(SITE, 443), world.a.flow(OTHER, 443), world.b.flow(OTHER6, 443));
    assert!(good.alive() && bad.alive() && bad6.alive());
    world.gateway.import(policy("enforce", Some("monitor")));
    assert!(good.alive() && bad.alive(), "a is watched still");
    assert!(!bad6.alive(), "b is not");
    world.gateway.kill9();
    assert!(good.alive() && bad.alive());
    world.gateway.start();
    assert!(good.alive() && bad.alive(), "a restart changes nothing");
    world.b.tcp(OTHER, 443).must_be_reset();
    world.gateway.import(policy("enforce", None));
    assert!(good.alive());
    assert!(!bad.alive());
    world.a.tcp(OTHER, 443).must_be_reset();
}

#[test]
fn limits_are_told_and_not_enforced() {
    let mut world = world!();
    let mut policy = policy("monitor", None);
    policy["limits"] = json!({ "egress_kbps": 1 });
    policy["allow"]["domains"] = json!(["api.example.com"]);
    policy["hosts"]["a"]["exfil"] = json!({ "domains": { "api.example.com": { "bytes": 500, "period": "day" } } });
    world.internet.upstream.host("api.example.com", &[OTHER]);
    world.gateway.enforce(policy);
    for _ in 0..20 {
        world.a.reach("api.example.com", 443).must_reach();
    }
    let found = would_be_refused(&world.gateway, |record| record.reason == Reason::CapExhausted);
    assert_eq!(found[0].domain.as_deref(), Some("api.example.com"), "{found:?}");
    assert_eq!(found[0].path.as_deref(), Some("/hosts/a/exfil/domains/api.example.com"));
}
