"""The capability tokens of a running appliance, and the file that outlasts it.

What is granted is written a moment later: a crash takes the last of it along, and a token that
nobody knows any more is inactive.  What is voided is in force at once, and on the disk when
`settled` returns.  While the file cannot be used, `problem` says so, and nothing is granted.
"""

import asyncio
import contextlib
import importlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, override

from proxy.capabilities.known import Capabilities
from proxy.capabilities.token import CapabilityToken
from proxy.database.lazy import LazyFile
from proxy.errors import BindError
from proxy.limits import Limits

if TYPE_CHECKING:
    from proxy.capabilities.file import CapabilityFile

FILE_NAME = "capabilities.sqlite"
"""In the folder of state."""

TICK_S: Final = 1.0
EXPIRE_S: Final = 60.0  # between deletions of what has expired

type Stamp = tuple[tuple[int, int] | None, ...]


class LiveCapabilities(LazyFile["CapabilityFile"]):
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
        super().__init__(path, wall, TICK_S)
        self.known = Capabilities(limits, hit_bound)
        self._limits = limits
        self._count = count
        self._seen: Stamp = ()
        self._read: Stamp = ()
        self._expire_at = 0.0

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

    @override
    def _look(self, now: float) -> None:
        self.known.look(now)
        self._count(self.known.current)
        if self._file is not None and not now < self._expire_at <= now + EXPIRE_S:
            self._expire_at = now + EXPIRE_S
            self._file.expire(now)

    @override
    def _is_due(self, now: float) -> bool:
        """Return whether another process wrote, or the file may be used again."""
        return super()._is_due(now) if self._file is None else self._stamp() != self._seen

    @override
    async def _try(self) -> None:
        if self._file is None:
            await super()._try()
            return
        with contextlib.suppress(BindError):
            await self._learn(self._file)

    @override
    async def _load(self) -> "CapabilityFile":
        # Loading it takes longer than a query may wait.
        module = await asyncio.to_thread(importlib.import_module, "proxy.capabilities.file")
        file: CapabilityFile = module.CapabilityFile(self.path, self._limits)
        for each in await file.open(self.now()):
            self.known.add(each)
        return file

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

    def _stamp(self) -> Stamp:
        """Return what differs once the file was written: of it and of its write-ahead log."""
        return tuple(_stamp(f"{self.path}{suffix}") for suffix in ("", "-wal"))


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - each second: a Path is slower
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
