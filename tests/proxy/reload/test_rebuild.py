"""The child process: reads files, says what is new, or why it cannot be used."""

import io
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from proxy.reload.handover import Heading, Opening, Piece, Request, Rules, read_pieces
from proxy.reload.rebuild import rebuild

ROOT = Path(__file__).resolve().parent.parent.parent.parent
APP = "  %s:\n    identity: [{listener: '%s'}]\n    allow: [{host: %s}]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "rules"
    made.mkdir(mode=0o700)
    (made / "a.yaml").write_text(
        "apps:\n"
        + APP % ("one", "127.0.0.1:53", "a.example.com")
        + APP % ("two", "127.0.0.2:53", "b.example.com")
    )
    return made


def request(folder: Path, **more: object) -> Request:
    listening = ("127.0.0.1:53", "127.0.0.2:53")
    return msgspec.structs.replace(Request((str(folder),), listening=listening), **more)


def rebuilt(asked: Request) -> tuple[Heading, list[Piece]]:
    file = io.BytesIO()
    rebuild(asked, file)
    file.seek(0)
    heading, *pieces = read_pieces(file)
    assert isinstance(heading, Heading)
    return heading, pieces


def names(pieces: list[Piece]) -> list[str]:
    return [piece.app.name for piece in pieces if isinstance(piece, Opening)]


def test_everything_is_handed_over_at_first(folder: Path) -> None:
    heading, pieces = rebuilt(request(folder))
    assert heading.files == (str(folder / "a.yaml"),)
    assert [name for name, _ in heading.apps] == names(pieces) == ["one", "two"]
    assert len([piece for piece in pieces if isinstance(piece, Rules)]) == 2
    assert heading.problems == ()


def test_files_that_are_equal_are_not_even_parsed(folder: Path) -> None:
    digest = rebuilt(request(folder))[0].digest
    heading, pieces = rebuilt(request(folder, digest=digest))
    assert (heading.digest, heading.apps, pieces) == (digest, (), [])


def test_only_what_changed_is_handed_over(folder: Path) -> None:
    first = rebuilt(request(folder))[0]
    file = folder / "a.yaml"
    file.write_text(file.read_text().replace("b.example.com", "c.example.com"))
    heading, pieces = rebuilt(request(folder, digest=first.digest, apps=dict(first.apps)))
    assert heading.digest != first.digest
    assert names(pieces) == ["two"]
    assert dict(heading.apps)["one"] == dict(first.apps)["one"]


def test_every_problem_comes_instead_of_rules(folder: Path) -> None:
    (folder / "b.yaml").write_text("aps: {}\n")
    (folder / "c.yaml").write_bytes(b"\xff")
    heading, pieces = rebuilt(request(folder))
    assert [problem.place.file for problem in heading.problems] == [
        str(folder / "c.yaml"), str(folder / "b.yaml"),
    ]  # fmt: skip
    assert (heading.digest, pieces) == ("", [])


def test_a_listener_that_is_not_bound_is_a_problem(folder: Path) -> None:
    heading, _ = rebuilt(request(folder, listening=("127.0.0.1:53",)))
    (problem,) = heading.problems
    assert "127.0.0.2:53" in problem.message


def test_what_could_not_be_read_is_told_though_all_that_could_is_equal(folder: Path) -> None:
    digest = rebuilt(request(folder))[0].digest
    (folder / "b.yaml").symlink_to("nowhere")
    heading, _ = rebuilt(request(folder, digest=digest))
    assert len(heading.problems) == 1


def test_first_rules_are_made_up_where_they_are_asked_for(tmp_path: Path) -> None:
    asked = Request((str(tmp_path / "new"),), first_run=True)
    heading, pieces = rebuilt(asked)
    assert names(pieces) == ["me"]
    assert heading.notes
    assert not heading.in_memory


def test_as_a_process_it_writes_the_same_every_time(folder: Path) -> None:
    argv = [sys.executable, "-P", "-m", "proxy.reload.rebuild"]
    asked = msgspec.json.encode(request(folder))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    first, second = (
        subprocess.run(
            argv, input=asked, env=env, capture_output=True, check=True, timeout=60
        ).stdout
        for _ in range(2)
    )
    assert first == second
    heading, *pieces = read_pieces(io.BytesIO(first))
    assert isinstance(heading, Heading)
    assert names(pieces) == ["one", "two"]
