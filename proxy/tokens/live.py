"""The tokens of a running appliance: what the file says, kept in memory while it runs.

The planes ask `tokens` and never the file.  Every change is written first and known then.  A file
that cannot be used means that no token is known, until it can be read again (`proxy.database`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, override

from proxy.database.live import LiveFile
from proxy.limits import Limits
from proxy.tokens.known import Issued, Purpose, Token, Tokens, Wanted


class _Kept(Protocol):
    """What is asked of `proxy.tokens.file.TokenFile`, which is imported when it is needed."""

    async def read(self) -> dict[bytes, Token]: ...

    async def issue(self, wanted: Wanted, now: float) -> Issued: ...

    async def rotate(
        self, which: str, now: float, grace_s: float | None, purpose: Purpose
    ) -> Issued: ...

    async def revoke(self, which: str, now: float, purpose: Purpose) -> tuple[Token, ...]: ...


class LiveTokens(LiveFile):
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
        super().__init__(path, "tokens", wall)
        self.tokens = Tokens(wall)
        self._limits = limits
        self._entropy = entropy
        self._opened: _Kept | None = None

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

            self._opened = TokenFile(self.path, self._limits, self._entropy)
        return self._opened

    @override
    async def _take(self) -> None:
        self.tokens.use(await self._file().read(), self.now())

    @override
    def _gone(self) -> str | None:
        if not self.tokens.all():
            return None
        text = "is gone, and no token is known; restore it, or issue new tokens"
        return f"the file of tokens {self.path} {text}"

    @override
    def _unusable(self) -> None:
        self.tokens.use({}, self.now())

    @override
    def _look(self, now: float) -> None:
        self.tokens.look(now)
