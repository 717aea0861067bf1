"""List files from disk to a table: what may be read, and whether it has to be.

What others may write is nobody's list, as with rule files.  A list that cannot be read is an
error: a name that it would deny must not pass because a file was missing.  Lists that are what
they were are not compiled again.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from proxy.reload.guarded import UnfitError, opened
from proxy.reload.progress import Progress, Told, untold
from proxy.reload.table import (
    NOTHING_LISTED,
    ListsInForce,
    ReadList,
    ReadLists,
    in_force,
    new_table,
)
from proxy.reload.watch import Seen, look_at, status_of
from rules.errors import Place, Problem, RuleSyntaxError
from rules.lists.compile import Compiled, ListReport, compile_lists
from rules.ruleset import ListSource

LIST_OCTETS: Final = 134217728  # 128 MiB: 2 M records of an RPZ zone; Unbound has no bound
LINE_OCTETS: Final = 65536  # RFC 1035, section 3.2.1: no rdata is longer; the rest is not read
_KEY_OCTETS = 16
_REGULAR = "name a regular file"


class UnreadListsError(RuleSyntaxError):
    """Lists that cannot be had; `seen` is of their files as they are."""

    def __init__(self, problems: tuple[Problem, ...], seen: Seen) -> None:
        super().__init__(problems)
        self.seen = seen


class _Open(Struct, frozen=True):
    """A list whose file is open."""

    source: ListSource
    file: BufferedReader
    status: os.stat_result


def load_lists(
    sources: Sequence[ListSource], now: float, told: Told = untold, *, system: bool
) -> ListsInForce:
    """Return the lists in `sources` as they are at `now` (Unix time), read by this process.

    Raises:
        UnreadListsError: with every problem of every list.
    """
    with new_table() as table:
        read = read_lists(sources, "", table, told, system=system, now=now)
        return in_force(read, table, NOTHING_LISTED)


def read_lists(
    sources: Sequence[ListSource],
    known: str,
    table: BinaryIO,
    told: Told,
    *,
    system: bool,
    now: float,
) -> ReadLists:
    """Read the lists in `sources`, unless their digest is `known`; write what they say to `table`.

    Raises:
        UnreadListsError: with every problem of every list.
    """
    if not sources:
        return ReadLists()
    seen = look_at(source.file for source in sources)  # what is written later is seen later
    try:
        with ExitStack() as stack:
            lists = _opened(sources, stack, system=system)
            digest = _digest(lists)
            if digest == known:
                return ReadLists(digest, tuple(sources), seen)
            compiled = _compiled(lists, told)
            table.writelines(compiled.pieces)
            if _moved(lists):
                digest = os.urandom(_KEY_OCTETS).hex()  # of no files that there ever were
    except RuleSyntaxError as error:
        raise UnreadListsError(error.problems, seen) from None
    table.flush()
    return ReadLists(
        digest,
        tuple(sources),
        seen,
        tuple(map(_read, compiled.reports)),
        tuple(problem for report in compiled.reports for problem in report.problems),
        table.tell(),
        now,
    )


def _opened(sources: Sequence[ListSource], stack: ExitStack, *, system: bool) -> list[_Open]:
    lists: list[_Open] = []
    problems: list[Problem] = []
    for source in sources:
        try:
            file = stack.enter_context(opened(Path(source.file), _REGULAR, system=system))
            lists.append(_Open(source, file, _fitting(file)))
        except (OSError, UnfitError) as error:
            problems.append(_problem(source, error))
    if problems:
        raise RuleSyntaxError(tuple(problems))
    return lists


def _fitting(file: BufferedReader) -> os.stat_result:
    status = os.fstat(file.fileno())
    if status.st_size > LIST_OCTETS:
        raise UnfitError(f"is larger than {LIST_OCTETS} octets", "split the list")
    return status


def _digest(lists: Sequence[_Open]) -> str:
    """Return the digest of all lists: what the rules say of them, and what stands in them.

    A file that was only touched, or fetched anew and is the same, is no other list.
    """
    hashed = hashlib.sha256()
    for each in lists:
        entry = replace(each.source, place="")  # which may move, and says nothing
        hashed.update(msgspec.json.encode(entry, order="deterministic") + b"\n")
        with _blaming(each.source):
            hashed.update(hashlib.file_digest(each.file, "sha256").digest())
            each.file.seek(0)
    return hashed.hexdigest()


def _moved(lists: Sequence[_Open]) -> bool:
    """Return whether some file was written since it was opened."""
    return any(status_of(os.fstat(each.file.fileno())) != status_of(each.status) for each in lists)


def _compiled(lists: Sequence[_Open], told: Told) -> Compiled:
    def tell(number: int, lines: int) -> None:
        told(Progress(lists[number].source.shown, number + 1, len(lists), lines))

    pairs = [
        (each.source, _lines(each, partial(tell, number, 0))) for number, each in enumerate(lists)
    ]
    compiled = compile_lists(pairs, key=os.urandom(_KEY_OCTETS), progress=tell)
    if compiled.errors:
        raise RuleSyntaxError(compiled.errors)
    return compiled


def _lines(opened_list: _Open, began: Callable[[], None]) -> Iterator[str]:
    """Yield each line, its end too; what is longer than a line may be is cut."""
    began()
    file, left = opened_list.file, LIST_OCTETS  # it may grow meanwhile
    with _blaming(opened_list.source):
        while line := file.readline(min(LINE_OCTETS, left)):
            left -= len(line)
            yield line.decode("utf-8", "replace")
            while line and not line.endswith(b"\n"):
                line = file.readline(min(LINE_OCTETS, left))
                left -= len(line)


@contextmanager
def _blaming(source: ListSource) -> Iterator[None]:
    """Say of what cannot be read which list it is."""
    try:
        yield
    except OSError as error:
        raise RuleSyntaxError((_problem(source, error),)) from None


def _read(report: ListReport) -> ReadList:
    return ReadList(report.format, report.entries, report.skipped)


def _problem(source: ListSource, error: OSError | UnfitError) -> Problem:
    """Return what is wrong with a list, at its entry in the rules."""
    file, _, line = source.place.rpartition(":")
    place = Place(file, int(line), 1)
    if isinstance(error, UnfitError):
        return Problem(place, f"{source.shown}: {error.message}", error.cure)
    message = f"{source.shown} cannot be read: {error.strerror}"
    cure = "put it there, readable by the appliance; a path is relative to the rule file"
    return Problem(place, message, cure)
