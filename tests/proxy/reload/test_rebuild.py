"""The child process: reads files, says what is new, or why it cannot be used."""

import io
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from proxy.reload.handover import Heading, Opening, Piece, Request, Rules, read_pieces
from proxy.reload.progress import Progress
from proxy.reload.rebuild import rebuild
from proxy.reload.table import new_table

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
    rebuild(asked, file, io.BytesIO())
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


def as_a_process(asked: Request) -> tuple[bytes, bytes, bytes]:
    """Return what the child writes: rules, the table of lists, and news of the reading."""
    argv = [sys.executable, "-P", "-m", "proxy.reload.rebuild"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    reading, writing = os.pipe()
    with new_table() as table, os.fdopen(reading, "rb") as news:
        fds = table.fileno(), writing
        asked = msgspec.structs.replace(asked, table=fds[0], progress=fds[1])
        ended = subprocess.run(
            argv, input=msgspec.json.encode(asked), env=env, capture_output=True, check=True,
            timeout=60, pass_fds=fds,
        )  # fmt: skip
        os.close(writing)
        table.seek(0)
        return ended.stdout, table.read(), news.read()


def test_as_a_process_it_writes_the_same_every_time(folder: Path) -> None:
    first, second = (as_a_process(request(folder)) for _ in range(2))
    assert first == second
    rules, table, news = first
    heading, *pieces = read_pieces(io.BytesIO(rules))
    assert isinstance(heading, Heading)
    assert names(pieces) == ["one", "two"]
    assert (table, news) == (b"", b"")


@pytest.fixture
def listing(folder: Path) -> Path:
    """Return the list that the rules name."""
    file = folder / "bad.txt"
    file.write_text("bad.example.com\nworse.example.com\n")
    (folder / "lists.yaml").write_text("lists: [{file: bad.txt}]\n")
    return file


def asked_again(folder: Path, heading: Heading, **more: object) -> Request:
    """Return the request of who has all that `heading` speaks of."""
    lists = heading.lists
    assert lists is not None
    return request(
        folder,
        digest=heading.digest,
        apps=dict(heading.apps),
        lists=lists.sources,
        lists_digest=lists.digest,
        **more,
    )


def test_a_list_comes_as_a_table_beside_the_rules(folder: Path, listing: Path) -> None:
    rules, table, news = as_a_process(request(folder))
    heading, *pieces = read_pieces(io.BytesIO(rules))
    assert isinstance(heading, Heading)
    assert names(pieces) == ["one", "two"]
    lists = heading.lists
    assert lists is not None
    assert lists.octets == len(table) > 0
    assert [source.file for source in lists.sources] == [str(listing)]
    assert [(each.format, each.names) for each in lists.files] == [("plain", 2)]
    assert [file for file, _ in lists.seen] == [str(listing)]
    assert lists.at > 0
    assert msgspec.json.decode(news.splitlines()[0], type=Progress).file == "bad.txt"


def test_lists_that_are_known_are_not_handed_over_again(folder: Path, listing: Path) -> None:
    first = rebuilt(request(folder))[0]
    listing.touch()
    for changed in (False, True):
        if changed:
            (folder / "a.yaml").write_text((folder / "a.yaml").read_text() + "# a remark\n")
        lists = rebuilt(asked_again(folder, first))[0].lists
        assert lists is not None
        assert first.lists is not None
        assert (lists.digest, lists.octets, lists.files) == (first.lists.digest, 0, ())


def test_a_list_that_changed_is_read_though_no_rule_did(folder: Path, listing: Path) -> None:
    first = rebuilt(request(folder))[0]
    listing.write_text("other.example.com\n")
    heading, pieces = rebuilt(asked_again(folder, first))
    assert (heading.digest, heading.apps, pieces) == (first.digest, (), [])
    assert heading.lists is not None
    assert [each.names for each in heading.lists.files] == [1]


def test_a_list_that_cannot_be_read_is_a_problem_and_is_watched(
    folder: Path, listing: Path
) -> None:
    first = rebuilt(request(folder))[0]
    listing.unlink()
    for asked in (request(folder), asked_again(folder, first)):
        heading, pieces = rebuilt(asked)
        (problem,) = heading.problems
        assert str(problem.place) == f"{folder}/lists.yaml:1:1"
        assert pieces == []
        assert heading.lists is not None
        assert [file for file, _ in heading.lists.seen] == [str(listing)]
