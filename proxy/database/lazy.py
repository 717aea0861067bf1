"""A database file that is opened when it is first needed, and written behind.

SQLite costs a megabyte and a half: where nothing was ever kept it is never loaded.  A file that
cannot be used is tried again every `RETRY_S`; until then `problem` says so.
"""

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from proxy.errors import BindError

if TYPE_CHECKING:
    from proxy.database.behind import Behind

logger = logging.getLogger(__name__)

RETRY_S: Final = 10.0  # between tries to open a file that could not be used


class Written(Protocol):
    """What is open: it writes behind."""

    @property
    def behind(self) -> "Behind":
        """What writes."""


class LazyFile[F: Written](ABC):
    """The file at `path`, for the loop's thread only; a look is taken every `tick_s` seconds.

    `wall` returns Unix time in seconds.
    """

    def __init__(self, path: Path, wall: Callable[[], float], tick_s: float) -> None:
        self.path = path
        self.now = wall
        self._tick_s = tick_s
        self._file: F | None = None
        self._failed: str | None = None
        self._opening = asyncio.Lock()
        self._retry_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._trying: asyncio.Task[None] | None = None

    @abstractmethod
    async def _load(self) -> F:
        """Open the file, and know what it says.

        Raises:
            BindError: it cannot be used; nothing was changed then.
        """

    @abstractmethod
    def _look(self, now: float) -> None:
        """Notice what time has changed."""

    @property
    def problem(self) -> str | None:
        """What is wrong with the file, and what to do; None while it can be used."""
        if self._failed is not None or self._file is None:
            return self._failed
        return self._file.behind.problem

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be kept until something was written."""
        return self._file is not None and self._file.behind.is_full

    async def open(self) -> None:
        """Read the file where there is one, and look from now on.

        What is wrong with it stands in `problem`.
        """
        if self.path.exists(follow_symlinks=False):
            await self._try()
        self._tick()

    async def close(self) -> None:
        """Write what waits, and close the file."""
        if self._timer is not None:
            self._timer.cancel()
        if self._trying is not None:
            await asyncio.gather(self._trying, return_exceptions=True)
        if self._file is not None:
            await self._file.behind.close()

    async def ready(self) -> None:
        """Open the file where that was not needed yet.

        Raises:
            BindError: it cannot be used, or not be written just now.
        """
        if self._file is None and self._failed is None:
            await self._open()
        if self.problem is not None:
            raise BindError(self.problem)

    async def settled(self) -> None:
        """Return once everything that was changed is on the disk.

        Raises:
            BindError: it cannot be written; what was changed is in force, and written later.
        """
        if self._file is not None:
            await self._file.behind.settled()

    def _tick(self) -> None:
        # First of all: whatever goes wrong below, there is a next look.
        self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._tick)
        now = self.now()
        self._look(now)
        if (self._trying is None or self._trying.done()) and self._is_due(now):
            self._trying = asyncio.get_running_loop().create_task(self._try())

    def _is_due(self, now: float) -> bool:
        """Return whether the file is to be looked into: here, where it can be tried again."""
        is_failed = self._file is None and self._failed is not None
        return is_failed and not now < self._retry_at <= now + RETRY_S

    async def _try(self) -> None:
        with contextlib.suppress(BindError):
            await self._open()

    async def _open(self) -> None:
        async with self._opening:
            if self._file is not None:
                return
            try:
                file = await self._load()
            except BindError as error:
                self._retry_at = self.now() + RETRY_S
                self._note(str(error))
                raise
            self._note(None)
            self._file = file

    def _note(self, problem: str | None) -> None:
        if problem is not None and problem != self._failed:
            logger.error("%s", problem)
        if problem is None and self._failed is not None:
            logger.warning("%s can be used again", self.path)
        self._failed = problem
