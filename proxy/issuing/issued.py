"""What was issued, on the disk: `$STATE/identity/issued.sqlite`.

A certificate is remembered at once and written within `BATCH_S`, with others in one transaction
(WAL, synchronous=NORMAL: a loss of power may take the last ones along, never the file).  Those
that have ended are dropped, so that the file is as large as what is valid.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

import aiosqlite
from msgspec import Struct
from msgspec.structs import astuple

from proxy.database.file import Contents, DatabaseFile

logger = logging.getLogger(__name__)

FILE_NAME = "issued.sqlite"
BATCH_S = 0.1
DROP_S = 600.0  # between looks at what has ended
RETRY_S = 1.0  # after a write that failed
_BUSY_S = 5.0  # sqlite3's own timeout
_TABLE = """\
CREATE TABLE issued (
  serial TEXT PRIMARY KEY,
  spiffe_id TEXT NOT NULL,
  app TEXT NOT NULL,
  spki_sha256 TEXT NOT NULL,
  not_before INTEGER NOT NULL,
  not_after INTEGER NOT NULL,
  how TEXT NOT NULL
) STRICT, WITHOUT ROWID"""
_INDEXES = tuple(
    f"CREATE INDEX issued_{column} ON issued ({column})"
    for column in ("spiffe_id", "app", "not_after")
)
CONTENTS = Contents(
    "issued certificates",
    "move it away; what was issued before is then unknown to OCSP until it has ended",
    (_TABLE, *_INDEXES),
)
_COLUMNS = "serial, spiffe_id, app, spki_sha256, not_before, not_after, how"


class Issued(Struct, frozen=True):
    """A certificate of ours; times are Unix time in seconds, the serial is lower-case hex.

    `spki_sha256` is the digest of a public key that was brought along; empty for a key of ours.
    """

    serial: str
    spiffe_id: str
    app: str
    spki_sha256: str
    not_before: int
    not_after: int
    how: str


class IssuedLog:
    """Writes and finds what was issued; `queue` certificates at most wait to be written."""

    def __init__(self, path: Path, queue: int) -> None:
        self._file = DatabaseFile(path, CONTENTS, _BUSY_S)
        self._most = queue
        self._queue: dict[str, Issued] = {}
        self._more = asyncio.Event()
        self._opened = contextlib.AsyncExitStack()
        self._db: aiosqlite.Connection | None = None

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be issued until something was written."""
        return len(self._queue) >= self._most

    def __len__(self) -> int:
        """Return how many wait to be written."""
        return len(self._queue)

    async def open(self, now: float) -> None:
        """Make or open the file, and drop what had ended by `now` (Unix time).

        Raises:
            BindError: the file cannot be used.
        """
        async with self._file.changing() as db:
            await db.execute("DELETE FROM issued WHERE not_after <= ?", (int(now),))
        self._db = await self._opened.enter_async_context(self._file.opened())
        await self._db.execute("PRAGMA synchronous = NORMAL")

    def add(self, issued: Issued) -> None:
        """Remember a certificate."""
        self._queue[issued.serial] = issued
        self._more.set()

    async def keep(
        self, wall: Callable[[], float], tell: Callable[[str], object] = lambda _: None
    ) -> None:
        """Write what waits and drop what has ended, for ever; to be run as a task.

        `tell` is called with what keeps us from it, once, and with "" when that has passed.
        """
        said = ""
        dropped = wall()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DROP_S):
                    await self._more.wait()
            await asyncio.sleep(BATCH_S)
            self._more.clear()
            now = wall()
            try:
                await self.flush()
                if not dropped <= now < dropped + DROP_S:
                    dropped = now
                    await self.drop(now)
            except aiosqlite.Error as error:
                problem = f"{FILE_NAME} cannot be written, and is tried again: {error}"
                if problem != said:
                    logger.warning("%s", problem)
                    tell(said := problem)
                self._more.set()
                await asyncio.sleep(RETRY_S)
            else:
                if said:
                    tell(said := "")

    async def flush(self) -> None:
        """Write what waits now; it waits further where that fails."""
        rows = list(self._queue.values())
        if not rows or self._db is None:
            return
        try:
            await self._db.execute("BEGIN IMMEDIATE")
            await self._db.executemany(
                f"INSERT OR REPLACE INTO issued ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
                [astuple(each) for each in rows],
            )
            await self._db.execute("COMMIT")
        except BaseException:  # cancelled at the end as well: `close` writes what waits
            with contextlib.suppress(aiosqlite.Error):
                await self._db.execute("ROLLBACK")
            raise
        for each in rows:
            self._queue.pop(each.serial, None)

    async def drop(self, now: float) -> None:
        """Forget what had ended by `now` (Unix time)."""
        if self._db is not None:
            await self._db.execute("DELETE FROM issued WHERE not_after <= ?", (int(now),))

    async def of_serial(self, serial: str) -> Issued | None:
        """Return the certificate with a serial number (lower-case hex)."""
        waiting = self._queue.get(serial)
        if waiting is not None:
            return waiting
        found = await self._find("serial = ?", (serial,))
        return found[0] if found else None

    async def valid(self, now: float, *, spiffe_id: str = "", app: str = "") -> list[Issued]:
        """Return what has not ended at `now` (Unix time), of a SPIFFE ID or of an app."""
        await self.flush()
        column, value = ("spiffe_id", spiffe_id) if spiffe_id else ("app", app)
        return await self._find(f"{column} = ? AND not_after > ?", (value, int(now)))

    async def close(self) -> None:
        """Write what waits, and close the file."""
        with contextlib.suppress(aiosqlite.Error):
            await self.flush()
        await self._opened.aclose()
        self._db = None

    async def _find(self, where: str, values: tuple[object, ...]) -> list[Issued]:
        if self._db is None:
            return []
        query = f"SELECT {_COLUMNS} FROM issued WHERE {where}"  # noqa: S608 - constants of ours
        return [Issued(*row) for row in await self._db.execute_fetchall(query, values)]
