"""Where things are: XDG folders, variables, and what relative paths are relative to."""

import os
from pathlib import Path

import pytest

from proxy.config import Locations, Settings
from proxy.errors import BindError, ConfigError
from proxy.locations import CONFIG_FILE, locate, open_state, read_settings


def settings_of(
    folder: Path,
    text: str | None = None,
    state: Path | None = None,
    rules: list[Path] | None = None,
) -> Settings:
    environ = {
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_RUNTIME_DIR": str(folder / "run"),
    }
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
    assert locate(environ, uid=1000) == Locations(config, state, state)


@pytest.mark.parametrize(
    ("environ", "uid", "runtime"),
    [
        ({"XDG_RUNTIME_DIR": "/run/user/1000"}, 1000, "/run/user/1000/sallyport"),
        ({"XDG_RUNTIME_DIR": "/run/user/0"}, 0, "/run/user/0/sallyport"),
        ({"XDG_RUNTIME_DIR": "work"}, 1000, "/s/sallyport"),
        ({"XDG_RUNTIME_DIR": ""}, 0, "/run/sallyport"),
        ({}, 0, "/run/sallyport"),
        ({}, 1000, "/s/sallyport"),
    ],
)
def test_the_control_socket_has_a_folder_that_is_nobody_elses(
    environ: dict[str, str], uid: int, runtime: str
) -> None:
    assert locate({"XDG_STATE_HOME": "/s", **environ}, uid=uid).runtime == runtime


def test_the_uid_is_by_default_our_own() -> None:
    assert locate({"XDG_STATE_HOME": "/s"}) == locate({"XDG_STATE_HOME": "/s"}, uid=os.geteuid())


def test_no_environment_moves_the_folders_of_system() -> None:
    """The environment is that of whoever calls; the folders are root's."""
    environ = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"), "/e")
    places = ("/etc/sallyport", "/var/lib/sallyport", "/run/sallyport")
    assert locate(environ, system=True) == Locations(*places, system=True)


def test_system_never_makes_first_rules() -> None:
    settings, problems = read_settings({"HOME": "/h"}, None, None, None, system=True)
    assert problems == []
    assert settings.enforcement == "system"
    assert not settings.first_run
    assert settings.rules == ("/etc/sallyport/rules",)
    assert settings.audit.file == "/var/lib/sallyport/audit.jsonl"
    assert settings.listen.control == "/run/sallyport/control.sock"
    assert settings.listen.do53 == ("127.0.0.1:53", "[::1]:53")


def test_relative_xdg_folders_are_ignored() -> None:
    """XDG Base Directory Specification: a relative path is invalid; an agent may be its author."""
    environ = {"HOME": "/h", "XDG_CONFIG_HOME": "work/rules", "XDG_STATE_HOME": "."}
    state = "/h/.local/state/sallyport"
    assert locate(environ, uid=1000) == Locations("/h/.config/sallyport", state, state)


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
    text += "listen: {control: $RUNTIME/c.sock}\negress: {upstream_ca: $CONFIG/web.pem}\n"
    settings = settings_of(tmp_path, text + "resolver: {upstream_ca: $CONFIG/ca.pem}\n")
    config, state = f"{tmp_path}/config/sallyport", f"{tmp_path}/state/sallyport"
    assert settings.rules == (f"{config}/rules", f"{config}/more")
    assert settings.state == f"{state}/1"
    assert settings.audit.file == f"{state}/a.jsonl"
    assert settings.upstream_ca == f"{config}/ca.pem"
    assert settings.egress_ca == f"{config}/web.pem"
    assert settings.listen.control == f"{tmp_path}/run/sallyport/c.sock"


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
        ("$HOME/rules", "no variable $HOME here; write the path, or $CONFIG, $STATE, $RUNTIME"),
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


def test_a_control_socket_in_the_state_moves_with_it(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path / "state"), "HOME": str(tmp_path)}
    chosen = tmp_path / "chosen"
    settings, _ = read_settings(environ, None, None, chosen)
    folder = "/run/sallyport" if os.geteuid() == 0 else str(chosen)
    assert settings.listen.control == f"{folder}/control.sock"


def test_no_control_socket_stays_none(tmp_path: Path) -> None:
    assert settings_of(tmp_path, 'listen: {control: ""}\n').listen.control == ""


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


def test_the_folder_of_state_is_made_for_us_alone(tmp_path: Path) -> None:
    open_state(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    open_state(str(tmp_path / "a" / "b"))


def test_a_folder_of_state_that_cannot_be_made_is_said_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BindError, match="--state"):
        open_state(str(tmp_path / "file" / "state"))
