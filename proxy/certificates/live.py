"""The revocations of a running appliance: in force first, then on the disk, then acknowledged.

The planes ask `revocations` and never the file.  Whatever happens to the file, nothing that was
revoked comes back by it: what was known stays in force, is written again where the file is gone,
and `problem` says so for as long as that fails.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol, override

from proxy.certificates.revoked import Kind, Revocation, Revocations, UnknownRevocationError, full
from proxy.database.live import RETRY_S, LiveFile
from proxy.errors import BindError, ConfigError
from proxy.limits import Limits

logger = logging.getLogger(__name__)

NOBODY: Final = -1
"""In the place of the admin's uid: what we revoked by ourselves."""


class _Kept(Protocol):
    """What is asked of `proxy.certificates.file`, which is imported when it is needed."""

    async def read(self) -> list[Revocation]: ...

    async def revoke(self, revocations: tuple[Revocation, ...], now: float) -> None: ...

    async def restore(self, kind: Kind, value: str) -> None: ...


class LiveRevocations(LiveFile):
    """Keeps `revocations` and the file at `path` the same; for the loop's thread only.

    `wall` returns Unix time in seconds.
    """

    def __init__(self, path: Path, limits: Limits, wall: Callable[[], float]) -> None:
        super().__init__(path, "revocations", wall)
        self.revocations = Revocations()
        self._limits = limits
        self._unwritten: dict[tuple[Kind, str], Revocation] = {}  # in force, not yet on the disk
        self._opened: _Kept | None = None
        self._written: list[Callable[[], object]] = []

    def on_written(self, callback: Callable[[], object]) -> None:
        """Call `callback` when what was in force is on the disk too: who reads the file may."""
        self._written.append(callback)

    @override
    async def open(self) -> None:
        """Read the file and watch it from now on.

        Raises:
            BindError: it cannot be read, and nobody knows what was revoked.
        """
        await self.reload()
        if self.problem is not None:
            raise BindError(self.problem)
        self._tick()

    async def revoke(
        self,
        kind: Kind,
        value: str,
        *,
        why: str = "",
        by_uid: int = NOBODY,
        until: float | None = None,
    ) -> Revocation:
        """Let `value` count for nothing from now on; return since when it does.

        It is in force when this gives way for the first time, and on the disk when it returns.

        Raises:
            ConfigError: there are `limits.revocations` already; nothing was changed.
            BindError: it is in force, and not on the disk: that is tried again.
        """
        known = self.revocations.get(kind, value)
        if known is None:
            if len(self.revocations) >= self._limits.revocations:
                raise full(self._limits.revocations)
            known = Revocation(kind, value, self.now(), why, by_uid, until)
            self._unwritten[known.key] = known
            self.revocations.use((*self.revocations.all(), known), is_ours=True)
        async with self._changing:
            if self._unwritten:
                # The first time this loads SQLite, which takes longer than a query may wait.
                await asyncio.to_thread(self._file)
                await self._read()
        if known.key in self._unwritten:
            raise BindError(f"{value} is revoked, but only until we end: {self.problem}")
        if self.revocations.get(kind, value) is None and known.stands(self.now()):
            # A `restore` was under way: of the two it is the revocation that stands.
            return await self.revoke(kind, value, why=why, by_uid=by_uid, until=until)
        return known

    async def revoke_serials(self, serials: Mapping[str, float], why: str) -> None:
        """Let certificates count for nothing, each until it ends (Unix time), in one step.

        Raises:
            ConfigError: there is room for the first of them alone; those are revoked.
            BindError: as in `revoke`.
        """
        most, now = self._limits.revocations, self.now()
        new = [
            Revocation(Kind.SERIAL, serial, now, why, NOBODY, until)
            for serial, until in serials.items()
            if self.revocations.get(Kind.SERIAL, serial) is None
        ]
        fits = new[: max(most - len(self.revocations), 0)]
        self._unwritten |= {each.key: each for each in fits}
        self.revocations.use((*self.revocations.all(), *fits), is_ours=True)
        for each in fits:  # the first of them writes them all
            await self.revoke(each.kind, each.value, why=why, until=each.until)
        if len(fits) < len(new):
            raise full(most)

    async def restore(self, kind: Kind, value: str) -> Revocation:
        """Let `value` count again; return what was its revocation.

        Raises:
            UnknownRevocationError: it is not revoked.
            BindError: the file cannot be written; it stays revoked.
        """
        known = self.revocations.get(kind, value)
        if known is None:
            raise UnknownRevocationError(f"{value} is not revoked; `sallyport revoked` shows all")
        async with self._changing:
            if self._unwritten or self._is_gone():
                await self._read()
            await self._file().restore(kind, value)
            self._unwritten.pop(known.key, None)
            rest = [each for each in self.revocations.all() if each.key != known.key]
            self.revocations.use(rest, is_ours=True)
            await self._read()
        return known

    def list(self) -> tuple[Revocation, ...]:
        """Return every revocation that stands, the oldest first."""
        return self.revocations.all()

    def _file(self) -> _Kept:
        if self._opened is None:
            # SQLite costs a megabyte and a half: who revoked nothing never loads it.
            from proxy.certificates.file import RevocationFile  # noqa: PLC0415 - when needed

            self._opened = RevocationFile(self.path, self._limits)
        return self._opened

    @override
    async def _read(self) -> None:
        if len(self.revocations) and self._is_gone():
            if not self._unwritten:
                logger.error("the revocations in %s are gone; they are written again", self.path)
            self._unwritten = {each.key: each for each in self.revocations.all()}
        if self._unwritten:
            await self._write()
        else:
            await super()._read()

    def _is_gone(self) -> bool:
        """Return whether the file that was read last is empty, another one or none."""
        found, seen = self._stamp()[0], self._seen[0] if self._seen else None
        if found is None:
            return True
        (inode, _, octets) = found
        return not octets or (seen is not None and seen[0] != inode)  # SQLite keeps the inode

    async def _write(self) -> None:
        """Write what is in force and not on the disk; then know what the file says."""
        waiting = tuple(self._unwritten.values())
        try:
            await self._file().revoke(waiting, self.now())
        except (BindError, ConfigError) as error:
            self._seen = self._stamp()
            self._retry = self.now() + RETRY_S
            self._fail(BindError(f"what was revoked is in force, but not on the disk: {error}"))
            return
        for each in waiting:
            self._unwritten.pop(each.key, None)
        for callback in self._written:
            callback()
        await super()._read()

    @override
    async def _take(self) -> None:
        now = self.now()
        known = [each for each in await self._file().read() if each.stands(now)]
        self.revocations.use((*known, *self._unwritten.values()))

    @override
    def _gone(self) -> str | None:
        return None  # nothing is known, or it was written just now

    @override
    def _unusable(self) -> None:
        """What was known stays in force."""

    @override
    def _look(self, now: float) -> None:
        self.revocations.look(now)
