"""Tokens for the command line: through the control socket, or the file where nothing runs.

Both ways end in `proxy.tokens.file`.  A running appliance knows what came through its socket at
once and writes an audit line; what was written to the file it notices a second or two later.
"""

import asyncio
import os
import re
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, override

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.commands.reach import ask_if_running, client_of
from proxy.commands.say import EXIT_BIND, EXIT_FINDINGS, EXIT_USAGE, fail, say
from proxy.config import Settings
from proxy.control.status import TokenView, view
from proxy.errors import BindError, ConfigError
from proxy.tokens.file import FILE_NAME, TokenFile
from proxy.tokens.known import Issued, Purpose, Wanted
from proxy.units import read_seconds

_NAME = re.compile(r"[a-z0-9-]+(\.[0-9]+)?", re.ASCII)  # of an app or token, or a token's id


class Told(Struct, frozen=True):
    """A new token with its secret, once."""

    token: TokenView
    secret: str
    replaced: TokenView | None = None

    @override
    def __repr__(self) -> str:
        """Return what may stand in a traceback."""
        return f"Told({self.token!r}, ..., {self.replaced!r})"


class TokensOf:
    """The tokens of the installation that `settings` describe."""

    def __init__(self, settings: Settings, purpose: Purpose = Purpose.APP) -> None:
        self._client = client_of(settings)
        self._path = Path(settings.state) / FILE_NAME
        self._limits = settings.limits
        self._purpose = purpose

    def issue(self, wanted: Wanted) -> Told:
        """Make a token; ends the command with what is wrong."""
        answer = ask_if_running(self._client, "POST", "/tokens", wanted)
        if answer is None:
            return _told(_done(self._file().issue(wanted, _now())))
        return msgspec.convert(answer, Told)

    def rotate(self, which: str, grace_s: float | None) -> Told:
        """Make the successor of the token `which`; ends the command with what is wrong."""
        check_name(which)
        content = {"grace_s": grace_s}
        target = f"/tokens/{which}/rotate?purpose={self._purpose}"
        answer = ask_if_running(self._client, "POST", target, content)
        if answer is None:
            return _told(_done(self._file().rotate(which, _now(), grace_s, self._purpose)))
        return msgspec.convert(answer, Told)

    def revoke(self, which: str) -> list[TokenView]:
        """Void the token or the tokens `which`; ends the command with what is wrong."""
        check_name(which)
        answer = ask_if_running(self._client, "DELETE", f"/tokens/{which}?purpose={self._purpose}")
        if answer is None:
            revoked = _done(self._file().revoke(which, _now(), self._purpose))
            return [view(each, _now()) for each in revoked]
        return msgspec.convert(answer, list[TokenView])

    def list(self) -> list[TokenView]:
        """Return the tokens that are remembered; ends the command with what is wrong."""
        answer = ask_if_running(self._client, "GET", "/tokens")
        if answer is None:
            known = _done(self._file().read()).values()
            found = [view(each, _now()) for each in known]
        else:
            found = msgspec.convert(answer, list[TokenView])
        return [each for each in found if each.purpose == self._purpose]

    def _file(self) -> TokenFile:
        return TokenFile(self._path, self._limits, os.urandom)


def check_name(which: str) -> None:
    """End the command with 2 where `which` is no name of an app or token, and no id."""
    if not _NAME.fullmatch(which):
        fail("names are lower-case letters, digits and hyphens; an id is NAME.NUMBER", EXIT_USAGE)


def wanted(name: str, purpose: Purpose, ttl: str | None, bind_uid: int | None) -> Wanted:
    """Return the token that the command line asks for; ends with 2 where it cannot be."""
    try:
        ttl_s = None if ttl is None else float(read_seconds(ttl))
        asked = Wanted(name=name, purpose=purpose, ttl_s=ttl_s, bind_uid=bind_uid)
        return msgspec.convert(msgspec.to_builtins(asked), Wanted)
    except (ValueError, msgspec.ValidationError) as error:
        fail(f"{error}; a NAME is lower-case letters, digits and hyphens", EXIT_USAGE)


def show_secret(told: Told, how: str, *, as_json: bool) -> None:
    """Print the secret on stdout, and nothing else there; what to do with it on stderr."""
    if as_json:
        document = {"token": told.token, "secret": told.secret, "replaced": told.replaced}
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
        return
    sys.stdout.write(told.secret + "\n")
    sys.stdout.flush()
    bound = "" if told.token.bind_uid is None else f", for uid {told.token.bind_uid} only"
    say(f"{told.token.id}: good until {told.token.expires}{bound}; this is shown once")
    if told.replaced is not None:
        say(f"{told.replaced.id}: replaced, good until {told.replaced.expires}")
    say(how)


def show_list(tokens: list[TokenView]) -> None:
    """Print a table of tokens."""
    table = Table("token", "state", "expires", "bound to", box=None)
    for each in tokens:
        state = "replaced" if each.state == "valid" and each.rotated else each.state
        bound = "" if each.bind_uid is None else f"uid {each.bind_uid}"
        table.add_row(Text(each.id), state, each.expires, bound)
    Console(soft_wrap=True).print(table)


def show_views(tokens: list[TokenView], *, as_json: bool) -> None:
    """Print what became of tokens."""
    if as_json:
        write_json(tokens)
        return
    for each in tokens:
        say(f"{each.id}: {each.state}")


def grace_of(text: str | None) -> float | None:
    """Return the grace that the command line asks for; ends with 2 where it is none."""
    try:
        return None if text is None else float(read_seconds(text))
    except ValueError as error:
        fail(str(error), EXIT_USAGE)


def write_json(value: object) -> None:
    """Print one JSON document."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def _done[T](work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except ConfigError as error:
        fail(str(error), EXIT_FINDINGS)
    except BindError as error:
        fail(str(error), EXIT_BIND)


def _told(issued: Issued) -> Told:
    replaced = None if issued.replaced is None else view(issued.replaced, _now())
    return Told(view(issued.token, _now()), issued.secret, replaced)


def _now() -> float:
    return time.time()  # noqa: TID251 - a command is its own root
