//! Time windows (SPEC section 2, meaning 4): what closes stops, open flows included, and what opens opens.

use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use crate::world::{Over, Probe};
use crate::{A, B, OTHER, SITE, SITE6, rounds};

/// How long after an edge anything may still be as before it.
const PROMPT: Duration = Duration::from_secs(1);

/// A window in UTC from an hour ago to `end`.
fn until(end: DateTime<Utc>) -> Value {
    json!({ "start": time(Utc::now() - TimeDelta::hours(1)), "end": time(end) })
}

/// A window in UTC from `start` for an hour.
fn from(start: DateTime<Utc>) -> Value {
    json!({ "start": time(start), "end": time(start + TimeDelta::hours(1)) })
}

fn time(at: DateTime<Utc>) -> String {
    at.format("%H:%M:%S").to_string()
}

/// A full second, at least `seconds` away.
fn soon(seconds: i64) -> DateTime<Utc> {
    (Utc::now() + TimeDelta::seconds(seconds + 1)).trunc_subsecs(0)
}

fn wait_for(at: DateTime<Utc>) {
    std::thread::sleep((at - Utc::now()).to_std().unwrap_or_default());
}

/// How long after `edge` a TCP flow saw its end; it must have worked until then. `start`: just after the probe's.
#[track_caller]
fn cut_after(probe: Probe, start: Instant, edge: Instant) -> Duration {
    let report = probe.stop();
    let (when, _) = report.errors.first().expect("the flow must be cut");
    assert!(report.answered > 0, "the flow must work before the edge");
    let end = start + *when;
    assert!(end + Duration::from_millis(100) > edge, "cut {:?} before the edge", edge - end);
    end.saturating_duration_since(edge)
}

fn instant_of(at: DateTime<Utc>) -> Instant {
    Instant::now() + (at - Utc::now()).to_std().unwrap_or_default()
}

fn policy(window: Value) -> Value {
    json!({ "version": 1, "time_zone": "UTC", "hosts": {
        "a": { "sources": A, "allow": { "domains": ["api.example.com"], "ips": [SITE] }, "time_window": window },
        "b": { "sources": B, "allow": { "ips": [SITE, SITE6] } } } })
}

#[test]
fn open_flows_stop_at_the_closing_edge_and_others_do_not() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[OTHER, SITE6]);
    world.gateway.enforce(policy(json!({ "start": "00:00", "end": "23:59:59" })));
    let mut worst = Duration::ZERO;
    for _ in 0..rounds(2) {
        let edge = soon(2);
        world.gateway.import(policy(until(edge)));
        world.a.reach("api.example.com", 443).must_reach();
        world.a.reach6("api.example.com", 443).must_reach();
        let flows = [world.a.probe_tcp(SITE, 443), world.a.probe_tcp(OTHER, 443), world.a.probe_tcp(SITE6, 443)];
        let other = world.b.probe_tcp(SITE, 443);
        let (start, end) = (Instant::now(), instant_of(edge));
        wait_for(edge + TimeDelta::milliseconds(1200));
        for flow in flows {
            worst = worst.max(cut_after(flow, start, end));
        }
        other.stop().must_be_whole();
        world.a.tcp(SITE, 443).must_be_reset();
    }
    println!("worst case after the edge: {worst:?}");
    assert!(worst < PROMPT, "{worst:?}");
}

#[test]
fn the_kernel_shuts_when_the_daemon_is_dead() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[OTHER]);
    let edge = soon(2);
    world.gateway.enforce(policy(until(edge)));
    world.a.reach("api.example.com", 443).must_reach();
    let flows = [world.a.probe_tcp(SITE, 443), world.a.probe_tcp(OTHER, 443)];
    let (start, end) = (Instant::now(), instant_of(edge));
    world.gateway.kill9();
    wait_for(edge + TimeDelta::milliseconds(1200));
    for flow in flows {
        assert!(cut_after(flow, start, end) < PROMPT);
    }
    world.a.tcp(SITE, 443).must_be_reset();
    world.gateway.start();
    world.a.tcp(SITE, 443).must_be_reset();
}

#[test]
fn what_opens_opens_at_once_and_says_so_before() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[OTHER]);
    let edge = soon(2);
    world.gateway.enforce(policy(from(edge)));
    world.a.tcp(SITE, 443).must_be_reset();
    let reply = world.a.dig("api.example.com", RecordType::A, world.a.router4, Over::Udp).expect("an answer");
    let (code, reason) = reply.ede().expect("an Extended DNS Error");
    assert!(code == 15 && reason.contains("window-closed"), "{code} {reason}");
    assert_eq!(world.internet.upstream.asked(), [], "a closed name is not asked for");
    for target in [["--ip", SITE], ["--domain", "api.example.com"]] {
        let said = world.gateway.explain(world.a.v4, &target);
        assert_eq!((said["verdict"].as_str(), said["reason"].as_str()), (Some("block"), Some("window-closed")));
        assert_eq!(said["path"], "/hosts/a/time_window");
        let later = (edge + TimeDelta::minutes(1)).to_rfc3339();
        let then = world.gateway.explain(world.a.v4, &[target[0], target[1], "--at", &later]);
        assert_eq!(then["verdict"], "allow");
    }
    wait_for(edge + TimeDelta::milliseconds(200));
    world.a.tcp(SITE, 443).must_reach();
    // The refusal may be remembered for ten seconds by a resolver of the agent's own; ours asks again.
    world.a.reach("api.example.com", 443).must_reach();
}

#[test]
fn a_names_window_closes_that_name_only() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &[SITE]);
    world.internet.upstream.host("other.example.com", &[OTHER]);
    let policy = |window: Value| {
        json!({ "version": 1, "time_zone": "UTC", "allow": { "domains": ["*.example.com"] },
                "domain_time_windows": { "api.example.com": window } })
    };
    let edge = soon(2);
    world.gateway.enforce(policy(until(edge)));
    world.a.reach("api.example.com", 443).must_reach();
    world.a.reach("other.example.com", 443).must_reach();
    let (shuts, stays) = (world.a.probe_tcp(SITE, 443), world.a.probe_tcp(OTHER, 443));
    let (start, end) = (Instant::now(), instant_of(edge));
    wait_for(edge + TimeDelta::milliseconds(1200));
    assert!(cut_after(shuts, start, end) < PROMPT);
    stays.stop().must_be_whole();
    world.a.tcp(SITE, 443).must_be_reset();
    world.a.tcp(OTHER, 443).must_reach();
}

#[test]
fn a_hundred_flows_are_cut_together() {
    let mut world = world!();
    let edge = soon(3);
    world.gateway.enforce(policy(until(edge)));
    let mut flows: Vec<_> = (0..100).map(|_| world.a.flow(SITE, 443)).collect();
    assert!(flows.iter_mut().all(|flow| flow.alive()));
    wait_for(edge + TimeDelta::milliseconds(50));
    let alive = flows.iter_mut().filter_map(|flow| flow.alive().then_some(())).count();
    assert_eq!(alive, 0, "flows alive 50 ms after the edge");
}

#[test]
fn a_window_that_closes_is_not_reopened_by_a_change_of_policy_or_a_restart() {
    let mut world = world!();
    let edge = soon(2);
    world.gateway.enforce(policy(until(edge)));
    world.a.tcp(SITE, 443).must_reach();
    wait_for(edge + TimeDelta::milliseconds(100));
    let mut next = policy(until(edge));
    next["hosts"]["a"]["allow"]["ports"] = json!([443, 8443]);
    world.gateway.import(next);
    world.a.tcp(SITE, 443).must_be_reset();
    world.gateway.kill9();
    world.gateway.start();
    world.a.tcp(SITE, 443).must_be_reset();
    world.gateway.import(policy(json!({ "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"] })));
    world.a.tcp(SITE, 443).must_reach();
}

/// Sets the clock of the whole machine, so nobody but a person asks for it: two hours ahead and back.
#[test]
#[ignore = "sets the machine's clock"]
fn the_clock_may_be_set() {
    let mut world = world!();
    let edge = Utc::now() + TimeDelta::hours(1);
    world.gateway.enforce(policy(until(edge)));
    let mut flow = world.a.flow(SITE, 443);
    assert!(flow.alive());
    let step = |seconds: i64| {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME).expect("the clock");
        let then = nix::sys::time::TimeSpec::new(now.tv_sec() + seconds, now.tv_nsec());
        nix::time::clock_settime(nix::time::ClockId::CLOCK_REALTIME, then).expect("root may set the clock");
        std::thread::sleep(Duration::from_millis(500));
    };
    step(7200);
    let ahead = (flow.alive(), world.a.tcp(SITE, 443).reached());
    step(-7200);
    let back = world.a.tcp(SITE, 443).reached();
    assert_eq!((ahead, back), ((false, false), true));
}
