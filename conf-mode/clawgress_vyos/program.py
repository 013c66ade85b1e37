"""The program `clawgress`, and what it says in the words of the command line."""

import json
import re
import subprocess

PROGRAM = "/usr/bin/clawgress"
# A commit holds a lock that everybody waits for. The program itself waits a minute for the daemon.
TIMEOUT = 90
# What the program says about document and settings, and what the command line calls it.
FIELDS = (
    ("allow.domains", "policy domain"), ("allow.ips", "policy ip"), ("allow.ports", "policy port"),
    ("allow.domain_lists", "policy domain-list"), ("deny.domains", "policy deny domain"), ("deny.ips", "policy deny ip"),
    ("domain_time_windows", "domain-time-window"), ("time_window", "time-window"), ("egress_kbps", "rate-limit-kbps"),
    ("time_zone", "time-zone"), ("dns.listen", "listen-address"), ("dns.upstreams", "dns upstream"),
    ("rpz.listen", "rpz listen-address"), ("rpz.secondary", "rpz secondary"),
    ("dns.redirect is off", "dns disable-redirect is set"),
)  # fmt: skip


class ProgramError(Exception):
    """The program could not be asked, or did not do it; the text says why."""


def call(*words, document=None):
    """Runs the program; the answer as subprocess gives it. A document goes to its standard input."""
    text = None if document is None else document_text(document)
    command = [PROGRAM, *words]
    try:
        return subprocess.run(
            command, input=text, capture_output=True, timeout=TIMEOUT, encoding="utf-8", errors="replace", check=False
        )
    except FileNotFoundError:
        raise ProgramError(f"{PROGRAM} is missing; install the clawgress package again") from None
    except PermissionError:
        raise ProgramError(f"{PROGRAM} cannot be run: permission denied") from None
    except subprocess.TimeoutExpired:
        raise ProgramError(f"clawgress {words[0]} did not end within {TIMEOUT} seconds") from None


def document_text(document):
    """A policy document as text."""
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def ask(*words, document=None):
    """The JSON that the program prints."""
    answer = call(*words, "--json", document=document)
    try:
        return json.loads(answer.stdout)
    except ValueError:
        raise ProgramError(reason(answer)) from None


def reason(answer):
    """Why the program did not do it, as it says itself."""
    text = answer.stderr.strip() or answer.stdout.strip()
    return text.removeprefix("error: ") or f"clawgress failed with status {answer.returncode} and gave no reason"


def check(converted):
    """Errors and warnings about a converted policy, each as words of the command line and message."""
    answer = ask("check", "--policy", "-", document=converted.document)
    try:
        # What would not be enforced may not be committed.
        errors = answer["errors"] + answer["not_enforced"]
        return [told(entry, converted) for entry in errors], [told(entry, converted) for entry in answer["warnings"]]
    except (KeyError, TypeError) as error:
        raise ProgramError("the answer of `clawgress check` is not understood; are all parts of one version?") from error


def told(diagnostic, converted):
    """A diagnostic of the program: words of the command line, message."""
    message, hint = diagnostic["message"], diagnostic.get("hint")
    # Hints that show a piece of the document are of no use here.
    if hint and not re.search(r"[{}\[\]]", hint):
        message += f" ({hint})"
    return converted.words(diagnostic["path"]), translated(message, converted.places)


def translated(text, known=None):
    """The same text with fields of document and settings, and with the known places, in the words of the command line."""
    places = lambda found: (known or {}).get(found[0], found[0])
    text = re.sub(r"/[a-z_]+(?:/[^\s:;,)]+)*", places, text)
    for name, words in FIELDS:
        # Not within a name of the user's.
        text = re.sub(rf'(?<![\w."-]){re.escape(name)}(?![\w"-]|\.\w)', words, text)
    return text
