"""The capability tokens of a running appliance, and the file that outlasts it.

What is granted is written a moment later: a crash takes the last of it along, and a token that
nobody knows any more is inactive.  What is voided is in force at once, and on the disk when
`settled` returns.  While the file cannot be used, `problem` says so, and nothing is granted.
"""

import asyncio
import contextlib
import importlib
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy.capabilities.known import Capabilities
from proxy.capabilities.token import CapabilityToken
from proxy.errors import BindError
from proxy.limits import Limits

if TYPE_CHECKING:
    from proxy.capabilities.file import CapabilityFile

logger = logging.getLogger(__name__)

FILE_NAME = "capabilities.sqlite"
"""In the folder of state."""

TICK_S: Final = 1.0
RETRY_S: Final = 10.0  # between tries to open a file that could not be used
EXPIRE_S: Final = 60.0  # between deletions of what has expired

type Stamp = tuple[tuple[int, int] | None, ...]


class LiveCapabilities:
    """Keeps `known` and the file at `path` the same; for the loop's thread only.

    `wall` returns Unix time in seconds; `hit_bound` is called with the name of a limit that was
    met, `count` each second with how many tokens stand.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        wall: Callable[[], float],
        hit_bound: Callable[[str], object] = lambda _: None,
        count: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.known = Capabilities(limits, hit_bound)
        self.path = path
        self.now = wall
        self._limits = limits
        self._count = count
        self._file: CapabilityFile | None = None
        self._failed: str | None = None
        self._seen: Stamp = ()
        self._read: Stamp = ()
        self._opening = asyncio.Lock()
        self._retry_at = 0.0
        self._expire_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None

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
        """Read the file where there is one, and look at it each second from now on.

        What is wrong with it stands in `problem`.
        """
        if self.path.exists(follow_symlinks=False):
            await self._try()
        self._tick()

    async def close(self) -> None:
        """Write what waits, and close the file."""
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            await asyncio.gather(self._looking, return_exceptions=True)
        if self._file is not None:
            await self._file.behind.close()

    async def ready(self) -> None:
        """Open the file where that was not needed yet.

        Raises:
            BindError: it cannot be used, or not be written just now.
        """
        if self._file is None and self._failed is None:
            # SQLite costs a megabyte and a half: where nobody exchanges it is never loaded.
            await self._open()
        if self.problem is not None:
            raise BindError(self.problem)

    def keep(self, token: CapabilityToken) -> None:
        """Know `token` from now on; `ready` was awaited before."""
        self.known.add(token)
        if self._file is not None:
            self._file.keep((token,))

    def void(self, ids: Iterable[str], why: str) -> tuple[CapabilityToken, ...]:
        """Let these, and all that was made of them, count for nothing; return what did until now.

        It is in force when this returns, and on the disk when `settled` does.
        """
        voided = self.known.void(ids, self.now(), why)
        if self._file is not None:
            self._file.keep(voided)
        return voided

    async def settled(self) -> None:
        """Return once everything that was changed is on the disk.

        Raises:
            BindError: it cannot be written; what was voided is in force, and written later.
        """
        if self._file is not None:
            await self._file.behind.settled()

    def _tick(self) -> None:
        # First of all: whatever goes wrong below, there is a next look.
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        now = self.now()
        self.known.look(now)
        self._count(self.known.current)
        if self._file is not None and not now < self._expire_at <= now + EXPIRE_S:
            self._expire_at = now + EXPIRE_S
            self._file.expire(now)
        if self._looking is None or self._looking.done():
            self._look(now)

    def _look(self, now: float) -> None:
        """Notice what another process wrote, or that the file can be used again."""
        if self._file is not None:
            is_due = self._stamp() != self._seen
        else:
            is_due = self._failed is not None and not now < self._retry_at <= now + RETRY_S
        if is_due:
            self._looking = asyncio.get_running_loop().create_task(self._try())

    async def _try(self) -> None:
        with contextlib.suppress(BindError):
            await (self._open() if self._file is None else self._learn(self._file))

    async def _open(self) -> None:
        async with self._opening:
            if self._file is not None:
                return
            # Loading it takes longer than a query may wait.
            module = await asyncio.to_thread(importlib.import_module, "proxy.capabilities.file")
            file: CapabilityFile = module.CapabilityFile(self.path, self._limits)
            try:
                tokens = await file.open(self.now())
            except BindError as error:
                self._retry_at = self.now() + RETRY_S
                self._note(str(error))
                raise
            self._note(None)
            self._file = file
        for each in tokens:
            self.known.add(each)

    async def _learn(self, file: "CapabilityFile") -> None:
        """Know what another process voided in the file."""
        seen = self._stamp()  # before it is read: what comes later is another change
        try:
            void = await file.void()
        except BindError as error:
            self._note(str(error))
            raise
        self._note(None)
        # Two writes within a tick of the kernel's clock look alike: what was read twice is seen.
        self._seen, self._read = seen if seen == self._read else (), seen
        for unique, why in void:
            self.known.void((unique,), self.now(), why)

    def _note(self, problem: str | None) -> None:
        if problem is not None and problem != self._failed:
            logger.error("%s", problem)
        if problem is None and self._failed is not None:
            logger.warning("%s can be used again", self.path)
        self._failed = problem

    def _stamp(self) -> Stamp:
        """Return what differs once the file was written: of it and of its write-ahead log."""
        return tuple(_stamp(f"{self.path}{suffix}") for suffix in ("", "-wal"))


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - each second: a Path is slower
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
