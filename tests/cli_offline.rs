//! What the tool does without a daemon: exit status, messages, JSON shapes.

mod cli_program;

use std::process::{Command, Stdio};

use cli_program::{Program, binary, run};
use serde_json::json;

const VALID: &str = r#"{"version": 1, "allow": {"domains": ["API.Example.com."], "ports": [443]},
    "hosts": {"agent-1": {"sources": ["192.168.10.10"]}}}"#;
const INVALID: &str = r#"{"version": 1, "alow": {}, "allow": {"ips": ["10.0.0.1/8"]}}"#;
const LATER: &str = r#"{"version": 1, "mode": "monitor", "limits": {"egress_kbps": 100000001}}"#;

#[test]
fn version_and_help_go_to_stdout() {
    let program = Program::new();
    assert_eq!(program.run(&["--version"]).done().stdout, "clawgress 0.1.0\n");
    let help = program.run(&["--help"]).done().stdout;
    for command in [
        "run",
        "early",
        "check",
        "plan",
        "apply",
        "import",
        "show",
        "status",
        "health",
        "firewall",
        "rpz",
        "explain",
        "telemetry",
        "stats",
        "log",
        "history",
        "rollback",
        "confirm",
        "teardown",
        "generate",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is in the list");
        let own = program.run(&[command, "--help"]).done().stdout;
        assert!(own.contains("\nExamples:\n  ") && own.contains("--config <FILE>"), "{own}");
    }
    program.run(&["telemetrie"]).misused("unrecognized subcommand");
}

#[test]
fn wrong_usage_is_status_2() {
    let program = Program::new();
    program.run(&[]).misused("Usage: clawgress");
    program.run(&["import"]).misused("--policy <FILE>");
    program.run(&["check", "--polcy", "x"]).misused("--polcy");
    program.run(&["generate", "wsdl"]).misused("wsdl");
    program.run(&["apply", "--confirm"]).misused("--confirm <SECONDS>");
    program.run(&["rollback", "-1"]).misused("-1");
    let source = ["explain", "--source", "192.168.10.10"];
    let explain = |more: &[&str]| program.run(&[&source, more].concat());
    explain(&[]).misused("--domain <NAME>|--ip <ADDR>");
    explain(&["--domain", "a.example.com", "--ip", "192.0.2.1"]).misused("cannot be used with");
    explain(&["--domain", "*.example.com"]).misused("a wildcard is many names; ask for one of them");
    explain(&["--domain", "a b"]).misused("no domain name can");
    explain(&["--ip", "192.0.2.300"]).misused("192.0.2.300");
    explain(&["--ip", "192.0.2.1", "--port", "0"]).misused("--port");
    explain(&["--ip", "192.0.2.1", "--protocol", "udp"]).misused("--port");
    explain(&["--ip", "192.0.2.1", "--at", "yesterday"]).misused("RFC 3339");
    program.run(&["log", "--since", "yesterday"]).misused("10m");
    program.run(&["log", "--limit", "0"]).misused("from 1 to 10000");
    program.run(&["log", "--action", "refuse"]).misused("block");
}

#[test]
fn check_tells_every_mistake() {
    let program = Program::new();
    let invalid = program.write("invalid.json", INVALID);
    let ran = program
        .run(&["check", "--policy", &invalid])
        .refused(&format!("error: {invalid} is not a valid policy: 2 mistakes\n"));
    let lines: Vec<&str> = ran.stderr.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "  /alow: unknown field \"alow\" (did you mean \"allow\"?)",
            "  /allow/ips/0: \"10.0.0.1/8\" has bits set behind its prefix (did you mean 10.0.0.0/8?)"
        ]
    );
    let ran = program.run(&["check", "--json", "--policy", &invalid]);
    assert_eq!((ran.code, ran.stderr.lines().count()), (Some(1), 1));
    assert_eq!(
        ran.json(),
        json!({
            "valid": false,
            "errors": [
                { "path": "/alow", "message": "unknown field \"alow\"", "hint": "did you mean \"allow\"?" },
                { "path": "/allow/ips/0", "message": "\"10.0.0.1/8\" has bits set behind its prefix",
                  "hint": "did you mean 10.0.0.0/8?" },
            ],
            "warnings": [],
            "not_enforced": [],
            "lists": [],
        })
    );
}

#[test]
fn check_passes_what_is_valid_and_says_what_would_not_be_applied() {
    let program = Program::new();
    let valid = program.write("policy.json", VALID);
    let stored = program.run(&["check"]).done();
    assert_eq!(stored.stdout, format!("{valid} is a valid policy\n"));
    let input = program.run_with(&["check", "--policy", "-"], VALID.as_bytes()).done();
    assert_eq!(input.stdout, "standard input is a valid policy\n");

    let ran = program.run_with(&["check", "--policy", "-"], LATER.as_bytes());
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "standard input is a valid policy\n"));
    let mut lines = ran.stderr.lines();
    assert_eq!(lines.next(), Some("not enforced by this version, so the policy would not be applied:"));
    assert!(
        lines.next().unwrap().starts_with("  /limits/egress_kbps: no limit above 100000000 kbit/s can be enforced")
    );
    let json = program.run_with(&["check", "--policy", "-", "--json"], LATER.as_bytes()).done().json();
    assert_eq!((&json["valid"], &json["errors"]), (&json!(true), &json!([])));
    assert_eq!(json["not_enforced"][0]["path"], "/limits/egress_kbps");

    let twice = VALID.replace("\"hosts\"", "\"labels\": {\"other.example.com\": \"x\"}, \"hosts\"");
    let ran = program.run_with(&["check", "--policy", "-"], twice.as_bytes());
    assert_eq!(ran.code, Some(0));
    assert!(ran.stderr.starts_with("one warning:\n  /labels/other.example.com: "), "{}", ran.stderr);
}

#[test]
fn what_cannot_be_read_is_told_in_one_line() {
    let program = Program::new();
    let dir = program.dir.path().display().to_string();
    for command in ["check", "show", "import", "apply"] {
        let with = |policy: &str| program.run(&[command, "--policy", policy]);
        let absent = format!("{dir}/absent.json");
        let ran = with(&absent).refused(&format!("error: cannot read {absent}: there is no such file\n"));
        assert_eq!(ran.stderr.lines().count(), 1);
        with(&dir).refused(&format!("error: cannot read {dir}: it is a directory\n"));
        let latin = program.write("latin1.json", b"{\n\"version\": 1, \"labels\": {\"\xfc\": 1}}");
        let ran = with(&latin).refused(&format!("error: {latin} is not a valid policy: one mistake\n"));
        assert!(ran.stderr.contains("not a text in UTF-8: the mistake is in line 2 (save the file as UTF-8)"));
    }
    program.run(&["check"]).refused("error: no policy is stored in /");
    let ran = program.run_with(&["check", "--policy", "-"], b"").refused("error: standard input is not a valid policy");
    assert!(ran.stderr.contains("the document is empty"), "{}", ran.stderr);
}

#[test]
fn nothing_in_a_policy_steers_the_terminal() {
    let program = Program::new();
    let policy = "{\"version\": 1, \"\\u001b[2J\\u202e\": 1, \"allow\": {\"domains\": [\"\\u001b[31mx\"]}}";
    let ran = program.run_with(&["check", "--policy", "-"], policy.as_bytes()).refused("error: ");
    assert!(ran.stderr.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')), "{:?}", ran.stderr);
    assert!(ran.stderr.contains("/\\u{1b}[2J\\u{202e}: unknown field"), "{}", ran.stderr);
}

#[test]
fn settings_with_mistakes_stop_what_needs_them() {
    let program = Program::new();
    program.write("clawgress.toml", "polcy = \"/p\"\n[dns]\nlisten = [\"53\"]\n");
    let path = program.path("clawgress.toml");
    for command in [&["status"][..], &["check"], &["run"], &["teardown"]] {
        let ran = program.run(command).refused(&format!("error: the settings {} have 2 mistakes:\n", path.display()));
        let lines: Vec<&str> = ran.stderr.lines().skip(1).collect();
        assert_eq!(lines[0], "  line 1: polcy: unknown key; did you mean \"policy\"?");
        assert!(lines[1].starts_with("  line 3: dns.listen[0]: \"53\" is not ADDRESS:PORT; "), "{}", lines[1]);
    }
    std::fs::remove_file(&path).unwrap();
    let start = format!("error: cannot read the settings {}: there is no such file\n", path.display());
    program.run(&["status"]).refused(&start);
    // Commands that need no settings do not look at them.
    program.run_with(&["check", "--policy", "-"], VALID.as_bytes()).done();
}

#[test]
fn show_prints_the_normal_form() {
    let program = Program::new();
    let policy = program.write("p.json", VALID);
    let ran = program.run(&["show", "--policy", &policy]).done();
    assert_eq!(
        ran.json(),
        json!({ "version": 1, "allow": { "domains": ["api.example.com"], "ports": [443] },
                "hosts": { "agent-1": { "sources": ["192.168.10.10/32"] } } })
    );
    assert!(ran.stdout.starts_with("{\n  \"version\": 1,\n  \"allow\""), "{}", ran.stdout);
    let again = program.run_with(&["show", "--json", "--policy", "-"], ran.stdout.as_bytes()).done();
    assert_eq!(again.stdout, ran.stdout);
    program.run_with(&["show", "--policy", "-"], INVALID.as_bytes()).refused("error: standard input is not a valid");
}

#[test]
fn explain_answers_from_a_file() {
    let program = Program::new();
    let policy = program.write("p.json", VALID);
    let explain =
        |more: &[&str]| program.run(&[&["explain", "--policy", &policy, "--source", "192.168.10.10"], more].concat());
    let json = explain(&["--domain", "api.EXAMPLE.com.", "--port", "443", "--json"]).done().json();
    let mut expected = json!({ "verdict": "allow", "reason": "allowed", "path": "/allow/domains/0", "host": "agent-1",
                               "domain": "api.example.com", "mode": "enforce" });
    expected["detail"] = json["detail"].clone();
    assert_eq!(json, expected);

    let line = explain(&["--domain", "api.example.com"]).done().stdout;
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.starts_with("allow: ") && line.contains("/allow/domains/0 says \"api.example.com\""), "{line}");
    let line = explain(&["--domain", "api.example.com", "--port", "80", "--protocol", "udp"]).done().stdout;
    assert!(line.starts_with("block (port-not-allowed): ") && line.contains("/allow/ports says 443"), "{line}");
    let json = explain(&["--ip", "198.41.0.4", "--json"]).done().json();
    assert_eq!((&json["verdict"], &json["reason"]), (&json!("block"), &json!("no-lease")));
    explain(&["--ip", "2001:db8::1"]).refused("error: 192.168.10.10 is an IPv4 address");

    let at = ["--domain", "api.example.com", "--at", "2026-11-20T09:00:00+01:00"];
    assert!(explain(&at).done().stdout.starts_with("allow: "));
    let later = program.write("later.json", LATER);
    let ran = program.run(&["explain", "--policy", &later, "--source", "1.1.1.1", "--ip", "8.8.8.8"]);
    assert_eq!(ran.code, Some(0));
    assert!(
        ran.stderr.starts_with("not enforced by this version, so the answer leaves it out:\n  /limits/egress_kbps")
    );
    assert!(ran.stdout.contains("block (not-allowlisted), but monitor mode lets it pass: "), "{}", ran.stdout);
}

#[test]
fn who_needs_the_daemon_says_so_in_one_line() {
    let program = Program::new();
    let policy = program.write("p.json", VALID);
    let socket = program.path("clawgress.sock");
    let message = format!(
        "error: the daemon is not running: nobody listens on {}; start it with `systemctl start clawgress` or \
         `clawgress run`\n",
        socket.display()
    );
    let commands: [&[&str]; 12] = [
        &["plan", "--policy", &policy],
        &["status"],
        &["status", "--json"],
        &["health"],
        &["firewall"],
        &["rpz", "--host", "agent-1"],
        &["history"],
        &["log", "--follow"],
        &["show"],
        &["apply"],
        &["import", "--policy", &policy],
        &["explain", "--source", "192.168.10.10", "--domain", "a.example.com"],
    ];
    for command in commands {
        assert_eq!(program.run(command).refused("error: ").stderr, message);
    }
    // A socket that a dead daemon left is no daemon either.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert_eq!(program.run(&["status"]).refused("error: ").stderr, message);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let program = Program::new();
    let policy = program.write("p.json", VALID);
    for arguments in [&["show", "--policy", &policy][..], &["generate", "man"], &["--help"], &["generate", "schema"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let done = Command::new(binary()).args(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!((done.status.code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
    // It does not turn a refusal into success.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let invalid = program.write("i.json", INVALID);
    let mut command = Command::new(binary());
    let done = command.args(["check", "--json", "--policy", &invalid]).stdout(writer).stderr(Stdio::null()).status();
    assert_eq!(done.unwrap().code(), Some(1));
}

#[test]
fn a_full_disk_behind_stdout_is_a_failure() {
    let program = Program::new();
    let policy = program.write("p.json", VALID);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = program.command();
    let done = command.args(["show", "--policy", &policy]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert_eq!(
        (done.status.code(), stderr.as_str()),
        (Some(1), "error: cannot write to standard output: the disk is full\n")
    );
}

#[test]
fn who_writes_the_packet_filter_needs_root() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;

    let program = Program::new();
    let mut copy = binary().to_owned();
    let nobody = nix::unistd::geteuid().is_root().then_some(65534);
    if nobody.is_some() {
        // Where another user can reach it.
        std::fs::set_permissions(program.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        copy = program.path("clawgress");
        // By another process: a test beside this one that starts a program would inherit our open file, and the
        // kernel runs no file that somebody writes ("text file busy").
        assert!(Command::new("cp").arg(binary()).arg(&copy).status().unwrap().success());
    }
    for command in ["run", "early", "teardown"] {
        let mut call = Command::new(&copy);
        call.arg("--config").arg(program.path("clawgress.toml")).arg(command).current_dir("/");
        if let Some(id) = nobody {
            call.uid(id).gid(id);
        }
        run(call, b"").refused(&format!("error: `clawgress {command}` needs root: it "));
    }
}

#[test]
fn check_reads_the_lists_in_files() {
    let program = Program::new();
    let ads = program.write("ads.txt", "0.0.0.0 a.example b.example\nnonsense\n");
    let zone =
        program.write("bad.rpz", "x.example CNAME .\ny.example.rpz-nsdname CNAME .\n8.0.0.0.10.rpz-ip CNAME .\n");
    let list = |name: &str, file: &str, format: &str| json!([{ "name": name, "file": file, "format": format }]);
    let policy = json!({ "version": 1, "allow": { "domain_lists": list("ads", &ads, "hosts") },
        "deny": { "domain_lists": list("bad", &zone, "rpz") } });
    let policy = program.write("lists.json", policy.to_string());
    let ran = program.run(&["check", "--policy", &policy, "--json"]);
    let told = ran.done().json();
    let lists = told["lists"].as_array().unwrap();
    let numbers = |list: &serde_json::Value| {
        ["names", "networks", "not_enforced", "rejected"].map(|field| list[field].as_u64().unwrap())
    };
    assert_eq!(lists.iter().map(numbers).collect::<Vec<_>>(), [[2, 0, 0, 1], [1, 1, 1, 0]], "{told}");
    assert_eq!((&lists[0]["path"], &lists[1]["file"]), (&json!("/allow/domain_lists/0"), &json!(zone)));
    assert_eq!(told["not_enforced"], json!([]));
    let words: Vec<&str> =
        told["warnings"].as_array().unwrap().iter().map(|w| w["message"].as_str().unwrap()).collect();
    assert!(words[0].starts_with(&format!("{ads} line 2: ")), "{words:?}");
    assert!(words[1].starts_with(&format!("{zone} line 2: 1 rpz-nsdname triggers (not enforced")), "{words:?}");
    assert!(words.iter().all(|words| !words.contains("nonsense")), "no line of a file is repeated: {words:?}");

    let ran = program.run(&["check", "--policy", &policy]);
    assert_eq!(ran.code, Some(0));
    assert!(
        ran.stdout.contains("/deny/domain_lists/0: bad (") && ran.stdout.contains("1 names, 1 networks"),
        "{}",
        ran.stdout
    );
    let ran = program.run(&["explain", "--policy", &policy, "--source", "192.168.10.10", "--domain", "b.example"]);
    assert!(ran.done().stdout.contains(&format!("has \"b.example\" in line 1 of {ads}")));
    let ran = program.run(&["explain", "--policy", &policy, "--source", "192.168.10.10", "--ip", "10.1.2.3"]);
    assert_eq!(ran.code, Some(0));

    program.write("bad.rpz", "; nothing\n");
    let ran = program.run(&["check", "--policy", &policy]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.stderr.contains(&format!("/deny/domain_lists/0: {zone} holds no name")), "{}", ran.stderr);

    std::fs::remove_file(&zone).unwrap();
    let ran = program.run(&["check", "--policy", &policy]);
    let ran = ran.refused(&format!("error: {policy} is not a valid policy: one mistake"));
    assert!(ran.stderr.contains("/deny/domain_lists/0/file: cannot read"), "{}", ran.stderr);
    assert!(ran.stderr.contains("there is no such file"), "{}", ran.stderr);
}
