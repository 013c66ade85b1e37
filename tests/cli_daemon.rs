//! The tool and a daemon that answers as it is told: what goes over the socket, what people and scripts see of it.

mod cli_program;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use cli_program::{Program, Ran};
use serde_json::{Value, json};

/// Runs the tool against a daemon that gives this answer; also tells what it was asked.
#[track_caller]
fn with_answer(program: &Program, arguments: &[&str], input: &str, answer: &str) -> (Value, Ran) {
    let daemon = daemon(program, answer);
    let ran = program.run_with(arguments, input.as_bytes());
    (daemon.join().unwrap(), ran)
}

fn daemon(program: &Program, answer: &str) -> JoinHandle<Value> {
    let socket = program.path("clawgress.sock");
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(socket).unwrap();
    let answer = answer.to_owned();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        (&stream).write_all(answer.as_bytes()).unwrap();
        serde_json::from_str(&line).unwrap()
    })
}

fn done(data: Value) -> String {
    json!({ "success": true, "data": data, "error": null }).to_string() + "\n"
}

fn status() -> Value {
    json!({ "state": "degraded", "revision": 7, "sha256": "0123456789abcdef".repeat(4), "origin": "import",
        "applied_at": "2026-11-20T09:00:00Z", "hosts": 2, "domains": 11, "drift": false,
        "checks": [ { "name": "kernel", "ok": true, "message": "the table is in place" },
                    { "name": "upstreams", "ok": false, "message": "192.0.2.1 does not answer" } ] })
}

#[test]
fn status_is_a_table_for_people() {
    let program = Program::new();
    let (asked, ran) = with_answer(&program, &["status"], "", &done(status()));
    assert_eq!(asked, json!({ "command": "status" }));
    let expected = "\
state       degraded
revision    7
sha256      0123456789ab
origin      import
applied at  2026-11-20T09:00:00Z
hosts       2
domains     11
drift       no
checks      ok    kernel     the table is in place
            FAIL  upstreams  192.0.2.1 does not answer
";
    assert_eq!(ran.done().stdout, expected);
    let (_, ran) = with_answer(&program, &["status", "--json"], "", &done(status()));
    assert_eq!(ran.done().json(), status());
}

#[test]
fn without_a_policy_status_says_how_to_import_one() {
    let nothing = json!({ "state": "unconfigured", "revision": null, "sha256": null, "origin": null,
        "applied_at": null, "hosts": 0, "domains": 0, "drift": false, "checks": [] });
    let (_, ran) = with_answer(&Program::new(), &["status"], "", &done(nothing));
    let ran = ran.done();
    assert!(ran.stdout.starts_with("state       unconfigured\nrevision    -\n"), "{}", ran.stdout);
    assert!(ran.stdout.ends_with("import one with `clawgress import --policy FILE`\n"), "{}", ran.stdout);
}

#[test]
fn health_is_an_exit_status() {
    let program = Program::new();
    let health =
        |healthy: bool| json!({ "healthy": healthy, "checks": [{ "name": "dns", "ok": healthy, "message": "m" }] });
    let (asked, ran) = with_answer(&program, &["health"], "", &done(health(true)));
    assert_eq!(asked, json!({ "command": "health" }));
    assert_eq!(ran.done().stdout, "ok    dns  m\n");
    let (_, ran) = with_answer(&program, &["health", "--json"], "", &done(health(false)));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), "error: unhealthy: dns\n"));
    assert_eq!(ran.json(), health(false));
}

#[test]
fn import_sends_the_text_as_it_is() {
    let program = Program::new();
    let applied = json!({ "revision": 8, "sha256": "ab", "applied": true, "changes": 3,
        "warnings": [{ "path": "/labels/x", "message": "no list has it", "hint": null }] });
    let text = "{ \"version\": 1, \"version\": 1 }\n";
    let (asked, ran) = with_answer(&program, &["import", "--policy", "-"], text, &done(applied.clone()));
    assert_eq!(asked, json!({ "command": "import", "policy": text }));
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.stdout, "standard input is in force and stored: revision 8, 3 changes\n");
    assert_eq!(ran.stderr, "one warning:\n  /labels/x: no list has it\n");

    let (asked, ran) = with_answer(&program, &["apply"], "", &done(applied.clone()));
    assert_eq!(asked, json!({ "command": "apply" }));
    assert_eq!(ran.stdout, "the stored policy is in force: revision 8, 3 changes\n");
    let file = program.write("trial.json", text);
    let (asked, _) = with_answer(&program, &["apply", "--policy", &file], "", &done(applied));
    assert_eq!(asked, json!({ "command": "apply", "policy": text }));
}

#[test]
fn a_refused_policy_is_listed_like_check_does() {
    let answer = json!({ "success": false, "data": null, "error": "nothing was changed",
        "errors": [{ "path": "/a", "message": "is wrong", "hint": "do right" }] });
    let program = Program::new();
    let (_, ran) = with_answer(&program, &["import", "--policy", "-"], "{}", &format!("{answer}\n"));
    let ran = ran.refused("error: ");
    assert_eq!(ran.stderr, "error: standard input: nothing was changed\n  /a: is wrong (do right)\n");
    let answer = json!({ "success": false, "data": null, "error": "the kernel refused" });
    let (_, ran) = with_answer(&program, &["apply"], "", &format!("{answer}\n"));
    assert_eq!(ran.refused("error: ").stderr, "error: the kernel refused\n");
}

#[test]
fn show_gives_the_stored_policy_its_normal_form() {
    let program = Program::new();
    let stored = json!({ "policy": "{\"version\": 1, \"allow\": {\"domains\": [\"A.Example.COM\"]}}" });
    let (asked, ran) = with_answer(&program, &["show"], "", &done(stored));
    assert_eq!(asked, json!({ "command": "show" }));
    assert_eq!(ran.done().json(), json!({ "version": 1, "allow": { "domains": ["a.example.com"] } }));
    let (_, ran) = with_answer(&program, &["show"], "", &done(json!({ "policy": null })));
    ran.refused("error: no policy is stored; store one with `clawgress import --policy FILE`\n");
    let (_, ran) = with_answer(&program, &["show"], "", &done(json!({ "policy": "{" })));
    ran.refused("error: the stored policy is not a valid policy: one mistake\n");
}

#[test]
fn texts_are_printed_and_wrapped_for_scripts() {
    let program = Program::new();
    let text = done(json!({ "text": "table inet clawgress {\n}" }));
    let (asked, ran) = with_answer(&program, &["firewall"], "", &text);
    assert_eq!((asked, ran.done().stdout.as_str()), (json!({ "command": "firewall" }), "table inet clawgress {\n}\n"));
    let (asked, ran) = with_answer(&program, &["rpz", "--host", "agent-1", "--json"], "", &text);
    assert_eq!(asked, json!({ "command": "rpz", "host": "agent-1" }));
    assert_eq!(ran.done().json(), json!({ "text": "table inet clawgress {\n}" }));
}

#[test]
fn zones_come_in_pieces_and_not_without_their_end() {
    let program = Program::new();
    let piece = |text: &str, more: bool| done(json!({ "text": text, "more": more }));
    let pieces = piece("; \"a\nb", true) + &piece("c\nd \\", true) + &piece("e\n", false);
    let (_, ran) = with_answer(&program, &["rpz"], "", &pieces);
    assert_eq!(ran.done().stdout, "; \"a\nbc\nd \\e\n");
    let (_, ran) = with_answer(&program, &["rpz", "--json"], "", &pieces);
    assert_eq!(ran.done().json(), json!({ "text": "; \"a\nbc\nd \\e\n" }));
    // A daemon that goes away in the middle.
    let (_, ran) = with_answer(&program, &["rpz"], "", &piece("a\n", true));
    let told = "error: the daemon closed the connection without an answer; its log tells why\n";
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(1), "a\n", told));
}

#[test]
fn explain_asks_with_the_name_in_normal_form() {
    let program = Program::new();
    let answer = json!({ "verdict": "block", "reason": "denied", "path": "/deny/domains/0", "host": null,
        "domain": "x.example.com", "mode": "enforce", "detail": "because" });
    let arguments =
        ["explain", "--source", "fd00::1", "--domain", "X.Example.com.", "--port", "443", "--protocol", "udp"];
    let (asked, ran) = with_answer(&program, &arguments, "", &done(answer.clone()));
    assert_eq!(
        asked,
        json!({ "command": "explain", "source": "fd00::1", "domain": "x.example.com", "port": 443, "protocol": "udp" })
    );
    assert_eq!(ran.done().stdout, "block (denied): because\n");
    let (_, ran) = with_answer(&program, &[&arguments[..], &["--json"]].concat(), "", &done(answer.clone()));
    assert_eq!(ran.done().json(), answer);
}

#[test]
fn history_is_a_table_and_tells_damage() {
    let program = Program::new();
    let meta = |revision: u64, origin: &str| json!({ "revision": revision, "sha256": "fedcba9876543210", "origin": origin, "applied_at": "2026-11-20T09:00:00Z" });
    let mut called = meta(11, "api");
    called["key_id"] = json!("automation");
    let revisions = [called, meta(10, "import"), meta(9, "boot")];
    let history = json!({ "revisions": revisions, "damage": ["000008.json is damaged"] });
    let (_, ran) = with_answer(&program, &["history"], "", &done(history.clone()));
    let expected = "\
revision  applied at            origin            sha256
11        2026-11-20T09:00:00Z  api (automation)  fedcba987654
10        2026-11-20T09:00:00Z  import            fedcba987654
9         2026-11-20T09:00:00Z  boot              fedcba987654
";
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), expected));
    assert_eq!(ran.stderr, "warning: 000008.json is damaged\n");
    let (_, ran) = with_answer(&program, &["history", "--json"], "", &done(history.clone()));
    assert_eq!(ran.done().json(), history);
}

#[test]
fn the_way_back_is_told() {
    let program = Program::new();
    let applied = json!({ "to": 7, "revision": 9, "sha256": "ab", "applied": true, "stored": true, "changes": 2 });
    let (asked, ran) = with_answer(&program, &["rollback"], "", &done(applied.clone()));
    assert_eq!(asked, json!({ "command": "rollback" }));
    assert_eq!(ran.done().stdout, "the policy of revision 7 is in force and stored: revision 9, 2 changes\n");
    let (asked, ran) = with_answer(&program, &["rollback", "7", "--json"], "", &done(applied.clone()));
    assert_eq!((asked, ran.done().json()), (json!({ "command": "rollback", "revision": 7 }), applied));
    program.run(&["rollback", "0"]).misused("0 is not in 1..");

    let confirmed = done(json!({ "revision": 9, "stored": false }));
    let (asked, ran) = with_answer(&program, &["confirm"], "", &confirmed);
    assert_eq!((asked, ran.done().stdout.as_str()), (json!({ "command": "confirm" }), "revision 9 stays\n"));

    let waits = json!({ "revision": 9, "sha256": "ab", "applied": true, "stored": true, "changes": 1,
        "confirm_by": "2026-11-20T09:05:00Z" });
    let (asked, ran) = with_answer(&program, &["apply", "--confirm", "300"], "", &done(waits));
    assert_eq!(asked, json!({ "command": "apply", "confirm_seconds": 300 }));
    let expected = "\
the stored policy is in force: revision 9, one change
it goes away at 2026-11-20T09:05:00Z unless you say it stays: clawgress confirm
";
    assert_eq!(ran.done().stdout, expected);
    program.run(&["apply", "--confirm", "0"]).misused("0 is not in 1..");
}

#[test]
fn teardown_says_what_is_open() {
    let answer = done(json!({ "removed": true, "message": "everything passes" }));
    let (asked, ran) = with_answer(&Program::new(), &["teardown"], "", &answer);
    assert_eq!((asked, ran.done().stdout.as_str()), (json!({ "command": "teardown" }), "everything passes\n"));
}

#[test]
fn answers_that_make_no_sense_are_told() {
    let program = Program::new();
    let (_, ran) = with_answer(&program, &["status"], "", "");
    ran.refused("error: the daemon closed the connection without an answer; its log tells why\n");
    for answer in ["no json\n".to_owned(), "{\"success\": true".to_owned(), done(json!({ "state": "asleep" }))] {
        let (_, ran) = with_answer(&program, &["status"], "", &answer);
        ran.refused("error: the daemon's answer is not understood; ");
    }
}

#[test]
fn a_long_policy_is_sent_ahead_as_it_is() {
    let program = Program::new();
    let text = format!("\"\\\n{}é", " ".repeat(clawgress::daemon::protocol::LONG));
    let policy = program.write("long.json", &text);
    let listener = UnixListener::bind(program.path("clawgress.sock")).unwrap();
    let daemon = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut from = BufReader::new(&stream);
        let (mut first, mut second) = (String::new(), String::new());
        from.read_line(&mut first).unwrap();
        let first: Value = serde_json::from_str(&first).unwrap();
        let mut octets = vec![0; usize::try_from(first["octets"].as_u64().unwrap()).unwrap()];
        from.read_exact(&mut octets).unwrap();
        from.read_line(&mut second).unwrap();
        let refused = json!({ "success": false, "data": null, "error": "no" }).to_string() + "\n";
        (&stream).write_all(refused.as_bytes()).unwrap();
        (first["command"].clone(), octets, serde_json::from_str::<Value>(&second).unwrap())
    });
    program.run(&["import", "--policy", &policy]).refused("error: no");
    let (command, octets, request) = daemon.join().unwrap();
    assert_eq!((command, octets), (json!("text"), text.into_bytes()));
    assert_eq!(request, json!({ "command": "import", "policy": "" }));
}

#[test]
fn a_policy_too_long_to_send_is_told_without_sending_it() {
    let program = Program::new();
    let policy = program.write("long.json", "\"".repeat(clawgress::daemon::protocol::MAX_LINE + 1));
    let _listener = UnixListener::bind(program.path("clawgress.sock")).unwrap();
    program.run(&["import", "--policy", &policy]).refused("error: the policy is too long: at most 64 MiB are sent");
}

#[test]
fn colours_are_for_terminals_whose_owners_want_them() {
    let program = Program::new();
    let on_a_terminal = |set: &[(&str, &str)]| {
        let daemon = daemon(&program, &done(status()));
        let call =
            format!("{} --config {} status", cli_program::binary().display(), program.path("clawgress.toml").display());
        // script(1) gives it a terminal; it is part of every Debian.
        let mut command = std::process::Command::new("script");
        command
            .args(["--quiet", "--return", "--command", &call, "/dev/null"])
            .env_remove("NO_COLOR")
            .env("TERM", "xterm");
        let ran = cli_program::run(
            {
                command.envs(set.iter().copied());
                command
            },
            b"",
        );
        daemon.join().unwrap();
        assert!(ran.code == Some(0) && ran.stdout.contains("degraded"), "{ran:?}");
        ran.stdout.contains('\x1b')
    };
    assert!(on_a_terminal(&[]));
    assert!(on_a_terminal(&[("NO_COLOR", "")]), "empty is as good as absent");
    assert!(!on_a_terminal(&[("NO_COLOR", "1")]));
    assert!(!on_a_terminal(&[("TERM", "dumb")]));
}

fn a_plan() -> Value {
    let change = |effect: &str, change: &str, host: Value, field: &str, item: &str, after: Value| {
        json!({ "effect": effect, "change": change, "host": host, "field": field, "item": item, "before": null,
            "after": after, "path": null })
    };
    let place = |domain: &str, decisions: u64| {
        json!({ "domain": domain, "address": null, "port": null, "protocol": "udp", "reason": "not-allowlisted",
            "decisions": decisions })
    };
    let flow = |at: Value, port: u16| {
        json!({ "at": at, "host": "agent-1", "source": "192.168.10.10", "domains": ["a.example.com"],
            "address": "2606:4700::34", "port": port, "protocol": "tcp", "reason": "window-closed" })
    };
    json!({
        "revision": 7, "sha256": "0123456789abcdef".repeat(4), "same": false,
        "changes": { "count": 4, "widen": 2, "narrow": 2, "listed": [
            change("widens", "added", json!("agent-1"), "allow.domains", "b.example.com", Value::Null),
            change("widens", "removed", Value::Null, "deny.ips", "45.60.0.0/16", Value::Null),
            change("narrows", "added", Value::Null, "hosts", "agent-2", json!("192.168.10.11/32")),
            change("narrows", "added", json!("agent-1"), "exfil.domains", "*.example.com", json!("9 bytes per day")),
        ] },
        "flows": { "live": 12, "cut": 1, "later": 1, "by_reason": { "window-closed": 1 },
            "listed": [flow(Value::Null, 443), flow(json!("2026-11-20T18:00:00Z"), 80)] },
        "leases": { "ended": 200, "listed": [{ "host": null, "domain": "a.example.com", "address": "45.60.1.1" }] },
        "replay": { "since": "2026-11-19T09:00:00Z", "recorded": "block", "records": 9, "decisions": 40, "unclear": 2,
            "damaged": 0, "breaks": { "decisions": 0, "hosts": 0, "listed": [] },
            "opens": { "decisions": 14, "hosts": 1, "listed": [{ "host": "agent-1", "decisions": 14, "places": 3,
                "listed": [place("b.example.com", 12), place("c.example.com", 1)] }] } },
        "warnings": [], "trouble": ["no luck"],
    })
}

#[test]
fn a_plan_is_short_for_people_and_whole_for_scripts() {
    let program = Program::new();
    let text = "{ \"version\": 1 }\n";
    let (asked, ran) = with_answer(&program, &["plan", "--policy", "-"], text, &done(a_plan()));
    assert_eq!(asked, json!({ "command": "plan", "policy": text, "hours": 24 }));
    let expected = "\
standard input against revision 7: 4 changes, 2 open more, 2 open less

opens more:
  +  agent-1  allow.domains  b.example.com
  -  all      deny.ips       45.60.0.0/16

opens less:
  +  agent-2  hosts  192.168.10.11/32

limits:
  +  agent-1  exfil.domains  *.example.com: 9 bytes per day

cuts 1 of 12 live flows at once (1 window-closed):
  agent-1  192.168.10.10  tcp [2606:4700::34]:443  a.example.com  window-closed

windows cut one live flow later:
  agent-1  192.168.10.10  tcp [2606:4700::34]:80  a.example.com  window-closed  at 2026-11-20T18:00:00Z

ends 200 leases:
  -  a.example.com  45.60.1.1
  … and 199 more; --json lists more

the 40 decisions recorded since 2026-11-19T09:00:00Z (9 records):
  14 would open
    agent-1: 14
      12  dns b.example.com  not-allowlisted
      1   dns c.example.com  not-allowlisted
      … and one further place
  what would break is not known: what passes is not recorded (log.decisions = \"all\" does)
  2 of them do not tell enough to be decided again
";
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.stdout, expected);
    assert_eq!(ran.stderr, "warning: no luck\n");
    let arguments = ["plan", "--policy", "-", "--hours", "168", "--json"];
    let (asked, ran) = with_answer(&program, &arguments, text, &done(a_plan()));
    assert_eq!(asked["hours"], 168);
    assert_eq!(ran.done().json(), a_plan());
    for wrong in ["0", "9000", "x"] {
        program.run(&["plan", "--policy", "-", "--hours", wrong]).misused("--hours");
    }
}

#[test]
fn a_plan_that_changes_nothing_says_so() {
    let program = Program::new();
    let told = |fields: Value| {
        let mut plan = a_plan();
        plan["changes"] = json!({ "count": 0, "widen": 0, "narrow": 0, "listed": [] });
        plan["flows"] = json!({ "live": 3, "cut": 0, "later": 0, "by_reason": {}, "listed": [] });
        plan["leases"] = json!({ "ended": 0, "listed": [] });
        (plan["replay"], plan["trouble"]) = (Value::Null, json!([]));
        plan.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        with_answer(&program, &["plan", "--policy", "-"], "{}", &done(plan)).1.done().stdout
    };
    assert_eq!(
        told(json!({ "same": true })),
        "standard input is the policy in force (revision 7)\n\nno live flow is cut, of 3\n"
    );
    assert_eq!(told(json!({ "flows": null })), "standard input says the same as revision 7, in other words\n");
    assert_eq!(
        told(json!({ "revision": null })),
        "no policy is in force, so everything passes; with standard input everything in its scope is refused but what it \
         allows\n"
    );
}
