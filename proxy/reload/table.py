"""The table of all deny lists: octets that the child wrote and that we map, and what was read.

The table is a file in memory (memfd_create(2)).  It is sealed once it is written, so that nobody
can cut it under those who read it, and mapped read-only: nothing of it is copied, whatever its
size.
"""

import fcntl
import mmap
import os
from collections.abc import Iterator
from typing import BinaryIO

from msgspec import Struct
from msgspec.structs import replace

from proxy.reload.watch import Seen
from rules.errors import Problem
from rules.listed import NO_LISTS, Lists
from rules.ruleset import ListSource

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class ReadList(Struct, frozen=True):
    """A list as it was read: `names` entries of it deny, `skipped` lines are not in force, by why.

    `format` is that of the entry, or what it was found to be.
    """

    format: str
    names: int
    skipped: dict[str, int]


class ReadLists(Struct, frozen=True):
    """All lists of the rules, in their order; equal digests are equal lists.

    `seen` is of their files as they were read (`proxy.reload.watch`), `octets` are the table's,
    `at` is Unix time, of the reading.  Lists that are known already are not read: `files` is empty.
    """

    digest: str = ""
    sources: tuple[ListSource, ...] = ()
    seen: Seen = ()
    files: tuple[ReadList, ...] = ()
    warnings: tuple[Problem, ...] = ()
    octets: int = 0
    at: float = 0.0


class ListsInForce(Struct, frozen=True):
    """What was read, and the lists that decide by it; `table` is theirs."""

    read: ReadLists = ReadLists()
    lists: Lists = NO_LISTS
    table: memoryview | None = None

    def alone(self) -> Iterator[tuple[ListSource, Lists]]:
        """Yield each list by itself, and as if it had no `except`: for who explains decisions."""
        for one in self.read.sources:
            others = (
                replace(each, excepts=frozenset(), apps=each.apps if each is one else frozenset())
                for each in self.read.sources
            )
            yield one, _table(self.table, tuple(others))


NOTHING_LISTED = ListsInForce()
"""What is in force where the rules name no lists."""


def new_table() -> BinaryIO:
    """Return a file in memory for one table."""
    return os.fdopen(os.memfd_create("lists", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w+b")


def in_force(read: ReadLists, file: BinaryIO, before: ListsInForce) -> ListsInForce:
    """Return the lists that `read` is about, after those `before`; their table is in `file`.

    Where the lists are those before, so is the table.  `file` may be closed afterwards.

    Raises:
        ValueError: it is no such table.
        OSError: it cannot be mapped.
    """
    if not read.sources:
        return NOTHING_LISTED
    if read.digest == before.read.digest:
        if read.sources == before.read.sources:
            return before
        read = replace(before.read, sources=read.sources, seen=read.seen)  # on other lines
        table = before.table
    else:
        table = _mapped(file, read.octets)
    return ListsInForce(read, _table(table, read.sources), table)


def _table(table: memoryview | None, sources: tuple[ListSource, ...]) -> Lists:
    # Most have no lists, and do not import it.
    from rules.denylist import DenyTable  # noqa: PLC0415 - see above

    return DenyTable(memoryview(b"") if table is None else table, sources)


def _mapped(file: BinaryIO, octets: int) -> memoryview:
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
    # Private: a sealed file takes no shared mapping before Linux 6.7, and nothing is written.
    mapped = mmap.mmap(file.fileno(), octets, mmap.MAP_PRIVATE, mmap.PROT_READ, trackfd=False)
    return memoryview(mapped)
