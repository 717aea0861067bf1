"""What the appliance says when it is ready: one JSON object, or a table for a person."""

from importlib import metadata

import msgspec
from msgspec import Struct

DISTRIBUTION = "sallyport"


class Ready(Struct, frozen=True):
    """The ready event; `listen` holds real addresses and ports by kind of listener."""

    pid: int
    generation: int
    enforcement: str
    listen: dict[str, list[str]]
    rules: list[str]
    notes: list[str]


def version() -> str:
    """Return the version that is installed; `unknown` where we run from a source tree."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


def ready_json(ready: Ready) -> str:
    """Return the event as one line (reference.md, "Command")."""
    event = {
        "event": "ready",
        "pid": ready.pid,
        "generation": ready.generation,
        "enforcement": ready.enforcement,
        "listen": ready.listen,
    }
    return msgspec.json.encode(event).decode()


def ready_table(ready: Ready) -> str:
    """Return the lines that a person reads, ending in three commands to try."""
    rows = [(f"listen {kind}", ", ".join(where) or "off") for kind, where in ready.listen.items()]
    rows.append(("rules", f"generation {ready.generation}"))
    rows += [("", file) for file in ready.rules]
    rows.append(("enforcement", _ENFORCEMENT[ready.enforcement]))
    rows += [("note", note) for note in ready.notes]
    rows += [("try", command) for command in _commands(ready)]
    width = max(len(name) for name, _ in rows)
    margin = "\n" + " " * (width + 4)  # a note may be a problem with its excerpt and caret
    return "\n".join(
        f"  {name:<{width}}  {text.replace('\n', margin)}".rstrip() for name, text in rows
    )


_ENFORCEMENT = {
    "advisory": "advisory: a process of the same user can change rules and state (SECURITY.md)",
    "system": "system: rules are root's, state is ours",
}


def _commands(ready: Ready) -> list[str]:
    commands = []
    for where in ready.listen.get("do53", [])[:1]:
        host, _, port = where.rpartition(":")
        commands.append(f"kdig @{host.strip('[]')} -p {port} example.com")
    for where in ready.listen.get("proxy", [])[:1]:
        commands.append(f"curl -x http://{where} https://example.com/")
        commands.append(f"curl -x http://{where} https://example.net/    # refused")
    return commands
