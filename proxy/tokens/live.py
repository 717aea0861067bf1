"""The tokens of a running appliance: what the file says, kept in memory while it runs.

The planes ask `tokens` and never the file.  Every change is written first and known then.  What
another process wrote (the command line, where it cannot reach the control socket) is noticed
within a second or two by the file's change.  A file that cannot be used means that no token is
known: `problem` says so until it can be read again.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from proxy.errors import BindError
from proxy.limits import Limits
from proxy.tokens.known import BusyError, Issued, Purpose, Token, Tokens, Wanted

logger = logging.getLogger(__name__)

TICK_S = 1.0
_RETRY_S = 10.0  # between looks at a file that could not be used and did not change

type Stamp = tuple[tuple[int, int, int] | None, ...]


class _Kept(Protocol):
    """What is asked of `proxy.tokens.file.TokenFile`, which is imported when it is needed."""

    async def read(self) -> dict[bytes, Token]: ...

    async def issue(self, wanted: Wanted, now: float) -> Issued: ...

    async def rotate(
        self, which: str, now: float, grace_s: float | None, purpose: Purpose
    ) -> Issued: ...

    async def revoke(self, which: str, now: float, purpose: Purpose) -> tuple[Token, ...]: ...


class LiveTokens:
    """Keeps `tokens` and the file at `path` the same; for the loop's thread only.

    `wall` returns Unix time in seconds; `entropy(n)` returns n random octets.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        wall: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self.tokens = Tokens(wall)
        self.problem: str | None = None
        self._path = path
        self._limits = limits
        self._entropy = entropy
        self._seen: Stamp = ()
        self._retry = 0.0
        self._changing = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._reading: asyncio.Task[None] | None = None
        self._opened: _Kept | None = None

    @property
    def path(self) -> Path:
        """Where the file is, or will be."""
        return self._path

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
        """Know what the file says now; nothing, where it cannot be used."""
        async with self._changing:
            await self._read()

    async def issue(self, wanted: Wanted) -> Issued:
        """Make a token; see `TokenFile.issue`."""
        async with self._changing:
            issued = await self._file().issue(wanted, self.tokens.now())
            await self._read()
            return issued

    async def rotate(
        self, which: str, grace_s: float | None = None, purpose: Purpose = Purpose.APP
    ) -> Issued:
        """Make the successor of a token; see `TokenFile.rotate`."""
        async with self._changing:
            issued = await self._file().rotate(which, self.tokens.now(), grace_s, purpose)
            await self._read()
            return issued

    async def revoke(self, which: str, purpose: Purpose = Purpose.APP) -> tuple[Token, ...]:
        """Void tokens at once; see `TokenFile.revoke`."""
        async with self._changing:
            revoked = await self._file().revoke(which, self.tokens.now(), purpose)
            await self._read()
            return revoked

    def list(self) -> tuple[Token, ...]:
        """Return every token that is remembered, the oldest first."""
        return self.tokens.all()

    def scrapes(self, secret: str) -> bool:
        """Return whether `secret` is a valid token for scraping metrics."""
        token = self.tokens.find(secret, self.tokens.now())
        return isinstance(token, Token) and token.purpose is Purpose.SCRAPE

    def _file(self) -> _Kept:
        if self._opened is None:
            # SQLite costs a megabyte and a half: who has no token never loads it.
            from proxy.tokens.file import TokenFile  # noqa: PLC0415 - loaded when needed, see above

            self._opened = TokenFile(self._path, self._limits, self._entropy)
        return self._opened

    async def _read(self) -> None:
        self._seen = self._stamp()
        now = self.tokens.now()
        if self._seen[0] is None:
            if self.tokens.all():
                text = "is gone, and no token is known; restore it, or issue new tokens"
                self._fail(BindError(f"the file of tokens {self._path} {text}"))
            return
        try:
            known = await self._file().read()
        except BindError as error:
            self._retry = now + _RETRY_S
            self._fail(error)
            return
        if self.problem is not None:
            logger.warning("the tokens in %s are known again", self._path)
        self.problem = None
        self.tokens.use(known, self.tokens.now())

    def _fail(self, error: BindError) -> None:
        if self.problem != str(error):
            logger.error("%s", error)
        self.problem = str(error)
        if not isinstance(error, BusyError):
            self.tokens.use({}, self.tokens.now())

    def _tick(self) -> None:
        now = self.tokens.now()
        self.tokens.look(now)
        is_retry = self.problem is not None and not now < self._retry <= now + _RETRY_S
        is_idle = self._reading is None or self._reading.done()
        if is_idle and not self._changing.locked() and (is_retry or self._stamp() != self._seen):
            self._reading = asyncio.get_running_loop().create_task(self.reload())
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _stamp(self) -> Stamp:
        """Return what differs once the file was changed: of it and of its write-ahead log."""
        return tuple(_stamp(f"{self._path}{suffix}") for suffix in ("", "-wal"))


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path, follow_symlinks=False)  # noqa: PTH116 - each second: a Path is slower
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
