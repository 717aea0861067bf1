"""The secrets of a running appliance: what the file says, kept as fingerprints while it runs.

A change is on the disk first, and looked for then.  Whatever happens to the file, what was looked
for still is, and `problem` says so.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, override

from proxy.canaries.known import KnownSecrets
from proxy.canaries.secret import Kept, Secret, WantedSecret
from proxy.database.live import LiveFile
from proxy.errors import BindError
from proxy.limits import Limits
from rules.secret_scan import SecretTable


class _File(Protocol):
    """What is asked of `proxy.canaries.file.SecretFile`, which is imported when it is needed."""

    async def read(self) -> Kept: ...

    async def add(self, wanted: WantedSecret, now: float, by_uid: int) -> Secret: ...

    async def remove(self, name: str) -> Secret: ...


class LiveSecrets(LiveFile):
    """Keeps `known` and the file at `path` the same; for the loop's thread only.

    `wall` returns Unix time in seconds, `entropy(n)` n random octets.
    """

    def __init__(
        self,
        path: Path,
        known: KnownSecrets,
        limits: Limits,
        wall: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        super().__init__(path, "registered secrets", wall)
        self.known = known
        self._limits = limits
        self._entropy = entropy
        self._secrets: dict[str, Secret] = {}
        self._changed: list[Callable[[], object]] = []
        self._opened: _File | None = None

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call `callback` after others are looked for than before: names are decided anew."""
        self._changed.append(callback)

    @override
    async def open(self) -> None:
        """Read the file and watch it from now on.

        Raises:
            BindError: it cannot be read, and nobody knows what must not leak.
        """
        await self.reload()
        if self.problem is not None:
            raise BindError(self.problem)
        self._tick()

    def list(self) -> tuple[Secret, ...]:
        """Return every secret that is registered, the oldest first."""
        return tuple(self._secrets.values())

    async def add(self, wanted: WantedSecret, by_uid: int) -> Secret:
        """Register a secret; see `SecretFile.add`.  It is looked for when this returns."""
        async with self._changing:
            file = await self._file()
            made = await file.add(wanted, self.now(), by_uid)
            await self._read()
            return made

    async def remove(self, name: str) -> Secret:
        """Forget a secret; see `SecretFile.remove`."""
        async with self._changing:
            file = await self._file()
            removed = await file.remove(name)
            await self._read()
            return removed

    async def _file(self) -> _File:
        if self._opened is None:
            # SQLite costs a megabyte and a half: who has no secret never loads it.  Loading takes
            # longer than a query may wait.
            self._opened = await asyncio.to_thread(self._made)
        return self._opened

    def _made(self) -> _File:
        from proxy.canaries.file import SecretFile  # noqa: PLC0415 - loaded when needed, see above

        return SecretFile(self.path, self._limits, self._entropy)

    @override
    async def _take(self) -> None:
        kept = await (await self._file()).read()
        if kept.secrets == self._secrets:
            return
        if not kept.key:  # it is kept when the last secret is forgotten
            raise BindError(f"{self.path} is empty; restore it, or move it away")
        # A hundred secrets take a tenth of a second.
        table = await asyncio.to_thread(SecretTable, kept.key, kept.windows)
        self._secrets = dict(kept.secrets)
        self.known.use(table)
        for callback in self._changed:
            callback()

    @override
    def _gone(self) -> str | None:
        if not self._secrets:
            return None
        text = "is gone; what was registered is looked for until we end: restore it"
        return f"the file of registered secrets {self.path} {text}, or register all again"

    @override
    def _unusable(self) -> None:
        """What was looked for still is."""

    @override
    def _look(self, now: float) -> None:
        """Nothing here ends by itself."""
