"""The reference cache: what VyOS' Python side knows of each node.

Without it a commit below our node kills vyos-configd, and the commit waits for ever.
"""

from .source import nodes, text_of

NODE_TYPES = {"node": "other", "tagNode": "tag", "leafNode": "leaf"}
HEAD = "# What VyOS knows of the nodes of clawgress; merged by xml_ref/update_cache.py. Made by vyos-templates/build.py.\n"


def reference(root):
    """The cache of a definition, as VyOS merges it."""
    data = {"node_type": "other", "multi": False, "valueless": False, "default_value": None}
    top = {"node_data": {**data, "owner": None, "priority": None}}
    top.update((node.get("name"), _node(node)) for node in nodes(root))
    # The syntax of our nodes has not changed yet: version 0 is written nowhere.
    top["component_version"] = {}
    return top


def _node(node):
    properties = node.find("properties")
    has = lambda name: properties is not None and properties.find(name) is not None
    data = {
        "node_type": NODE_TYPES[node.tag],
        "multi": has("multi"),
        "valueless": has("valueless"),
        "default_value": text_of(node, "defaultValue"),
        "owner": node.get("owner"),
        "priority": text_of(properties, "priority"),
    }
    return {"node_data": data, **{child.get("name"): _node(child) for child in nodes(node)}}


def module(root):
    """The text of clawgress_cache.py."""
    return f"{HEAD}reference = {reference(root)!r}\n"
