"""A router in a network namespace of its own: the real daemon, the real kernel, and commits."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from router import PROGRAM

HERE = Path(__file__).resolve().parent
ADDRESS = "192.168.10.1"
SET = "set service clawgress"
# Settings and a policy for commits that are to succeed.
BASE = ("enable", f"listen-address {ADDRESS}", "dns upstream 192.0.2.53")
POLICY = (
    "policy scope source 192.168.10.0/24",
    "policy host agent-1 source 192.168.10.10/32",
    "policy host agent-1 domain api.example.com label llm-provider",
)


class Gateway:
    def __init__(self, directory):
        self.directory = directory
        for name in ("run", "config", "units"):
            (directory / name).mkdir()
        (directory / "units" / "clawgress-early.service").touch()
        (directory / "journal").touch()
        self.program, self.followers = PROGRAM, []
        # It lives while somebody is in it; `cat` is, until its input ends.
        words = ["unshare", "--net", "sh", "-c", f"ip link set lo up && ip addr add {ADDRESS}/24 dev lo && echo up && exec cat"]
        self.holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout.readline() == "up\n"

    def close(self):
        for follower in self.followers:
            follower.kill()
            follower.communicate()
        self.run(HERE / "fake/bin/systemctl", "stop", "clawgress.service")
        self.holder.stdin.close()
        self.holder.stdout.close()
        self.holder.wait()

    def run(self, *words, text=""):
        environment = {
            "PATH": f"{HERE / 'fake/bin'}:{os.environ['PATH']}",
            "ROUTER_DIR": str(self.directory),
            "CLAWGRESS_PROGRAM": str(self.program),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NO_COLOR": "1",
        }
        command = ["nsenter", "--target", str(self.holder.pid), "--net", *(str(word) for word in words)]
        return subprocess.run(command, input=text, capture_output=True, text=True, env=environment, timeout=60, check=False)

    def commit(self, *lines):
        return self.run(sys.executable, HERE / "commit.py", text="\n".join(f"{SET} {line}" for line in lines))

    def commit_tree(self, tree):
        """A commit of a configuration as a router holds it."""
        return self.run(sys.executable, HERE / "commit.py", "--tree", text=json.dumps(tree))

    def show(self, *words):
        return self.run(sys.executable, HERE / "show.py", *words)

    def tool(self, *words, text=""):
        return self.run(PROGRAM, *words, "--config", self.directory / "run/clawgress.toml", text=text)

    def follow(self, *words):
        """What the tool prints as it comes; it ends with the test."""
        command = [str(word) for word in (PROGRAM, *words, "--follow", "--config", self.directory / "run/clawgress.toml")]
        self.followers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return self.followers[-1].stdout

    def status(self):
        answer = self.tool("status", "--json")
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    def has_table(self):
        return self.run("nft", "list", "table", "inet", "clawgress").returncode == 0

    def is_running(self):
        return self.run(HERE / "fake/bin/systemctl", "is-active").returncode == 0

    def kill(self):
        """The daemon dies without a word."""
        daemon = os.pidfd_open(int((self.directory / "daemon.pid").read_text()))
        signal.pidfd_send_signal(daemon, signal.SIGKILL)
        select.select([daemon], [], [])
        os.close(daemon)

    def calls(self):
        return (self.directory / "systemctl.log").read_text().splitlines()

    def files(self):
        return sorted(path.name for path in (self.directory / "run").iterdir())

    def fail_at(self, command, message, times=1000):
        """The program refuses one of its commands so many times; everything else goes to the real one."""
        wrapper, left = self.directory / "program", self.directory / "failures"
        left.write_text("x" * times)
        wrapper.write_text(
            "#!/bin/sh\n"
            f'if [ "$1" = {command} ] && [ -s {left} ]; then\n'
            f'    truncate --size=-1 {left}\n    echo "error: {message}" >&2\n    exit 1\nfi\n'
            f'exec {PROGRAM} "$@"\n'
        )
        wrapper.chmod(0o755)
        self.program = wrapper


def good(answer):
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def refused(answer):
    assert answer.returncode == 1, answer.stdout + answer.stderr
    # A traceback would be here.
    assert answer.stderr == ""
    return answer.stdout
