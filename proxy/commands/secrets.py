"""`sallyport secrets`: what must not stand in any name, and canaries.

Through the control API, where an appliance runs.  Else on the file, which a running appliance
without a control socket notices within a second or two.  A value is read from stdin or a file,
never from the command line, which other users and the shell's history see.
"""

import asyncio
import os
import secrets
import string
import sys
import time
from collections.abc import Coroutine
from getpass import getpass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from proxy.canaries.file import SecretFile
from proxy.canaries.secret import FILE_NAME, Kind, WantedSecret
from proxy.commands.listing import Column, show
from proxy.commands.reach import ask_if_running, client_of
from proxy.commands.say import (
    EXIT_BIND,
    EXIT_FINDINGS,
    EXIT_USAGE,
    ConfigOption,
    JsonOption,
    StateOption,
    SystemOption,
    fail,
    say,
    settings_of,
)
from proxy.commands.tokens import check_name, write_json
from proxy.config import Settings
from proxy.control.secrets import SecretView, shown
from proxy.errors import BindError, ConfigError

app = typer.Typer(
    name="secrets",
    help="Secrets and canaries that no name may give away: register, see, forget them.",
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What audit lines call it.")]

_COLUMNS = (Column("secret"), Column("kind"), Column("registered"), Column("by uid", is_free=True))
_CANARY_CHARACTERS = 40  # of 62 kinds: 238 bits; an API key has as many
_LETTERS = string.ascii_letters + string.digits


@app.command()
def add(
    name: NameArgument,
    file: Annotated[
        Path | None, typer.Option("--file", help="Read the value from there, not from stdin.")
    ] = None,
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Register a secret; its value is read from stdin and kept nowhere, only fingerprints are."""
    settings = settings_of(config, None, state, system=system)
    view = _add(settings, name, _value(settings, file), Kind.SECRET)
    if as_json:
        write_json(view)
        return
    say(f"{view.name}: registered; no name that gives it away leaves from now on")


@app.command()
def canary(
    name: NameArgument,
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a secret that opens nothing, and print it once: put it where only a thief looks."""
    settings = settings_of(config, None, state, system=system)
    text = "sk-" + "".join(secrets.choice(_LETTERS) for _ in range(_CANARY_CHARACTERS))
    view = _add(settings, name, text.encode(), Kind.CANARY)
    if as_json:
        write_json({"secret": view, "value": text})
        return
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    say(f"{view.name}: registered; this is shown once")


@app.command("list")
def list_(
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """List what is registered; a value is nowhere to be shown."""
    settings = settings_of(config, None, state, system=system)
    answer = ask_if_running(client_of(settings), "GET", "/secrets")
    if answer is None:
        known = _done(_file(settings).read()).secrets.values()
        views = [shown(each) for each in known]
    else:
        views = msgspec.convert(answer, list[SecretView])
    if as_json:
        write_json(views)
        return
    rows = [
        (*(each.name, each.kind, each.at), str(each.by_uid) if each.by_uid >= 0 else "")
        for each in views
    ]
    show(_COLUMNS, rows, "no secret is registered")


@app.command()
def remove(
    name: NameArgument,
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Forget a secret: names may hold it again."""
    settings = settings_of(config, None, state, system=system)
    check_name(name)
    answer = ask_if_running(client_of(settings), "DELETE", f"/secrets/{name}")
    if answer is None:
        view = shown(_done(_file(settings).remove(name)))
    else:
        view = msgspec.convert(answer, SecretView)
    if as_json:
        write_json(view)
        return
    say(f"{view.name}: forgotten")


def _value(settings: Settings, file: Path | None) -> bytes:
    """Return the value, without the line's end; more than the limit is not read."""
    most = settings.limits.secret_octets + 2  # CR LF, of which the appliance knows nothing
    try:
        if file is None:
            if sys.stdin.isatty():  # one line, which is not shown
                return getpass("value: ").encode("utf-8", "surrogateescape")
            value = sys.stdin.buffer.read(most + 1)
        else:
            with file.open("rb") as opened:
                value = opened.read(most + 1)
    except OSError as error:
        fail(f"{file or 'stdin'}: {error.strerror}", EXIT_FINDINGS)
    return value.removesuffix(b"\n").removesuffix(b"\r")


def _add(settings: Settings, name: str, value: bytes, kind: Kind) -> SecretView:
    try:
        wanted = msgspec.convert({"name": name, "value": value, "kind": kind}, WantedSecret)
    except msgspec.ValidationError:
        fail("a NAME is lower-case letters, digits and hyphens, of 63 at most", EXIT_USAGE)
    answer = ask_if_running(client_of(settings), "POST", "/secrets", wanted)
    if answer is None:
        return shown(_done(_file(settings).add(wanted, _now(), os.getuid())))
    return msgspec.convert(answer, SecretView)


def _file(settings: Settings) -> SecretFile:
    return SecretFile(Path(settings.state) / FILE_NAME, settings.limits, os.urandom)


def _done[T](work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except ConfigError as error:
        fail(str(error), EXIT_FINDINGS)
    except BindError as error:
        fail(str(error), EXIT_BIND)


def _now() -> float:
    return time.time()  # noqa: TID251 - a command is its own root
