"""The file of capability tokens: digests and what was granted, never a token.

It is written behind (`proxy.database.behind`).  What another process wrote to it is read again:
where no control socket is, the command line voids tokens in the file.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import aiosqlite
import msgspec
from msgspec import structs

from proxy.capabilities.token import CapabilityToken
from proxy.database.behind import Behind
from proxy.database.file import Contents, DatabaseFile, UnfitError
from proxy.limits import Limits

_TABLE = """\
CREATE TABLE capability (
  id TEXT PRIMARY KEY,
  expires INTEGER NOT NULL,
  void_at REAL,
  why TEXT NOT NULL,
  token BLOB NOT NULL
) STRICT, WITHOUT ROWID"""
_CONTENTS: Final = Contents(
    "capability tokens",
    "restore the file, or move it away: agents then exchange again",
    (
        _TABLE,
        "CREATE INDEX capability_expires ON capability (expires)",
        "CREATE INDEX capability_void ON capability (id, why) WHERE void_at IS NOT NULL",
    ),
)
_KEEP = """\
INSERT INTO capability (id, expires, void_at, why, token) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET void_at = excluded.void_at, why = excluded.why
WHERE void_at IS NULL"""  # what is void stays so
_EXPIRE = "DELETE FROM capability WHERE expires <= ?"
_DECODER = msgspec.json.Decoder(CapabilityToken)


class CapabilityFile:
    """The file at `path`; `behind` writes it, and says what keeps it from that."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._file = DatabaseFile(path, _CONTENTS, limits.token_busy_s)
        # Each token waits once at most; as many again that have expired while nothing was written.
        self.behind = Behind(path, _CONTENTS, limits.token_busy_s, 2 * limits.capabilities)

    async def open(self, now: float) -> tuple[CapabilityToken, ...]:
        """Make or open the file; return every token in it that has not expired at `now`.

        Raises:
            BindError: the file cannot be used.
        """
        found: list[CapabilityToken] = []

        async def read(db: aiosqlite.Connection) -> None:
            statement = "SELECT token, void_at, why FROM capability WHERE expires > ?"
            rows = await db.execute_fetchall(statement, (now,))
            try:
                for text, void_at, why in rows:
                    token = _DECODER.decode(text)
                    found.append(structs.replace(token, void_at=void_at, why=why))
            except msgspec.MsgspecError as error:
                raise UnfitError(f"it is damaged ({error}); move it away") from None

        await self.behind.open(read)
        self.expire(now)
        return tuple(found)

    async def void(self) -> tuple[tuple[str, str], ...]:
        """Return what is void in the file: ids, and why.

        Raises:
            BindError: the file cannot be used.
        """
        async with self._file.opened() as db:
            statement = "SELECT id, why FROM capability WHERE void_at IS NOT NULL"
            return tuple((row[0], row[1]) for row in await db.execute_fetchall(statement))

    def keep(self, tokens: Iterable[CapabilityToken]) -> None:
        """Write tokens as they are now."""
        for each in tokens:
            text = msgspec.json.encode(structs.replace(each, void_at=None, why=""))
            row = (each.id, each.expires, each.void_at, each.why, text)
            self.behind.put(each.id, _KEEP, row)

    def expire(self, now: float) -> None:
        """Drop what has expired at `now`."""
        self.behind.put("", _EXPIRE, (now,))
