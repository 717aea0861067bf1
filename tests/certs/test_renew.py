"""The child process that makes a new leaf."""

import datetime as dt
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from certs import files
from certs.authority import init
from certs.leaf import read_leaf
from certs.names import server_names
from certs.renew import main

ROOT = Path(__file__).resolve().parents[2]
NOW = dt.datetime(2026, 11, 22, 1, 2, 3, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(days=1)
NAMES = server_names(["127.0.0.1"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "ca"
    init(path, NAMES, NOW)
    return path


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o077)
    os.umask(before)
    yield
    os.umask(before)  # main() sets it for its own process, and stays in ours


def child(*argv: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-P", "-m", "certs.renew", *argv],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_makes_a_new_leaf_and_says_nothing(folder: Path) -> None:
    before = (folder / files.SERVER_KEY).read_bytes()
    (folder / "certs").mkdir()  # -P: not ours, though we were started beside it
    done = child(folder, str(int(LATER.timestamp())), *NAMES, cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    known = read_leaf(folder)
    assert known is not None
    assert known.is_good(NAMES, LATER.timestamp())
    assert (folder / files.SERVER_KEY).read_bytes() != before


def test_it_fails_with_one_line_that_says_what_to_do(folder: Path) -> None:
    (folder / files.ROOT_KEY).chmod(0o644)
    done = child(folder, str(int(LATER.timestamp())), *NAMES, cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "chmod 600" in done.stderr


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["FOLDER"],
        ["FOLDER", "0"],
        ["FOLDER", "soon", "localhost"],
        ["F", "9" * 30, "localhost"],
    ],
)
def test_what_it_is_not_told_rightly_it_does_not_do(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 1
    assert capsys.readouterr().err.startswith("usage: ")


def test_it_says_which_name_is_not_permitted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder), str(int(LATER.timestamp())), "192.0.2.7"]) == 1
    assert "does not permit 192.0.2.7" in capsys.readouterr().err


def test_a_bug_shows_no_octet_of_what_was_read(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError((folder / files.ROOT_KEY).read_text())

    monkeypatch.setattr("certs.renew.renew", broken)
    assert main([str(folder), "0", "localhost"]) == 1
    assert capsys.readouterr().err == "a bug of ours: RuntimeError\n"
