"""The file of registered secrets: their names and fingerprints, and the key that these are made by.

A secret is on the disk (`proxy.database`) before it is said to be registered; its value never is.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiosqlite

from proxy.canaries.secret import (
    Kept,
    Kind,
    Secret,
    UnknownSecretError,
    WantedSecret,
    too_long,
    unfit,
)
from proxy.database.file import Contents, DatabaseFile, UnfitError, version_of
from proxy.errors import ConfigError
from proxy.limits import Limits
from rules.fingerprint import KEY_OCTETS, WeakSecretError, Windows, fingerprint

_KEY = f"""\
CREATE TABLE fingerprint_key (
  value BLOB NOT NULL CHECK (length(value) = {KEY_OCTETS})
) STRICT"""
_TABLE = """\
CREATE TABLE secret (
  name TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  at REAL NOT NULL,
  by_uid INTEGER NOT NULL
) STRICT, WITHOUT ROWID"""
_WINDOWS = """\
CREATE TABLE windows (
  name TEXT NOT NULL REFERENCES secret (name),
  how TEXT NOT NULL,
  characters INTEGER NOT NULL,
  shortest INTEGER NOT NULL,
  digests BLOB NOT NULL,
  PRIMARY KEY (name, how, characters)
) STRICT"""
_CONTENTS: Final = Contents(
    "registered secrets",
    "restore the file, or move it away and register the secrets again",
    (_KEY, _TABLE, _WINDOWS),
)
NOTHING: Final = Kept(b"", {}, {})


class SecretFile:
    """The secrets that are on the disk; `entropy(n)` returns n random octets."""

    def __init__(self, path: Path, limits: Limits, entropy: Callable[[int], bytes]) -> None:
        self._file = DatabaseFile(path, _CONTENTS, limits.token_busy_s)
        self._limits = limits
        self._entropy = entropy

    async def read(self) -> Kept:
        """Return what is registered; nothing where there is no file.

        Raises:
            BindError: the file cannot be used; a `BusyError` where that may pass.
        """
        if not self._file.is_there:
            return NOTHING
        async with self._file.opened() as db:
            return await _all(db)

    async def add(self, wanted: WantedSecret, now: float, by_uid: int) -> Secret:
        """Register a secret; `now` is Unix time.

        Raises:
            ConfigError: it is too short, too long or no secret alone, its name is taken, or there
                are `limits.secrets` already.
            BindError: the file cannot be used.
        """
        if len(wanted.value) > self._limits.secret_octets:
            raise too_long(self._limits.secret_octets)
        made = Secret(wanted.name, wanted.kind, now, by_uid)
        async with self._file.changing() as db:
            await self._check(db, wanted.name)
            key = await self._key(db)
            try:  # off the loop: the longest take milliseconds
                windows = await asyncio.to_thread(fingerprint, wanted.value, key)
            except WeakSecretError as error:
                raise unfit(wanted.name, error) from None
            values = (made.name, made.kind, made.at, made.by_uid)
            await db.execute("INSERT INTO secret VALUES (?, ?, ?, ?)", values)
            rows = [
                (made.name, each.how, each.characters, each.shortest, each.digests)
                for each in windows
            ]
            await db.executemany("INSERT INTO windows VALUES (?, ?, ?, ?, ?)", rows)
        return made

    async def remove(self, name: str) -> Secret:
        """Forget the secret of that name; return what it was.

        Raises:
            UnknownSecretError: there is none.
            BindError: the file cannot be used.
        """
        known = (await self.read()).secrets.get(name)
        if known is None:  # nothing is made for it
            raise UnknownSecretError
        async with self._file.changing() as db:
            await db.execute("DELETE FROM windows WHERE name = ?", (name,))
            await db.execute("DELETE FROM secret WHERE name = ?", (name,))
        return known

    async def _check(self, db: aiosqlite.Connection, name: str) -> None:
        names = {row[0] for row in await db.execute_fetchall("SELECT name FROM secret")}
        if name in names:
            again = f"`sallyport secrets remove {name}` first, to register another value"
            raise ConfigError(f"the secret {name} is registered already; {again}")
        if len(names) >= self._limits.secrets:
            most = f"there are {self._limits.secrets} secrets already (limits.secrets)"
            raise ConfigError(f"{most}; remove one, or raise the limit")

    async def _key(self, db: aiosqlite.Connection) -> bytes:
        """Return the key, which is made once."""
        key = await _read_key(db)
        if not key:
            key = self._entropy(KEY_OCTETS)
            await db.execute("INSERT INTO fingerprint_key VALUES (?)", (key,))
        return key


async def _all(db: aiosqlite.Connection) -> Kept:
    if not await version_of(db):
        return NOTHING
    rows = await db.execute_fetchall("SELECT name, kind, at, by_uid FROM secret ORDER BY at, name")
    try:
        secrets = {row[0]: Secret(row[0], Kind(row[1]), *row[2:]) for row in rows}
    except ValueError as error:
        raise UnfitError(f"it is damaged ({error}); restore it, or move it away") from None
    windows: dict[str, list[Windows]] = {name: [] for name in secrets}
    statement = "SELECT name, how, characters, shortest, digests FROM windows"
    for name, *values in await db.execute_fetchall(statement):
        if name not in windows:
            raise UnfitError("it is damaged (windows of no secret); restore it, or move it away")
        windows[name].append(Windows(*values))
    key = await _read_key(db)
    if windows and not key:
        raise UnfitError("it is damaged (the key is gone); restore it, or move it away")
    return Kept(key, secrets, windows)


async def _read_key(db: aiosqlite.Connection) -> bytes:
    rows = list(await db.execute_fetchall("SELECT value FROM fingerprint_key"))
    return bytes(rows[0][0]) if rows else b""
