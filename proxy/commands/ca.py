"""`sallyport ca`: the local CA that our TLS listeners are known by, and the keys of identity.

Nothing here touches a trust store of the system: whom a client trusts is the client's affair.
"""

import datetime as dt
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from certs.authority import Shown, describe, ensure, init
from certs.authority import export as exported
from certs.errors import CertsError
from certs.files import ROOT_PEM
from proxy.commands.ca_identity import (
    colons,
    described_identity,
    exported_identity,
    give_up,
    identity_rows,
    problem_of,
    rotate,
    seal,
)
from proxy.commands.revoke import revoke
from proxy.commands.say import (
    EXIT_BIND,
    EXIT_USAGE,
    ConfigOption,
    JsonOption,
    StateOption,
    SystemOption,
    fail,
    say,
    settings_of,
)
from proxy.commands.svid import admin
from proxy.config import Settings
from proxy.renewal import certificate_folder, certificate_names

_SOON = dt.timedelta(days=90)  # a new root has to be carried to every client: people need weeks

app = typer.Typer(
    name="ca",
    help="The local CA of our listeners, and identity's keys; no system store is touched.",
    no_args_is_help=True,
)
app.command()(rotate)
app.command()(seal)
app.command()(admin)
app.command()(revoke)  # the same as `sallyport revoke`


def ensure_server_certificate(settings: Settings, now: dt.datetime) -> list[str]:
    """Make what the TLS listeners need and what is missing; return what to tell the person.

    Without a TLS listener nothing is made.

    Raises:
        ConfigError: the CA does not permit an address of `listen:`, or is not valid at `now`.
        BindError: the folder of keys cannot be used.
    """
    if not settings.listen.tls:
        return []
    folder = certificate_folder(settings)
    try:
        made = ensure(folder, certificate_names(settings), now)
        end = describe(folder).root.not_after
    except CertsError as error:
        raise problem_of(error) from None
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
        give_up(error)
    say(f"made a local CA in {folder}; `sallyport ca export` prints what clients are to trust")


@app.command()
def show(
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the CA and the certificate of our listeners, and the keys of identity."""
    settings = settings_of(config, state=state, system=system)
    folder = certificate_folder(settings)
    try:
        identity = described_identity(settings)
        has_none = identity is not None and not (folder / ROOT_PEM).exists()
        local = None if has_none else describe(folder)
    except CertsError as error:
        give_up(error)
    root, server = (None, None) if local is None else (local.root, local.server)
    if as_json:
        found = {"root": root, "server": server, "identity": identity}
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return
    rows = [*_rows("root", root), *_rows("server", server)]
    rows += [] if identity is None else identity_rows(identity)
    for label, value in rows:
        sys.stdout.write(f"{label:<10}{value}\n")  # no table: a fingerprint must not wrap


@app.command()
def export(  # noqa: PLR0913 - one argument an option
    config: ConfigOption = None,
    state: StateOption = None,
    form: Annotated[
        Literal["pem", "der", "jwks"], typer.Option("--format", help="The encoding.")
    ] = "pem",
    out: Annotated[Path | None, typer.Option("--out", help="A file instead of stdout.")] = None,
    *,
    system: SystemOption = False,
    identity: Annotated[
        bool, typer.Option("--identity", help="The trust domain's bundle instead, PEM or JWKS.")
    ] = False,
    jwks: Annotated[
        bool, typer.Option("--jwks", help="With --identity: the same as --format jwks.")
    ] = False,
) -> None:
    """Print the CA's certificate, for clients to trust; its key stays where it is."""
    form = "jwks" if jwks else form
    if form == ("der" if identity else "jwks"):
        fail("the CA is exported as pem or der, --identity as pem or jwks", EXIT_USAGE)
    settings = settings_of(config, state=state, system=system)
    try:
        if identity:
            octets = exported_identity(settings, as_jwks=form == "jwks")
        else:
            octets = exported(certificate_folder(settings), as_der=form == "der")
    except CertsError as error:
        give_up(error)
    if out is None:
        sys.stdout.buffer.write(octets)
        sys.stdout.flush()
        return
    try:
        out.write_bytes(octets)
    except OSError as error:
        fail(f"cannot write {out}: {error.strerror}; name another file with --out", EXIT_BIND)


def _rows(what: str, shown: Shown | None) -> list[tuple[str, str]]:
    if shown is None:
        return [(what, "none yet: `sallyport up` makes it")]
    return [
        (what, shown.subject),
        ("  permits" if what == "root" else "  names", ", ".join(shown.names)),
        ("  sha256", colons(shown.sha256)),
        ("  valid", f"{shown.not_before:%Y-%m-%d %H:%M} to {shown.not_after:%Y-%m-%d %H:%M} UTC"),
    ]
