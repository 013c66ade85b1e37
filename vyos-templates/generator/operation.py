"""node.def files of operational mode."""

from textwrap import fill

from .config import HELP_INDENT, HELP_WIDTH
from .source import nodes, text_of

NO_HELP = "No help available"


def tree(root):
    """Path of each directory (a tuple of names) to the text of its node.def."""
    found = {}
    for node in _ordered(nodes(root)):
        _add(node, (), found)
    return found


def _ordered(elements):
    # A node, a tag node and a leaf of one name share a directory; the first of them is heard, in this order.
    return sorted(elements, key=lambda node: (("node", "tagNode", "leafNode").index(node.tag), node.get("name")))


def _add(node, path, found):
    here = (*path, node.get("name"))
    text = _text(node)
    if node.tag == "tagNode":
        # The word itself has only its help; what runs belongs to the value behind it.
        properties = node.find("properties")
        _put(found, here, f"help: {text_of(properties, 'help') or NO_HELP}\n")
        here = (*here, "node.tag")
    _put(found, here, text)
    for child in _ordered(nodes(node)):
        _add(child, here, found)


def _put(found, path, text):
    if not found.get(path):
        found[path] = text


def _text(node):
    properties = node.find("properties")
    text = ""
    if properties is not None:
        help_text = text_of(properties, "help")
        help_text = NO_HELP if help_text is None else help_text
        text += f"help: {fill(help_text, width=HELP_WIDTH, subsequent_indent=HELP_INDENT)}\n"
        completion = properties.find("completionHelp")
        if completion is not None:
            text += f"allowed: {_completion(completion)}\n"
    command = text_of(node, "command")
    if command is not None:
        text += f"run: {command}\n"
    return text


def _completion(completion):
    commands = [f'echo "{item.text}"' for item in completion.findall("list")]
    commands += [item.text for item in completion.findall("script")]
    return " && ".join(commands)
