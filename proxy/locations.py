"""Where things are on this host: the XDG folders, and the variables of the configuration."""

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from proxy.config import Locations, Settings, read_config
from proxy.errors import ConfigError
from rules.errors import Problem
from rules.text import SourceText

CONFIG_FILE = "sallyport.yaml"
_VARIABLE = re.compile(r"\$(\w+)")


def locate(environ: Mapping[str, str]) -> Locations:
    """Return our folders by the XDG Base Directory Specification, version 0.8."""
    home = Path(environ.get("HOME") or "/")
    config = _absolute(environ.get("XDG_CONFIG_HOME"), home / ".config")
    state = _absolute(environ.get("XDG_STATE_HOME"), home / ".local" / "state")
    return Locations(str(config / "sallyport"), str(state / "sallyport"))


def _absolute(text: str | None, default: Path) -> Path:
    # "If an implementation encounters a relative path in any of these variables it should consider
    # the path invalid and ignore it."
    return Path(text) if text and Path(text).is_absolute() else default


def read_settings(
    environ: Mapping[str, str], config: Path | None, rules: list[Path] | None, state: Path | None
) -> tuple[Settings, list[Problem]]:
    """Return the settings of `config` (default: the XDG one, if there) and the command line.

    Raises:
        ConfigError: the file that was named cannot be read, or a path in it names an unknown
            variable or user.
    """
    found = locate(environ)
    locations = Locations(found.config, str(state.absolute()) if state else found.state)
    settings, problems = read_config(_source(config, locations), locations)
    folder = Path(settings.config_file).parent if settings.config_file else Path.cwd()
    if state:
        settings = _moved(settings, locations.state)
    settings = _expanded(settings, locations, folder.absolute())
    if rules:
        folders = tuple(str(each.absolute()) for each in rules)
        settings = msgspec.structs.replace(settings, rules=folders, first_run=False)
    return settings, problems


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
    known = {"CONFIG": locations.config, "STATE": locations.state}
    # What nobody wrote into the file is plain already, even where a folder's name has a "$".
    defaults = {
        f"{locations.config}/rules", locations.state, f"{locations.state}/audit.jsonl"
    }  # fmt: skip

    def plain(text: str) -> str:
        return text if text in defaults else _plain(text, known, folder)

    anchors = settings.upstream_ca
    return msgspec.structs.replace(
        settings,
        state=plain(settings.state),
        rules=tuple(map(plain, settings.rules)),
        audit=msgspec.structs.replace(settings.audit, file=plain(settings.audit.file)),
        upstream_ca=None if anchors is None else plain(anchors),
    )


def _plain(text: str, known: Mapping[str, str], folder: Path) -> str:
    """Return the plain path that `text` in the configuration means, from `folder`."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in known:
            names = " and ".join(f"${name}" for name in known)
            raise ConfigError(f"{text!r}: no variable {match[0]} here; write the path, or {names}")
        return known[match[1]]

    if "\0" in text:
        raise ConfigError(f"{text!r} is no path: it holds a NUL")
    try:
        return str(folder / Path(_VARIABLE.sub(value, text)).expanduser())
    except RuntimeError as error:  # ~user of nobody
        raise ConfigError(f"{text!r}: {error}") from None
