"""`sallyport capabilities`: the tokens that agents got for what they may do elsewhere.

Through the control socket, where an appliance runs.  Else on the file: a running appliance without
a control socket notices that within a second or two.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import msgspec
import typer

from proxy.audit_line import printable
from proxy.capabilities.live import FILE_NAME, LiveCapabilities
from proxy.capabilities.token import digest
from proxy.commands.listing import Column, show
from proxy.commands.reach import ask_if_running, client_of
from proxy.commands.say import (
    EXIT_BIND,
    EXIT_FINDINGS,
    ConfigOption,
    JsonOption,
    StateOption,
    SystemOption,
    fail,
    say,
    settings_of,
)
from proxy.commands.tokens import write_json
from proxy.config import Settings
from proxy.control.capabilities import CapabilityView, shown
from proxy.errors import BindError

app = typer.Typer(
    name="capabilities",
    help="Tokens for what agents may do elsewhere: see them, revoke them.",
    no_args_is_help=True,
)

_COLUMNS = (
    *(Column("id"), Column("state"), Column("app"), Column("expires")),
    *(Column("audience", is_free=True), Column("scopes", is_free=True)),
    *(Column("on behalf of", is_free=True), Column("why", is_free=True)),
)


@app.command("list")
def list_(
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the tokens that have not expired."""
    settings = settings_of(config, None, state, system=system)
    answer = ask_if_running(client_of(settings), "GET", "/capabilities")
    views = _views(answer) if answer is not None else _done(settings, _listed)
    if as_json:
        write_json(views)
        return
    rows = [
        (
            *(each.id, each.state, each.app, each.expires.partition(".")[0] + "Z", each.audience),
            *(" ".join(each.scopes), each.subject if each.actors else "", each.why),
        )
        for each in views
    ]
    show(_COLUMNS, rows, "no agent has a capability token")


@app.command()
def revoke(
    which: Annotated[
        str, typer.Argument(metavar="ID|TOKEN", help="A token's id, or the token itself.")
    ],
    why: Annotated[str, typer.Option("--why", help="Words for audit; agents never see them.")] = "",
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Revoke a token, and every token that was made of it, at once."""
    settings = settings_of(config, None, state, system=system)
    # A token itself goes nowhere: neither into a request nor into a log.
    named = digest(which) if "." in which else which
    target = f"/capabilities/{quote(named, safe='')}?{urlencode({'why': why})}"
    answer = ask_if_running(client_of(settings), "DELETE", target)
    if answer is not None:
        views = _views(answer)
    else:
        views = _done(settings, lambda live: _revoked(live, named, why))
    if as_json:
        write_json(views)
        return
    if not views:
        say("it is void already")
    for each in views:
        say(f"{each.id} of {each.app} for {printable(each.audience)}: void")


async def _listed(live: LiveCapabilities) -> list[CapabilityView]:
    now = live.now()
    return [shown(each, stands=live.known.stands(each, now)) for each in live.known.all()]


async def _revoked(live: LiveCapabilities, named: str, why: str) -> list[CapabilityView]:
    token = live.known.get(named)
    if token is None:
        fail("no such token; `sallyport capabilities list` shows all", EXIT_FINDINGS)
    voided = live.void((token.id,), why or "revoked by an admin")
    await live.settled()
    return [shown(each, stands=False) for each in voided]


def _done(
    settings: Settings, work: Callable[[LiveCapabilities], Awaitable[list[CapabilityView]]]
) -> list[CapabilityView]:
    """Return what `work` returns of the file; nothing is made where there is none."""

    async def run() -> list[CapabilityView]:
        path = Path(settings.state) / FILE_NAME
        live = LiveCapabilities(path, settings.limits, time.time)  # noqa: TID251 - a command is its own root
        try:
            if path.exists(follow_symlinks=False):
                await live.ready()
            return await work(live)
        finally:
            await live.close()

    try:
        return asyncio.run(run())
    except BindError as error:
        fail(str(error), EXIT_BIND)


def _views(answer: Any) -> list[CapabilityView]:
    return msgspec.convert(answer, list[CapabilityView])
