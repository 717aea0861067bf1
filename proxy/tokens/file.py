"""The file of tokens: SQLite, 0600, opened for each errand and closed again.

A running appliance and the command line use the same code on the same file; SQLite's own locks
keep them apart.  A token is on the disk (WAL, synchronous=FULL) before its secret is shown.
What is no such file, or one that others may write, is never read and never overwritten.
"""

import os
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import aiosqlite
import msgspec

from proxy.errors import BindError, ConfigError
from proxy.limits import Limits
from proxy.tokens.known import (
    SECRET_OCTETS,
    BusyError,
    Issued,
    Purpose,
    Token,
    UnknownTokenError,
    Wanted,
    digest,
    new_secret,
)

FILE_NAME = "sallyport.sqlite"
_SCHEMA = 1
_REMEMBERED_S = 604800.0  # an expired token is told from one that never was for a week
_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)
_LISTS = {Purpose.APP: "sallyport app list", Purpose.SCRAPE: "sallyport metrics list"}
_TABLE = """\
CREATE TABLE token (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
  name TEXT NOT NULL,
  purpose TEXT NOT NULL,
  created REAL NOT NULL,
  expires REAL NOT NULL,
  bind_uid INTEGER,
  rotated REAL,
  revoked REAL
) STRICT"""
_COLUMNS = "number, digest, name, purpose, created, expires, bind_uid, rotated, revoked"


class TokenFile:
    """The tokens that are on the disk; `entropy(n)` returns n random octets."""

    def __init__(self, path: Path, limits: Limits, entropy: Callable[[int], bytes]) -> None:
        self._path = path
        self._limits = limits
        self._entropy = entropy

    async def read(self) -> dict[bytes, Token]:
        """Return every token by the digest of its secret; none where there is no file.

        Raises:
            BindError: the file cannot be used; a `BusyError` where that may pass.
        """
        if not self._path.exists(follow_symlinks=False):
            return {}
        async with self._opened() as db:
            return await _all(db)

    async def issue(self, wanted: Wanted, now: float) -> Issued:
        """Write a new token and return it with its secret; `now` is Unix time.

        Raises:
            ConfigError: its life is too long, or there are `limits.tokens` already.
            BindError: the file cannot be used.
        """
        ttl_s = self._limits.token_ttl_s if wanted.ttl_s is None else wanted.ttl_s
        if not 0 < ttl_s <= self._limits.token_most_ttl_s:
            most = f"{self._limits.token_most_ttl_s / 86400:g} days"
            raise ConfigError(f"a token lives longer than 0 s and {most} at most; shorten --ttl")
        async with self._changing() as db:
            await self._make_room(db, now)
            return await self._insert(db, wanted, now, now + ttl_s)

    async def rotate(
        self, which: str, now: float, grace_s: float | None = None, purpose: Purpose = Purpose.APP
    ) -> Issued:
        """Write a successor of the token `which`, an id or a name; the old one has its grace.

        The new one is for the same name, uid and length of life.

        Raises:
            UnknownTokenError: there is none that could be rotated, or more than one.
            ConfigError: there are `limits.tokens` already.
            BindError: the file cannot be used.
        """
        grace_s = self._limits.token_grace_s if grace_s is None else grace_s
        async with self._changing() as db:
            found = _named((await _all(db)).values(), which, purpose)
            fresh = [token for token in found if not (token.revoked or token.rotated)]
            old = _one(fresh, which, purpose)
            await self._make_room(db, now, kept=old)
            wanted = Wanted(name=old.name, purpose=old.purpose, bind_uid=old.bind_uid)
            issued = await self._insert(db, wanted, now, now + old.expires - old.created)
            ends = min(old.expires, now + max(grace_s, 0.0))
            replaced = msgspec.structs.replace(old, rotated=now, expires=ends)
            statement = "UPDATE token SET rotated = ?, expires = ? WHERE number = ?"
            await db.execute(statement, (now, ends, _number(old)))
            return Issued(issued.token, issued.secret, replaced)

    async def revoke(
        self, which: str, now: float, purpose: Purpose = Purpose.APP
    ) -> tuple[Token, ...]:
        """Void the token `which`, or every valid one of that name, and return them.

        Raises:
            UnknownTokenError: there is none.
            BindError: the file cannot be used.
        """
        async with self._changing() as db:
            found = _named((await _all(db)).values(), which, purpose)
            valid = [token for token in found if token.state(now) == "valid"]
            if not valid:
                raise UnknownTokenError(f"no valid token {which}; `{_LISTS[purpose]}` shows all")
            rows = [(now, _number(token)) for token in valid]
            await db.executemany("UPDATE token SET revoked = ? WHERE number = ?", rows)
            return tuple(msgspec.structs.replace(token, revoked=now) for token in valid)

    async def _make_room(
        self, db: aiosqlite.Connection, now: float, kept: Token | None = None
    ) -> None:
        spared = -1 if kept is None else _number(kept)
        await db.execute("DELETE FROM token WHERE expires < ?", (now - _REMEMBERED_S,))
        await db.execute(
            "DELETE FROM token WHERE number IN (SELECT number FROM token WHERE expires <= ?"
            " AND number <> ? ORDER BY expires LIMIT max(0, (SELECT count(*) FROM token) - ?))",
            (now, spared, self._limits.tokens - 1),
        )
        [(count,)] = await db.execute_fetchall("SELECT count(*) FROM token")
        if count >= self._limits.tokens:
            # A revoked token is not forgotten for a new one: its reason would change.
            raise ConfigError(
                f"there are {count} tokens already; wait until some expire, or raise limits.tokens"
            )

    async def _insert(
        self, db: aiosqlite.Connection, wanted: Wanted, now: float, expires: float
    ) -> Issued:
        secret = new_secret(self._entropy(SECRET_OCTETS))
        row = (digest(secret), wanted.name, wanted.purpose, now, expires, wanted.bind_uid)
        [(number,)] = await db.execute_fetchall(
            "INSERT INTO token (digest, name, purpose, created, expires, bind_uid)"
            " VALUES (?, ?, ?, ?, ?, ?) RETURNING number",
            row,
        )
        token = Token(
            id=f"{wanted.name}.{number}", name=wanted.name, created=now, expires=expires,
            purpose=wanted.purpose, bind_uid=wanted.bind_uid,
        )  # fmt: skip
        return Issued(token, secret)

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[aiosqlite.Connection]:
        self._create()
        async with self._opened() as db:
            await db.execute("BEGIN IMMEDIATE")
            await _migrate(db)
            yield db  # an error leaves without COMMIT: closing rolls back
            await db.execute("COMMIT")

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[aiosqlite.Connection]:
        try:
            self._check()
            connection = aiosqlite.connect(
                f"{self._path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=self._limits.token_busy_s,
                isolation_level=None,
            )
            async with connection as db:
                await _prepare(db)
                yield db
        except sqlite3.Error as error:
            raise self._explained(error) from error
        except _UnfitError as error:
            raise BindError(f"the tokens in {self._path} are not used: {error}") from None
        except OSError as error:
            raise BindError(f"the tokens in {self._path}: {error.strerror}") from error

    def _create(self) -> None:
        """Make the file, empty and ours alone, where there is none: SQLite never creates it."""
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._path.exists(follow_symlinks=False):
                return
            # Of two that make it at once one waits for the other's locks, as later on.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            text = f"{self._path} cannot be made: {error.strerror}; name a writable --state"
            raise BindError(text) from error
        try:
            os.fchmod(descriptor, 0o600)
            owner = folder.stat()
            if os.geteuid() == 0 and owner.st_uid:  # root at work for the appliance's own user
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
        finally:
            os.close(descriptor)

    def _check(self) -> None:
        found = self._path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise _UnfitError("it is no regular file; move it away")
        if found.st_mode & 0o077:
            raise _UnfitError(f"other users may open it; chmod 600 {self._path}")
        if found.st_uid not in {os.geteuid(), 0} and os.geteuid():
            raise _UnfitError("it belongs to another user; chown it or move it away")

    def _explained(self, error: sqlite3.Error) -> BindError:
        code = getattr(error, "sqlite_errorcode", None) or 0
        if code & 0xFF in _PASSING:
            return BusyError(f"the tokens in {self._path} cannot be used now: {error}; try again")
        return BindError(
            f"the tokens in {self._path} cannot be used: {error};"
            " restore the file, or move it away and issue new tokens"
        )


class _UnfitError(Exception):
    """What is wrong with the file, and the cure."""


async def _prepare(db: aiosqlite.Connection) -> None:
    """Set what each connection sets, and refuse what is not our file, or not whole."""
    [(version,)] = await db.execute_fetchall("PRAGMA user_version")
    [(tables,)] = await db.execute_fetchall("SELECT count(*) FROM sqlite_schema")
    if version > _SCHEMA:
        raise _UnfitError(f"a newer version wrote it (schema {version}); use that version")
    if not version and tables:
        raise _UnfitError("it is another program's database; move it away")
    [(verdict,)] = await db.execute_fetchall("PRAGMA quick_check(1)")
    if verdict != "ok":
        raise _UnfitError(f"it is damaged ({verdict}); restore it, or move it away")
    await db.execute_fetchall("PRAGMA journal_mode = WAL")
    await db.execute("PRAGMA synchronous = FULL")


async def _migrate(db: aiosqlite.Connection) -> None:
    [(version,)] = await db.execute_fetchall("PRAGMA user_version")
    if not version:
        await db.execute(_TABLE)
        await db.execute(f"PRAGMA user_version = {_SCHEMA}")


async def _all(db: aiosqlite.Connection) -> dict[bytes, Token]:
    [(version,)] = await db.execute_fetchall("PRAGMA user_version")
    if not version:
        return {}
    rows = await db.execute_fetchall(f"SELECT {_COLUMNS} FROM token ORDER BY number")  # noqa: S608 - a constant
    try:
        return {bytes(row[1]): _token(*row) for row in rows}
    except ValueError as error:
        raise _UnfitError(f"it is damaged ({error}); restore it, or move it away") from None


def _token(  # noqa: PLR0913, PLR0917 - the columns
    number: int, _digest: bytes, name: str, purpose: str, created: float, expires: float,
    bind_uid: int | None, rotated: float | None, revoked: float | None,
) -> Token:  # fmt: skip
    return Token(
        id=f"{name}.{number}", name=name, created=created, expires=expires,
        purpose=Purpose(purpose), bind_uid=bind_uid, rotated=rotated, revoked=revoked,
    )  # fmt: skip


def _number(token: Token) -> int:
    return int(token.id.rpartition(".")[2])


def _named(tokens: Iterable[Token], which: str, purpose: Purpose) -> list[Token]:
    """Return the token with the id `which`, else those for `purpose` of that name."""
    if "." in which:  # a name has no dot
        return [token for token in tokens if token.id == which]
    return [token for token in tokens if token.name == which and token.purpose is purpose]


def _one(found: list[Token], which: str, purpose: Purpose) -> Token:
    if not found:
        raise UnknownTokenError(f"no token {which} to rotate; `{_LISTS[purpose]}` shows all")
    if len(found) > 1:
        ids = ", ".join(token.id for token in found)
        raise UnknownTokenError(f"{which} has several tokens: name one of {ids}")
    return found[0]
