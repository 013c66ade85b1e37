"""`show clawgress …`: against the real daemon where it has the command, and against answers in the contract's shape."""

import json
import os
import subprocess
import sys

import pytest

import clawgress as script
from clawgress_vyos import program, tables
from conftest import SOURCES
from gateway import ADDRESS, BASE, POLICY, good

TELEMETRY = {
    "window": "1h", "generated_at": "2026-11-20T09:00:00Z", "revision": 7,
    "usage": {"bytes_up": 1000, "bytes_down": 5000000},
    "agents": {
        "agent-1.lab": {
            "bytes_up": 1000, "bytes_down": 5000000, "packets_up": 10, "packets_down": 4000, "queries": 3, "allows": 2,
            "denies": 1, "domains": {"api.example.com": {"bytes_up": 1000, "bytes_down": 5000000}},
            "caps": {"api.example.com": {"bytes": 1048576, "period": "hour", "used": 1000, "remaining": 1047576,
                                         "resets_at": "2026-11-20T10:00:00Z"}},
        },
        "*": {"bytes_up": 0, "bytes_down": 0, "packets_up": 0, "packets_down": 0, "queries": 9, "allows": 0, "denies": 9,
              "domains": {}, "caps": {}},
    },
    "domains": {"api.example.com": {"bytes_up": 1000, "bytes_down": 5000000}, "b-c.example": {"bytes_up": 7, "bytes_down": 0}},
    "denies": {"by_reason": {"not-allowlisted": 9, "denied": 1}, "by_domain": {"pastebin.com": 10}},
}  # fmt: skip
RECORDS = [
    {"time": "2026-11-20T09:00:00.123Z", "id": "1", "revision": 7, "action": "block", "layer": "dns",
     "reason": "not-allowlisted", "host": "agent-1.lab", "source": "192.168.10.10", "domain": "pastebin.com",
     "address": None, "port": None, "protocol": "udp", "label": None, "path": "/hosts/agent-1.lab/allow/domains",
     "suppressed": 12},
    {"time": "2026-11-20T09:00:01.456Z", "id": "2", "revision": 7, "action": "block", "layer": "packet",
     "reason": "no-lease", "host": None, "source": "fd00:10::10", "domain": None, "address": "2001:db8::1", "port": 443,
     "protocol": "tcp", "label": None},
    {"time": "2026-11-20T09:00:02.789Z", "id": "3", "revision": 7, "action": "monitor", "layer": "dns",
     "reason": "denied", "host": "agent-1.lab", "source": "192.168.10.10", "domain": "a\u001b[2Jb.example",
     "address": None, "port": None, "protocol": None, "label": "x"},
]  # fmt: skip


@pytest.fixture
def answering(tmp_path, monkeypatch):
    """A program that gives a prepared answer to each command, and notes how it was called."""

    def prepare(**answers):
        for name, answer in answers.items():
            (tmp_path / name).write_text(answer if isinstance(answer, str) else json.dumps(answer))
        stub = tmp_path / "clawgress"
        stub.write_text(
            f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n'
            f'[ -e {tmp_path}/$1 ] || {{ echo "error: $1: no answer was prepared" >&2; exit 1; }}\ncat {tmp_path}/$1\n'
        )
        stub.chmod(0o755)
        monkeypatch.setattr(program, "PROGRAM", str(stub))
        monkeypatch.setattr(script, "SETTINGS", str(tmp_path / "settings"))
        monkeypatch.setattr(script, "COMMITTED", str(tmp_path / "committed"))
        monkeypatch.setattr(script, "PLACES", str(tmp_path / "places"))
        (tmp_path / "settings").touch()

    prepare.calls = lambda: (tmp_path / "calls").read_text().splitlines()
    prepare.directory = tmp_path
    return prepare


def show(monkeypatch, capsys, *words):
    """Exit status and what was printed."""
    monkeypatch.setattr(sys, "argv", ["clawgress.py", *words])
    status = script.main()
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return status, printed.out, printed.err


def test_telemetry_as_tables(answering, monkeypatch, capsys):
    answering(telemetry=TELEMETRY)
    status, out, _ = show(monkeypatch, capsys, "show_telemetry")
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == "Window 1h, until 2026-11-20T09:00:00Z, revision 7"
    assert lines[2].split() == ["Agent", "Up", "Down", "Packets", "up", "Packets", "down", "Queries", "Allowed", "Denied"]
    assert lines[4].split() == ["*", "0", "B", "0", "B", "0", "0", "9", "0", "9"]
    assert lines[5].split() == ["agent-1.lab", "1000", "B", "4.8", "MiB", "10", "4000", "3", "2", "1"]
    assert "b-c.example" in out and "not-allowlisted       9" in out and "pastebin.com      10" in out


def test_views_of_telemetry(answering, monkeypatch, capsys):
    answering(telemetry=TELEMETRY)
    _, agents, _ = show(monkeypatch, capsys, "show_telemetry", "--view", "agents")
    assert "agent-1.lab" in agents and "pastebin.com" not in agents and "b-c.example" not in agents
    _, domains, _ = show(monkeypatch, capsys, "show_telemetry", "--view", "domains")
    assert "b-c.example" in domains and "agent-1.lab" not in domains
    _, denies, _ = show(monkeypatch, capsys, "show_telemetry", "--view", "denies")
    assert "pastebin.com" in denies and "agent-1.lab" not in denies
    _, agent, _ = show(monkeypatch, capsys, "show_telemetry", "--view", "agent", "--name", "agent-1.lab")
    assert "1.0 MiB" in agent and "1023.0 KiB" in agent and "2026-11-20T10:00:00Z" in agent and "*" not in agent
    _, domain, _ = show(monkeypatch, capsys, "show_telemetry", "--view", "domain", "--name", "api.example.com")
    assert "agent-1.lab" in domain and "b-c.example" not in domain
    show(monkeypatch, capsys, "show_telemetry", "--window", "5m")
    assert answering.calls()[-1] == "telemetry --window 5m --json"


def test_raw_is_what_the_program_said_byte_for_byte(answering, monkeypatch, capsys):
    answering(telemetry=TELEMETRY)
    _, out, _ = show(monkeypatch, capsys, "show_telemetry", "--raw")
    assert json.loads(out) == TELEMETRY
    _, out, _ = show(monkeypatch, capsys, "show_telemetry", "--view", "agent", "--name", "agent-1.lab", "--raw")
    assert json.loads(out)["agents"] == {"agent-1.lab": TELEMETRY["agents"]["agent-1.lab"]}
    _, out, _ = show(monkeypatch, capsys, "show_telemetry", "--view", "domain", "--name", "api.example.com", "--raw")
    assert list(json.loads(out)["domains"]) == ["api.example.com"]


def test_unknown_agents_and_domains_are_told(answering, monkeypatch, capsys):
    answering(telemetry=TELEMETRY)
    for view, name in (("agent", "agent-2"), ("domain", "agent_1")):
        status, out, err = show(monkeypatch, capsys, "show_telemetry", "--view", view, "--name", name)
        assert (status, out) == (1, "") and err.startswith("error: nothing was seen of") and name in err


def test_the_log_as_a_table(answering, monkeypatch, capsys):
    answering(log="".join(json.dumps(record) + "\n" for record in RECORDS))
    status, out, _ = show(monkeypatch, capsys, "show_log", "--host", "agent-1.lab", "--since", "10m")
    assert status == 0 and answering.calls() == ["log --json --host agent-1.lab --since 10m"]
    lines = out.splitlines()
    assert lines[0].split() == ["Time", "Action", "Layer", "Reason", "Host", "Source", "Destination", "Label", "Policy", "line"]
    assert lines[2].split() == ["2026-11-20T09:00:00.123Z", "block", "dns", "not-allowlisted", "agent-1.lab",
                                "192.168.10.10", "pastebin.com", "-", "/hosts/agent-1.lab/allow/domains",
                                "(+12)"]  # fmt: skip
    assert "[2001:db8::1]:443/tcp" in lines[3]
    # What would clear the screen is shown.
    assert "\u001b" not in out and "\\x1b[2Jb.example" in lines[4]
    _, out, _ = show(monkeypatch, capsys, "show_log", "--raw")
    assert json.loads(out) == RECORDS


def test_the_log_goes_on(answering, monkeypatch, capsys):
    answering(log="".join(json.dumps(record) + "\n" for record in RECORDS))
    status, out, _ = show(monkeypatch, capsys, "show_log", "--follow")
    assert status == 0 and answering.calls() == ["log --json --follow"]
    assert [line.split()[1] for line in out.splitlines()] == ["block", "block", "monitor"]
    _, out, _ = show(monkeypatch, capsys, "show_log", "--follow", "--raw")
    assert [json.loads(line) for line in out.splitlines()] == RECORDS


def test_a_log_that_ends_with_a_failure_is_told(answering, monkeypatch, capsys):
    answering()
    for words in (["show_log"], ["show_log", "--follow"]):
        status, out, err = show(monkeypatch, capsys, *words)
        assert (status, out) == (1, "") and "error: " in err


def test_health_is_in_the_exit_status(answering, monkeypatch, capsys):
    checks = [{"name": "dns", "ok": False, "message": "no upstream answers"}]
    answering(health={"healthy": False, "checks": checks})
    status, out, _ = show(monkeypatch, capsys, "show_health")
    assert (status, out) == (1, "FAIL  dns  no upstream answers\n")


def test_counters_of_any_shape(answering, monkeypatch, capsys):
    answering(stats={"queries": 5, "top": {"a.example": 3}, "none": {}, "list": [1, {"x": 2}]})
    _, out, _ = show(monkeypatch, capsys, "show_stats")
    assert out == "queries  5\ntop:\n  a.example  3\nnone:\n  -\nlist:\n  1  1\n  2:\n    x  2\n"


@pytest.mark.parametrize("words", [["show_status"], ["show_telemetry"], ["show_log"], ["show_history"], ["show_firewall"],
                                   ["show_explain", "--source", "192.0.2.1"], ["show_check", "--file", "x"]])  # fmt: skip
@pytest.mark.parametrize("answer", ["", "{}", "[]", "null", "7", '{"state": 1}', "\x00\xff", '[{"time": {}}]', '{"checks": 3}'])
def test_nothing_that_the_program_says_makes_a_traceback(answering, monkeypatch, capsys, words, answer):
    answering(**{word.removeprefix("show_"): answer for word in words[:1]})
    status, _, err = show(monkeypatch, capsys, *words)
    assert (status, err) == (0, "") or status == 1 and err.startswith("error: ") and err.count("\n") == 1


def test_a_missing_program_is_told(monkeypatch, capsys):
    monkeypatch.setattr(program, "PROGRAM", "/nonexistent/clawgress")
    for words in (["show_status"], ["show_log"], ["show_log", "--follow"], ["execute_apply"]):
        status, out, err = show(monkeypatch, capsys, *words)
        assert (status, out) == (1, "") and "/nonexistent/clawgress" in err


def test_readers_that_end_early_are_no_failure(answering):
    answering(firewall=json.dumps({"text": "line\n" * 100_000}))
    words = "import sys; sys.path[:0] = sys.argv[1:3]; import clawgress; from clawgress_vyos import program; " \
            "program.PROGRAM = sys.argv[3]; sys.argv = ['x', 'show_firewall']; sys.exit(clawgress.main())"  # fmt: skip
    paths = [str(SOURCES / "op-mode"), str(SOURCES / "conf-mode"), program.PROGRAM]
    command = [sys.executable, "-B", "-c", words, *paths]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout.readline() == "line\n"
        running.stdout.close()
        assert (running.stderr.read(), running.wait()) == ("", 0)


def test_sizes():
    assert [tables.size(number) for number in (0, 1023, 1024, 1536, 2**20, 2**53)] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "8.0 PiB",
    ]  # fmt: skip


# Against the real daemon.


def test_without_the_service_one_line_says_so(gateway):
    answer = gateway.show("show_status")
    assert answer.returncode == 1 and answer.stdout == ""
    assert answer.stderr == "error: service clawgress is not configured, or not enabled\n"


def test_state_of_a_real_daemon(gateway):
    good(gateway.commit(*BASE, *POLICY))
    out = good(gateway.show("show_status"))
    rows = {line.split()[0]: line.split()[1] for line in out.splitlines() if line.strip()}
    assert (rows["State"], rows["Revision"], rows["Origin"], rows["Drift"]) == ("enforcing", "1", "import", "no")
    assert "ok    kernel" in out
    assert json.loads(good(gateway.show("show_status", "--raw")))["state"] == "enforcing"
    assert "ok    kernel" in good(gateway.show("show_health"))
    assert json.loads(good(gateway.show("show_health", "--raw")))["healthy"] is True
    history = good(gateway.show("show_history")).splitlines()
    assert history[0].split() == ["Revision", "Applied", "at", "Origin", "SHA-256"] and history[2].split()[0] == "1"
    assert good(gateway.show("show_firewall")).startswith("table inet clawgress {")
    assert "api.example.com" in good(gateway.show("show_rpz"))
    explained = good(gateway.show("show_explain", "--source", "192.168.10.10", "--domain", "api.example.com"))
    assert "Verdict" in explained and "allow" in explained
    # The line of the policy is the line of the configuration.
    assert "policy host agent-1 domain api.example.com" in explained and "/hosts/" not in explained
    explained = good(gateway.show("show_explain", "--source", "192.168.10.10", "--ip", "1.1.1.1", "--port", "443", "--raw"))
    assert json.loads(explained)["verdict"] == "block"


def test_refusals_of_a_real_daemon(gateway):
    good(gateway.commit(*BASE, *POLICY, "policy deny domain pastebin.com"))
    # The gateway's own address is in the scope too.
    answer = good(gateway.run("dig", "-b", ADDRESS, f"@{ADDRESS}", "pastebin.com"))
    assert "NXDOMAIN" in answer
    record = json.loads(gateway.follow("log", "--json").readline())
    assert (record["domain"], record["reason"]) == ("pastebin.com", "denied")
    out = good(gateway.show("show_log", "--domain", "pastebin.com", "--action", "block", "--since", "1h"))
    words = out.splitlines()[2].split()
    assert words[1:4] == ["block", "dns", "denied"] and words[5:7] == [ADDRESS, "pastebin.com"]
    # The line of the configuration.
    assert out.splitlines()[2].endswith("policy deny domain pastebin.com")
    assert [entry["id"] for entry in json.loads(good(gateway.show("show_log", "--raw")))] == [record["id"]]
    assert good(gateway.show("show_log", "--host", "agent-1")) == "No decision was recorded.\n"
    wrong = gateway.show("show_log", "--since", "yesterday")
    assert wrong.returncode == 1 and wrong.stdout == "" and "yesterday" in wrong.stderr


def test_policies_of_a_real_daemon(gateway):
    good(gateway.commit(*BASE, *POLICY))
    document = json.loads(good(gateway.show("show_policy")))
    assert document["labels"] == {"api.example.com": "llm-provider"}
    assert "the stored policy is in force" in good(gateway.show("execute_apply"))

    file = gateway.directory / "-other policy.json"
    file.write_text(json.dumps({**document, "labels": {}, "deny": {"domains": ["b-c.example.com"]}}))
    words = ("--file", str(file))
    assert "is a valid policy" in good(gateway.show("show_check", *words))
    diff = good(gateway.show("show_diff", *words))
    assert '+      "b-c.example.com"' in diff and '-    "api.example.com": "llm-provider"' in diff
    assert json.loads(good(gateway.show("show_diff", *words, "--raw")))["identical"] is False
    imported = good(gateway.show("import_policy", *words))
    assert "is in force and stored: revision 2" in imported and "note: the stored policy is not the one of the" in imported
    assert good(gateway.show("show_diff", *words)) == "no difference\n"
    # The words of the configuration would be those of another policy now.
    document["hosts"]["agent-1"]["allow"]["domains"] = ["b-c.example.com"]
    file.write_text(json.dumps(document))
    good(gateway.show("import_policy", *words))
    explained = good(gateway.show("show_explain", "--source", "192.168.10.10", "--domain", "b-c.example.com"))
    assert "/hosts/agent-1/allow/domains/0" in explained and "api.example.com" not in explained


def test_wrong_policies_are_told_with_every_mistake(gateway):
    good(gateway.commit(*BASE, *POLICY))
    file = gateway.directory / "wrong.json"
    file.write_text('{"version": 1, "allow": {"ports": [0]}, "hosts": {"a": {}}}')
    answer = gateway.show("show_check", "--file", str(file))
    assert answer.returncode == 1 and answer.stderr == ""
    assert "/allow/ports/0: " in answer.stdout and "/hosts/a: " in answer.stdout
    for command in ("import_policy", "show_diff"):
        answer = gateway.show(command, "--file", str(file))
        assert answer.returncode == 1 and answer.stdout == "" and "/hosts/a: " in answer.stderr
    missing = gateway.show("import_policy", "--file", str(gateway.directory / "none.json"))
    assert missing.returncode == 1 and "no such file" in missing.stderr
    assert gateway.status()["revision"] == 1


def test_a_daemon_that_is_stopped_is_told(gateway):
    good(gateway.commit(*BASE, *POLICY))
    gateway.kill()
    for words in (("show_status",), ("show_health",), ("show_policy",), ("execute_apply",), ("show_history",)):
        answer = gateway.show(*words)
        assert answer.returncode == 1 and answer.stdout == ""
        assert answer.stderr.startswith("error: the daemon is not running") and answer.stderr.count("\n") == 1


def test_files_are_looked_for_where_the_caller_is(gateway, monkeypatch):
    good(gateway.commit(*BASE, *POLICY))
    (gateway.directory / "-").write_text('{"version": 1}')
    monkeypatch.chdir(gateway.directory)
    # A dash would be standard input.
    assert "- is a valid policy" in good(gateway.show("show_check", "--file", "-"))


def test_the_script_can_be_run_without_the_tests():
    """As the router runs it: nothing is imported but Python's own library and our package."""
    command = [sys.executable, "-B", str(SOURCES / "op-mode/clawgress.py"), "--help"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCES / "conf-mode")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 and "show_status" in done.stdout


