"""node.def files of configuration mode.

Fields, their order and their quoting are those that the shells of VyOS 1.4, 1.5 and rolling read; a test compares with
the output of VyOS' own tools where they are at hand.
"""

from textwrap import fill

from .source import DefinitionError, nodes, text_of

HELP_WIDTH = 64
HELP_INDENT = "\t\t\t"
DEFAULT_MESSAGE = "Invalid value"


def tree(root):
    """Path of each directory (a tuple of names) to the text of its node.def."""
    found = {}
    for node in nodes(root):
        _add(node, (), found)
    return found


def _add(node, path, found):
    here = (*path, node.get("name"))
    # Two definitions of one node: whoever has something to say first is heard.
    if not found.get(here):
        found[here] = _text(node, here)
    below = (*here, "node.tag") if node.tag == "tagNode" else here
    for child in nodes(node):
        _add(child, below, found)


def _text(node, path):
    properties = node.find("properties")
    has = lambda name: properties is not None and properties.find(name) is not None
    owner = node.get("owner")
    lines = []
    if node.tag == "tagNode":
        lines.append("tag:")
    if has("multi"):
        lines.append("multi:")
    if node.tag != "node" and not has("valueless"):
        lines.append("type: txt")
    if has("priority"):
        lines.append(f"priority: {text_of(properties, 'priority')}")
    elif owner:
        raise DefinitionError(f"{' '.join(path)}: has an owner and no priority")
    lines.extend(_told(properties, text_of(node, "defaultValue")))
    if owner:
        value = "VYOS_TAGNODE_VALUE='$VAR(@)' " if node.tag == "tagNode" else ""
        lines.append(f'end: sudo sh -c "${{vyshim}} {value}{owner}"')
    return "".join(f"{line}\n" for line in lines)


def _told(properties, default):
    """Help, completion and constraints."""
    if properties is None:
        return
    help_text = text_of(properties, "help")
    if help_text is not None:
        if default is not None:
            help_text += f" (default: {', '.join(default.split())})"
        yield f"help: {fill(help_text, width=HELP_WIDTH, subsequent_indent=HELP_INDENT)}"
    for value in properties.findall("valueHelp"):
        form, description = text_of(value, "format"), text_of(value, "description")
        suffix = " (default)" if default == form else ""
        yield f"val_help: {form}; {description}{suffix}"
    completion = properties.find("completionHelp")
    if completion is not None:
        yield f"allowed: {_completion(completion)}"
    check = _check(properties)
    if check is not None:
        yield f"syntax:expression: {check}"


def _completion(completion):
    forms = {"list": 'echo "{}"', "path": "/bin/cli-shell-api listNodes {}", "script": 'sh -c "{}"'}
    commands = [form.format(item.text) for kind, form in forms.items() for item in completion.findall(kind)]
    return ' && echo " " && '.join(commands)


def _check(properties):
    """The command that judges a value: one of the constraints must hold, or all of one group."""
    alone = properties.find("constraint")
    groups = properties.findall("constraintGroup")
    if alone is None and not groups:
        return None
    alternatives = "" if alone is None else _arguments(alone)
    together = "".join(f" --grp {_arguments(group)}" for group in groups)
    message = text_of(properties, "constraintErrorMessage") or DEFAULT_MESSAGE
    command = f"${{vyos_libexec_dir}}/validate-value {alternatives} {together} --value \\'$VAR(@)\\'"
    return f'exec "{command}"; "{message}"'


def _arguments(constraint):
    # The reader of node.def takes one backslash of two away.
    expressions = [(item.text or "").strip().replace("\\", "\\\\") for item in constraint.findall("regex")]
    programs = [
        f"${{vyos_validators_dir}}/{item.get('name')} {item.get('argument', '')}"
        for item in constraint.findall("validator")
    ]
    regexes = " ".join(f"--regex \\'{expression}\\'" for expression in expressions)
    return f"{regexes} " + " ".join(f'--exec \\"{program}\\"' for program in programs)
