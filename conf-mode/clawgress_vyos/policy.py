"""From `service clawgress policy` to the policy document, names byte for byte.

Each place of the document remembers the words of the command line that it is from, so that what the program says about
the document can be said about the configuration.
"""

from dataclasses import dataclass, field

# The lists of an allowlist: node of the command line, field of the document.
ALLOWED = (("domain", "domains"), ("ip", "ips"), ("port", "ports"), ("domain-list", "domain_lists"))
DENIED = (("domain", "domains"), ("ip", "ips"), ("domain-list", "domain_lists"))


@dataclass
class Converted:
    """A policy document and where it is from."""

    document: dict
    # JSON Pointer (RFC 6901) to words of the command line.
    places: dict = field(default_factory=dict)
    # What the command line says twice or leaves out: words of the command line, message.
    mistakes: list = field(default_factory=list)

    def words(self, pointer):
        """The words of the command line for a place: its own, or those of the nearest place around it."""
        while pointer and pointer not in self.places:
            pointer = pointer.rpartition("/")[0]
        return self.places.get(pointer, "policy")


def convert(config):
    """The document for the configuration below `service clawgress policy`, as `get_config_dict` gives it."""
    result = Converted({"version": 1}, {"": "policy"})
    _Writer(result).policy(config)
    return result


def allows_nothing(document):
    """Whether no allowlist of a document has any entry that opens something."""
    blocks = [document, *document.get("hosts", {}).values()]
    opening = ("domains", "ips", "domain_lists")
    return not any(block.get("allow", {}).get(name) for block in blocks for name in opening)


def pointer(*steps):
    """A JSON Pointer."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


class _Writer:
    def __init__(self, result):
        self.result = result
        # Domain to the words at which it got its label: a label is for all hosts.
        self.labelled = {}

    def policy(self, config):
        document, here = self.result.document, ("policy",)
        self.copy(config, document, (), here, (("mode", "mode"), ("time-zone", "time_zone")))
        if "scope" in config:
            scope = self.place({}, ("scope",), (*here, "scope"))
            for node, name in (("source", "sources"), ("interface", "interfaces")):
                if node in config["scope"]:
                    scope[name] = self.entries(config["scope"][node], ("scope", name), (*here, "scope", node))
            document["scope"] = scope
        self.rules(config, document, (), here)
        for domain, block in config.get("domain-label", {}).items():
            self.label(domain, block.get("label"), (*here, "domain-label", domain))
        hosts = {name: self.host(name, block) for name, block in config.get("host", {}).items()}
        if hosts:
            document["hosts"] = hosts

    def host(self, name, config):
        at, here = ("hosts", name), ("policy", "host", name)
        host = self.place({}, at, here)
        if "source" in config:
            host["sources"] = self.entries(config["source"], (*at, "sources"), (*here, "source"))
        else:
            self.mistake(here, "needs a source: the address of the agent, such as 192.168.10.10/32")
        self.copy(config, host, at, here, (("mode", "mode"),))
        self.rules(config, host, at, here)
        caps = {}
        for domain, cap in config.get("exfil", {}).get("domain", {}).items():
            place, words = (*at, "exfil", "domains", domain), (*here, "exfil", "domain", domain)
            caps[domain] = self.place({}, place, words)
            if "bytes" in cap:
                caps[domain]["bytes"] = self.place(int(cap["bytes"]), (*place, "bytes"), (*words, "bytes", cap["bytes"]))
            else:
                self.mistake(words, "needs bytes: how much may be uploaded in one period")
            self.copy(cap, caps[domain], place, words, (("period", "period"),))
        if caps:
            host["exfil"] = {"domains": caps}
        return host

    def rules(self, config, block, at, here):
        """What the policy as a whole and a host have in common."""
        none = config.get("allow-none", [])
        allow, deny = {}, {}
        for node, name in ALLOWED:
            self.list(config, allow, (*at, "allow"), here, node, name)
            if node in none and name in allow:
                self.mistake((*here, "allow-none", node), f"there is a {node} as well; remove one of the two")
            elif node in none:
                allow[name] = self.place([], (*at, "allow", name), (*here, "allow-none", node))
        for node, name in DENIED:
            self.list(config.get("deny", {}), deny, (*at, "deny"), (*here, "deny"), node, name)
        windows = {}
        for domain, entry in config.get("domain", {}).items():
            words = (*here, "domain", domain)
            if "label" in entry:
                self.label(domain, entry["label"], words)
            if "time-window" in entry:
                place = (*at, "domain_time_windows", domain)
                windows[domain] = self.window(entry["time-window"], place, (*words, "time-window"))
        for domain, entry in config.get("domain-time-window", {}).items():
            words = (*here, "domain-time-window", domain)
            if domain in windows:
                self.mistake(words, f"domain {domain} has a time-window as well; remove one of the two")
            windows[domain] = self.window(entry, (*at, "domain_time_windows", domain), words)
        for name, value in (("allow", allow), ("deny", deny)):
            if value:
                block[name] = value
        if "time-window" in config:
            block["time_window"] = self.window(config["time-window"], (*at, "time_window"), (*here, "time-window"))
        if windows:
            block["domain_time_windows"] = windows
        if "rate-limit-kbps" in config:
            rate = config["rate-limit-kbps"]
            place = (*at, "limits", "egress_kbps")
            block["limits"] = {"egress_kbps": self.place(int(rate), place, (*here, "rate-limit-kbps", rate))}

    def list(self, config, block, at, here, node, name):
        """One list of an allowlist or denylist, if the configuration has it."""
        if node not in config:
            return
        at, here = (*at, name), (*here, node)
        if node == "domain-list":
            lists = [self.domain_list(key, value, (*at, index), (*here, key))
                     for index, (key, value) in enumerate(config[node].items())]  # fmt: skip
            block[name] = self.place(lists, at, here)
        else:
            block[name] = self.entries(config[node], at, here)

    def domain_list(self, name, config, at, here):
        entry = self.place({"name": name}, at, here)
        if "file" not in config:
            self.mistake(here, "needs a file: the path of the file with the names")
        self.copy(config, entry, at, here, (("file", "file"), ("format", "format")))
        return entry

    def label(self, domain, label, words):
        """A label; said twice in other words it would be unclear which holds."""
        labels = self.result.document.setdefault("labels", {})
        if label is None:
            self.mistake(words, "needs a label")
        elif domain in labels and labels[domain] != label:
            self.mistake((*words, "label", label), f"{self.labelled[domain]} says {labels[domain]}; a domain has one label")
        else:
            labels[domain] = self.place(label, ("labels", domain), (*words, "label", label))
            self.labelled.setdefault(domain, " ".join((*words, "label")))

    def window(self, config, at, here):
        window = self.place({}, at, here)
        if "day" in config:
            window["days"] = self.entries(config["day"], (*at, "days"), (*here, "day"))
        self.copy(config, window, at, here, (("start", "start"), ("end", "end")))
        return window

    def entries(self, values, at, here):
        """The values of a leaf that may have several, or of a tag node; ports become numbers."""
        number = at[-1] == "ports"
        entries = [
            self.place(int(value) if number else value, (*at, index), (*here, value)) for index, value in enumerate(values)
        ]
        return self.place(entries, at, here)

    def copy(self, config, block, at, here, names):
        """Leaves that are the same in the document."""
        for node, name in names:
            if node in config:
                block[name] = self.place(config[node], (*at, name), (*here, node, config[node]))

    def place(self, value, at, words):
        self.result.places[pointer(*at)] = " ".join(words)
        return value

    def mistake(self, words, message):
        self.result.mistakes.append((" ".join(words), message))
