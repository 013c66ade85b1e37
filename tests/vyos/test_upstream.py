"""Equality with VyOS' own tools, on a machine that has them.

    CLAWGRESS_VYOS_1X=/path/to/vyos-1x make test-vyos

Needs python3-lxml besides, which those tools need. Without the variable these tests are skipped, and say so.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import build
from generator import config, operation, reference, source
from router import Router
from test_commands import everything

UPSTREAM = os.environ.get("CLAWGRESS_VYOS_1X")
pytestmark = pytest.mark.skipif(not UPSTREAM, reason="CLAWGRESS_VYOS_1X names no checkout of vyos-1x")


def run(*words, **more):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True, **more).stdout


def transcluded(definition, target):
    text = run(sys.executable, Path(UPSTREAM, "scripts/transclude-template"), definition)
    target.write_text(text)
    return target


def node_defs(root):
    return {path.parent.relative_to(root).parts: path.read_text() for path in root.rglob("node.def")}


@pytest.mark.parametrize(
    ("definition", "tool", "schema", "ours"),
    [
        (build.DEFINITION, "build-command-templates", "interface_definition.rng", config.tree),
        (build.OPERATIONS, "build-command-op-templates", "op-mode-definition.rng", operation.tree),
    ],
)
def test_templates_are_those_of_upstream(tmp_path, definition, tool, schema, ours):
    xml = transcluded(definition, tmp_path / "definition.xml")
    assert xml.read_text().rstrip() == source.expand(definition).rstrip()
    out = tmp_path / "out"
    out.mkdir()
    run(sys.executable, Path(UPSTREAM, "scripts", tool), xml, Path(UPSTREAM, "schema", schema), out)
    theirs = node_defs(out)
    assert len(theirs) > 30
    assert ours(source.read(definition)) == theirs


def upstream_reader():
    """VyOS' reader of the cache, by itself: the package around it needs a router."""
    path = Path(UPSTREAM, "python/vyos/xml_ref/definition.py")
    spec = importlib.util.spec_from_file_location("definition", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Xml()


def test_the_cache_is_understood_by_upstream():
    definition = source.read(build.DEFINITION)
    names = {}
    exec(reference.module(definition), names)  # as VyOS does: it imports the file
    xml = upstream_reader()
    xml.define(names["reference"])
    for path, node in source.walk(definition):
        # A path with a value behind each tag node on the way.
        words, here = [], definition
        for name in path:
            here = next(child for child in source.nodes(here) if child.get("name") == name)
            words += [name, "VALUE"] if here.tag == "tagNode" and here is not node else [name]
        properties = node.find("properties")
        assert xml.is_tag(words) == (node.tag == "tagNode"), words
        assert xml.is_leaf(words) == (node.tag == "leafNode"), words
        assert xml.is_multi(words) == (properties is not None and properties.find("multi") is not None), words
        assert xml.is_valueless(words) == (properties is not None and properties.find("valueless") is not None), words
        if words[:2] == ["service", "clawgress"]:
            assert xml.owner(words) == "service_clawgress.py"
            assert xml.priority(words) == "1010"
    exfil = ["service", "clawgress", "policy", "host", "agent-1", "exfil", "domain", "api.example.com", "period"]
    assert xml.default_value(exfil) == "hour"
    assert xml.component_version() == {}


def merged(defaults, values):
    """What is set stands before what is assumed."""
    return {
        name: merged(defaults.get(name, {}), values.get(name, {})) if isinstance(both, dict) else both
        for name, both in {**defaults, **values}.items()
    }


def test_defaults_are_merged_as_upstream_merges_them(contract):
    """Our stand-in for the router's configuration does what the router does."""
    base = ["service", "clawgress"]
    xml = upstream_reader()
    xml.define(reference.reference(source.read(build.DEFINITION)))
    for lines in (contract, everything(), ["set service clawgress api metrics"], ["set service clawgress dns port 5353"]):
        router = Router(*lines)
        plain = router.config(base)
        theirs = xml.relative_defaults(base, plain, get_first_key=True, recursive=True)
        assert merged(theirs, plain) == router.config(base, defaults=True)


def test_the_merge_of_upstream_takes_the_cache(tmp_path):
    package = tmp_path / "xml_ref"
    caches = package / "pkg_cache"
    caches.mkdir(parents=True)
    update = Path(UPSTREAM, "python/vyos/xml_ref/update_cache.py").read_text()
    (package / "update_cache.py").write_text(update)
    # Its neighbour needs a library of the router for what is not asked of it here: it only tells two paths.
    (package / "generate_cache.py").write_text(f"pkg_cache = {str(caches)!r}\nref_cache = {str(package / 'cache.py')!r}\n")
    (caches / "__init__.py").write_text("")
    ntp = {"node_data": {"node_type": "other", "owner": "ntp.py"}}
    main = {"service": {"node_data": {"node_type": "other"}, "ntp": ntp}, "component_version": {"ntp": "3"}}
    (caches / "vyos_1x_cache.py").write_text(f"reference = {main!r}\n")
    (caches / "clawgress_cache.py").write_text(build.templates()[build.REFERENCE])
    run(sys.executable, package / "update_cache.py", cwd=package)
    names = {}
    exec((package / "cache.py").read_text(), names)
    merged = names["reference"]
    assert merged["service"]["ntp"] == ntp
    assert merged["component_version"] == {"ntp": "3"}
    assert merged["service"]["clawgress"]["node_data"]["owner"] == "${vyos_conf_scripts_dir}/service_clawgress.py"
