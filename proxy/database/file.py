"""A database file: SQLite, 0600, opened for each errand and closed again.

A running appliance and the command line use the same code on the same file; SQLite's own locks
keep them apart.  What was changed is on the disk (WAL, synchronous=FULL) before `changing` ends.
What is no such file, or one that others may write, is never read and never overwritten.
"""

import os
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiosqlite
from msgspec import Struct

from proxy.database.live import BusyError
from proxy.errors import BindError

_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)


class Contents(Struct, frozen=True):
    """What a file holds: `things` as errors name them, and `cure`, what to do without the file.

    `tables` are the statements that make it, one each.  `upgrades` are those that make schema 2 of
    schema 1, and so on; a file is brought up when it is next changed, and read as it is until then.
    """

    things: str
    cure: str
    tables: tuple[str, ...]
    upgrades: tuple[str, ...] = ()

    @property
    def schema(self) -> int:
        """The schema that `tables` make."""
        return len(self.upgrades) + 1


class UnfitError(Exception):
    """What is wrong with the file, and the cure."""


class DatabaseFile:
    """The file at `path`; another writer is waited for for `busy_s` seconds."""

    def __init__(self, path: Path, contents: Contents, busy_s: float) -> None:
        self.path = path
        self._contents = contents
        self._busy_s = busy_s

    @property
    def is_there(self) -> bool:
        """Whether there is anything at the path."""
        return self.path.exists(follow_symlinks=False)

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[aiosqlite.Connection]:
        """Open the file, made where there is none, for one change that is whole or not at all.

        Raises:
            BindError: the file cannot be used; a `BusyError` where that may pass.
        """
        self._create()
        async with self.opened() as db:
            await db.execute("BEGIN IMMEDIATE")
            await self._migrate(db)
            yield db  # an error leaves without COMMIT: closing rolls back
            await db.execute("COMMIT")

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[aiosqlite.Connection]:
        """Open the file, which is there; an `UnfitError` from inside is worded like our own.

        Raises:
            BindError: the file cannot be used; a `BusyError` where that may pass.
        """
        things = f"the {self._contents.things} in {self.path}"
        try:
            self._check()
            connection = aiosqlite.connect(
                f"{self.path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=self._busy_s,
                isolation_level=None,
            )
            async with connection as db:
                await self._prepare(db)
                yield db
        except sqlite3.Error as error:
            raise self._explained(things, error) from error
        except UnfitError as error:
            raise BindError(f"{things} are not used: {error}") from None
        except OSError as error:
            raise BindError(f"{things}: {error.strerror}") from error

    def _create(self) -> None:
        """Make the file, empty and ours alone, where there is none: SQLite never creates it."""
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self.is_there:
                return
            # Of two that make it at once one waits for the other's locks, as later on.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self.path, flags, 0o600)
        except OSError as error:
            text = f"{self.path} cannot be made: {error.strerror}; name a writable --state"
            raise BindError(text) from error
        try:
            os.fchmod(descriptor, 0o600)
            owner = folder.stat()
            if os.geteuid() == 0 and owner.st_uid:  # root at work for the appliance's own user
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
        finally:
            os.close(descriptor)

    def _check(self) -> None:
        found = self.path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise UnfitError("it is no regular file; move it away")
        if found.st_mode & 0o077:
            raise UnfitError(f"other users may open it; chmod 600 {self.path}")
        if found.st_uid not in {os.geteuid(), 0} and os.geteuid():
            raise UnfitError("it belongs to another user; chown it or move it away")

    async def _prepare(self, db: aiosqlite.Connection) -> None:
        """Set what each connection sets, and refuse what is not our file, or not whole."""
        version = await version_of(db)
        [(tables,)] = await db.execute_fetchall("SELECT count(*) FROM sqlite_schema")
        if version > self._contents.schema:
            raise UnfitError(f"a newer version wrote it (schema {version}); use that version")
        if not version and tables:
            raise UnfitError("it is another program's database; move it away")
        [(verdict,)] = await db.execute_fetchall("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise UnfitError(f"it is damaged ({verdict}); restore it, or move it away")
        await db.execute_fetchall("PRAGMA journal_mode = WAL")
        await db.execute("PRAGMA synchronous = FULL")

    async def _migrate(self, db: aiosqlite.Connection) -> None:
        contents, version = self._contents, await version_of(db)
        for statement in contents.upgrades[version - 1 :] if version else contents.tables:
            await db.execute(statement)
        if version != contents.schema:
            await db.execute(f"PRAGMA user_version = {contents.schema}")

    def _explained(self, things: str, error: sqlite3.Error) -> BindError:
        code = getattr(error, "sqlite_errorcode", None) or 0
        if code & 0xFF in _PASSING:
            return BusyError(f"{things} cannot be used now: {error}; try again")
        return BindError(f"{things} cannot be used: {error}; {self._contents.cure}")


async def version_of(db: aiosqlite.Connection) -> int:
    """Return the schema of the file; 0 while nothing was written to it."""
    [(version,)] = await db.execute_fetchall("PRAGMA user_version")
    return int(version)
