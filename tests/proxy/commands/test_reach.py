"""Which appliance a command speaks to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from proxy.commands.reach import (
    ask,
    ask_if_running,
    client_of,
    client_or_fail,
    is_remote,
    reach,
)
from proxy.config import Settings
from tests.proxy.patients import settings_in

PLACE = "https://192.0.2.7:9443"


@pytest.fixture(autouse=True)
def home() -> Iterator[None]:
    """Speak to this host's again, after each test."""
    yield
    reach("", None, None, None)


def settings(folder: Path, control: str) -> Settings:
    return settings_in(folder, f'listen: {{control: "{control}"}}\n')


def test_by_default_it_is_this_hosts(tmp_path: Path) -> None:
    reach("", None, None, None)
    assert not is_remote()
    assert client_of(settings(tmp_path, f"{tmp_path}/control.sock")) is not None


def test_without_a_socket_there_is_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert client_of(settings(tmp_path, "")) is None
    with pytest.raises(typer.Exit) as caught:
        client_or_fail(settings(tmp_path, ""))
    assert caught.value.exit_code == 4
    assert "there is no control socket" in capsys.readouterr().err


def test_one_elsewhere_takes_its_place(tmp_path: Path) -> None:
    reach(PLACE, tmp_path, tmp_path, tmp_path)
    assert is_remote()
    assert client_of(settings(tmp_path, "")) is not None
    assert client_or_fail(settings(tmp_path, "")) is not None


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_all_three_files_are_needed(
    tmp_path: Path, missing: int, capsys: pytest.CaptureFixture[str]
) -> None:
    files: list[Path | None] = [tmp_path, tmp_path, tmp_path]
    files[missing] = None
    with pytest.raises(typer.Exit) as caught:
        reach(PLACE, *files)
    assert caught.value.exit_code == 2
    assert "--cert, --key and --ca" in capsys.readouterr().err


def test_asking_nobody_ends_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reach("", None, None, None)
    client = client_or_fail(settings(tmp_path, f"{tmp_path}/control.sock"))
    with pytest.raises(typer.Exit) as caught:
        ask(client, "GET", "/status")
    assert caught.value.exit_code == 4
    assert "control.sock" in capsys.readouterr().err


def test_asking_if_one_runs_tells_that_none_does(tmp_path: Path) -> None:
    reach("", None, None, None)
    client = client_or_fail(settings(tmp_path, f"{tmp_path}/control.sock"))
    assert ask_if_running(client, "GET", "/status") is None
    assert ask_if_running(None, "GET", "/status") is None
