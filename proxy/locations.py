"""Where things are on this host: our folders, and the variables of the configuration."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from proxy.config import Locations, Settings, read_config
from proxy.config_identity import IdentitySettings
from proxy.errors import BindError, ConfigError
from rules.errors import Problem
from rules.text import SourceText

CONFIG_FILE = "sallyport.yaml"
SYSTEM = Locations("/etc/sallyport", "/var/lib/sallyport", "/run/sallyport", system=True)
"""The folders of `--system` (FHS 3.0, sections 3.7, 3.15 and 5.8); no environment moves them."""

_VARIABLE = re.compile(r"\$(\w+)")


def locate(
    environ: Mapping[str, str], *, system: bool = False, uid: int | None = None
) -> Locations:
    """Return our folders by the XDG Base Directory Specification, version 0.8.

    `uid` is by default that of this process.  Under `system` the environment is not read: it is
    the environment of whoever calls, and the folders are root's.
    """
    if system:
        return SYSTEM
    home = Path(environ.get("HOME") or "/")
    config = _absolute(environ.get("XDG_CONFIG_HOME")) or home / ".config"
    state = (_absolute(environ.get("XDG_STATE_HOME")) or home / ".local" / "state") / "sallyport"
    return Locations(str(config / "sallyport"), str(state), _runtime(environ, state, uid))


def _absolute(text: str | None) -> Path | None:
    # "If an implementation encounters a relative path in any of these variables it should consider
    # the path invalid and ignore it."
    return Path(text) if text and Path(text).is_absolute() else None


def _runtime(environ: Mapping[str, str], state: Path, uid: int | None) -> str:
    """Return the folder of the control socket: never /tmp, where everybody may make one first."""
    folder = _absolute(environ.get("XDG_RUNTIME_DIR"))
    if folder is not None:
        return str(folder / "sallyport")
    is_root = (os.geteuid() if uid is None else uid) == 0
    return SYSTEM.runtime if is_root else str(state)


def read_settings(
    environ: Mapping[str, str],
    config: Path | None,
    rules: list[Path] | None,
    state: Path | None,
    *,
    system: bool = False,
) -> tuple[Settings, list[Problem]]:
    """Return the settings of `config` (default: the one in our folder) and the command line.

    Raises:
        ConfigError: the file that was named cannot be read, or a path in it names an unknown
            variable or user.
    """
    locations = _with_state(locate(environ, system=system), state)
    settings, problems = read_config(_source(config, locations), locations)
    folder = Path(settings.config_file).parent if settings.config_file else Path.cwd()
    if state:
        settings = _moved(settings, locations.state)
    settings = _expanded(settings, locations, folder.absolute())
    if rules:
        folders = tuple(str(each.absolute()) for each in rules)
        settings = msgspec.structs.replace(settings, rules=folders, first_run=False)
    return settings, problems


def _with_state(found: Locations, state: Path | None) -> Locations:
    """Return the folders with the state of the command line, and what stands in it."""
    if state is None:
        return found
    chosen = str(state.absolute())
    runtime = chosen if found.runtime == found.state else found.runtime
    return msgspec.structs.replace(found, state=chosen, runtime=runtime)


def _source(config: Path | None, locations: Locations) -> SourceText | None:
    path = config or Path(locations.config) / CONFIG_FILE
    try:
        return SourceText(str(path), path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if config is None:
            return None
        raise ConfigError(f"{path} does not exist; name the file with --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


def _moved(settings: Settings, state: str) -> Settings:
    """Put the state into another folder; an audit file that the configuration named stays."""
    audit = settings.audit
    if audit.file == f"{settings.state}/audit.jsonl":
        audit = msgspec.structs.replace(audit, file=f"{state}/audit.jsonl")
    return msgspec.structs.replace(settings, state=state, audit=audit)


def _expanded(settings: Settings, locations: Locations, folder: Path) -> Settings:
    known = {
        "CONFIG": locations.config,
        "STATE": locations.state,
        "RUNTIME": locations.runtime,
    }
    # What nobody wrote into the file is plain already, even where a folder's name has a "$".
    defaults = {
        f"{locations.config}/rules", locations.state, f"{locations.state}/audit.jsonl",
        f"{locations.runtime}/control.sock", f"{locations.runtime}/workload.sock",
    }  # fmt: skip

    def plain(text: str) -> str:
        return text if text in defaults else _plain(text, known, folder)

    def optional(text: str | None) -> str | None:
        return plain(text) if text else None

    listen, audit = settings.listen, settings.audit
    return msgspec.structs.replace(
        settings,
        state=plain(settings.state),
        rules=tuple(map(plain, settings.rules)),
        audit=msgspec.structs.replace(audit, file=plain(audit.file)),
        listen=msgspec.structs.replace(
            listen,
            control=optional(listen.control) or "",
            workload=optional(listen.workload) or "",
            ext_authz=optional(listen.ext_authz) or "",
        ),
        identity=_with_plain_paths(settings.identity, optional),
        attestation=msgspec.structs.replace(
            settings.attestation, ek_roots=tuple(map(plain, settings.attestation.ek_roots))
        ),
        upstream_ca=optional(settings.upstream_ca),
        egress_ca=optional(settings.egress_ca),
    )


def _with_plain_paths(
    identity: IdentitySettings, plain: Callable[[str | None], str | None]
) -> IdentitySettings:
    federation = {
        name: msgspec.structs.replace(each, file=plain(each.file), ca=plain(each.ca))
        for name, each in identity.federation.items()
    }
    oidc = identity.oidc
    return msgspec.structs.replace(
        identity,
        key_file=plain(identity.key_file),
        workload_api=plain(identity.workload_api),
        federation=federation,
        oidc=None if oidc is None else msgspec.structs.replace(oidc, ca=plain(oidc.ca)),
    )


def _plain(text: str, known: Mapping[str, str], folder: Path) -> str:
    """Return the plain path that `text` in the configuration means, from `folder`."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in known:
            names = ", ".join(f"${name}" for name in known)
            raise ConfigError(f"{text!r}: no variable {match[0]} here; write the path, or {names}")
        return known[match[1]]

    if "\0" in text:
        raise ConfigError(f"{text!r} is no path: it holds a NUL")
    try:
        return str(folder / Path(_VARIABLE.sub(value, text)).expanduser())
    except RuntimeError as error:  # ~user of nobody
        raise ConfigError(f"{text!r}: {error}") from None


def open_state(folder: str) -> None:
    """Make our folder of state, where it is not there yet.

    Raises:
        BindError: it cannot be made.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BindError(
            f"the state folder {folder} cannot be made: {error.strerror};"
            " name a writable one with --state"
        ) from error
