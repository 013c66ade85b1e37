"""From `set` lines to the policy that they mean, judged by the real program."""

import json
import re
import subprocess
from pathlib import Path

import pytest

import service_clawgress as service
from clawgress_vyos import program
from router import PROGRAM, SOURCES, Router, SetFailed
from vyos import ConfigError
from vyos.config import Config

SET = "set service clawgress"


def committed(*lines):
    """The configuration of a commit that was verified."""
    Config.router = Router(*lines)
    found = service.get_config()
    service.verify(found)
    return found


def policy(*lines):
    return committed(*(f"{SET} policy {line}" for line in lines))["policy"].document


def test_the_contract_means_what_it_says(contract):
    assert len(contract) == 15
    Config.router = Router(*contract)
    found = service.get_config()
    converted = found["policy"]
    assert converted.mistakes == []
    assert converted.document == {
        "version": 1,
        "allow": {"domains": ["api.openai.com"], "ips": ["1.2.3.0/24"], "ports": [443]},
        "labels": {"api.openai.com": "llm-provider"},
        "time_window": {"days": ["mon"], "start": "09:00", "end": "17:00"},
        "domain_time_windows": {"api.openai.com": {"days": ["fri"], "start": "10:00", "end": "11:00"}},
        "limits": {"egress_kbps": 8000},
        "hosts": {
            "agent-1": {
                "sources": ["192.168.10.10/32"],
                "exfil": {"domains": {"api.openai.com": {"bytes": 1048576, "period": "hour"}}},
            }
        },
    }
    assert found["service"]["listen-address"] == ["192.168.10.1"] and service.enabled(found)
    answer = program.ask("check", "--policy", "-", document=converted.document)
    assert answer["valid"] and answer["warnings"] == []


def test_each_line_of_the_contract_is_valid_alone(contract):
    for line in contract:
        Router(line)


def test_the_contract_is_the_one_of_the_documentation(contract):
    text = (SOURCES / "docs" / "vyos.md").read_text()
    for line in contract:
        assert f"\n{line}\n" in text, line


EVERYTHING = """
mode monitor
time-zone Europe/Berlin
scope source 192.168.10.0/24
scope source fd00:10::/64
scope interface eth1
scope interface eth1.20
domain *.example.com label web
domain api.example.org
domain-list big file /config/clawgress/lists/big.txt
domain-list big format rpz
domain-list small file /config/clawgress/lists/small.txt
domain-time-window www.example.com day sat
domain-time-window www.example.com day sun
domain-time-window www.example.com start 10:00
domain-time-window www.example.com end 11:00
domain-label docs.example.com label documents
ip 192.0.2.7
ip 2001:db8::/32
port 443
port 8443
deny domain ads.example.com
deny domain *.tracker.example.org
deny ip 198.51.100.0/24
deny domain-list threats file /config/clawgress/lists/threats.txt
deny domain-list threats format hosts
rate-limit-kbps 1000000000000
time-window day mon
time-window start 22:00
time-window end 06:00:30
host agent-1 source 192.168.10.10
host agent-1 source fd00:10::10
host agent-1 mode enforce
host agent-1 domain own.example.net label own
host agent-1 domain own.example.net time-window day mon
host agent-1 domain-list mine file /config/clawgress/lists/mine.txt
host agent-1 domain-time-window *.example.net start 08:00
host agent-1 domain-time-window *.example.net end 09:00
host agent-1 ip 203.0.113.0/24
host agent-1 port 22
host agent-1 deny domain bad.example.net
host agent-1 deny ip 203.0.113.9
host agent-1 deny domain-list more file /config/clawgress/lists/more.txt
host agent-1 rate-limit-kbps 1
host agent-1 time-window day tue
host agent-1 time-window start 07:00
host agent-1 time-window end 19:00
host agent-1 exfil domain own.example.net bytes 9007199254740991
host agent-1 exfil domain own.example.net period day
host agent-1 exfil domain *.example.net bytes 1
host agent_2.lab source 192.168.10.20/32
host agent_2.lab allow-none domain
host agent_2.lab allow-none ip
host agent_2.lab allow-none port
host agent_2.lab allow-none domain-list
"""


def everything():
    return [f"{SET} policy {line}" for line in EVERYTHING.strip().splitlines()]


def test_everything_that_a_policy_can_say_can_be_said():
    Config.router = Router(*everything())
    document = service.get_config()["policy"].document
    assert document == {
        "version": 1,
        "mode": "monitor",
        "time_zone": "Europe/Berlin",
        "scope": {"sources": ["192.168.10.0/24", "fd00:10::/64"], "interfaces": ["eth1", "eth1.20"]},
        "allow": {
            "domains": ["*.example.com", "api.example.org"],
            "ips": ["192.0.2.7", "2001:db8::/32"],
            "ports": [443, 8443],
            "domain_lists": [
                {"name": "big", "file": "/config/clawgress/lists/big.txt", "format": "rpz"},
                {"name": "small", "file": "/config/clawgress/lists/small.txt", "format": "domains"},
            ],
        },
        "deny": {
            "domains": ["ads.example.com", "*.tracker.example.org"],
            "ips": ["198.51.100.0/24"],
            "domain_lists": [{"name": "threats", "file": "/config/clawgress/lists/threats.txt", "format": "hosts"}],
        },
        "labels": {"*.example.com": "web", "docs.example.com": "documents", "own.example.net": "own"},
        "time_window": {"days": ["mon"], "start": "22:00", "end": "06:00:30"},
        "domain_time_windows": {"www.example.com": {"days": ["sat", "sun"], "start": "10:00", "end": "11:00"}},
        "limits": {"egress_kbps": 1000000000000},
        "hosts": {
            "agent-1": {
                "sources": ["192.168.10.10", "fd00:10::10"],
                "allow": {
                    "domains": ["own.example.net"],
                    "ips": ["203.0.113.0/24"],
                    "ports": [22],
                    "domain_lists": [{"name": "mine", "file": "/config/clawgress/lists/mine.txt", "format": "domains"}],
                },
                "deny": {
                    "domains": ["bad.example.net"],
                    "ips": ["203.0.113.9"],
                    "domain_lists": [{"name": "more", "file": "/config/clawgress/lists/more.txt", "format": "domains"}],
                },
                "mode": "enforce",
                "time_window": {"days": ["tue"], "start": "07:00", "end": "19:00"},
                "domain_time_windows": {
                    "own.example.net": {"days": ["mon"]},
                    "*.example.net": {"start": "08:00", "end": "09:00"},
                },
                "limits": {"egress_kbps": 1},
                "exfil": {
                    "domains": {
                        "own.example.net": {"bytes": 9007199254740991, "period": "day"},
                        "*.example.net": {"bytes": 1, "period": "hour"},
                    }
                },
            },
            "agent_2.lab": {
                "sources": ["192.168.10.20/32"],
                "allow": {"domains": [], "ips": [], "ports": [], "domain_lists": []},
            },
        },
    }


def fields(schema, at=""):
    """Every field that the policy's schema knows, keys of the user's own as *."""
    definitions = json.loads((SOURCES / "schema" / "policy.schema.json").read_text())["$defs"]
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    for name, below in schema.get("properties", {}).items():
        yield f"{at}/{name}"
        yield from fields(below, f"{at}/{name}")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from fields(schema["additionalProperties"], f"{at}/*")
    if "items" in schema:
        yield from fields(schema["items"], f"{at}/*")


def places(value, at=""):
    """Every field of a document, keys of the user's own as * by its place in the schema."""
    own = ("labels", "domain_time_windows", "hosts", "exfil/domains")
    if isinstance(value, dict):
        for name, below in value.items():
            here = f"{at}/*" if at.endswith(own) else f"{at}/{name}"
            yield here
            yield from places(below, here)
    elif isinstance(value, list):
        for below in value:
            yield f"{at}/*"
            yield from places(below, f"{at}/*")


def test_no_field_of_the_format_is_left_out():
    Config.router = Router(*everything())
    said = set(places(service.get_config()["policy"].document))
    known = set(fields(json.loads((SOURCES / "schema" / "policy.schema.json").read_text())))
    assert known - said == set()


# What is refused, and the node that the message names. The first part at `set`, the rest at `commit`.
WRONG_AT_SET = [
    ("listen-address 192.168.10", "listen-address"),
    ("listen-address eth1", "listen-address"),
    ("dns port 0", "port"),
    ("dns upstream dns.quad9.net", "upstream"),
    ("dns upstream ftp://9.9.9.9", "upstream"),
    ("dns out-of-scope drop", "out-of-scope"),
    ("dns queries-per-second many", "queries-per-second"),
    ("dns receivers 0", "receivers"),
    ("log decisions some", "decisions"),
    ("log keep-days 0", "keep-days"),
    ("log keep-megabytes 1000001", "keep-megabytes"),
    ("api port 65536", "port"),
    ("rpz listen-address lan", "listen-address"),
    ("rpz port 0", "port"),
    ("rpz secondary a/b unsigned", "secondary"),
    ("rpz secondary a address ns.example.com", "address"),
    ("rpz secondary a key a..b", "key"),
    ("rpz secondary a algorithm hmac-md5", "algorithm"),
    ("rpz secondary a secret-file transfer.key", "secret-file"),
    ("rpz secondary a host a/b", "host"),
    ("api listen-address localhost", "listen-address"),
    ("api keys id a-b key 's3cret\"x'", "key"),
    ("api keys id a/b key x", "id"),
    ("api keys id a role admin", "role"),
    ("policy mode off", "mode"),
    ("policy time-zone Berlin", "time-zone"),
    ("policy scope source 192.168.10.1/24", "source"),
    ("policy scope interface eth*", "interface"),
    ("policy scope interface averylonginterface", "interface"),
    ("policy domain *", "domain"),
    ("policy domain *.com", "domain"),
    ("policy domain a.*.example.com", "domain"),
    ("policy domain a..example.com", "domain"),
    ("policy domain -a.example.com", "domain"),
    ("policy domain 'a.example.com\",\"b.example.com'", "domain"),
    ("policy domain 'a.example.com\\'", "domain"),
    ("policy domain 'a.example.com\x01'", "domain"),
    ("policy domain https://example.com", "domain"),
    ("policy domain 1.2.3.4", "domain"),
    (f"policy domain {'a' * 64}.example.com", "domain"),
    ("policy domain api.example.com time-window day monday", "day"),
    ("policy domain api.example.com time-window start 9:00", "start"),
    ("policy domain api.example.com time-window end 24:00", "end"),
    (f"policy domain api.example.com label {'x' * 65}", "label"),
    ("policy ip not-an-ip", "ip"),
    ("policy ip 1.2.3.4/33", "ip"),
    ("policy ip ::ffff:1.2.3.4", "ip"),
    ("policy port 99999999", "port"),
    ("policy port 0", "port"),
    ("policy port http", "port"),
    ("policy rate-limit-kbps 0", "rate-limit-kbps"),
    ("policy rate-limit-kbps 8mbit", "rate-limit-kbps"),
    ("policy allow-none everything", "allow-none"),
    ("policy deny domain *.co.uk", "domain"),
    ("policy deny ip 10.0.0.0/255.0.0.0", "ip"),
    ("policy domain-list x file lists/x.txt", "file"),
    ("policy domain-list x format csv", "format"),
    ("policy host agent:1 source 192.168.10.10", "host name"),
    ("policy host agent-1 source 192.168.10.300", "source"),
    ("policy host agent-1 exfil domain api.example.com bytes 0", "bytes"),
    ("policy host agent-1 exfil domain api.example.com bytes 9007199254740992", "bytes"),
    ("policy host agent-1 exfil domain api.example.com period week", "period"),
]
WRONG_AT_COMMIT = [
    (["policy host agent-1 mode enforce"], "policy host agent-1: needs a source"),
    (["policy host agent-1 source 10.0.0.1", "policy host agent-1 exfil domain a.example.com period day"],
     "policy host agent-1 exfil domain a.example.com: needs bytes"),
    (["policy domain-list big format rpz"], "policy domain-list big: needs a file"),
    (["policy domain-label a.example.com"], "policy domain-label a.example.com: needs a label"),
    (["policy time-window start 09:00"], "policy time-window: this window has start but no end"),
    (["policy domain a.example.com time-window start 09:00", "policy domain a.example.com time-window end 09:00"],
     "policy domain a.example.com time-window: start and end are the same time"),
    (["policy host agent-1 source 10.0.0.0/24", "policy host agent-2 source 10.0.0.0/24"],
     "policy host agent-2 source 10.0.0.0/24: 10.0.0.0/24 is a source already, at policy host agent-1 source 10.0.0.0/24"),
    (["policy domain a.example.com", "policy allow-none domain"], "policy allow-none domain: there is a domain as well"),
    (["policy domain a.example.com time-window day mon", "policy domain-time-window a.example.com day tue"],
     "policy domain-time-window a.example.com: domain a.example.com has a time-window as well"),
    (["policy domain a.example.com label one", "policy host h source 10.0.0.1", "policy host h domain a.example.com label two"],
     "policy host h domain a.example.com label two: policy domain a.example.com label says one"),
    (["policy domain A.example.com label x", "policy domain-label a.example.com label x"],
     'policy domain-label a.example.com label x: "a.example.com" is the same domain as "A.example.com"'),
    (["policy scope"], "policy scope: this scope names nothing"),
    (["rpz port 5301"], "rpz: needs a secondary"),
    (["rpz secondary a unsigned", "rpz secondary a address 192.0.2.53"], "rpz: needs a listen-address"),
    (["rpz listen-address 0.0.0.0", "rpz secondary a address 192.0.2.53"], "rpz listen-address 0.0.0.0: is every address"),
    (["rpz listen-address 192.0.2.1", "rpz port 53", "rpz secondary a address 192.0.2.53"], "rpz port: agents ask there"),
    (["listen-address 192.0.2.9", "rpz listen-address 192.0.2.1", "rpz port 53", "rpz secondary a address 192.0.2.53",
      "rpz secondary a unsigned"], "rpz port: agents ask there"),
    (["rpz listen-address 192.0.2.1", "rpz secondary a unsigned"], "rpz secondary a: needs an address"),
    (["rpz listen-address 192.0.2.1", "rpz secondary a address 2001:db8::1"], "rpz secondary a: could not ask"),
    (["rpz listen-address 192.0.2.1", "rpz secondary a address 192.0.2.53"], "rpz secondary a: needs key and secret-file"),
    (["rpz listen-address 192.0.2.1", "rpz secondary a address 192.0.2.53", "rpz secondary a unsigned",
      "rpz secondary a key k"], "rpz secondary a unsigned: says that no key is needed"),
    (["rpz listen-address 192.0.2.1", "rpz secondary a address 192.0.2.53", "rpz secondary b address 192.0.2.53",
      "rpz secondary a unsigned", "rpz secondary b unsigned"], "rpz secondary b: is the same as rpz secondary a"),
    (["rpz listen-address 2001:db8::1", "rpz secondary a address ::ffff:192.0.2.53", "rpz secondary a unsigned"],
     "rpz secondary a: could not ask: no listen-address of rpz is IPv4"),
    (["api"], "api: needs a key"),
    (["api keys id automation role write"], "api keys id automation: needs a key"),
    (["api metrics", "api tls ca-certificate x"], "api tls: needs a certificate"),
    (["api metrics", "api tls certificate web"], "api tls certificate web: there is no pki certificate of that name"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "node"), WRONG_AT_SET)
def test_wrong_values_are_refused_at_set(line, node):
    with pytest.raises(SetFailed) as refused:
        Router(f"{SET} {line}")
    last = str(refused.value).removesuffix("\nValue validation failed\nSet failed").splitlines()[-1]
    assert last.startswith(node), refused.value


@pytest.mark.parametrize(("lines", "message"), WRONG_AT_COMMIT)
def test_wrong_combinations_are_refused_at_commit(lines, message):
    with pytest.raises(ConfigError) as refused:
        committed(*(f"{SET} {line}" for line in lines))
    told = str(refused.value).splitlines()
    assert any(line.startswith(message) for line in told), told
    # Nobody who types commands should have to know the document.
    assert not re.search(r"/(hosts|allow|deny|scope|labels)\b|[{}\[\]]|_", "\n".join(told)), told


def test_all_mistakes_are_told_at_once_and_none_twice():
    with pytest.raises(ConfigError) as refused:
        committed(
            f"{SET} policy host agent-1 mode enforce", f"{SET} policy host agent-2", f"{SET} policy time-window end 09:00"
        )
    assert sorted(line.split(":")[0] for line in str(refused.value).splitlines()) == [
        "policy host agent-1", "policy host agent-2", "policy time-window",
    ]  # fmt: skip


RIGHT = [
    "dns queries-per-second 0", "dns receivers 256",
    "listen-address fd00:10::1", "dns port 5353", "dns upstream 9.9.9.9", "dns upstream 9.9.9.9:5353",
    "dns upstream 2620:fe::fe", "dns upstream [2620:fe::fe]:53", "dns upstream tls://9.9.9.9#dns.quad9.net",
    "dns upstream tls://[2620:fe::fe]:853#dns.quad9.net", "dns upstream https://9.9.9.9/dns-query#dns.quad9.net",
    "policy ip 10.0.0.0/8", "policy ip ::/0", "policy domain *.a-b.example.com", "policy domain _dmarc.example.com",
    "policy domain xn--bcher-kva.example", "policy time-zone America/Argentina/Buenos_Aires",
    "policy time-window end 23:59:59", "policy port 65535", "policy rate-limit-kbps 1000000000000",
    "rpz secondary a host *", "rpz secondary a key transfer.example", "rpz secondary a secret-file /config/a.key",
    "api keys id automation key s3cret#+/=", "policy scope interface pppoe0", "policy scope interface eth1.20",
    "policy domain-list a file /config/a", "policy domain a.example.com label größe",
]  # fmt: skip


@pytest.mark.parametrize("line", RIGHT)
def test_right_values_are_taken(line):
    Router(f"{SET} {line}")


LONG = "a" * 63
NAMES = [
    "my-site.example.com",
    "a-b--c.d_e.example.com",
    "*.wild-card.example.com",
    "bücher.example",
    "xn--bcher-kva.example",
    "例え.テスト",
    f"{LONG}.{LONG}.{LONG}.example.com",
    "API.Example.COM",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_survive_byte_for_byte(name):
    document = policy(f"domain {name} label l-{len(name)}", "host h.o_s-t source 10.0.0.1", f"host h.o_s-t domain {name}")
    assert document["allow"]["domains"] == [name]
    assert document["labels"] == {name: f"l-{len(name)}"}
    assert document["hosts"]["h.o_s-t"]["allow"]["domains"] == [name]
    # What the program then shows is its normal form, and of a normal form the same.
    shown = program.ask("show", "--policy", "-", document=document)
    again = program.ask("show", "--policy", "-", document=shown)
    assert shown == again and list(shown["hosts"]) == ["h.o_s-t"]
    if name == name.lower() and name.isascii():
        assert shown["allow"]["domains"] == [name]


def test_long_names_are_not_broken_in_messages():
    """The router's ConfigError wraps at 72 characters."""
    name = f"{LONG}.{LONG}.example.com"
    with pytest.raises(ConfigError) as refused:
        committed(f"{SET} policy domain {name} time-window start 09:00")
    assert str(refused.value).startswith(f"policy domain {name} time-window: ")


def test_names_that_look_like_fields_stay_as_they_are():
    text = 'allow.ips.example.com and "time_window" of my-time_zone.example and time_zone, in allow.ips (/allow/ips/0)'
    assert program.translated(text, {"/allow/ips/0": "policy ip 192.0.2.1"}) == (
        'allow.ips.example.com and "time_window" of my-time_zone.example and time-zone, in policy ip (policy ip 192.0.2.1)'
    )


def test_host_names_of_63_characters():
    host = "h-" + "x" * 61
    assert list(policy("port 443", f"host {host} source 10.0.0.1")["hosts"]) == [host]
    with pytest.raises(SetFailed, match="host name"):
        Router(f"{SET} policy host {host}x source 10.0.0.1")


def test_without_a_policy_node_there_is_no_policy():
    found = committed(f"{SET} enable")
    assert found["policy"] is None


def test_an_empty_policy_node_is_a_policy(capsys):
    assert committed(f"{SET} enable", f"{SET} policy")["policy"].document == {"version": 1}
    assert "policy: nothing is allowed" in capsys.readouterr().out


def test_words_that_nobody_knows_are_refused():
    for line in ("polcy", "policy host", "policy ip", "policy domain a.example.com x", "enable now"):
        with pytest.raises(SetFailed):
            Router(f"{SET} {line}")


def test_examples_of_the_tree_can_be_said():
    """Every example policy comes out of commands that say it."""
    for path in sorted((SOURCES / "examples" / "policies").glob("*.json")):
        document = json.loads(path.read_text())
        lines = list(commands(document))
        Config.router = Router(*(f"{SET} policy {line}" for line in lines))
        found = service.get_config()["policy"].document
        assert normal(found) == normal(document), path.name


def normal(document):
    return program.ask("show", "--policy", "-", document=document)


def commands(document):
    """The lines that say a document: the way back, for tests."""
    yield from block(document, "")
    for kind, node in (("sources", "source"), ("interfaces", "interface")):
        yield from (f"scope {node} {value}" for value in document.get("scope", {}).get(kind, []))
    if "time_zone" in document:
        yield f"time-zone {document['time_zone']}"
    yield from (f"domain-label {domain} label {label}" for domain, label in document.get("labels", {}).items())
    for name, host in document.get("hosts", {}).items():
        yield from (f"host {name} source {value}" for value in host["sources"])
        yield from block(host, f"host {name} ")
        for domain, cap in host.get("exfil", {}).get("domains", {}).items():
            yield from (f"host {name} exfil domain {domain} {key} {value}" for key, value in cap.items())


def block(entry, front):
    kinds = (("domains", "domain"), ("ips", "ip"), ("ports", "port"))
    for side, word in (("allow", ""), ("deny", "deny ")):
        for kind, node in kinds:
            values = entry.get(side, {}).get(kind)
            yield from (f"{front}{word}{node} {value}" for value in values or [])
            if values == [] and side == "allow":
                yield f"{front}allow-none {node}"
        for listed in entry.get(side, {}).get("domain_lists", []):
            yield from (f"{front}{word}domain-list {listed['name']} {key} {listed[key]}" for key in ("file", "format"))
    if "mode" in entry:
        yield f"{front}mode {entry['mode']}"
    if "limits" in entry:
        yield f"{front}rate-limit-kbps {entry['limits']['egress_kbps']}"
    if "time_window" in entry:
        yield from window(entry["time_window"], f"{front}time-window")
    for domain, value in entry.get("domain_time_windows", {}).items():
        yield from window(value, f"{front}domain-time-window {domain}")


def window(value, front):
    yield from (f"{front} day {day}" for day in value.get("days", []))
    yield from (f"{front} {edge} {value[edge]}" for edge in ("start", "end") if edge in value)


def test_the_converter_runs_by_itself(contract):
    done = subprocess.run(
        ["/usr/bin/python3", "-B", str(Path(__file__).with_name("router.py"))],
        input="\n".join(contract), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["hosts"]["agent-1"]["sources"] == ["192.168.10.10/32"]
