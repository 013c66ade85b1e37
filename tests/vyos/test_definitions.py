"""The definitions keep the rules of VyOS' schemas and shells, and the tree that is built from them is the one a router
can take."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

import build
from generator import config, operation, reference, rules, source

LEAF = "<leafNode name='{}'><properties><help>H</help>{}</properties>{}</leafNode>"
CHECKED = "<constraint><regex>(a|b)</regex></constraint><constraintErrorMessage>M</constraintErrorMessage>"


def definition(*children):
    inner = "".join(children)
    return ET.fromstring(f"<interfaceDefinition><node name='service'><children>{inner}</children></node></interfaceDefinition>")


def shown(*children):
    inner = "".join(children)
    return ET.fromstring(f"<interfaceDefinition><node name='show'><children>{inner}</children></node></interfaceDefinition>")


def test_our_definitions_keep_the_rules():
    assert build.complaints() == []


@pytest.mark.parametrize(
    ("element", "complaint"),
    [
        (LEAF.format("a", CHECKED, "<children/>"), "<children> has no place in <leafNode>"),
        (LEAF.format("a", CHECKED + "<imagePath/>", ""), "<imagePath> has no place in <properties>"),
        (LEAF.format("a", CHECKED + "<help>H</help>", ""), "more than one <help>"),
        (LEAF.format("a", CHECKED + "<multi>x</multi>", ""), "<multi> holds text"),
        (LEAF.format("a", CHECKED + "<completionHelp/><completionHelp/>", ""), "more than one <completionHelp>"),
        (LEAF.format("a", CHECKED + "<valueHelp><format>f</format></valueHelp>", ""), "needs format and description"),
        (LEAF.format("a", CHECKED, "").replace("leafNode name", "leafNode colour='x' name"), "no attribute colour"),
        (LEAF.format("a", CHECKED, "").replace("<properties>", "x<properties>"), "text between the elements"),
        (LEAF.format("A_b", CHECKED, ""), "the name is not of small letters"),
        (LEAF.format("a", CHECKED, "").replace("<help>H</help>", ""), "has no help"),
        (LEAF.format("a", CHECKED, "").replace(">H<", ">say \"x\"<"), "<help> holds a character"),
        (LEAF.format("a", "", ""), "takes a value and has no constraint"),
        (LEAF.format("a", CHECKED.split("<constraintE")[0], ""), "has a constraint and no message"),
        (LEAF.format("a", CHECKED.replace("(a|b)", "a|b"), ""), "alternatives of an expression stand in parentheses"),
        (LEAF.format("a", CHECKED.replace("(a|b)", "a$"), ""), "the expression holds a character"),
        (LEAF.format("a", CHECKED.replace("<regex>(a|b)</regex>", "<validator name='time'/>"), ""), "no validator time"),
        (LEAF.format("a", CHECKED + "<multi/><valueless/>", ""), "valueless and multi exclude each other"),
        (LEAF.format("a", CHECKED, "") * 2, "a: stands there twice"),
        ("<node name='a' owner='o'><properties><help>H</help></properties></node>", "has an owner and no priority"),
        ("<node name='a'><properties><help>H</help></properties></node>", "has no children"),
    ],
)
def test_each_rule_complains(element, complaint):
    found = list(rules.configuration(definition(element)))
    assert any(complaint in line for line in found), found


@pytest.mark.parametrize(
    ("element", "complaint"),
    [
        ("<leafNode name='a'><properties><help>H</help></properties></leafNode>", "has no command"),
        ("<leafNode name='a'><properties><help>H</help></properties><command>x</command></leafNode>", "needs sudo"),
        ("<leafNode name='a'><properties><help>H</help><completionHelp><imagePath/></completionHelp></properties>"
         "<command>sudo x</command></leafNode>", "<imagePath> has no place in <completionHelp>"),
        ("<leafNode name='a'><properties><help>H</help><completionHelp><path>a b</path></completionHelp></properties>"
         "<command>sudo x</command></leafNode>", "<path> has no place in <completionHelp>"),
    ],
)  # fmt: skip
def test_each_rule_of_operational_mode_complains(element, complaint):
    found = list(rules.operation(shown(element)))
    assert any(complaint in line for line in found), found


def test_help_and_completion_are_everywhere():
    for path, node in source.walk(source.read(build.DEFINITION)):
        properties = node.find("properties")
        takes_value = node.tag == "tagNode" or node.tag == "leafNode" and properties.find("valueless") is None
        if takes_value:
            told = properties.find("completionHelp") is not None or properties.find("valueHelp") is not None
            assert told, path


def test_the_build_gives_the_same_bytes_twice(tmp_path):
    trees = []
    for name, seed in (("one", "1"), ("two", "2")):
        out = tmp_path / name
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run([sys.executable, build.HERE / "build.py", "--output", out], check=True, env=environment)
        trees.append(
            {path.relative_to(out): (path.read_bytes(), path.stat().st_mode) for path in out.rglob("*") if path.is_file()}
        )
    assert trees[0] == trees[1]
    assert len(trees[0]) > 100


def test_the_tree_is_for_a_router(tmp_path):
    build.write(tmp_path)
    files = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file()}
    # Those two belong to VyOS.
    assert f"{build.CONFIG_TEMPLATES}/service/node.def" not in files
    assert f"{build.OPERATION_TEMPLATES}/show/node.def" not in files
    assert f"{build.CONFIG_TEMPLATES}/service/clawgress/policy/host/node.tag/source/node.def" in files
    assert f"{build.OPERATION_TEMPLATES}/show/clawgress/policy/import/file/node.tag/node.def" in files
    for place in ("conf_mode/service_clawgress.py", "op_mode/clawgress.py", "validators/clawgress-value"):
        assert os.access(files[f"usr/libexec/vyos/{place}"], os.X_OK)
    assert not [name for name in files if name.endswith(".pyc")]
    # Every directory below ours tells what it is, or the shell shows a word without help.
    for root in (build.CONFIG_TEMPLATES, build.OPERATION_TEMPLATES):
        for directory in (path for path in (tmp_path / root).rglob("*") if path.is_dir()):
            foreign = directory.relative_to(tmp_path / root).parts in build.FOREIGN
            assert foreign or (directory / "node.def").exists() or directory.name == "node.tag", directory


def test_words_are_counted_from_show():
    """`$6` of `show clawgress policy import file X` is the path."""
    for path, text in operation.tree(source.read(build.OPERATIONS)).items():
        places = [int(number) for number in re.findall(r'"\$(\d+)"', text)]
        values = [index + 1 for index, word in enumerate(path) if word == "node.tag"]
        assert places == values or "run:" not in text, path


def test_commands_of_operational_mode_are_ones_of_the_script():
    import clawgress as script

    parser = script.parser()
    for path, text in operation.tree(source.read(build.OPERATIONS)).items():
        found = re.search(r"^run: sudo \$\{vyos_op_scripts_dir\}/clawgress.py (.*)$", text, re.M)
        if found:
            words = [re.sub(r'^"\$\d+"$', "1h", word) for word in found[1].split()]
            parser.parse_args(words)


def test_the_owner_runs_once_for_the_whole_tree():
    owners = [path for path, text in config.tree(source.read(build.DEFINITION)).items() if "\nend:" in f"\n{text}"]
    assert owners == [("service", "clawgress")]


def test_defaults_make_no_node_appear_that_nobody_set():
    """A default below a plain node shows up wherever the node above it is read."""
    def below(tree, path=()):
        for name, child in tree.items():
            if name in ("node_data", "component_version"):
                continue
            if child["node_data"]["default_value"] is not None:
                yield (*path, name)
            if child["node_data"]["node_type"] != "tag":
                yield from below(child, (*path, name))

    known = reference.reference(source.read(build.DEFINITION))["service"]["clawgress"]
    assert sorted(below(known)) == [
        ("dns", "out-of-scope"), ("dns", "queries-per-second"), ("log", "decisions"), ("log", "keep-days"), ("log", "keep-megabytes"),
    ]  # fmt: skip


def test_a_fragment_that_includes_itself_is_told(tmp_path):
    (tmp_path / "a.xml.in").write_text("#include <a.xml.in>\n")
    with pytest.raises(source.DefinitionError, match="includes itself"):
        source.expand(tmp_path / "a.xml.in")
    (tmp_path / "b.xml.in").write_text("#include <none.xml.i>\n")
    with pytest.raises(source.DefinitionError, match="none.xml.i"):
        source.expand(tmp_path / "b.xml.in")


def test_every_node_and_command_is_documented():
    text = (build.SOURCES / "docs" / "vyos.md").read_text()
    words = set(re.findall(r"[a-z0-9-]+", " ".join(re.findall(r"`[^`\n]+`", text))))
    for root in (build.DEFINITION, build.OPERATIONS):
        for path, _ in source.walk(source.read(root)):
            assert path[-1] in words, path


def test_commands_of_the_documentation_exist():
    """Every `set` line of the documentation is one that the router takes."""
    from router import Router

    for name in ("docs/vyos.md", "README.md"):
        lines = re.findall(r"^set service .*$", (build.SOURCES / name).read_text(), re.M)
        assert lines, name
        for line in lines:
            Router(line)
