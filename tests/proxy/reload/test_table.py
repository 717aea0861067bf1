"""Tables of lists: mapped, never copied, and freed with the last who needs them."""

import os
import weakref
from typing import BinaryIO

import pytest
from msgspec.structs import replace

from proxy.reload.table import (
    NOTHING_LISTED,
    ListsInForce,
    ReadList,
    ReadLists,
    in_force,
    new_table,
)
from rules.errors import RuleError
from rules.listed import NO_LISTS
from rules.lists.compile import compile_lists
from rules.name import parse
from rules.ruleset import ListSource

BAD = ListSource("rules/a.yaml:2", "/etc/bad.txt", "bad.txt")
WORSE = ListSource(
    "rules/a.yaml:3", "/etc/worse.txt", "worse.txt", excepts=frozenset({parse("a.org")})
)
NAME = parse("a.org")


def written(file: BinaryIO, *lists: tuple[ListSource, str], digest: str = "one") -> ReadLists:
    """Write the table of `lists` and their lines."""
    compiled = compile_lists([(source, text.splitlines()) for source, text in lists], key=bytes(16))
    file.writelines(compiled.pieces)
    file.flush()
    return ReadLists(
        digest,
        tuple(source for source, _ in lists),
        ((BAD.file, ()),),
        tuple(ReadList(each.format, each.entries, {}) for each in compiled.reports),
        (),
        file.tell(),
        7.0,
    )


@pytest.fixture
def bad() -> ListsInForce:
    with new_table() as file:
        return in_force(written(file, (BAD, "a.org\nb.org")), file, NOTHING_LISTED)


def test_a_table_decides_after_its_file_was_closed(bad: ListsInForce) -> None:
    found = bad.lists.find("me", NAME)
    assert found is not None
    assert found.id == "bad.txt:1"
    assert bad.lists.find("me", parse("c.org")) is None


def test_it_is_mapped_read_only_and_nobody_can_change_it() -> None:
    with new_table() as file:
        read = written(file, (BAD, "a.org"))
        listed = in_force(read, file, NOTHING_LISTED)
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(file.fileno(), 0)
        with pytest.raises(OSError, match="not permitted"):
            os.pwrite(file.fileno(), b"x", 0)
    assert listed.table is not None
    assert listed.table.readonly


def test_no_lists_are_no_table() -> None:
    with new_table() as file:
        assert in_force(ReadLists(), file, NOTHING_LISTED) is NOTHING_LISTED
    assert NOTHING_LISTED.lists is NO_LISTS
    assert list(NOTHING_LISTED.alone()) == []


def test_lists_that_are_the_same_keep_their_table(bad: ListsInForce) -> None:
    known = ReadLists("one", (BAD,), bad.read.seen)
    with new_table() as file:
        assert in_force(known, file, bad) is bad
        moved = in_force(replace(known, sources=(replace(BAD, place="b.yaml:9"),)), file, bad)
    assert moved.table is bad.table
    assert moved.read.sources[0].place == "b.yaml:9"
    assert (moved.read.files, moved.read.at) == (bad.read.files, 7.0)
    assert moved.lists.find("me", NAME) is not None


def test_a_table_is_unmapped_when_nobody_needs_it() -> None:
    with new_table() as file:
        listed = in_force(written(file, (BAD, "a.org")), file, NOTHING_LISTED)
    assert listed.table is not None
    mapped = weakref.ref(listed.table.obj)
    lists = listed.lists
    del listed
    assert mapped() is not None  # who decides by it has it
    del lists
    assert mapped() is None


@pytest.mark.parametrize("octets", [b"", b"no table at all", bytes(4096)])
def test_what_is_no_table_is_refused(octets: bytes) -> None:
    with new_table() as file:
        file.write(octets)
        file.flush()
        read = ReadLists("one", (BAD,), octets=len(octets))
        with pytest.raises((ValueError, RuleError)):
            in_force(read, file, NOTHING_LISTED)


def test_each_list_may_be_asked_alone_and_without_its_exceptions() -> None:
    with new_table() as file:
        read = written(file, (BAD, "b.org"), (WORSE, "# x\na.org"))
        listed = in_force(read, file, NOTHING_LISTED)
    assert listed.lists.find("me", NAME) is None  # excepted
    (first, bad), (second, worse) = listed.alone()
    assert (first, second) == (BAD, WORSE)
    assert bad.find("me", NAME) is None
    found = worse.find("me", NAME)
    assert found is not None
    assert found.id == "worse.txt:2"
    assert worse.find("me", parse("b.org")) is None
