"""`sallyport ca`: the local CA that our TLS listeners are known by.

Nothing here touches a trust store of the system: whom a client trusts is the client's affair.
"""

import datetime as dt
import sys
import time
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import msgspec
import typer

from certs.authority import Shown, describe, ensure, init
from certs.authority import export as exported
from certs.errors import CertsError, IssueError
from proxy.commands.say import (
    EXIT_BIND,
    EXIT_RULES,
    ConfigOption,
    JsonOption,
    StateOption,
    SystemOption,
    fail,
    say,
    settings_of,
)
from proxy.config import Settings
from proxy.errors import BindError, ConfigError, ProxyError
from proxy.renewal import certificate_folder, certificate_names

_SOON = dt.timedelta(days=90)  # a new root has to be carried to every client: people need weeks

app = typer.Typer(
    name="ca",
    help="The local CA of our TLS listeners; no system store is ever touched.",
    no_args_is_help=True,
)


def ensure_server_certificate(settings: Settings, now: dt.datetime) -> list[str]:
    """Make what the TLS listeners need and what is missing; return what to tell the person.

    Without a TLS listener nothing is made.

    Raises:
        ConfigError: the CA does not permit an address of `listen:`, or is not valid at `now`.
        BindError: the folder of keys cannot be used.
    """
    if not settings.listen.dot and not settings.listen.doh:
        return []
    folder = certificate_folder(settings)
    try:
        made = ensure(folder, certificate_names(settings), now)
        end = describe(folder).root.not_after
    except CertsError as error:
        raise _ours(error) from None
    notes = []
    if made.root:
        notes.append(f"made a local CA in {folder}: `sallyport ca export` prints what to trust")
    if end - now < _SOON:
        notes.append(f"the local CA ends on {end:%Y-%m-%d}: plan `sallyport ca init --force`")
    return notes


@app.command(name="init")
def init_command(
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the CA: every client must be told of it.")
    ] = False,
) -> None:
    """Make the local CA and the certificate of our listeners."""
    settings = settings_of(config, state=state, system=system)
    folder = certificate_folder(settings)
    now = dt.datetime.fromtimestamp(time.time(), dt.UTC)  # noqa: TID251 - a command is its own root
    try:
        init(folder, certificate_names(settings), now, force=force)
    except CertsError as error:
        _fail(_ours(error))
    say(f"made a local CA in {folder}; `sallyport ca export` prints what clients are to trust")


@app.command()
def show(
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the CA, what it is held to, and the certificate of our listeners."""
    try:
        described = describe(certificate_folder(settings_of(config, state=state, system=system)))
    except CertsError as error:
        _fail(_ours(error))
    if as_json:
        sys.stdout.write(msgspec.json.encode(described).decode() + "\n")
        return
    for label, value in (
        *_rows("root", described.root),
        *_rows("server", described.server),
    ):
        sys.stdout.write(f"{label:<10}{value}\n")  # no table: a fingerprint must not wrap


@app.command()
def export(
    config: ConfigOption = None,
    state: StateOption = None,
    form: Annotated[Literal["pem", "der"], typer.Option("--format", help="The encoding.")] = "pem",
    out: Annotated[Path | None, typer.Option("--out", help="A file instead of stdout.")] = None,
    *,
    system: SystemOption = False,
) -> None:
    """Print the CA's certificate, for clients to trust; its key stays where it is."""
    try:
        octets = exported(
            certificate_folder(settings_of(config, state=state, system=system)),
            as_der=form == "der",
        )
    except CertsError as error:
        _fail(_ours(error))
    if out is None:
        sys.stdout.buffer.write(octets)
        sys.stdout.flush()
        return
    try:
        out.write_bytes(octets)
    except OSError as error:
        _fail(BindError(f"cannot write {out}: {error.strerror}; name another file with --out"))


def _rows(what: str, shown: Shown | None) -> list[tuple[str, str]]:
    if shown is None:
        return [(what, "none yet: `sallyport up` makes it")]
    return [
        (what, shown.subject),
        ("  permits" if what == "root" else "  names", ", ".join(shown.names)),
        ("  sha256", ":".join(shown.sha256[at : at + 2] for at in range(0, 64, 2)).upper()),
        ("  valid", f"{shown.not_before:%Y-%m-%d %H:%M} to {shown.not_after:%Y-%m-%d %H:%M} UTC"),
    ]


def _ours(error: CertsError) -> ProxyError:
    return ConfigError(str(error)) if isinstance(error, IssueError) else BindError(str(error))


def _fail(error: ProxyError) -> NoReturn:
    fail(str(error), EXIT_BIND if isinstance(error, BindError) else EXIT_RULES)
