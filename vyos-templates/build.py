#!/usr/bin/env python3
"""Builds everything that a VyOS router gets besides the program itself, as a tree to be copied to /.

    vyos-templates/build.py --output target/vyos     the tree
    vyos-templates/build.py --check                  complaints about the definitions, nothing else

Needs Python 3 and nothing else. The same sources give the same bytes.
"""

import argparse
import shutil
import sys
from pathlib import Path

from generator import config, operation, reference, rules, source

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent

DEFINITION = HERE / "interface-definitions" / "service_clawgress.xml.in"
OPERATIONS = HERE / "op-mode-definitions" / "show-clawgress.xml.in"

CONFIG_TEMPLATES = "opt/vyatta/share/vyatta-cfg/templates"
OPERATION_TEMPLATES = "opt/vyatta/share/vyatta-op/templates"
REFERENCE = "usr/lib/python3/dist-packages/vyos/xml_ref/pkg_cache/clawgress_cache.py"
# For people who build images, and for reference.
DEFINITIONS = "usr/share/clawgress/vyos"
# Directories that belong to VyOS: a file of ours there would stand against one of vyos-1x.
FOREIGN = {("service",), ("show",)}

PROGRAMS = {
    "conf-mode/service_clawgress.py": "usr/libexec/vyos/conf_mode/service_clawgress.py",
    "op-mode/clawgress.py": "usr/libexec/vyos/op_mode/clawgress.py",
    "vyos-templates/validators/clawgress-value": "usr/libexec/vyos/validators/clawgress-value",
}
MODULES = ("conf-mode/clawgress_vyos", "usr/lib/python3/dist-packages/clawgress_vyos")

PLAIN, PROGRAM = 0o644, 0o755


def complaints():
    """What is wrong with the definitions."""
    found = [(DEFINITION, rules.configuration), (OPERATIONS, rules.operation)]
    return [f"{path.name}: {line}" for path, rule in found for line in rule(source.read(path))]


def templates():
    """Path in the tree to text, of everything that is made from the definitions."""
    definition, operations = source.read(DEFINITION), source.read(OPERATIONS)
    files = {REFERENCE: reference.module(definition)}
    for place, tree in ((CONFIG_TEMPLATES, config.tree(definition)), (OPERATION_TEMPLATES, operation.tree(operations))):
        files.update(
            ("/".join((place, *path, "node.def")), text) for path, text in tree.items() if path not in FOREIGN
        )
    for path in (DEFINITION, OPERATIONS):
        files[f"{DEFINITIONS}/{path.name.removesuffix('.in')}"] = source.expand(path)
    return files


def write(target):
    """The whole tree below `target`, which is emptied first."""
    if target.exists():
        shutil.rmtree(target)
    for path, text in templates().items():
        put(target / path, text.encode(), PLAIN)
    for path, place in PROGRAMS.items():
        put(target / place, (SOURCES / path).read_bytes(), PROGRAM)
    modules, place = MODULES
    for path in sorted((SOURCES / modules).glob("*.py")):
        put(target / place / path.name, path.read_bytes(), PLAIN)


def put(path, content, mode):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--output", type=Path, metavar="DIR", help="write the tree there; what is there is removed")
    what.add_argument("--check", action="store_true", help="only say what is wrong with the definitions")
    arguments = parser.parse_args()
    try:
        wrong = complaints()
        if not wrong and arguments.output:
            write(arguments.output)
    except source.DefinitionError as error:
        wrong = [str(error)]
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
