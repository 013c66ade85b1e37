"""What `show clawgress …` prints for people, from the JSON of the program."""

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
STEP = 1024
GAP = "  "
SHORT_DIGEST = 12
# Widths of a record's columns while it is not known what comes: time, action, layer, reason, host, source.
RECORD_WIDTHS = (20, 7, 6, 16, 14, 15)


def printable(value):
    """A cell: what would steer the terminal is shown as what it is."""
    text = "-" if value is None else str(value)
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def table(head, rows, right=()):
    """Lines of columns under a head; the columns `right` are numbers."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    lines = [head, ["-" * width for width in widths], *rows]
    cell = lambda text, index: text.rjust(widths[index]) if index in right else text.ljust(widths[index])
    return "\n".join(GAP.join(cell(text, index) for index, text in enumerate(line)).rstrip() for line in lines)


def pairs(rows):
    """Name and value in two columns."""
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}{GAP}{value}".rstrip() for name, value in rows)


def size(number):
    """Bytes as people say them."""
    amount, unit = float(number), 0
    while amount >= STEP and unit + 1 < len(UNITS):
        amount, unit = amount / STEP, unit + 1
    return f"{number} {UNITS[0]}" if unit == 0 else f"{amount:.1f} {UNITS[unit]}"


def status(data):
    digest = data["sha256"]
    rows = [
        ("State", printable(data["state"])),
        ("Revision", printable(data["revision"])),
        ("SHA-256", printable(digest and digest[:SHORT_DIGEST])),
        ("Origin", printable(data["origin"])),
        ("Applied at", printable(data["applied_at"])),
        ("Hosts", printable(data["hosts"])),
        ("Domains", printable(data["domains"])),
        ("Drift", "yes" if data["drift"] else "no"),
    ]
    lines = checks(data["checks"]).splitlines()
    rows += [("Checks" if index == 0 else "", line) for index, line in enumerate(lines)]
    return pairs(rows)


def checks(entries):
    width = max((len(printable(entry["name"])) for entry in entries), default=0)
    return "\n".join(
        f"{'ok  ' if entry['ok'] else 'FAIL'}{GAP}{printable(entry['name']):<{width}}{GAP}{printable(entry['message'])}"
        for entry in entries
    )


def tree(data, depth=0):
    """Any object, one value a line, nested ones indented."""
    indent, lines = GAP * depth, []
    entries = data.items() if isinstance(data, dict) else enumerate(data, 1)
    plain = [(printable(name), value) for name, value in entries]
    width = max((len(name) for name, value in plain if not isinstance(value, (dict, list))), default=0)
    for name, value in plain:
        if isinstance(value, (dict, list)):
            lines += [f"{indent}{name}:", *([tree(value, depth + 1)] if value else [f"{indent}{GAP}-"])]
        else:
            lines.append(f"{indent}{name:<{width}}{GAP}{printable(value)}")
    return "\n".join(lines)


def telemetry(data, view):
    """Usage and denials; `view` is what was asked for, or None for all."""
    parts = [f"Window {printable(data['window'])}, until {printable(data['generated_at'])}, "
             f"revision {printable(data['revision'])}"]  # fmt: skip
    if view == "domain":
        parts += [domains(data["domains"]), by_agent(data["agents"])]
    elif view == "agent":
        parts.append(agents(data["agents"]))
        for agent in data["agents"].values():
            parts += [domains(agent["domains"]), caps(agent["caps"])]
    else:
        parts += [show(data[name]) for name, show in (("agents", agents), ("domains", domains), ("denies", denies))
                  if name in data]  # fmt: skip
    return "\n\n".join(parts)


def agents(entries):
    head = ["Agent", "Up", "Down", "Packets up", "Packets down", "Queries", "Allowed", "Denied"]
    rows = [
        [name, size(agent["bytes_up"]), size(agent["bytes_down"]), agent["packets_up"], agent["packets_down"],
         agent["queries"], agent["allows"], agent["denies"]]
        for name, agent in sorted(entries.items())
    ]  # fmt: skip
    return table(head, rows, right=range(1, len(head))) if rows else "No agent was seen."


def domains(entries):
    rows = sorted(entries.items(), key=lambda entry: (-entry[1]["bytes_up"] - entry[1]["bytes_down"], entry[0]))
    rows = [[name, size(domain["bytes_up"]), size(domain["bytes_down"])] for name, domain in rows]
    return table(["Domain", "Up", "Down"], rows, right=(1, 2)) if rows else "No domain was reached."


def by_agent(entries):
    rows = [[name, size(domain["bytes_up"]), size(domain["bytes_down"])]
            for name, agent in sorted(entries.items()) for domain in agent["domains"].values()]  # fmt: skip
    return table(["Agent", "Up", "Down"], rows, right=(1, 2)) if rows else "No agent reached it."


def caps(entries):
    head = ["Cap", "Bytes", "Period", "Used", "Remaining", "Starts again at"]
    rows = [[name, size(cap["bytes"]), cap["period"], size(cap["used"]), size(cap["remaining"]), cap["resets_at"]]
            for name, cap in sorted(entries.items())]  # fmt: skip
    return table(head, rows, right=(1, 3, 4)) if rows else "No upload is capped."


def denies(entries):
    parts = []
    for name, title in (("by_reason", "Reason"), ("by_domain", "Domain")):
        rows = sorted(entries[name].items(), key=lambda entry: (-entry[1], entry[0]))
        parts.append(table([title, "Denied"], rows, right=(1,)) if rows else f"Nothing was denied, by {title.lower()}.")
    return "\n\n".join(parts)


def log(records, places):
    """`places`: words of the command line for places of the policy."""
    head = ["Time", "Action", "Layer", "Reason", "Host", "Source", "Destination", "Label", "Policy line"]
    return table(head, [cells(record, places) for record in records]) if records else "No decision was recorded."


def record(data, places):
    """One line of a log that goes on."""
    row = [printable(cell) for cell in cells(data, places)]
    front = GAP.join(cell.ljust(width) for cell, width in zip(row, RECORD_WIDTHS))
    return GAP.join([front, *row[len(RECORD_WIDTHS) :]]).rstrip()


def cells(data, places):
    names = ("time", "action", "layer", "reason", "host", "source")
    return [*(data[name] for name in names), destination(data), data["label"], policy_line(data, places)]


def policy_line(data, places):
    """The line that decided, and how many more decisions of the kind the record stands for."""
    path, more = data.get("path"), data.get("suppressed")
    line = places.get(path, path)
    return f"{'-' if line is None else line} (+{more})" if more else line


def destination(data):
    """The name asked for; of a flow the name, else the address, with port and protocol as far as they are known."""
    if data["layer"] == "dns":
        return data["domain"]
    address = data["address"]
    where = data["domain"] or address
    if data["port"]:
        where = f"[{where}]" if where == address and ":" in str(address) else where
        where = f"{where}:{data['port']}"
    return f"{where}/{data['protocol']}" if data["protocol"] and where else where


def history(data):
    by = lambda entry: f" ({entry['key_id']})" if entry.get("key_id") else ""
    rows = [[entry["revision"], entry["applied_at"], entry["origin"] + by(entry), entry["sha256"][:SHORT_DIGEST]]
            for entry in data["revisions"]]  # fmt: skip
    text = table(["Revision", "Applied at", "Origin", "SHA-256"], rows, right=(0,)) if rows else "No revision yet."
    return "\n".join([text, *(f"warning: {printable(sentence)}" for sentence in data.get("damage", []))])


def explanation(data):
    rows = [(title, printable(data.get(name))) for title, name in
            (("Verdict", "verdict"), ("Reason", "reason"), ("Host", "host"), ("Domain", "domain"), ("Mode", "mode"),
             ("Policy line", "path"), ("In words", "detail")) if name in data]  # fmt: skip
    return pairs(rows)


def check(data, name):
    """The mistakes of a policy, one a line."""
    lines = [f"{name} is a valid policy" if data["valid"] else f"{name} is not a valid policy"]
    for title, entries in (("mistakes", data["errors"]), ("warnings", data["warnings"]),
                           ("not enforced by this version", data["not_enforced"])):  # fmt: skip
        if entries:
            lines.append(f"{title}:")
        for entry in entries:
            hint = f" ({printable(entry['hint'])})" if entry.get("hint") else ""
            lines.append(f"  {printable(entry['path'] or 'policy')}: {printable(entry['message'])}{hint}")
    return "\n".join(lines)
