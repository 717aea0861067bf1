"""Where things are: XDG folders, variables, and what relative paths are relative to."""

import os
from pathlib import Path

import pytest

from proxy.config import Locations, Settings
from proxy.errors import ConfigError
from proxy.locations import CONFIG_FILE, locate, read_settings


def settings_of(
    folder: Path,
    text: str | None = None,
    state: Path | None = None,
    rules: list[Path] | None = None,
) -> Settings:
    environ = {"XDG_CONFIG_HOME": str(folder / "config"), "XDG_STATE_HOME": str(folder / "state")}
    file = None
    if text is not None:
        file = folder / "here" / "any.yaml"
        file.parent.mkdir()
        file.write_text(text)
    settings, problems = read_settings(environ, file, rules, state)
    assert problems == []
    return settings


@pytest.mark.parametrize(
    ("environ", "config", "state"),
    [
        ({"HOME": "/h"}, "/h/.config/sallyport", "/h/.local/state/sallyport"),
        ({"HOME": "/h", "XDG_CONFIG_HOME": "/c"}, "/c/sallyport", "/h/.local/state/sallyport"),
        ({"HOME": "/h", "XDG_STATE_HOME": "/s"}, "/h/.config/sallyport", "/s/sallyport"),
        ({"HOME": "/h", "XDG_CONFIG_HOME": "", "XDG_STATE_HOME": ""},
         "/h/.config/sallyport", "/h/.local/state/sallyport"),
        ({"HOME": ""}, "/.config/sallyport", "/.local/state/sallyport"),
        ({}, "/.config/sallyport", "/.local/state/sallyport"),
    ],
)  # fmt: skip
def test_folders_follow_the_xdg_specification(
    environ: dict[str, str], config: str, state: str
) -> None:
    assert locate(environ) == Locations(config, state)


def test_relative_xdg_folders_are_ignored() -> None:
    """XDG Base Directory Specification: a relative path is invalid; an agent may be its author."""
    environ = {"HOME": "/h", "XDG_CONFIG_HOME": "work/rules", "XDG_STATE_HOME": "."}
    assert locate(environ) == Locations("/h/.config/sallyport", "/h/.local/state/sallyport")


def test_without_a_file_the_defaults_stand_in_the_xdg_folders(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    assert settings.config_file is None
    assert settings.rules == (f"{tmp_path}/config/sallyport/rules",)
    assert settings.state == f"{tmp_path}/state/sallyport"
    assert settings.audit.file == f"{tmp_path}/state/sallyport/audit.jsonl"
    assert settings.first_run


def test_the_file_in_the_xdg_folder_is_found(tmp_path: Path) -> None:
    file = tmp_path / "config" / "sallyport" / CONFIG_FILE
    file.parent.mkdir(parents=True)
    file.write_text("rules: [mine]\n")
    settings = settings_of(tmp_path)
    assert settings.config_file == str(file)
    assert settings.rules == (f"{file.parent}/mine",)
    assert not settings.first_run


def test_variables_are_expanded(tmp_path: Path) -> None:
    text = "rules: [$CONFIG/rules, $CONFIG/more]\nstate: $STATE/1\naudit: {file: $STATE/a.jsonl}\n"
    settings = settings_of(tmp_path, text + "resolver: {upstream_ca: $CONFIG/ca.pem}\n")
    config, state = f"{tmp_path}/config/sallyport", f"{tmp_path}/state/sallyport"
    assert settings.rules == (f"{config}/rules", f"{config}/more")
    assert settings.state == f"{state}/1"
    assert settings.audit.file == f"{state}/a.jsonl"
    assert settings.upstream_ca == f"{config}/ca.pem"


def test_relative_paths_are_relative_to_the_configuration_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    text = "rules: [rules, ../shared]\nstate: state\nresolver: {upstream_ca: ca.pem}\n"
    settings = settings_of(tmp_path, text)
    here = f"{tmp_path}/here"
    assert settings.rules == (f"{here}/rules", f"{here}/../shared")
    assert settings.state == f"{here}/state"
    assert settings.audit.file == f"{here}/state/audit.jsonl"
    assert settings.upstream_ca == f"{here}/ca.pem"


def test_a_relative_configuration_file_is_relative_to_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("rules: [rules]\n")
    settings, _ = read_settings({}, Path("my.yaml"), None, None)
    assert settings.rules == (f"{tmp_path}/rules",)


def test_absolute_paths_stay(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "rules: [/srv/rules]\naudit: {file: /srv/a.jsonl}\n")
    assert settings.rules == ("/srv/rules",)
    assert settings.audit.file == "/srv/a.jsonl"


def test_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    assert settings_of(tmp_path, "state: ~/s\n").state == "/h/s"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("$HOME/rules", "no variable $HOME here; write the path, or $CONFIG and $STATE"),
        ("$CONFIGS/rules", "no variable $CONFIGS"),
        ("~nobody-of-that-name/rules", "home directory"),
        ('"a\\0b"', "it holds a NUL"),
    ],
)
def test_a_path_that_cannot_be_meant_is_told(tmp_path: Path, path: str, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        settings_of(tmp_path, f"rules: [{path}]\n")
    assert says in str(raised.value)


def test_a_folder_of_ours_may_have_a_dollar_in_its_name(tmp_path: Path) -> None:
    odd = tmp_path / "a$STATE$b"
    odd.mkdir()
    settings = settings_of(odd)
    assert settings.rules == (f"{odd}/config/sallyport/rules",)
    assert settings.state == f"{odd}/state/sallyport"
    assert settings_of(tmp_path, state=odd).state == str(odd)


def test_the_command_line_names_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = settings_of(tmp_path, "state: elsewhere\n", state=Path("mine"))
    assert settings.state == f"{tmp_path}/mine"
    assert settings.audit.file == f"{tmp_path}/mine/audit.jsonl"


def test_an_audit_file_that_was_configured_stays(tmp_path: Path) -> None:
    text = "audit: {file: /srv/a.jsonl}\n"
    assert settings_of(tmp_path, text, state=tmp_path).audit.file == "/srv/a.jsonl"


def test_state_in_the_file_means_the_one_of_the_command_line(tmp_path: Path) -> None:
    text = "audit: {file: $STATE/log}\n"
    assert settings_of(tmp_path, text, state=tmp_path / "s").audit.file == f"{tmp_path}/s/log"


def test_the_command_line_replaces_every_rule_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = settings_of(tmp_path, "rules: [a, b]\n", rules=[Path("c"), Path("/d")])
    assert settings.rules == (f"{tmp_path}/c", "/d")
    assert not settings.first_run
    assert not settings_of(tmp_path / "config", rules=[Path("c")]).first_run


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml does not exist; name .* --config"):
        read_settings({}, tmp_path / "none.yaml", None, None)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path} cannot be read: "):
        read_settings({}, tmp_path, None, None)
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"state: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"cannot be read: .*utf-8"):
        read_settings({}, file, None, None)


def test_problems_carry_the_place_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("state: x\nstat: y\n")
    _, (problem,) = read_settings(os.environ, file, None, None)
    assert str(problem.place) == f"{file}:2:1"
