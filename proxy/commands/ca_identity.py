"""The trust domain's side of `sallyport ca`: rotate, seal, and what show, export and up say of it.

What makes keys is loaded when needed: it would add a tenth to the start of every command.  The keys
are in `$STATE/identity`; the root in `$STATE/ca` is another, and signs nothing of this.
"""

import datetime as dt
import os
import time
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from certs.described import DescribedDomain, DescribedKey, describe_domain, export_bundle
from certs.errors import CertsError, IssueError, SpiffeError
from certs.rotation import What
from certs.sealed import find_secret, read_secret_file
from proxy.commands.reach import client_of, is_remote
from proxy.commands.say import (
    EXIT_BIND,
    EXIT_RULES,
    EXIT_USAGE,
    ConfigOption,
    StateOption,
    SystemOption,
    fail,
    say,
    settings_of,
)
from proxy.config import Settings
from proxy.control.client import ControlError, NotRunningError
from proxy.errors import BindError, ConfigError, ProxyError
from proxy.hardening import close_to_debuggers

_KINDS: dict[What, str] = {"root": "root", "intermediate": "intermediate", "jwt": "JWT key"}


def identity_folder(settings: Settings) -> Path:
    """Return where the keys of the trust domain are."""
    return Path(settings.state) / "identity"


def identity_secret(settings: Settings) -> bytes | None:
    """Return the passphrase of the keys; None where none is set.

    Raises:
        KeystoreError: it is set, and cannot be read.
    """
    return find_secret(settings.identity.key_file, os.environ)


def ensure_trust_domain(settings: Settings, now: dt.datetime) -> list[str]:
    """Make what is missing or due of the trust domain; return what to tell the person.

    Nothing is made where another issuer has our place (`identity.workload_api`).

    Raises:
        ConfigError: the name cannot be that of our trust domain, or its root is not valid.
        BindError: the folder of keys cannot be used, or the passphrase is not its own.
    """
    if settings.identity.workload_api is not None:
        return []
    from certs.domain import ensure_domain  # noqa: PLC0415 - as said above

    folder, name = identity_folder(settings), settings.identity.trust_domain
    try:
        made = ensure_domain(folder, name, now, identity_secret(settings))
    except CertsError as error:
        raise problem_of(error) from None
    notes = []
    if made.is_new:
        notes.append(f"made the trust domain {name} in {folder}")
    if made.made:
        kinds = ", ".join(_KINDS[each] for each in made.made)
        notes.append(f"the next {kinds} of {name} was due and has been made")
    if made.lacks_root:
        notes.append(f"put the key of the root back into {folder}: an intermediate is due")
    if made.sealed:
        notes.append(f"encrypted the keys in {folder}")
    return notes


def rotate(
    what: Annotated[
        Literal["intermediate", "jwt", "root"], typer.Argument(help="Which key.")
    ] = "intermediate",
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    forget: Annotated[
        bool,
        typer.Option("--forget", help="It was stolen: believe the keys before it no longer."),
    ] = False,
) -> None:
    """Make the next key of the trust domain; what the one before signed stays good."""
    from certs.domain import rotate as rotated  # noqa: PLC0415 - as said above

    if forget and what == "intermediate":
        fail("an intermediate is believed by its root: to forget one, forget the root", EXIT_USAGE)
    settings = _settings(config, state, system=system)
    now = _now()
    try:
        made = rotated(
            identity_folder(settings), now, identity_secret(settings), what, forget=forget
        )
    except CertsError as error:
        give_up(error)
    begin = dt.datetime.fromtimestamp(made.signs_from, dt.UTC)
    when = "signs from now on" if begin <= now else f"signs from {begin:%Y-%m-%d %H:%M} UTC on"
    say(f"made the next {_KINDS[what]}, {made.id[:16]}: it {when}")
    _tell_appliance(settings)


def seal(
    config: ConfigOption = None,
    state: StateOption = None,
    before: Annotated[
        Path | None, typer.Option("--from", help="A file with the passphrase until now.")
    ] = None,
    *,
    system: SystemOption = False,
) -> None:
    """Encrypt the keys of the trust domain with the passphrase that is set now."""
    from certs.domain import reseal  # noqa: PLC0415 - as said above

    settings = _settings(config, state, system=system)
    folder = identity_folder(settings)
    try:
        secret = identity_secret(settings)
        changed = reseal(folder, None if before is None else read_secret_file(before), secret)
    except CertsError as error:
        give_up(error)
    how = "not encrypted: no passphrase is set" if secret is None else "encrypted"
    say(f"the keys in {folder} are {how}{'' if changed else ', as before'}")


def identity_rows(found: DescribedDomain) -> list[tuple[str, str]]:
    """Return what `ca show` says of the trust domain: labels and values."""
    keys = "encrypted" if found.is_encrypted else "not encrypted"
    return [
        ("identity", f"spiffe://{found.trust_domain}, bundle {found.sequence}, keys {keys}"),
        *(_row("root", each) for each in found.roots),
        *(_row("below", each) for each in found.intermediates),
        *(_row("jwt", each) for each in found.jwt_keys),
    ]


def described_identity(settings: Settings) -> DescribedDomain | None:
    """Return the public side of the trust domain; None where there is none.

    Raises:
        KeystoreError: it cannot be read.
    """
    return describe_domain(identity_folder(settings), _now())


def exported_identity(settings: Settings, *, as_jwks: bool) -> bytes:
    """Return whom to believe for the trust domain, PEM or JWKS.

    Raises:
        KeystoreError: there is none, or it cannot be read.
    """
    return export_bundle(identity_folder(settings), as_jwks=as_jwks)


def problem_of(error: CertsError) -> ProxyError:
    """Return the error as one of ours: the configuration's fault, or the folder's."""
    if isinstance(error, IssueError | SpiffeError):
        return ConfigError(str(error))
    return BindError(str(error))


def give_up(error: CertsError) -> NoReturn:
    """End the command with what the error says."""
    ours = problem_of(error)
    fail(str(ours), EXIT_BIND if isinstance(ours, BindError) else EXIT_RULES)


def _row(kind: str, each: DescribedKey) -> tuple[str, str]:
    end = f"until {each.not_after:%Y-%m-%d}"
    begin = f" from {each.signs_from:%Y-%m-%d %H:%M} UTC on" if each.state == "prepared" else ""
    sha256 = f", sha256 {colons(each.sha256)}" if kind == "root" else ""
    return f"  {kind}", f"{each.state}{begin}, {end}, key {each.id}{sha256}"


def colons(digest: str) -> str:
    """Return a hex digest as openssl prints it."""
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2)).upper()


def _settings(config: Path | None, state: Path | None, *, system: bool) -> Settings:
    close_to_debuggers()  # private keys are read
    if is_remote():
        fail("keys are made on the host itself: leave --control out", EXIT_USAGE)
    return settings_of(config, state=state, system=system)


def _now() -> dt.datetime:
    return dt.datetime.fromtimestamp(time.time(), dt.UTC)  # noqa: TID251 - a command is its own root


def _tell_appliance(settings: Settings) -> None:
    """Have a running appliance look at once; it would look itself at its next certificate."""
    client = client_of(settings)
    if client is None:
        return
    try:
        client.ask("POST", "/identity/look")
    except NotRunningError:
        return
    except (BindError, ControlError) as error:
        say(f"the appliance could not be told, and will look by itself: {error}")
