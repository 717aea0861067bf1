"""Rows that are written a little later, many in one transaction: what each of them costs is small.

What waits is remembered by a key, and a later row takes the place of an earlier one of its key.
It is on the disk within `BATCH_S`, or when `settled` returns.  A crash takes the last `BATCH_S`
along: only what is safe to lose is left to wait.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Hashable
from itertools import groupby
from pathlib import Path

import aiosqlite

from proxy.database.file import Contents, DatabaseFile
from proxy.errors import BindError

logger = logging.getLogger(__name__)

BATCH_S = 0.1
RETRY_S = 1.0  # after a write that failed

type Row = tuple[str, tuple[object, ...]]
"""A statement, and its values."""


class Behind:
    """Writes rows to the file at `path`; `queue` of them at most wait, which the caller heeds.

    For the loop's thread only.  `problem` says what keeps it from writing; None: nothing does.
    """

    def __init__(self, path: Path, contents: Contents, busy_s: float, queue: int) -> None:
        self.problem: str | None = None
        self._file = DatabaseFile(path, contents, busy_s)
        self._most = queue
        self._queue: dict[Hashable, Row] = {}
        self._more = asyncio.Event()
        self._writing = asyncio.Lock()
        self._opened = contextlib.AsyncExitStack()
        self._db: aiosqlite.Connection | None = None
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Return how many wait to be written."""
        return len(self._queue)

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be put until something was written."""
        return len(self._queue) >= self._most

    async def open(self, read: Callable[[aiosqlite.Connection], Awaitable[None]]) -> None:
        """Make or open the file, let `read` read it, and write to it from now on.

        Raises:
            BindError: the file cannot be used; an `UnfitError` from `read` is worded like our own.
        """
        async with self._file.changing():
            pass  # made, and brought up to the schema
        async with contextlib.AsyncExitStack() as opened:
            db = await opened.enter_async_context(self._file.opened())
            await read(db)
            self._opened, self._db = opened.pop_all(), db
        self._task = asyncio.get_running_loop().create_task(self._keep())

    def put(self, key: Hashable, statement: str, values: tuple[object, ...]) -> None:
        """Remember a row; it takes the place of what waits under `key`, and comes last."""
        self._queue.pop(key, None)
        self._queue[key] = statement, values
        self._more.set()

    async def settled(self) -> None:
        """Return once everything that was put is on the disk.

        Raises:
            BindError: it cannot be written, and that is tried again.
        """
        async with self._writing:
            try:
                await self._flush()
            except (aiosqlite.Error, ValueError, OverflowError) as error:  # the last: of a value
                self._more.set()
                raise BindError(self._failed(error)) from error

    async def close(self) -> None:
        """Write what waits, and close the file."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(BindError):
            await self.settled()
        await self._opened.aclose()
        self._db = None

    async def _keep(self) -> None:
        """Write what waits, for ever."""
        while True:
            await self._more.wait()
            await asyncio.sleep(BATCH_S)
            self._more.clear()
            with contextlib.suppress(BindError):
                await self.settled()
            if self.problem is not None:
                await asyncio.sleep(RETRY_S)

    async def _flush(self) -> None:
        """Write what waits now; it waits further where that fails."""
        rows = dict(self._queue)
        if not rows or self._db is None:
            return
        try:
            await self._db.execute("BEGIN IMMEDIATE")
            for statement, run in groupby(rows.values(), key=lambda row: row[0]):
                await self._db.executemany(statement, [values for _, values in run])
            await self._db.execute("COMMIT")
        except BaseException:  # cancelled at the end as well: `close` writes what waits
            with contextlib.suppress(aiosqlite.Error):
                await self._db.execute("ROLLBACK")
            raise
        for key, row in rows.items():
            if self._queue.get(key) is row:  # else a later one waits
                del self._queue[key]
        if self.problem is not None:
            logger.warning("%s is written again", self._file.path)
        self.problem = None

    def _failed(self, error: Exception) -> str:
        problem = f"{self._file.path} cannot be written, and is tried again: {error}"
        if problem != self.problem:
            logger.error("%s", problem)
        self.problem = problem
        return problem
