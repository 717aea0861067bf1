"""`sallyport agents`: which agents attest or send heartbeats, and how each of them stands."""

import sys

import msgspec

from proxy.agents.state import AgentView, Claimed
from proxy.audit_line import printable
from proxy.commands.listing import Column, show
from proxy.commands.reach import ask, client_or_fail
from proxy.commands.say import (
    ConfigOption,
    JsonOption,
    StateOption,
    SystemOption,
    settings_of,
)
from proxy.config import Settings

_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3600.0, 86400.0
_COLUMNS = (
    *map(Column, ("agent", "app", "state", "level", "attested", "heard")),
    Column("it says", is_free=True),
)


def agents(
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the agents, and how each of them stands."""
    found = _asked(settings_of(config, None, state, system=system))
    if as_json:
        # An agent chose texts of it: as in the table, none of them moves a cursor.
        sys.stdout.write(printable(msgspec.json.encode(found).decode()) + "\n")
    else:
        _show(found)


def _asked(settings: Settings) -> list[AgentView]:
    answer = ask(client_or_fail(settings), "GET", "/agents")
    return msgspec.convert(answer, list[AgentView])


def _show(found: list[AgentView]) -> None:
    rows = [
        (
            *(each.agent, each.app, each.state, each.level or ""),
            *(ago(each.attested_s), ago(each.heartbeat_s), _said(each.claimed)),
        )
        for each in found
    ]
    show(_COLUMNS, rows, "no agent has attested, or sent a heartbeat")


def _said(claimed: Claimed | None) -> str:
    """Return what an agent says of itself, which nothing proves."""
    words = () if claimed is None else (claimed.health, claimed.version, claimed.detail)
    return ", ".join(each for each in words if each)


def ago(seconds: float | None) -> str:
    """Return a short age: of less than two minutes in seconds, and so on."""
    if seconds is None:
        return ""
    for unit, name in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
