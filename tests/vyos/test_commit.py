"""Commits: the real daemon in a network namespace, with systemd alone replaced."""

import json
import re
import stat
import sys

import pytest

import service_clawgress as service
from clawgress_vyos import program, settings
from gateway import BASE, POLICY, good, refused
from router import SOURCES, Router
from vyos import ConfigError
from vyos.config import Config

SET = "set service clawgress"
def stored(gateway):
    return json.loads(good(gateway.tool("show")))


def test_the_first_commit_enforces_and_deleting_opens(gateway):
    assert good(gateway.commit(*BASE, *POLICY)) == ""
    status = gateway.status()
    assert (status["state"], status["origin"], status["hosts"], status["drift"]) == ("enforcing", "import", 1, False)
    assert gateway.has_table()
    assert stored(gateway)["hosts"]["agent-1"]["allow"] == {"domains": ["api.example.com"]}
    for name in ("clawgress.toml", "committed.json", "places.json"):
        assert stat.S_IMODE((gateway.directory / "run" / name).stat().st_mode) == 0o600
    assert "enable --quiet clawgress-early.service" in gateway.calls()

    assert good(gateway.commit()) == ""
    assert not gateway.has_table() and not gateway.is_running()
    assert gateway.files() == []
    assert gateway.calls()[-2:] != [] and "disable --quiet clawgress-early.service" in gateway.calls()


def test_without_enable_nothing_is_enforced(gateway):
    good(gateway.commit(*BASE, *POLICY))
    out = good(gateway.commit(*BASE[1:], *POLICY))
    assert "service clawgress is not enabled" in out
    assert not gateway.has_table() and not gateway.is_running()


def test_a_change_of_the_policy_does_not_restart_the_daemon(gateway):
    good(gateway.commit(*BASE, *POLICY))
    good(gateway.commit(*BASE, *POLICY, "policy host agent-1 domain www.example.com"))
    assert gateway.status()["revision"] == 2
    assert sum(call.startswith("restart") for call in gateway.calls()) == 1
    # The same again is no new revision.
    good(gateway.commit(*BASE, *POLICY, "policy host agent-1 domain www.example.com"))
    assert gateway.status()["revision"] == 2
    good(gateway.commit(*BASE, *POLICY, "log decisions all"))
    assert sum(call.startswith("restart") for call in gateway.calls()) == 2


def test_a_commit_works_with_the_daemon_stopped(gateway):
    good(gateway.commit(*BASE, *POLICY))
    gateway.kill()
    assert gateway.has_table() and not gateway.is_running()
    good(gateway.commit(*BASE, *POLICY, "policy port 443"))
    assert gateway.status()["state"] == "enforcing" and stored(gateway)["allow"] == {"ports": [443]}


def test_the_service_can_be_deleted_with_the_daemon_stopped(gateway):
    good(gateway.commit(*BASE, *POLICY))
    gateway.kill()
    good(gateway.commit())
    assert not gateway.has_table()


def test_deleting_what_was_never_there_is_no_failure(gateway):
    good(gateway.commit())
    assert gateway.files() == []


def test_a_wrong_policy_changes_nothing(gateway):
    good(gateway.commit(*BASE, *POLICY))
    before = stored(gateway), gateway.files()
    out = refused(gateway.commit(*BASE, "policy host agent-9 mode enforce"))
    assert out == "policy host agent-9: needs a source: the address of the agent, such as 192.168.10.10/32\n"
    assert (stored(gateway), gateway.files()) == before
    assert gateway.status()["revision"] == 1


def test_settings_that_cannot_work_are_told_and_taken_back(gateway):
    good(gateway.commit(*BASE, *POLICY))
    before = (gateway.directory / "run/clawgress.toml").read_text()
    out = refused(gateway.commit("enable", "listen-address 192.0.2.77", "policy domain www.example.org"))
    assert out.startswith("the daemon does not start: cannot listen on 192.0.2.77:53 (UDP): ")
    assert "give it to one, or correct listen-address" in out and out.count("\n") == 1
    assert (gateway.directory / "run/clawgress.toml").read_text() == before
    assert gateway.status()["revision"] == 1 and gateway.has_table()


def test_a_refusal_of_the_first_policy_leaves_the_gateway_as_it_was(gateway):
    gateway.fail_at("import", "the kernel refuses /hosts/agent-1/sources/0; nothing changed")
    out = refused(gateway.commit(*BASE, *POLICY))
    assert out == "the kernel refuses policy host agent-1 source 192.168.10.10/32; nothing changed\n"
    assert not gateway.has_table() and not gateway.is_running()
    assert "clawgress.toml" not in gateway.files() and "committed.json" not in gateway.files()


def test_a_refusal_does_not_leave_an_older_policy_in_force(gateway):
    good(gateway.commit(*BASE, *POLICY))
    good(gateway.commit())
    # It is stored still, and the start of the daemon puts it in force.
    gateway.fail_at("import", "no")
    refused(gateway.commit(*BASE, *POLICY, "policy port 1"))
    assert not gateway.has_table() and not gateway.is_running()


def test_a_refusal_after_a_crash_brings_the_old_settings_back(gateway):
    good(gateway.commit(*BASE, *POLICY))
    before = (gateway.directory / "run/clawgress.toml").read_text()
    gateway.kill()
    gateway.fail_at("import", "no")
    refused(gateway.commit(*BASE, *POLICY, "log decisions none"))
    assert (gateway.directory / "run/clawgress.toml").read_text() == before
    # The daemon that runs has read them.
    assert [call.split()[0] for call in gateway.calls() if call.startswith("restart")] == ["restart"] * 3
    assert gateway.is_running() and gateway.has_table()


def test_a_refusal_opens_nothing_that_was_closed(gateway):
    """A boot: the last policy is in the kernel, daemon and /run are not there yet, and the commit fails."""
    good(gateway.commit(*BASE, *POLICY))
    gateway.kill()
    for path in (gateway.directory / "run").iterdir():
        path.unlink()
    gateway.fail_at("import", "no")
    refused(gateway.commit(*BASE, *POLICY, "policy port 1"))
    # Better the last policy with its DNS than a table alone; and the tool finds the daemon.
    assert gateway.has_table() and gateway.is_running()
    assert gateway.status()["state"] == "enforcing" and "ports" not in stored(gateway).get("allow", {})


def test_a_teardown_that_fails_refuses_the_commit(gateway):
    good(gateway.commit(*BASE, *POLICY))
    gateway.fail_at("teardown", "the kernel refuses")
    assert refused(gateway.commit()) == "the gateway is not open: the kernel refuses\n"
    assert gateway.has_table()


def test_a_daemon_in_the_way_does_not_keep_the_gateway_closed(gateway):
    """It does not do what it is told; without it the tool does."""
    good(gateway.commit(*BASE, *POLICY))
    gateway.fail_at("teardown", "the daemon did not answer", times=1)
    good(gateway.commit())
    assert not gateway.has_table() and not gateway.is_running()


def test_without_policy_nodes_there_is_nothing_to_drift_from(gateway):
    good(gateway.commit(*BASE, *POLICY))
    good(gateway.commit(*BASE))
    assert gateway.files() == ["clawgress.sock", "clawgress.toml"]
    assert stored(gateway)["hosts"]


def test_without_policy_nodes_an_imported_policy_is_left_alone(gateway):
    good(gateway.commit(*BASE))
    assert gateway.status()["state"] == "unconfigured"
    good(gateway.tool("import", "--policy", "-", text='{"version": 1, "allow": {"domains": ["api.example.org"]}}'))
    out = good(gateway.commit(*BASE, "log decisions none"))
    assert "there is no policy in the configuration" in out
    assert stored(gateway)["allow"] == {"domains": ["api.example.org"]}
    assert "committed.json" not in gateway.files()
    assert gateway.status()["state"] == "enforcing"


def test_with_policy_nodes_the_commit_is_authoritative_and_drift_is_told(gateway):
    good(gateway.commit(*BASE, *POLICY))
    assert "Drift       no" in good(gateway.show("show_status"))
    good(gateway.tool("import", "--policy", "-", text='{"version": 1, "allow": {"domains": ["api.example.org"]}}'))
    raw = json.loads(good(gateway.show("show_status", "--raw")))
    assert raw["drift"] is True
    assert [check["name"] for check in raw["checks"] if not check["ok"]] == ["configuration"]
    text = good(gateway.show("show_status"))
    assert "Drift       yes" in text and "imported since the last commit" in text
    good(gateway.commit(*BASE, *POLICY))
    assert stored(gateway)["hosts"] and "Drift       no" in good(gateway.show("show_status"))


# One call of the API from within the namespace: port, path, body.
CALL = """
import json, sys, urllib.error, urllib.request
url = f"http://127.0.0.1:{sys.argv[1]}/api/clawgress/{sys.argv[2]}"
request = urllib.request.Request(url, sys.argv[3].encode(), {"Content-Type": "application/json"})
try:
    print(urllib.request.urlopen(request, timeout=10).read().decode())
except urllib.error.HTTPError as error:
    print(json.dumps({"status": error.code, **json.loads(error.read())}))
"""


def called(gateway, path, **body):
    return json.loads(good(gateway.run(sys.executable, "-c", CALL, "8788", path, json.dumps(body))))


def test_the_api_takes_the_keys_of_the_configuration(gateway):
    api = ("api port 8788", "api keys id automation key s3cret#1", "api keys id automation role write",
           "api keys id reader key other")  # fmt: skip
    good(gateway.commit(*BASE, *POLICY, *api))
    assert called(gateway, "status", key="other")["data"]["state"] == "enforcing"
    document = {"version": 1, "allow": {"domains": ["api.example.org"]}}
    assert called(gateway, "policy", key="other", policy=document)["status"] == 403
    assert called(gateway, "policy", key="s3cret#1", policy=document)["success"] is True
    # Who stored it, and that it is not what the configuration says.
    assert "api (automation)" in good(gateway.show("show_history"))
    assert "Drift       yes" in good(gateway.show("show_status"))
    good(gateway.commit(*BASE, *POLICY, *api))
    assert stored(gateway)["hosts"] and "Drift       no" in good(gateway.show("show_status"))


def test_names_survive_from_the_command_line_to_the_kernel_and_back(gateway):
    label = "x" * 63
    host = "agent-1.lab_2"
    names = ["my-site.example.com", "*.wild-card.example.com", "xn--bcher-kva.example", f"{label}.example.com"]
    lines = [f"policy host {host} source 192.168.10.10/32", *(f"policy host {host} domain '{name}'" for name in names)]
    good(gateway.commit(*BASE, *lines))
    shown = json.loads(good(gateway.show("show_policy")))
    assert shown["hosts"][host]["allow"]["domains"] == names
    assert host in good(gateway.show("show_firewall"))
    zones = good(gateway.show("show_rpz", "--host", host))
    for name in names:
        assert f"{name} " in zones or f"{name}\t" in zones, name


# What needs no daemon.


def verified(*lines):
    Config.router = Router(*lines)
    found = service.get_config()
    service.verify(found)
    return found


FORWARDING = "set service dns forwarding listen-address"


@pytest.mark.parametrize(
    ("own", "theirs", "taken"),
    [
        (["listen-address 192.168.10.1"], ["192.168.10.1"], "192.168.10.1:53"),
        ([], ["192.168.10.1"], "192.168.10.1:53"),
        ([], ["fd00:10::1"], "[fd00:10::1]:53"),
        (["listen-address 192.168.10.1"], ["0.0.0.0"], "0.0.0.0:53"),
        (["listen-address fd00::1"], ["fd00:0::1"], "[fd00:0::1]:53"),
        (["listen-address 192.168.10.1"], ["192.168.20.1"], None),
        (["listen-address 192.168.10.1"], ["::"], None),
        (["dns port 5353"], ["0.0.0.0"], None),
    ],
)
def test_two_listeners_on_port_53_are_refused(own, theirs, taken):
    lines = [f"{SET} {line}" for line in ("enable", "policy port 443", *own)]
    lines += [f"{FORWARDING} {address}" for address in theirs]
    if taken is None:
        verified(*lines)
    else:
        with pytest.raises(ConfigError) as error:
            verified(*lines)
        assert str(error.value).startswith(f"listen-address: {taken} is taken by service dns forwarding")


def test_forwarding_on_another_port_does_not_clash():
    verified(f"{SET} enable", f"{FORWARDING} 0.0.0.0", "set service dns forwarding port 5353")


def test_what_is_not_enabled_does_not_clash():
    verified(f"{SET} policy port 443", f"{FORWARDING} 0.0.0.0")


def test_flow_offload_is_warned_of(capsys):
    verified(f"{SET} enable", f"{SET} policy domain a.example.com")
    assert "offloaded" not in capsys.readouterr().out
    verified(f"{SET} enable", f"{SET} policy domain a.example.com", "set firewall flowtable FT interface eth0")
    assert "firewall flowtable: offloaded flows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lines", "warned"),
    [
        (["policy port 443"], True),
        (["policy host h source 10.0.0.1"], True),
        (["policy host h source 10.0.0.1", "policy host h ip 192.0.2.1"], False),
        (["policy domain-list l file /config/l"], False),
    ],
)
def test_an_empty_allowlist_is_warned_of(capsys, monkeypatch, lines, warned):
    # Whether lists in files are enforced is not the question here.
    monkeypatch.setattr(program, "check", lambda converted: ([], []))
    verified(f"{SET} enable", *(f"{SET} {line}" for line in lines))
    assert ("nothing is allowed" in capsys.readouterr().out) == warned


def test_warnings_of_the_program_are_in_the_words_of_the_command_line(capsys):
    verified(f"{SET} enable", f"{SET} policy domain a.example.com", f"{SET} policy domain-label b.example.com label x")
    out = " ".join(capsys.readouterr().out.split())
    assert "WARNING: policy domain-label b.example.com label x: no allowlist has this domain" in out
    assert "add the domain to policy domain" in out
    # The router wraps warnings, and would do so within names.
    name = f"{'a-' * 31}a.{'b' * 63}.example.com"
    verified(f"{SET} enable", f"{SET} policy domain a.example.com", f"{SET} policy domain-label {name} label x")
    assert name in capsys.readouterr().out


def test_settings_say_what_the_configuration_says(tmp_path):
    pki = "set pki certificate web"
    lines = [
        *(f"{SET} {line}" for line in (
            "enable", "listen-address 192.168.10.1", "listen-address fd00:10::1", "dns port 5353",
            "dns upstream tls://9.9.9.9#dns.quad9.net", "dns upstream 1.1.1.1", "dns out-of-scope forward",
            "dns queries-per-second 500", "dns receivers 4",
            "dns disable-redirect", "api listen-address ::1", "api port 8443", "api tls certificate web",
            "api tls ca-certificate middle", "api keys id automation key s3cret#x", "api keys id automation role write",
            "api keys id reader key other", "api metrics", "log decisions all", "log keep-days 7",
            "disable-table-lock", "rpz listen-address 192.168.10.1", "rpz secondary one address 192.0.2.53",
            "rpz secondary one key transfer", "rpz secondary one algorithm hmac-sha512",
            "rpz secondary one secret-file /config/transfer.key", "rpz secondary one host agent-1",
            "rpz secondary one host *", "rpz secondary two address 192.0.2.54", "rpz secondary two port 5353",
            "rpz secondary two unsigned",
        )),
        f"{pki} certificate {'A' * 100}", f"{pki} private key {'B' * 100}", f"set pki ca middle certificate {'C' * 10}",
    ]  # fmt: skip
    found = verified(*lines)
    service.RUNTIME, before = str(tmp_path), service.RUNTIME
    try:
        service.generate(found)
    finally:
        service.RUNTIME = before
    file = tmp_path / "clawgress.toml.new"
    certificate, key = (next(tmp_path.glob(f"*.{end}")) for end in ("crt", "key"))
    assert certificate.read_text() == (
        f"-----BEGIN CERTIFICATE-----\n{'A' * 64}\n{'A' * 36}\n-----END CERTIFICATE-----\n"
        f"-----BEGIN CERTIFICATE-----\n{'C' * 10}\n-----END CERTIFICATE-----\n"
    )
    assert {stat.S_IMODE(path.stat().st_mode) for path in (file, certificate, key)} == {0o600}
    tomllib = pytest.importorskip("tomllib")
    assert tomllib.loads(file.read_text()) == {
        "policy": "/config/clawgress/policy.json",
        "state_dir": "/config/clawgress/state",
        "runtime_dir": str(tmp_path),
        "dns": {
            "listen": ["192.168.10.1:5353", "[fd00:10::1]:5353"],
            "upstreams": ["tls://9.9.9.9#dns.quad9.net", "1.1.1.1"],
            "redirect": False,
            "out_of_scope": "forward",
            "queries_per_second": 500,
            "receivers": 4,
        },
        "rpz": {
            "listen": ["192.168.10.1:5300"],
            "secondary": [
                {
                    "address": "192.0.2.53:53",
                    "key": "transfer",
                    "algorithm": "hmac-sha512",
                    "secret_file": "/config/transfer.key",
                    "hosts": ["agent-1", "*"],
                },
                {"address": "192.0.2.54:5353", "unsigned": True},
            ],
        },
        "api": {
            "listen": "[::1]:8443",
            "tls": {"certificate": str(certificate), "key": str(key)},
            "keys": [
                {"id": "automation", "key": "s3cret#x", "role": "write"},
                {"id": "reader", "key": "other", "role": "read"},
            ],
            "metrics": True,
        },
        "log": {"decisions": "all", "keep_megabytes": 64, "keep_days": 7},
        "kernel": {"lock_table": False},
    }
    # Whatever the settings can say, the command line can say.
    shipped = (SOURCES / "packaging" / "clawgress.toml").read_text()
    known = re.findall(r"^#\s*([a-z_]+)\s+=", shipped, re.M)
    assert len(known) > 10 and [key for key in known if f"{key} = " not in file.read_text()] == []
    # The program reads it: it goes on to look for a daemon, and there is none.
    assert "the daemon is not running" in program.reason(program.call("status", "--config", str(file)))


def test_settings_of_the_shortest_configuration_are_the_defaults():
    found = verified(f"{SET} enable")
    text = settings.text(found["service"], None, "/run/clawgress")
    tomllib = pytest.importorskip("tomllib")
    assert tomllib.loads(text) == {
        "policy": "/config/clawgress/policy.json", "state_dir": "/config/clawgress/state", "runtime_dir": "/run/clawgress",
        "dns": {"listen": ["0.0.0.0:53", "[::]:53"], "redirect": True, "out_of_scope": "refuse", "queries_per_second": 2000},
        "log": {"decisions": "block", "keep_megabytes": 64, "keep_days": 30}, "kernel": {"lock_table": True},
    }  # fmt: skip


def test_a_protected_key_is_refused():
    pki = "set pki certificate web"
    lines = (f"{pki} certificate AAAA", f"{pki} private key BBBB", f"{pki} private password-protected")
    with pytest.raises(ConfigError, match="protected by a password"):
        verified(f"{SET} enable", f"{SET} api metrics", f"{SET} api tls certificate web", *lines)


def test_a_missing_program_is_told(monkeypatch):
    monkeypatch.setattr(program, "PROGRAM", "/nonexistent/clawgress")
    with pytest.raises(ConfigError, match="/nonexistent/clawgress is missing; install the clawgress package again"):
        verified(f"{SET} enable", f"{SET} policy port 443")


def test_many_mistakes_are_counted():
    with pytest.raises(ConfigError) as error:
        verified(*(f"{SET} policy host h{number} mode enforce" for number in range(50)))
    lines = str(error.value).splitlines()
    assert len(lines) == service.TOLD + 1 and lines[-1] == "and 10 more"
