"""A command line in memory: `set` as the router does it, from the definitions and the cache that are shipped.

`python3 tests/vyos/router.py < commands` prints the policy that a commit of those `set` lines would hand over.
"""

import ipaddress
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent.parent
if __name__ == "__main__":
    sys.path[:0] = [str(SOURCES / "vyos-templates"), str(SOURCES / "conf-mode")]

import build
from generator import operation, reference, source

VALIDATORS = SOURCES / "vyos-templates" / "validators"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or SOURCES / "target")
PROGRAM = Path(os.environ.get("CLAWGRESS_PROGRAM") or TARGET / "debug" / "clawgress")
# Parts of the router that are not ours, as far as our script asks for them: leaves with several values.
FOREIGN_MULTI = {("service", "dns", "forwarding", "listen-address"), ("firewall", "flowtable", "interface")}


class SetFailed(Exception):
    """`set` was refused; the text is what the terminal shows."""


class Router:
    def __init__(self, *lines):
        self.definition = source.read(build.DEFINITION)
        self.reference = reference.reference(self.definition)
        self.tree = {}
        for line in lines:
            self.do(line)

    def do(self, line):
        """One `set` line, as typed."""
        verb, *words = shlex.split(line)
        assert verb == "set", line
        self.set(words)

    def set(self, words):
        if words[:2] != ["service", "clawgress"]:
            return self.put(words, None)
        node, path = self.definition, []
        rest = list(words)
        while rest:
            name = rest.pop(0)
            node = next((child for child in source.nodes(node) if child.get("name") == name), None)
            if node is None:
                raise SetFailed(f"Configuration path: {' '.join([*path, f'[{name}]'])} is not valid\nSet failed")
            path.append(name)
            valueless = node.find("properties/valueless") is not None
            if node.tag == "tagNode" or node.tag == "leafNode" and not valueless:
                if not rest:
                    raise SetFailed(f"Configuration path: {' '.join(path)} requires a value\nSet failed")
                value = rest.pop(0)
                judge(node, value)
                path.append(value)
            if node.tag == "leafNode" and rest:
                raise SetFailed(f"Configuration path: {' '.join([*path, f'[{rest[0]}]'])} is not valid\nSet failed")
        self.put(path, node)

    def put(self, words, node):
        multi = node is not None and node.find("properties/multi") is not None
        valueless = node is not None and node.find("properties/valueless") is not None
        names = tuple(words[:-1])
        if multi or names in FOREIGN_MULTI:
            values = self.below(words[:-2]).setdefault(words[-2], [])
            if words[-1] not in values:
                values.append(words[-1])
        elif node is not None and node.tag == "leafNode" and not valueless:
            self.below(words[:-2])[words[-2]] = words[-1]
        elif node is None and names[:1] == ("service",):
            self.below(words[:-2])[words[-2]] = words[-1]
        elif node is None and names[:1] == ("pki",) and words[-2] in ("certificate", "key") and len(words) > 3:
            self.below(words[:-2])[words[-2]] = words[-1]
        else:
            self.below(words)

    def below(self, words):
        tree = self.tree
        for word in words:
            tree = tree.setdefault(word, {})
        return tree

    def delete(self, words):
        tree = self.below(words[:-1])
        if isinstance(tree, dict):
            tree.pop(words[-1], None)

    def exists(self, path):
        tree = self.tree
        for word in path:
            if not isinstance(tree, dict) or word not in tree:
                return False
            tree = tree[word]
        return True

    def config(self, path, defaults=False):
        tree = self.tree
        for word in path:
            tree = tree.get(word, {})
        tree = json.loads(json.dumps(tree))
        if defaults:
            known = self.reference
            for word in path:
                known = known[word]
            add_defaults(tree, known)
        return tree


def add_defaults(tree, known):
    """Defaults as the router merges them: also in nodes that nobody set, but not behind a tag node without values."""
    for name, below in known.items():
        if name in ("node_data", "component_version"):
            continue
        data = below["node_data"]
        if data["node_type"] == "leaf":
            if data["default_value"] is not None:
                tree.setdefault(name, data["default_value"].split() if data["multi"] else data["default_value"])
        elif data["node_type"] == "tag":
            for value in tree.get(name, {}).values():
                add_defaults(value, below)
        else:
            inner = tree.get(name, {})
            add_defaults(inner, below)
            if inner or name in tree:
                tree[name] = inner


def judge(node, value):
    """The constraints of a node: one of them must hold."""
    name = node.get("name")
    if re.search(r"[\s']", value):
        raise SetFailed(f"{name}: the backend takes no space and no '\nValue validation failed\nSet failed")
    constraint = node.find("properties/constraint")
    said = []
    for item in constraint:
        if item.tag == "regex":
            if re.search(f"^{item.text}$", value):
                return
            continue
        good, words = VALIDATOR[item.get("name")](item.get("argument", ""), value)
        if good:
            return
        said.append(words)
    said.append(source.text_of(node.find("properties"), "constraintErrorMessage"))
    raise SetFailed("\n".join([*said, "Value validation failed", "Set failed"]))


def numeric(argument, value):
    low, high = (int(edge) for edge in argument.removeprefix("--range ").split("-"))
    good = bool(re.fullmatch(r"-?[0-9]+", value)) and low <= int(value) <= high
    return good, f"Number is not in the allowed range {low}-{high}"


def ip_address(_, value):
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False, f"Error: {value} is not a valid IP address"
    return True, ""


def own(argument, value):
    """Our own validator, run as the router runs it."""
    command = [str(VALIDATORS / "clawgress-value"), argument, value]
    environment = {"CLAWGRESS_PROGRAM": str(PROGRAM), "PATH": os.environ["PATH"], "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stderr == "", done.stderr
    return done.returncode == 0, done.stdout.strip()


VALIDATOR = {"numeric": numeric, "ip-address": ip_address, "clawgress-value": own}


def shown(words):
    """The arguments with which a typed `show …` runs our script, from the templates that are shipped."""
    tree, path = operation.tree(source.read(build.OPERATIONS)), ()
    for word in words:
        path = (*path, word) if (*path, word) in tree else (*path, "node.tag")
    command = re.search(r"^run: sudo \S+/clawgress.py (.*)$", tree[path], re.M)[1]
    # The shell counts the words from `show`.
    return [words[int(word[1:]) - 1] if word.startswith("$") else word for word in shlex.split(command)]


def main():
    from clawgress_vyos import policy

    router = Router(*(line for line in sys.stdin.read().splitlines() if line.strip()))
    base = ["service", "clawgress"]
    converted = policy.convert(router.config(base, defaults=True).get("policy", {}))
    assert not converted.mistakes, converted.mistakes
    print(json.dumps(converted.document, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main()
