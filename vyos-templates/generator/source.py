"""The XML definitions, with their fragments in place."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

# A fragment stands on a line of its own, as in the definitions of VyOS itself.
INCLUDE = re.compile(r"^ *#include <(?P<path>[^>]+)>$")


class DefinitionError(Exception):
    """A definition that cannot be used; the text says where and why."""


def expand(path, base=None, open_files=()):
    """The text of a definition with every fragment in its place. Paths of fragments are relative to the definition."""
    path = Path(path)
    base = base or path.parent
    if path in open_files:
        raise DefinitionError(f"{path}: includes itself")
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except OSError as error:
        raise DefinitionError(f"{path}: {error.strerror}") from error
    out = []
    for line in lines:
        found = INCLUDE.match(line.rstrip("\n"))
        out.append(expand(base / found["path"], base, (*open_files, path)) if found else line)
    return "".join(out)


def read(path):
    """The definition as a tree of elements."""
    try:
        return ET.fromstring(expand(path))
    except ET.ParseError as error:
        raise DefinitionError(f"{path}: with its fragments in place: {error}") from error


def text_of(element, name):
    """The text of a child, or None where there is no such child."""
    child = element.find(name) if element is not None else None
    return None if child is None else child.text or ""


def nodes(element):
    """The nodes directly below a node, or below the definition as a whole."""
    if element.tag == "interfaceDefinition":
        return [child for child in element if child.tag != "syntaxVersion"]
    children = element.find("children")
    return [] if children is None else list(children)


def walk(element, path=()):
    """Every node below, with its path as a tuple of names."""
    for node in nodes(element):
        here = (*path, node.get("name"))
        yield here, node
        yield from walk(node, here)
