"""`sallyport agents`: which agents attest or send heartbeats, and how each of them stands."""

import sys
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.agents.state import AgentView
from proxy.audit_line import printable
from proxy.commands.reach import client_or_fail
from proxy.commands.say import (
    EXIT_BIND,
    EXIT_FINDINGS,
    ConfigOption,
    JsonOption,
    StateOption,
    SystemOption,
    fail,
    settings_of,
)
from proxy.config import Settings
from proxy.control.client import ControlError
from proxy.errors import BindError

_COLUMNS = (
    *("agent", "app", "state", "level", "attested", "heartbeat"),
    *("says: health", "says: version", "says"),
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
    try:
        answer: Any = client_or_fail(settings).get("/agents")
    except BindError as error:
        fail(str(error), EXIT_BIND)
    except ControlError as error:
        fail(str(error), EXIT_BIND if error.status >= 500 else EXIT_FINDINGS)
    return msgspec.convert(answer, list[AgentView])


def _show(found: list[AgentView]) -> None:
    table = Table(*_COLUMNS, box=None)
    table.columns[0].overflow = "fold"  # a SPIFFE ID is copied into `revoke`: none is cut
    for each in found:
        said = each.claimed
        words = ("", "", "") if said is None else (said.health, said.version, said.detail)
        texts = (
            *(each.agent, each.app, each.state, each.level or ""),
            *(_ago(each.attested_s), _ago(each.heartbeat_s)),
            *words,
        )
        table.add_row(*(Text(printable(text)) for text in texts))
    Console(soft_wrap=True).print(table)


def _ago(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f} s ago"
