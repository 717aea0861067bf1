"""The file of revocations: one is on the disk (`proxy.database`) before it is acknowledged."""

from pathlib import Path

import aiosqlite

from proxy.certificates.revoked import Kind, Revocation, full
from proxy.database.file import Contents, DatabaseFile, UnfitError, version_of
from proxy.limits import Limits

_TABLE = """\
CREATE TABLE revocation (
  kind TEXT NOT NULL,
  value TEXT NOT NULL,
  at REAL NOT NULL,
  why TEXT NOT NULL,
  by_uid INTEGER NOT NULL,
  until REAL,
  PRIMARY KEY (kind, value)
) STRICT, WITHOUT ROWID"""
_CONTENTS = Contents(
    "revocations", "restore the file, or move it away and revoke again what must be", (_TABLE,)
)
_COLUMNS = "kind, value, at, why, by_uid, until"


class RevocationFile:
    """The revocations that are on the disk."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._file = DatabaseFile(path, _CONTENTS, limits.token_busy_s)
        self._limits = limits

    async def read(self) -> list[Revocation]:
        """Return every revocation; none where there is no file.

        Raises:
            BindError: the file cannot be used; a `BusyError` where that may pass.
        """
        if not self._file.is_there:
            return []
        async with self._file.opened() as db:
            return await _all(db)

    async def revoke(self, revocations: tuple[Revocation, ...], now: float) -> None:
        """Write `revocations`; what is revoked already stays as it is.  `now` is Unix time.

        Raises:
            ConfigError: there are `limits.revocations` already: none is forgotten for another.
            BindError: the file cannot be used.
        """
        async with self._file.changing() as db:
            await db.execute("DELETE FROM revocation WHERE until <= ?", (now,))
            rows = [(each.kind, each.value, each.at, each.why, each.by_uid, each.until)
                    for each in revocations]  # fmt: skip
            statement = f"INSERT OR IGNORE INTO revocation ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608 - a constant
            await db.executemany(statement, rows)
            [(count,)] = await db.execute_fetchall("SELECT count(*) FROM revocation")
            if count > self._limits.revocations:
                raise full(self._limits.revocations)

    async def restore(self, kind: Kind, value: str) -> None:
        """Let `value` count again; nothing happens where it is not revoked.

        Raises:
            BindError: the file cannot be used.
        """
        async with self._file.changing() as db:
            await db.execute("DELETE FROM revocation WHERE (kind, value) = (?, ?)", (kind, value))


async def _all(db: aiosqlite.Connection) -> list[Revocation]:
    if not await version_of(db):
        return []
    rows = await db.execute_fetchall(f"SELECT {_COLUMNS} FROM revocation")  # noqa: S608 - a constant
    try:
        return [Revocation(Kind(row[0]), *row[1:]) for row in rows]
    except ValueError as error:
        raise UnfitError(f"it is damaged ({error}); restore it, or move it away") from None
