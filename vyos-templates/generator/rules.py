"""What VyOS' schemas and shells ask of a definition, as complaints in words.

The schemas are upstream's `interface_definition.rnc` and `op-mode-definition.rnc`, in the form that 1.4 has: what they
take, 1.5 and rolling take too. The rest is what the readers of node.def can take.
"""

import re

from .source import nodes, walk

# Element: the elements that may stand in it, and those of them that may stand there once only.
CONFIGURATION = {
    "interfaceDefinition": ({"syntaxVersion", "node"}, set()),
    "node": ({"properties", "children"}, {"properties", "children"}),
    "tagNode": ({"defaultValue", "properties", "children"}, {"defaultValue", "properties", "children"}),
    "leafNode": ({"defaultValue", "properties"}, {"defaultValue", "properties"}),
    "children": ({"node", "tagNode", "leafNode"}, set()),
    "properties": (
        {
            "help", "constraint", "constraintGroup", "valueHelp", "constraintErrorMessage", "completionHelp",
            "valueless", "multi", "hidden", "secret", "priority", "keepChildOrder",
        },
        {
            "help", "constraint", "constraintErrorMessage", "valueless", "multi", "hidden", "secret", "priority",
            "keepChildOrder",
            # The schema takes more; the shell hears the last one only.
            "completionHelp",
        },
    ),
    "constraint": ({"regex", "validator"}, set()),
    "constraintGroup": ({"regex", "validator"}, set()),
    "valueHelp": ({"format", "description"}, {"format", "description"}),
    "completionHelp": ({"list", "path", "script"}, set()),
}  # fmt: skip
OPERATION = {
    "interfaceDefinition": ({"node", "tagNode"}, set()),
    "node": ({"properties", "children", "command"}, {"properties", "children", "command"}),
    "tagNode": ({"properties", "children", "command"}, {"properties", "children", "command"}),
    "leafNode": ({"properties", "command"}, {"properties", "command"}),
    "children": ({"node", "tagNode", "leafNode"}, set()),
    "properties": ({"help", "completionHelp"}, {"help", "completionHelp"}),
    # 1.4 does not know imagePath, and what becomes of a path is not the same in 1.4 and rolling.
    "completionHelp": ({"list", "script"}, set()),
}
TEXTS = {
    "defaultValue", "help", "constraintErrorMessage", "priority", "regex", "format", "description", "list", "path",
    "script", "command",
}  # fmt: skip
EMPTY = {"valueless", "multi", "hidden", "secret", "keepChildOrder", "validator"}
ATTRIBUTES = {"node": {"name", "owner"}, "tagNode": {"name", "owner"}, "leafNode": {"name", "owner"},
              "validator": {"name", "argument"}, "syntaxVersion": {"component", "version"}}  # fmt: skip
# Validators that VyOS has in 1.4, 1.5 and rolling, and our own. A name that is not there fails every `set`.
VALIDATORS = {"numeric", "ip-address", "clawgress-value"}
# Characters that end a string for a reader of node.def, or that a shell would act on.
UNSAFE = re.compile(r'["`$\\\n]')
NODE_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def configuration(root):
    """Complaints about a definition of configuration mode."""
    yield from _structure(root, CONFIGURATION, "")
    for path, node in walk(root):
        where = " ".join(path)
        properties = node.find("properties")
        yield from _common(where, node)
        if node.tag != "leafNode" and not nodes(node):
            yield f"{where}: has no children"
        if node.get("owner") and (properties is None or properties.find("priority") is None):
            yield f"{where}: has an owner and no priority"
        if properties is not None:
            yield from _value(where, node, properties)
    yield from _doubles(root, "")


def operation(root):
    """Complaints about a definition of operational mode."""
    yield from _structure(root, OPERATION, "")
    for path, node in walk(root):
        where = " ".join(path)
        yield from _common(where, node)
        if node.get("owner"):
            yield f"{where}: an owner belongs to configuration mode"
        command = node.find("command")
        if node.tag == "leafNode" and command is None:
            yield f"{where}: has no command"
        if command is not None and not (command.text or "").startswith("sudo "):
            yield f"{where}: the command needs sudo in front, or it runs without rights on 1.4 and 1.5"
    yield from _doubles(root, "")


def _structure(element, grammar, where):
    name = element.get("name")
    where = f"{where} {name}".strip() if name else where
    tag = element.tag
    unknown = set(element.attrib) - ATTRIBUTES.get(tag, set())
    if unknown:
        yield f"{where}: <{tag}> has no attribute {sorted(unknown)[0]}"
    if tag in ("node", "tagNode", "leafNode", "validator") and not name:
        yield f"{where}: <{tag}> has no name"
    if tag in TEXTS | EMPTY:
        if len(element):
            yield f"{where}: <{tag}> holds other elements"
        if tag in EMPTY and (element.text or "").strip():
            yield f"{where}: <{tag}> holds text"
        if tag in TEXTS and not (element.text or "").strip():
            yield f"{where}: <{tag}> is empty"
        return
    known, once = grammar.get(tag, (set(), set()))
    if (element.text or "").strip():
        yield f"{where}: text between the elements of <{tag}>"
    for child in element:
        if child.tag not in known:
            yield f"{where}: <{child.tag}> has no place in <{tag}>"
            continue
        if (child.tail or "").strip():
            yield f"{where}: text between the elements of <{tag}>"
        yield from _structure(child, grammar, where)
    tags = [child.tag for child in element]
    yield from (f"{where}: <{tag}> has more than one <{name}>" for name in sorted(once) if tags.count(name) > 1)
    if tag in ("children", "constraint", "constraintGroup") and not tags:
        yield f"{where}: <{tag}> is empty"
    if tag == "valueHelp" and set(tags) != {"format", "description"}:
        yield f"{where}: <valueHelp> needs format and description"


def _common(where, node):
    if not NODE_NAME.fullmatch(node.get("name") or ""):
        yield f"{where}: the name is not of small letters, digits and single hyphens"
    properties = node.find("properties")
    told = None if properties is None else properties.find("help")
    # What is there already has its help from VyOS.
    if where not in ("service", "show") and told is None:
        yield f"{where}: has no help"
    for item in properties.iter() if properties is not None else ():
        if item.tag in ("help", "description", "format", "constraintErrorMessage") and UNSAFE.search(item.text or ""):
            yield f"{where}: <{item.tag}> holds a character that the shell would act on"
        if item.tag == "format" and ";" in (item.text or ""):
            yield f"{where}: the first semicolon ends <format>"


def _value(where, node, properties):
    """What may be said of the value of a node."""
    valueless = properties.find("valueless") is not None
    multi = properties.find("multi") is not None
    if node.tag != "leafNode" and (valueless or multi):
        yield f"{where}: valueless and multi are for leaves"
    if valueless and multi:
        yield f"{where}: valueless and multi exclude each other"
    judged = properties.find("constraint") is not None or properties.find("constraintGroup") is not None
    if (node.tag == "tagNode" or node.tag == "leafNode" and not valueless) and not judged:
        yield f"{where}: takes a value and has no constraint"
    if judged and properties.find("constraintErrorMessage") is None:
        yield f"{where}: has a constraint and no message"
    for item in properties.iter("regex"):
        expression = item.text or ""
        if re.search(r'["`\'$\s]', expression):
            yield f"{where}: the expression holds a character that the shell would act on"
        # The backend puts ^ in front and $ behind, and nothing around: a bare alternative would lose one of them.
        if "|" in re.sub(r"\([^()]*(\([^()]*\)[^()]*)*\)", "", re.sub(r"\[[^]]+\]", "", expression)):
            yield f"{where}: alternatives of an expression stand in parentheses"
    for item in properties.iter("validator"):
        if item.get("name") not in VALIDATORS:
            yield f"{where}: VyOS has no validator {item.get('name')}"


def _doubles(element, where):
    names = [node.get("name") for node in nodes(element)]
    yield from (f"{where} {name}: stands there twice".strip() for name in sorted(set(names)) if names.count(name) > 1)
    for node in nodes(element):
        yield from _doubles(node, f"{where} {node.get('name')}".strip())
