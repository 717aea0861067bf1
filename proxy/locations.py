"""Where things are on this host: the XDG folders, and the variables of the configuration."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from proxy.config import Locations, Settings, read_config
from proxy.errors import ConfigError
from rules.errors import Problem
from rules.text import SourceText

CONFIG_FILE = "sallyport.yaml"


def locate(environ: Mapping[str, str]) -> Locations:
    """Return our folders by the XDG Base Directory Specification, version 0.8."""
    home = Path(environ.get("HOME") or "/")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    state = Path(environ.get("XDG_STATE_HOME") or home / ".local" / "state")
    return Locations(str(config / "sallyport"), str(state / "sallyport"))


def read_settings(
    environ: Mapping[str, str], config: Path | None, rules: list[Path] | None, state: Path | None
) -> tuple[Settings, list[Problem]]:
    """Return the settings of `config` (default: the XDG one, if there) and the command line.

    Raises:
        ConfigError: the file that was named cannot be read.
    """
    found = locate(environ)
    locations = Locations(found.config, str(state.absolute()) if state else found.state)
    settings, problems = read_config(_source(config, locations), locations)
    folder = Path(settings.config_file).parent if settings.config_file else Path.cwd()
    settings = _expanded(settings, locations, folder.absolute())
    if state:
        audit = msgspec.structs.replace(settings.audit, file=f"{locations.state}/audit.jsonl")
        settings = msgspec.structs.replace(settings, state=locations.state, audit=audit)
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


def _expanded(settings: Settings, locations: Locations, folder: Path) -> Settings:
    def plain(text: str) -> str:
        for name, value in (("$CONFIG", locations.config), ("$STATE", locations.state)):
            text = text.replace(name, value)
        return str(folder / Path(text).expanduser())

    anchors = settings.upstream_ca
    return msgspec.structs.replace(
        settings,
        state=plain(settings.state),
        rules=tuple(map(plain, settings.rules)),
        audit=msgspec.structs.replace(settings.audit, file=plain(settings.audit.file)),
        upstream_ca=None if anchors is None else plain(anchors),
    )
