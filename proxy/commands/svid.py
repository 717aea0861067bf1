"""`sallyport svid` and `sallyport admin`: a certificate with its key, as files.

For programs that know no Workload API, and for admins elsewhere.  The issuer makes the key; it
passes through the control socket into a file of mode 0600, and stands nowhere else.
"""

import datetime as dt
import re
from pathlib import Path
from typing import Annotated, override

import msgspec
import typer
from msgspec import Struct

from certs import files
from certs.errors import CertsError, SpiffeError
from certs.spiffe import SCHEME, workload_id
from proxy.commands.reach import ask, client_or_fail, is_remote
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
from proxy.control.admins import admin_id
from proxy.control.client import ControlClient
from proxy.hardening import close_to_debuggers
from proxy.renewal import certificate_folder
from proxy.units import read_seconds

SVID_PEM, SVID_KEY, BUNDLE_PEM, CA_PEM = "svid.pem", "svid.key", "bundle.pem", "ca.pem"
_ADMIN = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)  # SPIFFE-ID, section 2.2: one segment

OutOption = Annotated[
    Path, typer.Option("--out", file_okay=False, help="The folder to write into; made 0700.")
]
TtlOption = Annotated[str | None, typer.Option("--ttl", help="Its life, 5m to 24h.")]


class Made(Struct, frozen=True):
    """What the appliance answers: PEM texts, the key among them."""

    spiffe_id: str
    serial: str
    not_after: int
    chain: str
    key: str
    bundle: str

    @override
    def __repr__(self) -> str:
        """Return what may stand in a traceback."""
        return f"Made({self.spiffe_id!r}, {self.serial!r}, ...)"


def svid(  # noqa: PLR0913 - one argument an option
    whose: Annotated[str, typer.Argument(metavar="APP|SPIFFE-ID", help="Whose it is to be.")],
    out: OutOption,
    ttl: TtlOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a certificate and key of an app, for a program that knows no Workload API."""
    close_to_debuggers()
    settings = settings_of(config, None, state, system=system)
    client = client_or_fail(settings)
    spiffe_id = whose if whose.startswith(SCHEME) else _id_of(client, settings, whose)
    wanted = {"spiffe_id": spiffe_id, "profile": "svid", "ttl_s": _ttl(ttl)}
    made = _ask(client, wanted)
    _write(out, made, {})
    _tell(made, out, as_json=as_json)
    if not as_json:
        say("nobody renews these files: run this again before they end")


def admin(  # noqa: PLR0913 - one argument an option
    name: Annotated[str, typer.Argument(metavar="NAME", help="The admin, or his SPIFFE ID.")],
    out: OutOption,
    ttl: TtlOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a certificate and key for an admin, who then may use `listen.control_tls`."""
    close_to_debuggers()
    settings = settings_of(config, None, state, system=system)
    if name.startswith(SCHEME):
        spiffe_id = name
    elif _ADMIN.fullmatch(name) and name not in {".", ".."}:
        spiffe_id = admin_id(settings.identity.trust_domain, name)
    else:
        fail("NAME has letters, digits, dots, dashes and underscores", EXIT_USAGE)
    wanted = {"spiffe_id": spiffe_id, "profile": "admin", "ttl_s": _ttl(ttl)}
    made = _ask(client_or_fail(settings), wanted)
    _write(out, made, _server_root(settings))
    _tell(made, out, as_json=as_json)
    if not as_json:
        _show_use(settings, out)


def _id_of(client: ControlClient, settings: Settings, app: str) -> str:
    """Return the one SPIFFE ID by which the rules know `app`."""
    check_name(app)
    lines = ask(client, "GET", f"/apps/{app}")["identity"]
    domain = settings.identity.trust_domain
    found = []
    for each in dict.fromkeys(line["spiffe"] for line in lines if "spiffe" in line):
        try:
            found.append(str(workload_id(each, domain)))
        except SpiffeError:
            continue  # of another trust domain: not ours to issue
    if not found:
        cure = f"write identity: [{{spiffe: {SCHEME}{domain}/{app}}}] in its rules"
        fail(f"{app} has no SPIFFE ID of {domain}; {cure}", EXIT_FINDINGS)
    if len(found) > 1:
        fail(f"{app} has several; name one of {', '.join(found)}", EXIT_USAGE)
    return found[0]


def _ask(client: ControlClient, wanted: dict[str, object]) -> Made:
    return msgspec.convert(ask(client, "POST", "/svids", wanted), Made)


def _ttl(text: str | None) -> int:
    """Return seconds; 0 for what the appliance is configured to."""
    try:
        return 0 if text is None else int(read_seconds(text))
    except ValueError as error:
        fail(str(error), EXIT_USAGE)


def _server_root(settings: Settings) -> dict[str, bytes]:
    """Return what the server of `listen.control_tls` is verified with, where it is ours."""
    if is_remote():
        return {}
    try:
        found = files.read(certificate_folder(settings), files.ROOT_PEM)
    except CertsError as error:
        fail(str(error), EXIT_BIND)
    return {} if found is None else {CA_PEM: found}


def _write(out: Path, made: Made, more: dict[str, bytes]) -> None:
    """Write the key first: no certificate ever stands beside the key of another."""
    contents = {SVID_KEY: made.key, SVID_PEM: made.chain, BUNDLE_PEM: made.bundle}
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        with files.locked(out):
            for name, text in contents.items():
                files.write(out, name, text.encode("ascii"))
            for name, octets in more.items():
                files.write(out, name, octets)
    except OSError as error:
        fail(f"cannot write into {out}: {error.strerror}; name another --out", EXIT_BIND)
    except CertsError as error:
        fail(str(error), EXIT_BIND)


def _tell(made: Made, out: Path, *, as_json: bool) -> None:
    end = dt.datetime.fromtimestamp(made.not_after, dt.UTC)
    if as_json:
        shown = {"spiffe_id": made.spiffe_id, "serial": made.serial, "not_after": made.not_after}
        write_json({**shown, "folder": str(out)})
        return
    say(f"{out}/{SVID_PEM} and {SVID_KEY}: {made.spiffe_id}, until {end:%Y-%m-%d %H:%M} UTC")


def _show_use(settings: Settings, out: Path) -> None:
    places = settings.listen.control_tls
    place = places[0] if places else "ADDRESS:PORT"
    say(
        f"sallyport --control https://{place} --cert {out}/{SVID_PEM} --key {out}/{SVID_KEY}"
        f" --ca {out}/{CA_PEM} status"
    )
    if not places:
        say("`listen.control_tls` is not set here: nobody listens for it yet")
