"""`sallyport revoke`, `restore` and `revoked`: what counts for nothing from now on.

Through the control socket, where an appliance runs: it cuts what is open before it answers.  Else
on the files, which the next one reads before it accepts anything.
"""

import asyncio
import os
import time
from collections.abc import Container, Coroutine
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
import typer

from proxy.certificates.live import LiveRevocations
from proxy.certificates.meant import KINDS, meant
from proxy.certificates.revoked import FILE_NAME
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
from proxy.commands.tokens import TokensOf, write_json
from proxy.config import Settings
from proxy.control.revocations import WHY_CHARACTERS, RevocationView, restore_meant, shown
from proxy.errors import BindError, ConfigError
from proxy.reload.files import public_suffixes, read_rules
from rules.errors import RuleSyntaxError

WhatArgument = Annotated[
    str,
    typer.Argument(
        metavar="WHAT", help="A SPIFFE ID, a serial number, an app's name, or a token's id."
    ),
]
KindOption = Annotated[
    str | None, typer.Option("--kind", help=f"What WHAT is: {', '.join(KINDS)}.")
]

_COLUMNS = (
    *(Column("kind"), Column("value"), Column("since", is_free=True)),
    *(Column("by uid", is_free=True), Column("why", is_free=True)),
)


def revoke(  # noqa: PLR0913 - one argument an option
    what: WhatArgument,
    why: Annotated[str, typer.Option("--why", help="Words for audit; agents never see them.")] = "",
    kind: KindOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let an app, SPIFFE ID, certificate or token count for nothing, and cut what it has open."""
    settings = settings_of(config, None, state, system=system)
    _check_words(what, why)
    content = {"what": what, "kind": kind, "why": why}
    answer = ask_if_running(client_of(settings), "POST", "/revocations", content)
    made = _revoked_here(settings, what, kind, why) if answer is None else _views(answer)
    if as_json:
        write_json(made)
        return
    for each in made:
        cut = "" if each.cut is None else f"; {each.cut} connections cut in {each.cut_s:.3f} s"
        say(f"{each.kind} {each.value}: revoked at {each.at}{cut}")


def restore(
    what: WhatArgument,
    kind: KindOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let what was revoked count again; a token stays void."""
    settings = settings_of(config, None, state, system=system)
    query = urlencode({"what": what, **({} if kind is None else {"kind": kind})})
    answer = ask_if_running(client_of(settings), "DELETE", f"/revocations?{query}")
    if answer is None:
        work = _restored(_live(settings), what, kind, _apps(settings))
        answer = [msgspec.to_builtins(shown(_done(work)))]
    if as_json:
        write_json(answer)
        return
    for each in _views(answer):
        say(f"{each.kind} {each.value}: counts again")


def revoked(
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """List what is revoked, the oldest first; `sallyport app list` shows tokens."""
    settings = settings_of(config, None, state, system=system)
    answer = ask_if_running(client_of(settings), "GET", "/revocations")
    views = _listed(settings) if answer is None else _views(answer)
    if as_json:
        write_json(views)
        return
    rows = [
        (each.kind, each.value, each.at, str(each.by_uid) if each.by_uid >= 0 else "", each.why)
        for each in views
    ]
    show(_COLUMNS, rows, "nothing is revoked")


def _check_words(*words: str) -> None:
    for each in words:
        if len(each) > WHY_CHARACTERS or any("\ud800" <= one <= "\udfff" for one in each):
            fail(f"WHAT and --why are UTF-8, of {WHY_CHARACTERS} characters at most", EXIT_FINDINGS)


def _revoked_here(
    settings: Settings, what: str, kind: str | None, why: str
) -> list[RevocationView]:
    try:
        named, value = meant(what, kind, _apps(settings))
    except ConfigError as error:
        fail(str(error), EXIT_FINDINGS)
    if named == "token":
        return [
            RevocationView(kind="token", value=each.id, at=each.revoked or "", why=why,
                           by_uid=os.getuid())
            for each in TokensOf(settings).revoke(value)
        ]  # fmt: skip
    live = _live(settings)

    async def work() -> RevocationView:
        await live.reload()
        if live.problem is not None:
            raise BindError(live.problem)
        return shown(await live.revoke(named, value, why=why, by_uid=os.getuid()))

    return [_done(work())]


async def _restored(
    live: LiveRevocations, what: str, kind: str | None, apps: Container[str]
) -> Any:
    await live.reload()
    if live.problem is not None:
        raise BindError(live.problem)
    return await restore_meant(live, what, kind, apps)


def _listed(settings: Settings) -> list[RevocationView]:
    live = _live(settings)
    _done(live.reload())
    if live.problem is not None:
        fail(live.problem, EXIT_BIND)
    return [shown(each) for each in live.list()]


def _live(settings: Settings) -> LiveRevocations:
    return LiveRevocations(Path(settings.state) / FILE_NAME, settings.limits, time.time)  # noqa: TID251 - a command is its own root


def _apps(settings: Settings) -> Container[str]:
    try:
        files = read_rules(settings.rules, 1, public_suffixes(), first_run=False)
    except RuleSyntaxError:
        say("the rules have errors, and which apps there are is not known; `sallyport check`")
        return ()
    return files.loaded.ruleset.apps


def _views(answer: Any) -> list[RevocationView]:
    return msgspec.convert(answer, list[RevocationView])


def _done[T](work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except ConfigError as error:
        fail(str(error), EXIT_FINDINGS)
    except BindError as error:
        fail(str(error), EXIT_BIND)
