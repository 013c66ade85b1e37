//! VyOS: what `set service clawgress` lines say is what packets meet (SPEC section 6). The lines become a policy by the
//! scripts that a router runs.

use std::io::Write as _;
use std::process::{Command, Stdio};

use hickory_proto::rr::RecordType;
use serde_json::Value;

use crate::world::{Gateway, Over, binary};
use crate::{OTHER, SITE, SITE6};

/// The lines of the contract, verbatim.
const CONTRACT: &str = include_str!("../vyos/contract.txt");
/// An address of the network that the contract allows, and the network.
const ALLOWED: (&str, &str) = ("1.2.3.4", "1.2.3.0/24");
const NAME: &str = "api.openai.com";

/// The policy that a commit of these lines hands over.
#[track_caller]
fn converted(lines: &str) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vyos/router.py");
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-B", script]).env("CLAWGRESS_PROGRAM", binary());
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("python3 is installed (packaging/setup vyos)");
    child.stdin.take().expect("was piped").write_all(lines.as_bytes()).expect("the script reads all");
    let done = child.wait_with_output().expect("a child can be waited for");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).expect("the script prints JSON")
}

#[track_caller]
fn policy(lines: &[&str]) -> Value {
    converted(&lines.iter().map(|line| format!("set service clawgress policy {line}\n")).collect::<String>())
}

/// The lines without those that hold one of the words.
fn without(lines: &str, words: &[&str]) -> String {
    lines.lines().filter(|line| !words.iter().any(|word| line.contains(word))).map(|line| format!("{line}\n")).collect()
}

/// Words of lines that ask for what this build does not enforce. Such lines must be refused, each by its name.
#[track_caller]
fn not_enforced(gateway: &Gateway, document: &Value) -> Vec<&'static str> {
    let missing = gateway.tool_reading(&["check", "--json", "--policy", "-"], &document.to_string()).json();
    let paths: Vec<&str> =
        missing["not_enforced"].as_array().into_iter().flatten().filter_map(|entry| entry["path"].as_str()).collect();
    if !paths.is_empty() {
        let refused = gateway.tool_reading(&["import", "--policy", "-"], &document.to_string());
        assert_eq!(refused.code, Some(1), "what does not hold may not be taken");
        assert!(paths.iter().all(|path| refused.stderr.contains(path)), "{}", refused.stderr);
    }
    let known = [("/limits/", "rate-limit-kbps"), ("/exfil/", "exfil")];
    known.into_iter().filter(|(part, _)| paths.iter().any(|path| path.contains(part))).map(|(_, word)| word).collect()
}

#[test]
fn the_contracts_lines_are_enforced() {
    let mut world = world!();
    // The internet answers there too.
    world.internet.peer.netns.ip(&format!("route add local {} dev lo", ALLOWED.1));
    for name in [NAME, "other.example.com"] {
        world.internet.upstream.host(name, &[SITE]);
    }
    world.gateway.start();
    let whole = converted(CONTRACT);
    let missing = not_enforced(&world.gateway, &whole);

    // Its two windows, Monday and Friday, are never open at once; so first without them.
    let mut words = missing.clone();
    words.push("time-window");
    world.gateway.import(converted(&without(CONTRACT, &words)));
    for agent in [&world.a, &world.b] {
        agent.reach(NAME, 443).must_reach();
        agent.tcp(ALLOWED.0, 443).must_reach();
        agent.tcp(ALLOWED.0, 80).must_be_reset();
        agent.tcp(OTHER, 443).must_be_reset();
        agent.reach("other.example.com", 443).must_be_blocked_by_name();
    }
    let said = world.gateway.explain(world.a.v4, &["--domain", NAME]);
    assert_eq!((said["verdict"].as_str(), said["host"].as_str()), (Some("allow"), Some("agent-1")));
    let said = world.gateway.explain(world.b.v4, &["--domain", NAME]);
    assert_eq!((said["verdict"].as_str(), said["host"].as_str()), (Some("allow"), None));

    // 2026-11-23 is a Monday. The lines name no zone; with one the instants are the same on every machine.
    let zoned = |lines: &str| format!("set service clawgress policy time-zone UTC\n{lines}");
    world.gateway.import(converted(&zoned(&without(CONTRACT, &missing))));
    let now = chrono::Utc::now().to_rfc3339();
    for (target, at, verdict, reason) in [
        (["--ip", ALLOWED.0], "2026-11-23T09:00:00Z", "allow", "allowed"),
        (["--ip", ALLOWED.0], "2026-11-23T16:59:59Z", "allow", "allowed"),
        (["--ip", ALLOWED.0], "2026-11-23T08:59:59Z", "block", "window-closed"),
        (["--ip", ALLOWED.0], "2026-11-23T17:00:00Z", "block", "window-closed"),
        (["--ip", ALLOWED.0], "2026-11-24T10:00:00Z", "block", "window-closed"),
        (["--domain", NAME], "2026-11-23T10:30:00Z", "block", "window-closed"),
        (["--domain", NAME], "2026-11-27T10:30:00Z", "block", "window-closed"),
    ] {
        let said = world.gateway.explain(world.a.v4, &[target[0], target[1], "--port", "443", "--at", at]);
        assert_eq!(
            (said["verdict"].as_str(), said["reason"].as_str()),
            (Some(verdict), Some(reason)),
            "{target:?} {at}"
        );
    }
    world.a.reach(NAME, 443).must_be_blocked_by_name();
    let said = world.gateway.explain(world.a.v4, &["--ip", ALLOWED.0, "--port", "443", "--at", &now]);
    assert_eq!(world.a.tcp(ALLOWED.0, 443).reached(), said["verdict"] == "allow", "{said}");

    // The domain's own window, with the global one out of the way.
    let global = ["policy time-window"];
    let rest = without(&without(CONTRACT, &missing), &global);
    world.gateway.import(converted(&zoned(&rest)));
    for (at, verdict) in [("2026-11-27T10:30:00Z", "allow"), ("2026-11-27T11:00:00Z", "block")] {
        let said = world.gateway.explain(world.a.v4, &["--domain", NAME, "--at", at]);
        assert_eq!(said["verdict"], verdict, "{at}");
    }
}

#[test]
fn names_from_the_command_line_are_those_of_the_packets() {
    let mut world = world!();
    let label = "x".repeat(63);
    let names = [
        "my-site.example.com",
        "deep.below.wild-card.example.com",
        "xn--bcher-kva.example",
        &format!("{label}.example.com"),
    ];
    for name in names {
        world.internet.upstream.host(name, &[SITE]);
    }
    world.internet.upstream.host("wild-card.example.com", &[SITE]);
    world.gateway.enforce(policy(&[
        "host agent-1.lab_2 source 192.168.10.10",
        "host agent-1.lab_2 domain my-site.example.com",
        "host agent-1.lab_2 domain '*.wild-card.example.com'",
        "host agent-1.lab_2 domain bücher.example",
        &format!("host agent-1.lab_2 domain {label}.example.com"),
    ]));
    for name in names {
        world.a.reach(name, 443).must_reach();
        world.b.reach(name, 443).must_be_blocked_by_name();
        let said = world.gateway.explain(world.a.v4, &["--domain", name]);
        assert_eq!((said["verdict"].as_str(), said["host"].as_str()), (Some("allow"), Some("agent-1.lab_2")), "{name}");
    }
    world.a.reach("wild-card.example.com", 443).must_be_blocked_by_name();
    world.a.reach("my_site.example.com", 443).must_be_blocked_by_name();
}

#[test]
fn nodes_beyond_the_contract_are_enforced() {
    let mut world = world!();
    for name in ["api.example.com", "ads.example.com", "own.example.org"] {
        world.internet.upstream.host(name, &[OTHER]);
    }
    world.gateway.enforce(policy(&[
        "scope interface lan1",
        "scope interface lan2",
        "domain '*.example.com'",
        "deny domain ads.example.com",
        "ip 93.184.216.0/24",
        &format!("ip {SITE6}"),
        &format!("deny ip {OTHER}"),
        "host agent-a source 192.168.10.0/24",
        "host agent-a source fd00:10::/64",
        "host agent-a port 8443",
        "host agent-b source 192.168.11.10",
        "host agent-b allow-none domain",
        "host agent-b ip 151.101.0.1",
    ]));
    // Its own ports, the addresses of all.
    world.a.tcp(SITE, 8443).must_reach();
    world.a.tcp(SITE6, 8443).must_reach();
    world.a.tcp(SITE, 443).must_be_reset();
    world.a.tcp(OTHER, 8443).must_be_reset();
    world.a.reach("ads.example.com", 8443).must_be_blocked_by_name();
    // Its own addresses, nobody's names.
    world.b.tcp("151.101.0.1", 443).must_reach();
    world.b.tcp(SITE, 443).must_be_reset();
    world.b.reach("api.example.com", 443).must_be_blocked_by_name();
    // Behind an interface that is not in scope.
    world.c.tcp(OTHER, 22).must_reach();

    // A window that is never open now: yesterday and tomorrow are other days.
    let today = chrono::Utc::now().format("%a").to_string().to_lowercase();
    let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let closed = days.iter().position(|day| *day == today).map(|day| days[(day + 3) % days.len()]).expect("a day");
    let window = format!("domain own.example.org time-window day {closed}");
    world.gateway.import(policy(&["time-zone UTC", "domain own.example.org", &format!("ip {SITE}"), &window]));
    let reply = world.a.dig("own.example.org", RecordType::A, world.a.router4, Over::Udp).expect("an answer");
    assert!(reply.ede().expect("a reason").1.contains("window-closed"));
    world.a.tcp(SITE, 443).must_reach();
}
