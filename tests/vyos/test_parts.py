"""Parts of the router's scripts by themselves: what whole commits do not reach easily."""

import json
import stat
import subprocess

import pytest

from clawgress_vyos import certificates, policy, program, settings, system
from clawgress_vyos.policy import Converted, pointer
from router import PROGRAM, VALIDATORS


def test_pointers_are_those_of_the_rfc():
    assert pointer("hosts", "a/b~c", "sources", 0) == "/hosts/a~1b~0c/sources/0"
    assert pointer() == ""


def test_a_place_that_is_not_known_is_that_around_it():
    converted = Converted({}, {"": "policy", "/hosts/a": "policy host a", "/allow/ports": "policy port"})
    assert converted.words("/hosts/a/exfil/domains") == "policy host a"
    assert converted.words("/allow/ports/7") == "policy port"
    assert converted.words("/limits") == "policy" and converted.words("") == "policy"


def test_every_place_of_a_document_is_known():
    """Whatever the program points at, there are words for it."""
    config = {
        "domain": {"a.example.com": {"label": "x", "time-window": {"day": ["mon"], "start": "09:00", "end": "10:00"}}},
        "host": {"h": {"source": ["10.0.0.1"], "exfil": {"domain": {"b.example.com": {"bytes": "1", "period": "day"}}}}},
    }
    converted = policy.convert(config)
    for place, words in {
        "/allow/domains/0": "policy domain a.example.com",
        "/labels/a.example.com": "policy domain a.example.com label x",
        "/domain_time_windows/a.example.com": "policy domain a.example.com time-window",
        "/domain_time_windows/a.example.com/days/0": "policy domain a.example.com time-window day mon",
        "/domain_time_windows/a.example.com/start": "policy domain a.example.com time-window start 09:00",
        "/hosts/h": "policy host h",
        "/hosts/h/sources/0": "policy host h source 10.0.0.1",
        "/hosts/h/exfil/domains/b.example.com": "policy host h exfil domain b.example.com",
        "/hosts/h/exfil/domains/b.example.com/bytes": "policy host h exfil domain b.example.com bytes 1",
    }.items():
        assert converted.words(place) == words


@pytest.mark.parametrize("text", ['a"b', "a\\b", "tab\there", "del\x7f", "größe", "\U0001f600", "\x01"])
def test_strings_of_settings_are_toml(text):
    tomllib = pytest.importorskip("tomllib")
    assert tomllib.loads(f"key = {settings.quoted(text)}") == {"key": text}


def test_metrics_need_no_key():
    assert list(settings.mistakes({"api": {"metrics": {}}})) == []
    assert [words for words, _ in settings.mistakes({"api": {}})] == ["api"]


@pytest.fixture
def saying(tmp_path, monkeypatch):
    """A program that says this and does nothing."""

    def prepare(script):
        path = tmp_path / "clawgress"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(program, "PROGRAM", str(path))
        return path

    return prepare


def checked(saying, **answer):
    whole = {"valid": True, "errors": [], "warnings": [], "not_enforced": [], **answer}
    saying(f"cat > /dev/null; echo '{json.dumps(whole)}'")
    return program.check(Converted({}, {"": "policy", "/limits/egress_kbps": "policy rate-limit-kbps 1"}))


def test_what_is_not_enforced_is_an_error(saying):
    entry = {"path": "/limits/egress_kbps", "message": "rate limits do not hold", "hint": "remove it"}
    assert checked(saying, not_enforced=[entry]) == (
        [("policy rate-limit-kbps 1", "rate limits do not hold (remove it)")], []
    )  # fmt: skip


def test_hints_that_show_a_document_are_left_out(saying):
    entry = {"path": "", "message": "wrong", "hint": 'write {"version": 1}'}
    assert checked(saying, errors=[entry]) == ([("policy", "wrong")], [])
    assert checked(saying, warnings=[{**entry, "hint": None}]) == ([], [("policy", "wrong")])


@pytest.mark.parametrize("script", ["echo '[]'", "echo '{}'", "echo '{\"errors\": 1, \"not_enforced\": []}'", "echo 7"])
def test_an_answer_of_another_version_is_told(saying, script):
    saying(f"cat > /dev/null; {script}")
    with pytest.raises(program.ProgramError, match="of one version"):
        program.check(Converted({}))


def test_a_program_that_cannot_be_run_is_told(saying):
    saying("exit 0").chmod(0o644)
    with pytest.raises(program.ProgramError, match="cannot be run: permission denied"):
        program.call("status")


def test_a_program_that_hangs_is_told(saying, monkeypatch):
    saying("exec sleep 60")
    monkeypatch.setattr(program, "TIMEOUT", 0.1)
    with pytest.raises(program.ProgramError, match="clawgress status did not end within"):
        program.call("status")


@pytest.mark.parametrize(
    ("script", "reason"),
    [("echo 'error: no' >&2; exit 1", "no"), ("echo out; exit 1", "out"), ("exit 3", "clawgress failed with status 3")],
)
def test_reasons_are_the_programs_own(saying, script, reason):
    saying(script)
    assert program.reason(program.call("status")).startswith(reason)


def validated(*words, program=PROGRAM):
    command = [str(VALIDATORS / "clawgress-value"), *words]
    done = subprocess.run(command, capture_output=True, text=True, env={"CLAWGRESS_PROGRAM": str(program)}, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_the_validator_says_why():
    assert validated("domain", "a.example.com") == (0, "")
    status, said = validated("domain", "a..b")
    assert status == 1 and said.startswith('Error: "a..b" has an empty part') and said.count("\n") == 1
    assert validated("domain", "a\x1b[2J")[1] == "Error: the value holds characters that do not print\n"
    assert validated("colour", "red") == (2, "Error: unknown kind of value: colour\n")
    assert validated("domain", "")[0] == 1
    status, said = validated("domain", "a.example.com", program="/nonexistent/clawgress")
    assert status == 1 and said.startswith("Error: /nonexistent/clawgress is missing, so nothing can be checked")


TLS = {"api": {"tls": {"certificate": "web", "ca-certificate": ["middle"]}}}


def test_each_thing_that_a_certificate_lacks_is_told():
    whole = {"certificate": "A", "private": {"key": "B"}}
    middle = {"ca": {"middle": {"certificate": "C"}}}
    assert list(certificates.mistakes(TLS, {"certificate": {"web": whole}, **middle})) == []
    for found, message in (
        ({}, "there is no pki certificate of that name"),
        ({"certificate": "A"}, "the pki certificate has no private key"),
        ({"certificate": "A", "private": {}}, "the pki certificate has no private key"),
    ):
        told = certificates.mistakes(TLS, {"certificate": {"web": found}, **middle})
        assert list(told) == [("api tls certificate web", message)]
    told = certificates.mistakes(TLS, {"certificate": {"web": whole}})
    assert list(told) == [("api tls ca-certificate middle", "there is no pki ca of that name")]


def test_certificates_that_are_not_used_any_more_are_removed(tmp_path):
    pki = {"certificate": {"web": {"certificate": "A", "private": {"key": "B"}}}, "ca": {"middle": {"certificate": "C"}}}
    old = certificates.write_files(TLS, pki, tmp_path)
    pki["certificate"]["web"]["certificate"] = "D"
    new = certificates.write_files(TLS, pki, tmp_path)
    assert set(old).isdisjoint(new)
    (tmp_path / "clawgress.toml").touch()
    certificates.forget(tmp_path, f"certificate = {new[0]} key = {new[1]}")
    assert {str(path) for path in tmp_path.iterdir()} == {*new, str(tmp_path / "clawgress.toml")}
    certificates.forget(tmp_path, "")
    assert [path.name for path in tmp_path.iterdir()] == ["clawgress.toml"]
    certificates.forget(tmp_path / "none", "")


def test_files_are_for_root_from_their_first_moment(tmp_path):
    path = tmp_path / "file"
    path.touch(mode=0o644)
    system.write(path, "secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and system.read(path) == "secret"
    assert list(tmp_path.iterdir()) == [path]


def test_a_program_of_the_router_that_is_missing_has_failed():
    done = system.run("/nonexistent/program")
    assert done.returncode == system.NOT_FOUND and "No such file" in done.stderr
