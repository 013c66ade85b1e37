#!/usr/bin/env python3
"""`show clawgress …`: what the program says, as tables for people; with --raw as JSON for programs.

JSON is printed as it came: the usual runner of VyOS turns dots and dashes of names into underscores.
"""

import argparse
import difflib
import json
import os
import subprocess
import sys

from clawgress_vyos import program, tables

RUNTIME = "/run/clawgress"
SETTINGS = f"{RUNTIME}/clawgress.toml"
# The policy of the last commit that had one.
COMMITTED = f"{RUNTIME}/committed.json"
# Place of that policy to words of the command line.
PLACES = f"{RUNTIME}/places.json"
DRIFT = (
    "the stored policy is not the one of the configuration: it was imported since the last commit; the next commit of "
    "service clawgress puts that of the configuration back in force"
)
VYCONF = "this router runs the vyconf backend, with which packages cannot add services: commits do not reach clawgress"


class Failed(Exception):
    """What was asked for cannot be shown; the text says why."""


def ask(*words):
    """The JSON that the program prints for a command."""
    try:
        return program.ask(*words)
    except program.ProgramError as error:
        if "not running" in str(error) and not os.path.exists(SETTINGS):
            raise Failed("service clawgress is not configured, or not enabled") from None
        raise Failed(str(error)) from None


def done(*words):
    """What the program prints where it did what it was told."""
    answer = program.call(*words)
    if answer.returncode != 0:
        raise Failed(program.reason(answer))
    return answer.stdout + answer.stderr


def drifted():
    """Whether the configuration has a policy and another one is stored."""
    if not os.path.exists(COMMITTED):
        return False
    try:
        return program.ask("show") != program.ask("show", "--policy", COMMITTED)
    except program.ProgramError:
        return False


def places():
    """Place of the policy in force to words of the command line; nothing where that is not the configuration's."""
    try:
        with open(PLACES, encoding="utf-8") as file:
            known = json.load(file)
    except FileNotFoundError:
        return {}
    return {} if drifted() else known


def told(checks):
    return [{**entry, "message": program.translated(entry["message"])} for entry in checks]


def runs_vyconf():
    try:
        from vyos.utils.backend import vyconf_backend
    except ImportError:
        return False
    return bool(vyconf_backend())


def show_status(_):
    status = ask("status")
    drift = drifted()
    status["drift"] = status["drift"] or drift
    for wrong, message in ((drift, DRIFT), (runs_vyconf(), VYCONF)):
        if wrong:
            status["checks"].append({"name": "configuration", "ok": False, "message": message})
    return status, tables.status({**status, "checks": told(status["checks"])})


def show_health(_):
    health = ask("health")
    return health, tables.checks(told(health["checks"]))


def show_stats(_):
    stats = ask("stats")
    return stats, tables.tree(stats)


def show_telemetry(arguments):
    window = ["--window", arguments.window] if arguments.window else []
    everything = ask("telemetry", *window)
    view = everything
    if arguments.view == "agent":
        if arguments.name not in everything["agents"]:
            raise Failed(f"nothing was seen of an agent named {arguments.name}")
        view = {**everything, "agents": {arguments.name: everything["agents"][arguments.name]}}
        view = {key: view[key] for key in ("window", "generated_at", "revision", "agents")}
    elif arguments.view == "domain":
        if arguments.name not in everything["domains"]:
            raise Failed(f"nothing was seen of the domain {arguments.name}")
        view = {key: everything[key] for key in ("window", "generated_at", "revision")}
        view["domains"] = {arguments.name: everything["domains"][arguments.name]}
        view["agents"] = {
            name: {"domains": {arguments.name: agent["domains"][arguments.name]}}
            for name, agent in everything["agents"].items()
            if arguments.name in agent["domains"]
        }
    elif arguments.view:
        view = {key: everything[key] for key in ("window", "generated_at", "revision", arguments.view)}
    return view, tables.telemetry(view, arguments.view)


def show_firewall(_):
    answer = ask("firewall")
    return answer, answer["text"]


def show_rpz(arguments):
    answer = ask("rpz", *(["--host", arguments.host] if arguments.host else []))
    return answer, answer["text"]


def show_log(arguments):
    words = ["log", "--json"]
    for name in ("host", "domain", "action", "since", "limit"):
        value = getattr(arguments, name)
        words += [f"--{name}", value] if value else []
    if arguments.follow:
        return follow([program.PROGRAM, *words, "--follow"], arguments.raw)
    known = places()
    answer = program.call(*words)
    if answer.returncode != 0:
        raise Failed(program.reason(answer))
    records = [json.loads(line) for line in answer.stdout.splitlines() if line.strip()]
    return records, tables.log(records, known)


def follow(command, raw):
    """Records as they come, until the program or the reader ends."""
    known = {} if raw else places()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace") as running:
        for line in running.stdout:
            print(line.rstrip("\n") if raw else tables.record(json.loads(line), known), flush=True)
    if running.returncode:
        raise Failed("the log ended")
    return None, ""


def show_history(_):
    history = ask("history")
    return history, tables.history(history)


def show_explain(arguments):
    words = ["explain", "--source", arguments.source]
    for name in ("domain", "ip", "port"):
        value = getattr(arguments, name)
        words += [f"--{name}", value] if value else []
    answer = ask(*words)
    known = places()
    texts = {name: program.translated(answer[name], known) for name in ("path", "detail") if answer.get(name)}
    return answer, tables.explanation({**answer, **texts})


def show_policy(_):
    policy = ask("show")
    return policy, json.dumps(policy, indent=2, ensure_ascii=False)


def show_check(arguments):
    answer = ask("check", "--policy", plain_file(arguments.file))
    return answer, tables.check(answer, arguments.file)


def show_diff(arguments):
    stored, other = ask("show"), ask("show", "--policy", plain_file(arguments.file))
    texts = [json.dumps(policy, indent=2, ensure_ascii=False).splitlines() for policy in (stored, other)]
    lines = list(difflib.unified_diff(*texts, "stored policy", arguments.file, lineterm=""))
    return {"identical": stored == other, "diff": lines}, "\n".join(lines) or "no difference"


def execute_apply(_):
    return {"applied": True}, done("apply")


def import_policy(arguments):
    text = done("import", "--policy", plain_file(arguments.file))
    if drifted():
        text += f"note: {DRIFT}\n"
    return {"applied": True}, text


def plain_file(path):
    """The file itself, also where its name looks like something else."""
    return os.path.abspath(path)


def parser():
    top = argparse.ArgumentParser(description="Shows the egress gateway.")
    commands = top.add_subparsers(dest="command", required=True)

    def command(does, **options):
        one = commands.add_parser(does.__name__)
        one.set_defaults(does=does)
        one.add_argument("--raw", action="store_true", help="print JSON")
        for name, more in options.items():
            one.add_argument(f"--{name}", **more)

    text, needed = {}, {"required": True}
    for does in (show_status, show_health, show_stats, show_firewall, show_history, show_policy, execute_apply):
        command(does)
    views = {"choices": ["agents", "domains", "denies", "agent", "domain"]}
    command(show_telemetry, view=views, name=text, window={"choices": ["1m", "5m", "1h", "24h"]})
    command(show_rpz, host=text)
    follows = {"action": "store_true"}
    command(show_log, host=text, domain=text, action=text, since=text, limit=text, follow=follows)
    command(show_explain, source=needed, domain=text, ip=text, port=text)
    for does in (show_check, show_diff, import_policy):
        command(does, file=needed)
    return top


def main():
    arguments = parser().parse_args()
    try:
        data, text = arguments.does(arguments)
        if arguments.raw and data is not None:
            print(json.dumps(data, indent=2, ensure_ascii=False))
        elif text:
            print(text.rstrip("\n"))
        sys.stdout.flush()
        return 0 if not isinstance(data, dict) or data.get("healthy", True) and data.get("valid", True) else 1
    except (Failed, program.ProgramError) as error:
        print(f"error: {error}", file=sys.stderr)
    except BrokenPipeError:
        # Nobody reads any more; Python would complain of that once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        print("error: the answer of clawgress is not understood; are all its parts of one version?", file=sys.stderr)
    except OSError as error:
        print(f"error: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
