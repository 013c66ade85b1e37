"""From `service clawgress`, without its policy, to the text of clawgress.toml."""

import json
from ipaddress import ip_address

HEAD = "# Made by the commit of `service clawgress`; changes here are lost with the next one.\n"
POLICY = "/config/clawgress/policy.json"
# Below /config, which an image upgrade takes along.
STATE = "/config/clawgress/state"
DNS_PORT = 53
API_PORT = 8787
RPZ_PORT = 5300
EVERYWHERE = ("0.0.0.0", "::")
API_ADDRESS = "127.0.0.1"


def text(config, tls, runtime):
    """The file. `tls`: the paths of certificate and key, or None."""
    lines = [HEAD, f"policy = {quoted(POLICY)}", f"state_dir = {quoted(STATE)}", f"runtime_dir = {quoted(runtime)}"]
    dns = config.get("dns", {})
    port = dns.get("port", DNS_PORT)
    addresses = config.get("listen-address", EVERYWHERE)
    lines += ["", "[dns]", f"listen = {many(socket(address, port) for address in addresses)}"]
    if "upstream" in dns:
        lines.append(f"upstreams = {many(dns['upstream'])}")
    lines.append(f"redirect = {boolean('disable-redirect' not in dns)}")
    if "out-of-scope" in dns:
        lines.append(f"out_of_scope = {quoted(dns['out-of-scope'])}")
    for node, key in (("queries-per-second", "queries_per_second"), ("receivers", "receivers")):
        if node in dns:
            lines.append(f"{key} = {int(dns[node])}")
    if "rpz" in config:
        lines += ["", "[rpz]", *_rpz(config["rpz"])]
    if "api" in config:
        lines += ["", "[api]", *_api(config["api"], tls)]
    if "log" in config:
        lines += ["", "[log]", *_log(config["log"])]
    lines += ["", "[kernel]", f"lock_table = {boolean('disable-table-lock' not in config)}"]
    return "\n".join(lines) + "\n"


def _rpz(rpz):
    port = rpz.get("port", RPZ_PORT)
    yield f"listen = {many(socket(address, port) for address in rpz.get('listen-address', ()))}"
    yield from ("[[rpz.secondary]]\n" + "\n".join(_secondary(entry)) for entry in rpz.get("secondary", {}).values())


def _secondary(entry):
    yield f"address = {quoted(socket(entry['address'], entry.get('port', DNS_PORT)))}"
    for node in ("key", "algorithm", "secret-file"):
        if node in entry:
            yield f"{node.replace('-', '_')} = {quoted(entry[node])}"
    if "unsigned" in entry:
        yield "unsigned = true"
    if "host" in entry:
        yield f"hosts = {many(entry['host'])}"


def _api(api, tls):
    yield f"listen = {quoted(socket(api.get('listen-address', API_ADDRESS), api.get('port', API_PORT)))}"
    if tls:
        certificate, key = tls
        yield f"tls = {{ certificate = {quoted(certificate)}, key = {quoted(key)} }}"
    keys = api.get("keys", {}).get("id", {})
    entries = [
        f"{{ id = {quoted(name)}, key = {quoted(entry['key'])}, role = {quoted(entry['role'])} }}"
        for name, entry in keys.items()
    ]
    if entries:
        yield f"keys = [{', '.join(entries)}]"
    yield f"metrics = {boolean('metrics' in api)}"


def _log(log):
    if "decisions" in log:
        yield f"decisions = {quoted(log['decisions'])}"
    for node, key in (("keep-megabytes", "keep_megabytes"), ("keep-days", "keep_days")):
        if node in log:
            yield f"{key} = {int(log[node])}"


def mistakes(config):
    """What is left out: words of the command line, message."""
    yield from _rpz_mistakes(config)
    api = config.get("api")
    if api is None:
        return
    keys = api.get("keys", {}).get("id", {})
    if not keys and "metrics" not in api:
        yield "api", "needs a key: nobody could call it (set service clawgress api keys id NAME key SECRET)"
    yield from ((f"api keys id {name}", "needs a key") for name, entry in keys.items() if "key" not in entry)
    if "tls" in api and "certificate" not in api["tls"]:
        yield "api tls", "needs a certificate"


def _rpz_mistakes(config):
    rpz = config.get("rpz")
    if rpz is None:
        return
    listen, secondaries = rpz.get("listen-address", []), rpz.get("secondary", {})
    if not secondaries:
        yield "rpz", "needs a secondary: nobody could fetch the zones"
    if not listen:
        yield "rpz", "needs a listen-address: nobody could fetch the zones"
    for address in listen:
        if address in EVERYWHERE:
            yield f"rpz listen-address {address}", "is every address; name each, name servers are told of changes from it"
    # The packet filter lets agents reach the port of DNS at every address of the router.
    if listen and int(rpz.get("port", RPZ_PORT)) == int(config.get("dns", {}).get("port", DNS_PORT)):
        yield "rpz port", "agents ask there; give the zones another port"
    taken = {}
    for name, entry in secondaries.items():
        words = f"rpz secondary {name}"
        if "address" not in entry:
            yield words, "needs an address"
            continue
        address, key = ip_address(entry["address"]), entry.get("key")
        # As such nobody ever asks from it.
        address = getattr(address, "ipv4_mapped", None) or address
        if listen and address.version not in {ip_address(mine).version for mine in listen}:
            yield words, f"could not ask: no listen-address of rpz is IPv{address.version}"
        for place in ((address, int(entry.get("port", DNS_PORT))), (address, key)):
            if taken.setdefault(place, name) != name:
                yield words, f"is the same as rpz secondary {taken[place]}; at one address each needs its own key and port"
                break
        signs = [node for node in ("key", "algorithm", "secret-file") if node in entry]
        if "unsigned" in entry and signs:
            yield f"{words} unsigned", f"says that no {signs[0]} is needed; delete one of the two"
        elif "unsigned" not in entry and not {"key", "secret-file"} <= set(signs):
            yield words, "needs key and secret-file, or unsigned where its address is proof enough"


def clashes(config, forwarding):
    """Sockets at which the gateway's DNS and `service dns forwarding` would both listen."""
    port = int(config.get("dns", {}).get("port", DNS_PORT))
    if int(forwarding.get("port", DNS_PORT)) != port:
        return []
    taken = forwarding.get("listen-address", [])
    own = config.get("listen-address", EVERYWHERE)
    return [socket(address, port) for address in taken if any(same(address, mine) for mine in own)]


def same(one, other):
    """Whether two listeners of one port would meet."""
    families = [ip_address(address).version for address in (one, other)]
    everywhere = any(address in EVERYWHERE for address in (one, other))
    return families[0] == families[1] and (everywhere or ip_address(one) == ip_address(other))


def socket(address, port):
    """ADDRESS:PORT."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def boolean(value):
    return "true" if value else "false"


def many(values):
    return f"[{', '.join(quoted(value) for value in values)}]"


def quoted(value):
    """A basic string of TOML: its escapes are those of JSON, and DEL has to be escaped too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
