"""What a database file says, kept in memory while the appliance runs.

Every change of ours is written and known in one step.  What another process wrote (the command
line, where it cannot reach the control socket) is noticed within a second or two by the file's
change.  While the file cannot be used, `problem` says so.
"""

import asyncio
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from proxy.errors import BindError

logger = logging.getLogger(__name__)

TICK_S = 1.0
RETRY_S = 10.0  # between looks at a file that could not be used and did not change

type Stamp = tuple[tuple[int, int, int] | None, ...]


class BusyError(BindError):
    """The file cannot be read now and may be soon: another writer, or a full disk."""


class LiveFile(ABC):
    """Keeps memory and the file at `path` the same; for the loop's thread only.

    `things` is what the file holds, as messages name it; `wall` returns Unix time in seconds.
    """

    def __init__(self, path: Path, things: str, wall: Callable[[], float]) -> None:
        self.problem: str | None = None
        self.path = path
        self.now = wall
        self._things = things
        self._seen: Stamp = ()
        self._retry = 0.0
        self._changing = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._reading: asyncio.Task[None] | None = None

    @abstractmethod
    async def _take(self) -> None:
        """Know what the file says, which is there.

        Raises:
            BindError: it cannot be used; nothing was changed then.
        """

    @abstractmethod
    def _gone(self) -> str | None:
        """Return what to say where there is no file; None where none is missed."""

    @abstractmethod
    def _unusable(self) -> None:
        """Act on it that the file cannot be used, and not only for a moment."""

    @abstractmethod
    def _look(self, now: float) -> None:
        """Notice what time has changed; called about once a second."""

    async def open(self) -> None:
        """Read the file and watch it from now on; what is wrong with it stands in `problem`."""
        await self.reload()
        self._tick()

    async def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)

    async def reload(self) -> None:
        """Know what the file says now."""
        async with self._changing:
            await self._read()

    async def _read(self) -> None:
        self._seen = self._stamp()
        if self._seen[0] is None:
            text = self._gone()
            if text is not None:
                self._fail(BindError(text))
            return
        try:
            await self._take()
        except BindError as error:
            self._retry = self.now() + RETRY_S
            self._fail(error)
            return
        if self.problem is not None:
            logger.warning("the %s in %s are known again", self._things, self.path)
        self.problem = None

    def _fail(self, error: BindError) -> None:
        if self.problem != str(error):
            logger.error("%s", error)
        self.problem = str(error)
        if not isinstance(error, BusyError):
            self._unusable()

    def _tick(self) -> None:
        now = self.now()
        self._look(now)
        is_retry = self.problem is not None and not now < self._retry <= now + RETRY_S
        is_idle = self._reading is None or self._reading.done()
        if is_idle and not self._changing.locked() and (is_retry or self._stamp() != self._seen):
            self._reading = asyncio.get_running_loop().create_task(self.reload())
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _stamp(self) -> Stamp:
        """Return what differs once the file was changed: of it and of its write-ahead log."""
        return tuple(_stamp(f"{self.path}{suffix}") for suffix in ("", "-wal"))


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path, follow_symlinks=False)  # noqa: PTH116 - each second: a Path is slower
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
