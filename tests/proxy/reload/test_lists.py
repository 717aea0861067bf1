"""List files: what may be read, and that what cannot be read is never taken for an empty list."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from msgspec.structs import replace

from proxy.reload import lists as module
from proxy.reload.lists import LINE_OCTETS, UnreadListsError, load_lists, read_lists
from proxy.reload.progress import Progress, untold
from proxy.reload.table import ListsInForce, ReadLists, new_table
from rules.errors import Problem, Severity
from rules.name import parse
from rules.ruleset import ListSource

NAME = parse("bad.example.com")


@pytest.fixture
def table() -> Iterator[BinaryIO]:
    with new_table() as file:
        yield file


def source(path: Path, **fields: object) -> ListSource:
    return replace(ListSource(f"{path.parent}/a.yaml:3", str(path), path.name), **fields)


def written(path: Path, text: str = "bad.example.com\n") -> ListSource:
    path.write_text(text)
    return source(path)


def loaded(*sources: ListSource, system: bool = False) -> ListsInForce:
    return load_lists(sources, 7.0, system=system)


def problem(*sources: ListSource, system: bool = False) -> Problem:
    with pytest.raises(UnreadListsError) as raised:
        loaded(*sources, system=system)
    (found,) = raised.value.problems
    return found


def read(table: BinaryIO, known: str, *sources: ListSource) -> ReadLists:
    return read_lists(sources, known, table, untold, system=False, now=7.0)


def test_a_list_decides_with_its_file_and_line(tmp_path: Path) -> None:
    listed = loaded(written(tmp_path / "a.txt", "# mine\nbad.example.com\n"))
    found = listed.lists.find("me", NAME)
    assert found is not None
    assert found.id == "a.txt:2"
    assert (listed.read.files[0].names, listed.read.at) == (1, 7.0)


def test_the_first_list_that_denies_decides(tmp_path: Path) -> None:
    first, second = written(tmp_path / "b.txt"), written(tmp_path / "a.txt")
    found = loaded(first, second).lists.find("me", NAME)
    assert found is not None
    assert found.list == "b.txt"


def test_no_lists_are_nothing_to_read(table: BinaryIO) -> None:
    assert read(table, "") == ReadLists()
    assert loaded().table is None


def test_a_list_that_is_missing_is_an_error_at_its_entry(tmp_path: Path) -> None:
    found = problem(source(tmp_path / "a.txt"))
    assert str(found.place) == f"{tmp_path}/a.yaml:3:1"
    assert "a.txt cannot be read: No such file" in found.message
    assert found.severity is Severity.ERROR
    assert found.cure


def test_every_list_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnreadListsError) as raised:
        loaded(source(tmp_path / "a"), written(tmp_path / "b"), source(tmp_path / "c"))
    assert len(raised.value.problems) == 2
    assert [Path(file).name for file, _ in raised.value.seen] == ["a", "b", "c"]


def test_a_list_that_every_user_may_write_is_nobody_s(tmp_path: Path) -> None:
    """threats.md, "Rules and state": who may write rules is the admin."""
    entry = written(tmp_path / "a.txt")
    Path(entry.file).chmod(0o602)
    found = problem(entry)
    assert "every user may write it" in found.message
    assert "chmod o-w" in found.cure


def test_a_list_is_root_s_alone_with_system(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.fail("run as root: --system is about what is root's")
    entry = written(tmp_path / "a.txt")
    Path(entry.file).chmod(0o644)
    assert loaded(entry, system=True).table is not None
    os.chown(entry.file, 1, 1)
    assert "root's alone" in problem(entry, system=True).message


def test_a_fifo_is_no_list_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    assert "no regular file" in problem(source(tmp_path / "a.txt")).message
    assert "no regular file" in problem(source(Path("/dev/null"))).message


def test_a_list_that_is_too_large_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = written(tmp_path / "a.txt")
    monkeypatch.setattr(module, "LIST_OCTETS", Path(entry.file).stat().st_size)
    assert loaded(entry).lists.find("me", NAME) is not None
    monkeypatch.setattr(module, "LIST_OCTETS", Path(entry.file).stat().st_size - 1)
    assert "is larger than" in problem(entry).message


def test_a_file_that_is_no_list_is_an_error(tmp_path: Path) -> None:
    entry = written(tmp_path / "a.txt", "<!DOCTYPE html>\n<html><body>gone</body></html>\n")
    found = problem(entry)
    assert found.place.file == "a.txt"
    assert found.severity is Severity.ERROR


def test_lists_that_are_what_they_were_are_not_read_again(tmp_path: Path, table: BinaryIO) -> None:
    """threats.md, Order of checks: a cache flush per file touch as a herd."""
    entry = written(tmp_path / "a.txt")
    first = read(table, "", entry)
    length = table.tell()
    beside = Path(shutil.copy(entry.file, tmp_path / "new"))
    beside.rename(entry.file)
    second = read(table, first.digest, replace(entry, place="b.yaml:9"))
    assert (second.digest, second.files, second.octets) == (first.digest, (), 0)
    assert second.sources[0].place == "b.yaml:9"
    assert second.seen != first.seen
    assert table.tell() == length


@pytest.mark.parametrize(
    "change",
    [
        {"excepts": frozenset({NAME})},
        {"apps": frozenset({"me"})},
        {"format": "plain"},
        {"shown": "./a.txt"},
    ],
)
def test_what_the_rules_say_of_a_list_is_part_of_it(
    tmp_path: Path, table: BinaryIO, change: dict[str, object]
) -> None:
    entry = written(tmp_path / "a.txt")
    first = read(table, "", entry)
    assert read(table, first.digest, replace(entry, **change)).files


def test_a_file_that_is_written_while_it_is_read_has_a_digest_of_its_own(
    tmp_path: Path, table: BinaryIO
) -> None:
    """The next look has it read again, and it must not pass for what was there before."""
    entry = written(tmp_path / "a.txt")

    def told(_: Progress) -> None:
        with Path(entry.file).open("a") as file:
            file.write("worse.example.com\n")

    first, second, third = (
        read_lists((entry,), "", table, each, system=False, now=7.0)
        for each in (told, untold, untold)
    )
    assert first.digest != second.digest == third.digest


def test_what_opens_and_cannot_be_read_is_an_error() -> None:
    broken = Path("/proc/self/mem")  # it has nothing to read at its beginning
    assert "cannot be read: Input/output error" in problem(source(broken)).message


def test_a_line_without_end_is_cut_and_the_next_one_counts(tmp_path: Path) -> None:
    text = "# " + "x" * (3 * LINE_OCTETS) + "\n" + "bad.example.com\n" * 3 + "y" * (2 * LINE_OCTETS)
    found = loaded(written(tmp_path / "a.txt", text)).lists.find("me", NAME)
    assert found is not None
    assert found.line == 2


def test_octets_that_are_no_text_spoil_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\xfe.example.com\nbad.example.com\nother.example.com\n")
    listed = loaded(source(path))
    assert listed.lists.find("me", NAME) is not None
    assert sum(listed.read.files[0].skipped.values()) == 1
    assert listed.read.warnings


def test_it_tells_how_far_it_is(tmp_path: Path) -> None:
    heard: list[Progress] = []
    many = "".join(f"n{each}.example.com\n" for each in range(70_000))
    entries = written(tmp_path / "a.txt", many), written(tmp_path / "b.txt")
    load_lists(entries, 7.0, heard.append, system=False)
    assert heard[0] == Progress("a.txt", 1, 2, 0)
    assert heard[1].file == "a.txt"
    assert heard[1].lines > 0
    assert heard[-1] == Progress("b.txt", 2, 2, 0)
