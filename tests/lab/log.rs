//! The decision log: every refusal is found at once, with host, name and the line of the policy (SPEC section 3).

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use clawgress::cli::client::Client;
use clawgress::daemon::protocol::{Logged, Request};
use clawgress::decisions::{Action, Filter, Layer, Record};
use clawgress::policy::decision::Reason;
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use crate::world::{Gateway, HELLO, World, ipv4};
use crate::{A, AGENTS, B, OTHER, OTHER6, SITE, SITE6};

/// The promise: from the refusal until `log` has it.
const AT_ONCE: Duration = Duration::from_millis(200);
/// How long a test looks before it says that there is no record.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What the daemon gives for a filter.
pub fn find(gateway: &Gateway, filter: Filter) -> Vec<Record> {
    let mut daemon = Client::connect(&gateway.path("run")).expect("the daemon listens");
    let answer = daemon.ask(Request::Log { follow: false, filter }).expect("the daemon answers");
    let logged: Logged = answer.data().expect("decision records");
    logged.records.iter().map(|record| (**record).clone()).collect()
}

/// What a record must say; what is not named is not looked at.
struct Due {
    what: &'static str,
    reason: Reason,
    layer: Layer,
    host: Option<&'static str>,
    domain: Option<&'static str>,
    to: Option<(&'static str, Option<u16>)>,
    path: Option<&'static str>,
}

impl Due {
    fn is(&self, record: &Record) -> bool {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        (record.reason, record.layer, record.action) == (self.reason, self.layer, Action::Block)
            && record.host.as_deref() == self.host
            && record.domain.as_deref() == self.domain
            && record.path.as_deref() == self.path
            && self.to.is_none_or(|(to, port)| record.address == Some(address(to)) && record.port == port)
    }

    /// Waits for the record; gives how long that took.
    #[track_caller]
    fn must_be_found(&self, gateway: &Gateway, refused: Instant) -> Duration {
        loop {
            let records = find(gateway, Filter { limit: Some(1000), ..Filter::default() });
            if records.iter().any(|record| self.is(record)) {
                return refused.elapsed();
            }
            let told = || records.iter().map(|record| format!("{record:?}\n")).collect::<String>();
            assert!(refused.elapsed() < PATIENCE, "{} is not in the log:\n{}", self.what, told());
        }
    }
}

pub fn policy() -> Value {
    let scope: Vec<&str> = AGENTS.into_iter().chain(["192.168.12.0/24"]).collect();
    json!({ "version": 1, "time_zone": "UTC", "scope": { "sources": scope },
        "labels": { "late.example.com": "night-shift", "*.example.com": "partner" },
        "deny": { "ips": ["93.184.216.99", "2606:4700::99"] },
        "domain_time_windows": { "late.example.com": never() },
        "hosts": {
            "a": { "sources": A, "allow": {
                "domains": ["api.example.com", "alias.example.com", "inside.example.com", "late.example.com"],
                "ips": [SITE], "ports": [443] }, "deny": { "domains": ["*.bad.example"] } },
            "b": { "sources": B, "allow": { "ips": [SITE6] }, "time_window": never() } } })
}

/// A window that is closed for another half day at least.
fn never() -> Value {
    let then = |hours| (chrono::Utc::now() + chrono::TimeDelta::hours(hours)).format("%H:%M").to_string();
    json!({ "start": then(12), "end": then(13) })
}

#[test]
fn every_reason_is_found_at_once_with_host_name_and_policy_line() {
    let mut world = world!();
    let upstream = &world.internet.upstream;
    upstream.host("api.example.com", &["151.101.0.1"]);
    upstream.host("inside.example.com", &["10.66.0.1"]);
    upstream.host("tracker.bad.example", &["151.101.0.9"]);
    upstream.alias("alias.example.com", "tracker.bad.example");
    world.gateway.enforce(policy());
    world.a.reach("api.example.com", 443).must_reach();
    let dns = |what, reason, domain, path| Due {
        what,
        reason,
        layer: Layer::Dns,
        host: Some("a"),
        domain: Some(domain),
        to: None,
        path: Some(path),
    };
    let packet = |what, reason, host, to, path| Due {
        what,
        reason,
        layer: Layer::Packet,
        host,
        domain: None,
        to: Some(to),
        path,
    };
    let look_up = |name: &'static str| move |world: &World| drop(world.a.lookup(name, RecordType::A));
    let connect = |to: &'static str, port| move |world: &World| world.a.tcp(to, port).must_be_reset();
    type Act = Box<dyn Fn(&World)>;
    let ports = Some("/hosts/a/allow/ports");
    let cases: Vec<(Act, Due)> = vec![
        (
            Box::new(look_up("elsewhere.example")),
            dns("a name on no list", Reason::NotAllowlisted, "elsewhere.example", "/hosts/a/allow/domains"),
        ),
        (
            Box::new(look_up("x.bad.example")),
            dns("a denied name", Reason::Denied, "x.bad.example", "/hosts/a/deny/domains/0"),
        ),
        (
            Box::new(look_up("alias.example.com")),
            dns("a denied alias", Reason::Denied, "alias.example.com", "/hosts/a/deny/domains/0"),
        ),
        (
            Box::new(look_up("inside.example.com")),
            Due {
                path: None,
                to: Some(("10.66.0.1", None)),
                ..dns("a name that points inside", Reason::Rebinding, "inside.example.com", "")
            },
        ),
        (
            Box::new(look_up("late.example.com")),
            dns(
                "a name out of its hours",
                Reason::WindowClosed,
                "late.example.com",
                "/domain_time_windows/late.example.com",
            ),
        ),
        (
            Box::new(connect(OTHER, 443)),
            packet("a denied address", Reason::Denied, Some("a"), (OTHER, Some(443)), Some("/deny/ips/0")),
        ),
        (
            Box::new(connect(OTHER6, 443)),
            packet("a denied address, IPv6", Reason::Denied, Some("a"), (OTHER6, Some(443)), Some("/deny/ips/1")),
        ),
        (Box::new(connect(SITE, 80)), packet("a port", Reason::PortNotAllowed, Some("a"), (SITE, Some(80)), ports)),
        (
            Box::new(connect("151.101.0.1", 22)),
            Due {
                domain: Some("api.example.com"),
                ..packet("a port of a name", Reason::PortNotAllowed, Some("a"), ("151.101.0.1", Some(22)), ports)
            },
        ),
        (
            Box::new(|world| world.a.udp(SITE, 8443).must_be_prohibited()),
            packet("a UDP port", Reason::PortNotAllowed, Some("a"), (SITE, Some(8443)), ports),
        ),
        (
            Box::new(|world| world.a.raw(47, SITE, &[0; 16]).must_be_prohibited()),
            packet("a protocol", Reason::PortNotAllowed, Some("a"), (SITE, None), None),
        ),
        (
            Box::new(connect("151.101.0.2", 443)),
            packet(
                "an address nobody gave",
                Reason::NoLease,
                Some("a"),
                ("151.101.0.2", Some(443)),
                Some("/hosts/a/allow/domains"),
            ),
        ),
        (
            Box::new(|world| world.a.ping("151.101.0.3").must_be_prohibited()),
            packet("an echo", Reason::NoLease, Some("a"), ("151.101.0.3", None), Some("/hosts/a/allow/domains")),
        ),
        (
            Box::new(connect("10.66.0.7", 443)),
            packet(
                "a private address",
                Reason::NotAllowlisted,
                Some("a"),
                ("10.66.0.7", Some(443)),
                Some("/hosts/a/allow/ips"),
            ),
        ),
        (
            Box::new(|world| world.b.tcp(SITE6, 443).must_be_reset()),
            packet(
                "a host out of its hours",
                Reason::WindowClosed,
                Some("b"),
                (SITE6, Some(443)),
                Some("/hosts/b/time_window"),
            ),
        ),
        (
            Box::new(|world| world.c.tcp(SITE, 443).must_be_reset()),
            packet("a source of no host", Reason::NotAllowlisted, None, (SITE, Some(443)), None),
        ),
        (
            Box::new(|world| world.internet.peer.tcp_within(world.a.v4, 4444, AT_ONCE).must_time_out()),
            packet(
                "an answer to somebody outside",
                Reason::PortNotAllowed,
                Some("a"),
                ("45.60.255.2", Some(4444)),
                ports,
            ),
        ),
        (
            Box::new(|world| assert!(!world.a.tcp(world.a.router4, 22).reached())),
            packet("the gateway's own service", Reason::NotAllowlisted, Some("a"), ("192.168.10.1", Some(22)), None),
        ),
        (
            Box::new(|world| world.a.send_packet(&ipv4(world.a.v4, SITE.parse().unwrap(), 6, &[0; 20]))),
            packet("rubbish", Reason::Malformed, Some("a"), (SITE, Some(0)), None),
        ),
        (
            Box::new(|world| drop(world.a.udp_from((world.b.v4, 4242), (SITE, 443), HELLO))),
            packet("a borrowed source", Reason::Malformed, None, (SITE, Some(443)), None),
        ),
    ];
    let mut delays = Vec::new();
    for (act, due) in &cases {
        act(&world);
        delays.push(due.must_be_found(&world.gateway, Instant::now()));
    }
    delays.sort();
    println!("from the refusal to the log: {delays:?}");
    let late = delays.iter().filter(|delay| **delay > AT_ONCE).count();
    assert!(late * 10 <= delays.len(), "{late} of {} came later than {AT_ONCE:?}: {delays:?}", delays.len());

    // The labels, by the entry that is closest.
    let label = |name: &str| {
        let found = find(&world.gateway, Filter { domain: Some(name.into()), ..Filter::default() });
        found.last().and_then(|record| record.label.as_deref().map(str::to_owned))
    };
    assert_eq!(label("late.example.com").as_deref(), Some("night-shift"));
    assert_eq!(label("inside.example.com").as_deref(), Some("partner"));
    assert_eq!(label("elsewhere.example"), None);
}

#[test]
fn what_a_host_was_told_earlier_is_still_named() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &["151.101.0.1"]);
    world.gateway.enforce(policy());
    let mut flow = {
        let address = world.a.addresses("api.example.com")[0];
        world.a.flow(address, 443)
    };
    let mut without = policy();
    without["hosts"]["a"]["allow"]["domains"] = json!(["alias.example.com"]);
    world.gateway.import(without);
    assert!(!flow.alive(), "the flow is cut");
    let due = Due {
        what: "a flow that was cut",
        reason: Reason::NoLease,
        layer: Layer::Packet,
        host: Some("a"),
        domain: Some("api.example.com"),
        to: Some(("151.101.0.1", Some(443))),
        path: Some("/hosts/a/allow/domains"),
    };
    due.must_be_found(&world.gateway, Instant::now());
    // Nobody told b.
    world.b.tcp("151.101.0.1", 443).must_be_reset();
    Due { host: Some("b"), domain: None, reason: Reason::NotAllowlisted, path: Some("/hosts/b/allow/ips"), ..due }
        .must_be_found(&world.gateway, Instant::now());
}

#[test]
fn the_tool_shows_what_is_asked_for() {
    let mut world = world!();
    world.gateway.enforce(policy());
    world.a.tcp(OTHER, 443).must_be_reset();
    world.gateway.wait_until("the first record", PATIENCE, |gateway| find(gateway, Filter::default()).len() == 1);
    let _ = world.a.lookup("one.elsewhere.example", RecordType::A);
    let _ = world.a.lookup("two.elsewhere.example", RecordType::A);
    let lines = |arguments: &[&str]| {
        let ran = world.gateway.tool(&[&["log", "--json"], arguments].concat());
        let lines: Vec<Value> =
            ran.must_succeed().lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
        lines
    };
    world.gateway.wait_until("three records", PATIENCE, |_| lines(&[]).len() == 3);
    let ids: Vec<u64> = lines(&[]).iter().map(|line| line["id"].as_u64().expect("a number")).collect();
    assert!(ids.is_sorted(), "oldest first: {ids:?}");
    for (arguments, due) in [
        (&["--domain", "elsewhere.example"][..], 2),
        (&["--domain", "two.elsewhere.example"], 1),
        (&["--protocol", "tcp"], 1),
        (&["--host", "a"], 3),
        (&["--host", "b"], 0),
        (&["--action", "block"], 3),
        (&["--action", "allow"], 0),
        (&["--grep", "/DENY/ips/0"], 1),
        (&["--since", "1h"], 3),
        (&["--since", "2099-01-01T00:00:00Z"], 0),
        (&["--limit", "2"], 2),
    ] {
        assert_eq!(lines(arguments).len(), due, "{arguments:?}");
    }
    assert_eq!(lines(&["--limit", "1"])[0]["domain"], "two.elsewhere.example", "the latest");
    let text = world.gateway.tool(&["log"]);
    let text = text.must_succeed();
    assert_eq!(text.lines().count(), 4, "a head and three lines: {text}");
    assert!(text.contains("tcp 93.184.216.99:443") && text.contains("dns one.elsewhere.example"), "{text}");
    assert!(!text.contains('\x1b'), "no colours in a pipe");
    assert_eq!(world.gateway.tool(&["log", "--since", "soon"]).code, Some(2));

    // What was recorded outlives the daemon, and the numbers go on.
    world.gateway.terminate();
    world.gateway.start();
    world.a.tcp(OTHER, 443).must_be_reset();
    world.gateway.wait_until("four records", PATIENCE, |gateway| find(gateway, Filter::default()).len() == 4);
    let again: Vec<u64> = find(&world.gateway, Filter::default()).iter().map(|record| record.id).collect();
    assert_eq!(again[..3], ids);
    assert!(again[3] > ids[2]);
}

#[test]
fn who_follows_sees_decisions_as_they_come() {
    let mut world = world!();
    world.gateway.enforce(policy());
    let mut command = world.gateway.netns.command(crate::world::binary());
    command.args(["log", "--follow", "--json", "--host", "a", "--config"]).arg(world.gateway.path("clawgress.toml"));
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the tool starts");
    let mut lines = BufReader::new(child.stdout.take().expect("was piped")).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("it goes on").expect("text");
        serde_json::from_str(&line).expect("one object a line")
    };
    world.gateway.wait_until("it follows", PATIENCE, |_| {
        world.a.tcp(OTHER, 443).must_be_reset();
        true
    });
    assert_eq!(next()["address"], OTHER);
    world.b.tcp(OTHER, 443).must_be_reset();
    for port in [444, 445] {
        world.a.tcp(SITE, port).must_be_reset();
        let line = next();
        assert_eq!((line["port"].as_u64(), line["host"].as_str()), (Some(port.into()), Some("a")), "{line}");
    }
    // The daemon does not wait for those who follow.
    let begin = Instant::now();
    world.gateway.terminate();
    assert!(begin.elapsed() < Duration::from_secs(4), "the end took {:?}", begin.elapsed());
    assert!(lines.next().is_none(), "it ends with the daemon");
    assert_eq!(child.wait().expect("our child").code(), Some(1));
}

#[test]
fn all_decisions_are_recorded_where_that_is_set_and_none_where_not() {
    let mut world = world!();
    world.internet.upstream.host("api.example.com", &["151.101.0.1"]);
    world.gateway.settings("[log]\ndecisions = \"all\"\n");
    world.gateway.enforce(policy());
    world.a.reach("api.example.com", 443).must_reach();
    let mut flow = world.a.flow(SITE, 443);
    for _ in 0..20 {
        assert!(flow.alive());
    }
    world.b.tcp(SITE6, 443).must_be_reset();
    let allowed = |gateway: &Gateway| find(gateway, Filter { action: Some(Action::Allow), ..Filter::default() });
    world.gateway.wait_until("three records of what passed", PATIENCE, |gateway| allowed(gateway).len() >= 3);
    std::thread::sleep(AT_ONCE);
    let found = allowed(&world.gateway);
    let told: Vec<_> = found
        .iter()
        .map(|record| (record.layer, record.domain.as_deref(), record.path.as_deref(), record.label.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            (Layer::Dns, Some("api.example.com"), Some("/hosts/a/allow/domains/0"), Some("partner")),
            (Layer::Packet, Some("api.example.com"), Some("/hosts/a/allow/domains/0"), Some("partner")),
            (Layer::Packet, None, Some("/hosts/a/allow/ips/0"), None),
        ],
        "one record a flow, and none of b's, whose window is closed: {found:?}"
    );
    world.gateway.terminate();
    world.gateway.settings("[log]\ndecisions = \"none\"\n");
    world.gateway.start();
    let before = find(&world.gateway, Filter::default()).len();
    world.a.tcp(OTHER, 443).must_be_reset();
    std::thread::sleep(AT_ONCE);
    assert_eq!(find(&world.gateway, Filter::default()).len(), before, "what was recorded is still shown");
    world.gateway.wait_until("no packet is copied", PATIENCE, |gateway| {
        !gateway.nft(&["list", "table", "inet", "clawgress"]).stdout.contains("log prefix")
    });
}
