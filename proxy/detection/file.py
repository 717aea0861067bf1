"""The file of the tunnel detector: what is held, and what was counted, as rows.

It is written behind (`proxy.database.behind`).  What a row of the budgets holds is the detector's
own (`rules.detector`): the file keeps it as it is.
"""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Final

import aiosqlite
import msgspec
from msgspec import Struct

from proxy.database.behind import Behind
from proxy.database.file import Contents, UnfitError
from proxy.detection.hold import HeldSuffix
from proxy.limits import Limits
from rules.errors import MalformedNameError
from rules.name import parse

_HELD = """\
CREATE TABLE held (
  app TEXT NOT NULL,
  suffix TEXT NOT NULL,
  hold BLOB NOT NULL,
  PRIMARY KEY (app, suffix)
) STRICT, WITHOUT ROWID"""
_BUDGET = """\
CREATE TABLE budget (
  app TEXT NOT NULL,
  suffix TEXT NOT NULL,
  state BLOB NOT NULL,
  PRIMARY KEY (app, suffix)
) STRICT"""
_CONTENTS: Final = Contents(
    "suffixes that are held, and budgets,",
    "restore the file, or move it away: nothing is held then, and every budget is whole",
    (_HELD, _BUDGET),
)
_KEEP_HOLD = "INSERT OR REPLACE INTO held (app, suffix, hold) VALUES (?, ?, ?)"
_DROP_HOLD = "DELETE FROM held WHERE (app, suffix) = (?, ?)"
_KEEP_BUDGET = "INSERT OR REPLACE INTO budget (app, suffix, state) VALUES (?, ?, ?)"
_DROP_BUDGET = "DELETE FROM budget WHERE (app, suffix) = (?, ?)"
_DECODER = msgspec.json.Decoder(HeldSuffix)
_ROWS = 256  # read, or written, at once: about 1 MiB

type BudgetRow = tuple[str, str, bytes]
"""App, suffix and what was counted; without octets: it is forgotten."""

type Take = Callable[[Iterable[BudgetRow]], object]
"""Takes rows of the budgets in, so many at a time."""


class Stored(Struct, frozen=True):
    """What is held, the first first."""

    holds: tuple[HeldSuffix, ...] = ()


class DetectionFile:
    """The file at `path`; `behind` writes it, and says what keeps it from that."""

    def __init__(self, path: Path, limits: Limits) -> None:
        # Each suffix of the tables waits once at most; who writes them waits after each `_ROWS`.
        self.behind = Behind(path, _CONTENTS, limits.token_busy_s, 2 * _ROWS)

    async def open(self, take: Take) -> Stored:
        """Make or open the file; hand the budgets to `take`, and return what is held.

        Raises:
            BindError: the file cannot be used.
        """
        stored = Stored()

        async def read(db: aiosqlite.Connection) -> None:
            nonlocal stored
            stored = await _stored(db, take)

        await self.behind.open(read)
        return stored

    def hold(self, hold: HeldSuffix) -> None:
        """Remember that a suffix is held."""
        text = msgspec.json.encode(hold)
        key = ("held", hold.app, hold.suffix)
        self.behind.put(key, _KEEP_HOLD, (hold.app, hold.suffix, text))

    def let_go(self, app: str, suffix: str) -> None:
        """Forget that a suffix is held."""
        self.behind.put(("held", app, suffix), _DROP_HOLD, (app, suffix))

    async def keep(self, rows: Iterable[BudgetRow]) -> None:
        """Write what was counted; it is on the disk when this returns.

        Raises:
            BindError: it cannot be written, and that is tried again.
        """
        for at, (app, suffix, state) in enumerate(rows, 1):
            key = app, suffix
            if state:
                self.behind.put(("budget", *key), _KEEP_BUDGET, (*key, state))
            else:
                self.behind.put(("budget", *key), _DROP_BUDGET, key)
            if at % _ROWS == 0:
                await self.behind.settled()
        await self.behind.settled()


async def _stored(db: aiosqlite.Connection, take: Take) -> Stored:
    """Return what is held; hand the rest to `take`.

    Raises:
        UnfitError: no such thing was ever written by us.
    """
    rows = await db.execute_fetchall("SELECT hold FROM held")
    try:
        holds = [_DECODER.decode(row[0]) for row in rows]
        for each in holds:
            parse(each.suffix)
        async with aclosing(_budgets(db)) as parts:
            async for part in parts:
                take(part)
    except (MalformedNameError, ValueError, TypeError) as error:  # msgspec's are ValueErrors
        raise UnfitError(f"it is damaged ({error}); move it away") from None
    return Stored(tuple(sorted(holds, key=lambda each: each.at)))


async def _budgets(db: aiosqlite.Connection) -> AsyncGenerator[list[BudgetRow]]:
    async with db.execute("SELECT app, suffix, state FROM budget") as cursor:
        while rows := await cursor.fetchmany(_ROWS):
            yield [(app, suffix, state) for app, suffix, state in rows]
