r"""Lists for people, on as many columns as the terminal has.

What is copied into another command, ids and names, is never broken over lines by us.  Where a row
does not fit its free words stand below it, and where that does not do, each value has a line of
its own, as psql's `\x auto` has it.
"""

from collections.abc import Sequence

from msgspec import Struct
from rich.cells import cell_len
from rich.console import Console

from proxy.audit_line import printable

_GAP = "  "
_BELOW = "    "


class Column(Struct, frozen=True):
    """A column; `is_free`: of words that are read, and may stand below the row."""

    title: str
    is_free: bool = False


def show(columns: Sequence[Column], rows: Sequence[Sequence[str]], nothing: str) -> None:
    """Print `rows`, or `nothing` where there are none; a column without any value is left out."""
    console = Console(soft_wrap=True)
    text = "\n".join(listing(columns, rows, console.width)) if rows else nothing
    console.print(text, markup=False, highlight=False, emoji=False)


def listing(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return the lines that show `rows` on `width` columns."""
    table = [[printable(text) for text in row] for row in rows]
    kept = [each for each, _ in enumerate(columns) if any(row[each] for row in table)]
    firm = [each for each in kept if not columns[each].is_free]
    titles = [each.title for each in columns]
    widths = [max(map(cell_len, each)) for each in zip(titles, *table, strict=True)]
    for beside in (kept, firm):
        if sum(widths[each] for each in beside) + len(_GAP) * (len(beside) - 1) <= width:
            below = [each for each in kept if each not in beside]
            return _rows(titles, table, widths, beside, below)
    return _apart(titles, table, kept)


def _rows(
    titles: Sequence[str],
    table: Sequence[Sequence[str]],
    widths: Sequence[int],
    beside: Sequence[int],
    below: Sequence[int],
) -> list[str]:
    lines = []
    for row in (titles, *table):
        cells = (row[each] + " " * (widths[each] - cell_len(row[each])) for each in beside)
        lines.append(_GAP.join(cells).rstrip())
        if row is not titles:
            lines += [f"{_BELOW}{titles[each]}: {row[each]}" for each in below if row[each]]
    return lines


def _apart(titles: Sequence[str], table: Sequence[Sequence[str]], kept: Sequence[int]) -> list[str]:
    wide = max(cell_len(titles[each]) for each in kept)
    lines: list[str] = []
    for row in table:
        lines += [""] if lines else []
        lines += [f"{titles[each]:{wide}}{_GAP}{row[each]}" for each in kept if row[each]]
    return lines
