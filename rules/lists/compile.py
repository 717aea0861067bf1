"""List files -> the octets of one table, and a report on each file.

It runs in a child process, takes some 40 octets a trigger, and hands the table over in pieces.
`rules.denylist` reads it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Final

from msgspec import Struct

from rules.errors import Problem, Severity
from rules.lists.format import HEAD_LINES, READERS, find_format
from rules.lists.rows import Rows
from rules.lists.trigger import LINE_CHARACTERS, Skipped, Tally
from rules.node import without_mark
from rules.ruleset import ListSource

LINES: Final = 1 << 24  # of all lists: half a minute; ENTRIES twice, and the largest has 10 million
ENTRIES: Final = 8_388_608  # of all lists; 140 MB of table

PROGRESS_LINES: Final = 65536

_CURE = "look whether the file is the list, and its `format` the right one"

type Progress = Callable[[int, int], None]
"""Is told the number of a list, from 0, and how many of its lines were read."""


class ListReport(Struct, frozen=True):
    """What was read of one list.

    `format` is hosts, plain, adblock or rpz, as it was written or found; empty where the file is no
    list, which is an error among `problems`.  `skipped` counts lines that are not in force, by why.
    `problems` are the first ones (a line that cannot be read is a warning); `omitted` the others.
    """

    shown: str
    format: str
    lines: int
    entries: int
    skipped: dict[str, int]
    problems: tuple[Problem, ...]
    omitted: int


class Compiled(Struct, frozen=True):
    """A table as octets, in pieces to be written one after the other, and what was read."""

    pieces: tuple[memoryview, ...]
    reports: tuple[ListReport, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What forbids the table to stand: a file that is no list, or too many entries."""
        problems = chain.from_iterable(report.problems for report in self.reports)
        return tuple(each for each in problems if each.severity is Severity.ERROR)


def compile_lists(
    sources: Sequence[tuple[ListSource, Iterable[str]]],
    *,
    key: bytes = b"",
    progress: Progress = lambda _number, _lines: None,
) -> Compiled:
    """Return the table of all lists, in their order, from the lines of their files.

    `key` (16 random octets) keys the table's hashes.  `progress` is called every 65,536 lines.  A
    line may end in a newline; each iterable is walked through once.  What stands in the lines never
    makes it raise: it is in the reports.
    """
    rows, left, reports = Rows(len(sources), key), LINES, []
    for number, (source, lines) in enumerate(sources):
        counted = _Counted(lines, Tally(source.shown), partial(progress, number), left)
        reports.append(_compile(number, source, counted, rows))
        left -= counted.count
    return Compiled(rows.pieces(), tuple(reports))


class _Counted:
    """The lines of one file with their numbers, counted as they are read; `most` of them."""

    def __init__(
        self, lines: Iterable[str], tally: Tally, told: Callable[[int], None], most: int
    ) -> None:
        each = iter(lines)
        self._lines = chain(map(without_mark, islice(each, 1)), each)
        self.tally = tally
        self._told = told
        self._most = most
        self.count = 0

    def head(self) -> list[str]:
        """Return the first lines, which are read again."""
        first = [line[:LINE_CHARACTERS] for line in islice(self._lines, HEAD_LINES)]
        self._lines = chain(first, self._lines)
        return first

    def numbered(self) -> Iterator[tuple[int, str]]:
        """Yield the lines that are short enough."""
        for number, line in enumerate(self._lines, 1):
            if number > self._most:
                cure = "take a smaller list, or one of the lists out"
                self.tally.fail(f"more than {LINES} lines of all lists", cure)
                return
            self.count = number
            if not number % PROGRESS_LINES:
                self._told(number)
            if len(line) < LINE_CHARACTERS:
                yield number, line
            else:
                self.tally.skip(Skipped.TOO_LONG)
                message = f"a line of {LINE_CHARACTERS} characters or more"
                cure = "the line is skipped; write each name on a line of its own"
                self.tally.warn(number, "", "", message, cure)


def _compile(number: int, source: ListSource, counted: _Counted, rows: Rows) -> ListReport:
    tally, name = counted.tally, source.format
    if name == "auto":
        name = find_format(counted.head()) or ""
    entries = _read(number, name, counted, tally, rows) if name else 0
    broken = tally.skipped.get(Skipped.MALFORMED, 0)
    if not name:
        message = "most lines are of no format that is known: hosts, plain, adblock, rpz"
        tally.fail(message, "look whether the file is the list; else write its `format`")
    elif broken > entries:
        message = f"no {name} list: {broken} lines cannot be read, {entries} can"
        tally.fail(message, _CURE)
    elif not entries and not any(each.severity is Severity.ERROR for each in tally.problems):
        _tell_of_nothing(name, counted.count, tally)
    return ListReport(
        shown=source.shown,
        format=name,
        lines=counted.count,
        entries=entries,
        skipped={why.value: count for why, count in tally.skipped.items()},
        problems=tuple(tally.problems),
        omitted=tally.omitted,
    )


def _tell_of_nothing(name: str, lines: int, tally: Tally) -> None:
    """Say that a list denies nothing: comments alone may, but what was to be a list may not."""
    skipped = sum(tally.skipped.values())
    if skipped:
        message = f"no {name} list: none of {lines} lines is in force, {skipped} are skipped"
        tally.fail(message, _CURE)
    elif not lines:
        cure = "fetch it again; a list that shall deny nothing holds a comment"
        tally.fail("the file is empty, as a download that failed leaves it", cure)
    else:
        tally.warn(1, "", "", "the list denies nothing", "look whether it was fetched whole")


def _read(number: int, name: str, counted: _Counted, tally: Tally, rows: Rows) -> int:
    before = len(rows)
    for trigger in READERS[name](counted.numbered(), tally):
        rows.add(number, trigger)
        if len(rows) >= ENTRIES:
            message = f"more than {ENTRIES} entries of all lists"
            tally.fail(message, "take a smaller list, or one of the lists out")
            break
    return len(rows) - before
