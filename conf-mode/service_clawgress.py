#!/usr/bin/env python3
"""The commit of `service clawgress`: the configuration becomes policy and settings, and the daemon enforces them.

What a policy means is decided by the program alone: here it is converted, checked and handed over. Nothing outside /run
is written, and nothing is opened but by deleting the node, or its `enable`.
"""

import json
import os
from sys import exit

from clawgress_vyos import certificates, policy, program, settings
from clawgress_vyos.system import read, remove, run, systemctl, write
from vyos import ConfigError, airbag
from vyos.base import Warning
from vyos.config import Config

airbag.enable()

BASE = ["service", "clawgress"]
RUNTIME = "/run/clawgress"
UNIT = "clawgress.service"
# Closes the scope before the network comes up. It has no work where the service is deleted.
EARLY_UNIT = "clawgress-early.service"
UNITS = "/usr/lib/systemd/system"
# Mistakes that are told in one commit; the rest is counted.
TOLD = 40
# Lines of the journal in which the reason for a start that failed stands.
LAST_WORDS = 20


class Refused(ConfigError):
    """A ConfigError that stays as it is: the usual one is wrapped at 72 characters, right through long names."""

    def __init__(self, lines):
        rest = len(lines) - TOLD
        more = [f"and {rest} more"] if rest > 0 else []
        Exception.__init__(self, "\n".join([*lines[:TOLD], *more]))


def get_config(config=None):
    conf = config or Config()
    if not conf.exists(BASE):
        return None
    # Keys stay as they are: the usual change of dashes to underscores destroys names.
    service = conf.get_config_dict(BASE, get_first_key=True, with_recursive_defaults=True)
    # Defaults may not make a policy where there is none.
    has_policy = conf.exists([*BASE, "policy"])
    found = {
        "service": service,
        "policy": policy.convert(service.get("policy", {})) if has_policy else None,
        "forwarding": conf.get_config_dict(["service", "dns", "forwarding"], get_first_key=True),
        "offload": conf.exists(["firewall", "flowtable"]),
        "pki": {},
    }
    if "certificate" in service.get("api", {}).get("tls", {}):
        found["pki"] = conf.get_config_dict(["pki"], get_first_key=True)
    return found


def verify(c):
    if c is None:
        return
    lines = [f"{words}: {message}" for words, message in settings.mistakes(c["service"])]
    lines += [f"{words}: {message}" for words, message in certificates.mistakes(c["service"], c["pki"])]
    warnings = []
    if c["policy"]:
        known = c["policy"].mistakes
        try:
            errors, warnings = program.check(c["policy"])
        except program.ProgramError as error:
            raise Refused([str(error)]) from None
        # What is said here in the words of the command line need not be said again.
        said = {words for words, _ in known}
        lines += [f"{words}: {message}" for words, message in known]
        lines += [f"{words}: {message}" for words, message in errors if words not in said]
    if enabled(c):
        lines += [
            f"listen-address: {socket} is taken by service dns forwarding; listen on another address "
            "(set service clawgress listen-address ADDRESS), or delete that service"
            for socket in settings.clashes(c["service"], c["forwarding"])
        ]
    if lines:
        raise Refused(lines)
    for words, message in warnings:
        say(f"{words}: {message}")
    warn(c)


def say(message):
    """A warning; the usual one is wrapped right through long names."""
    Warning(message, break_long_words=False, break_on_hyphens=False)


def warn(c):
    """What may be meant and is worth a word."""
    if not enabled(c):
        say("service clawgress is not enabled: nothing is enforced (set service clawgress enable)")
    elif c["policy"] is None:
        say("there is no policy in the configuration: what is stored stays in force, if anything is stored")
    elif policy.allows_nothing(c["policy"].document):
        say("policy: nothing is allowed, so everything in scope is blocked")
    if c["offload"]:
        say(
            "firewall flowtable: offloaded flows pass by every rule of the gateway, so caps, windows and cuts do not "
            "hold for them; keep the interfaces of agents out of flow tables"
        )


def generate(c):
    """Settings and certificate beside those in use; apply() puts the settings in their place."""
    if c is None or not enabled(c):
        return
    try:
        os.makedirs(RUNTIME, mode=0o755, exist_ok=True)
        tls = certificates.write_files(c["service"], c["pki"], RUNTIME)
        write(candidate(), settings.text(c["service"], tls, RUNTIME))
    except OSError as error:
        raise Refused([f"{error.filename}: {error.strerror}"]) from None


def apply(c):
    if c is None or not enabled(c):
        close()
        return
    before = read(in_use())
    was_active = systemctl("is-active", "--quiet", UNIT).returncode == 0
    had_table = run("nft", "list", "table", "inet", "clawgress").returncode == 0
    after = read(candidate())
    os.replace(candidate(), in_use())
    try:
        if before != after or not was_active:
            start()
        if c["policy"]:
            hand_over(c["policy"])
    except program.ProgramError as error:
        put_back(before, before != after, was_active, had_table)
        raise Refused([line for line in str(error).splitlines() if line.strip()]) from None
    if c["policy"] is None:
        remove(committed())
        remove(places())
    certificates.forget(RUNTIME, after)
    early("enable")


def start():
    """Starts the daemon, or starts it again; it is ready when this returns."""
    systemctl("reset-failed", UNIT)
    if systemctl("restart", UNIT).returncode != 0:
        journal = run("journalctl", "--unit", UNIT, "--lines", str(LAST_WORDS), "--output", "cat", "--no-pager").stdout
        # Of more than one the last: earlier ones are from earlier starts.
        reasons = [line for line in journal.splitlines() if line.startswith("error: ")][-1:] or ["see its journal"]
        raise program.ProgramError(f"the daemon does not start: {program.translated(reasons[0].removeprefix('error: '))}")


def hand_over(converted):
    """The policy is enforced and stored, or nothing changes."""
    answer = program.call("import", "--config", in_use(), "--policy", "-", document=converted.document)
    if answer.returncode != 0:
        raise program.ProgramError(program.translated(program.reason(answer), converted.places))
    write(committed(), program.document_text(converted.document))
    write(places(), json.dumps(converted.places, ensure_ascii=False))


def put_back(before, changed, was_active, had_table):
    """After a failure: settings and daemon as they were. Nothing is opened that was closed."""
    opens = not (was_active or had_table)
    if opens:
        # What was stored earlier may have come into force with the start.
        program.call("teardown", "--config", in_use())
        systemctl("stop", UNIT)
    if before is not None:
        write(in_use(), before)
    elif opens:
        remove(in_use())
    if changed and before is not None and not opens:
        systemctl("restart", UNIT)


def close():
    """The service is deleted: stop enforcing."""
    words = ["teardown"] + (["--config", in_use()] if os.path.exists(in_use()) else [])
    try:
        done = program.call(*words)
        systemctl("stop", UNIT)
        if done.returncode != 0:
            # The daemon may have been what was in the way.
            done = program.call(*words)
    except program.ProgramError as error:
        raise Refused([str(error)]) from None
    if done.returncode != 0:
        raise Refused([f"the gateway is not open: {program.reason(done)}"])
    early("disable")
    for path in (in_use(), candidate(), committed(), places()):
        remove(path)
    certificates.forget(RUNTIME, "")


def early(verb):
    if os.path.exists(os.path.join(UNITS, EARLY_UNIT)) and systemctl(verb, "--quiet", EARLY_UNIT).returncode != 0:
        say(f"systemctl {verb} {EARLY_UNIT} failed: the next boot may not begin as this commit says")


def enabled(c):
    return "enable" in c["service"]


def in_use():
    return os.path.join(RUNTIME, "clawgress.toml")


def candidate():
    return os.path.join(RUNTIME, "clawgress.toml.new")


def committed():
    """The policy of the last commit, by which `show clawgress status` tells that another one was stored since."""
    return os.path.join(RUNTIME, "committed.json")


def places():
    """Which words of the command line made which place of that policy, so that `show clawgress explain` can say them."""
    return os.path.join(RUNTIME, "places.json")


if __name__ == "__main__":
    try:
        c = get_config()
        verify(c)
        generate(c)
        apply(c)
    except ConfigError as e:
        print(e)
        exit(1)
