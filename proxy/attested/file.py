"""The file of results and attesters: what they look like as rows (`proxy.database.behind`)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiosqlite
from msgspec import Struct
from msgspec.structs import astuple, fields

from proxy.attested.attester import Attester
from proxy.attested.binding import Binding, Kind
from proxy.attested.result import Result
from proxy.database.behind import Behind
from proxy.database.file import Contents, UnfitError
from proxy.limits import Limits
from rules.facts import Level

_RESULT = """\
CREATE TABLE result (
  kind TEXT NOT NULL,
  value TEXT NOT NULL,
  app TEXT NOT NULL,
  level INTEGER NOT NULL,
  id TEXT NOT NULL,
  token_sha256 TEXT NOT NULL,
  spiffe_id TEXT NOT NULL,
  attester TEXT NOT NULL,
  at REAL NOT NULL,
  expires REAL NOT NULL,
  thumbprint TEXT NOT NULL,
  serial TEXT NOT NULL,
  measured TEXT NOT NULL,
  PRIMARY KEY (kind, value, app, level)
) STRICT, WITHOUT ROWID"""
_ATTESTER = """\
CREATE TABLE attester (
  name TEXT NOT NULL,
  app TEXT NOT NULL,
  spiffe_id TEXT NOT NULL,
  ek_sha256 TEXT NOT NULL,
  key BLOB NOT NULL,
  enrolled_at REAL NOT NULL,
  reset_count INTEGER NOT NULL,
  restart_count INTEGER NOT NULL,
  clock_ms INTEGER NOT NULL,
  firmware BLOB NOT NULL,
  used_at REAL NOT NULL,
  PRIMARY KEY (name, app)
) STRICT, WITHOUT ROWID"""
_CONTENTS = Contents(
    "attestation results",
    "move it away; TPMs are enrolled anew then:"
    " `sallyport attest --tpm TCTI` enrols it, or POST /attest/enrol",
    (_RESULT, "CREATE INDEX result_expires ON result (expires)", _ATTESTER),
)
_RESULT_COLUMNS = (
    "kind, value, app, level, id, token_sha256, spiffe_id, attester, at, expires, thumbprint,"
    " serial, measured"
)
_ATTESTER_COLUMNS = ", ".join(each.name for each in fields(Attester))
_KEEP_RESULT = f"INSERT OR REPLACE INTO result ({_RESULT_COLUMNS}) VALUES (?{', ?' * 12})"  # noqa: S608 - constants
_KEEP_ATTESTER = f"INSERT OR REPLACE INTO attester ({_ATTESTER_COLUMNS}) VALUES (?{', ?' * 10})"  # noqa: S608 - constants
_DROP_RESULT = "DELETE FROM result WHERE (kind, value, app, level) = (?, ?, ?, ?)"
_DROP_ATTESTER = "DELETE FROM attester WHERE (name, app) = (?, ?)"
_DROP_EXPIRED = "DELETE FROM result WHERE expires <= ?"
_MOST_INTEGER = (1 << 63) - 1  # of SQLite
_FIRMWARE_OCTETS = 8  # UINT64, which SQLite's INTEGER does not hold


class Stored(Struct, frozen=True):
    """What the file says."""

    results: tuple[Result, ...]
    attesters: tuple[Attester, ...]


class AttestedFile:
    """Results and attesters on the disk; `limits.attested_queue` rows at most wait to be there."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.behind = Behind(path, _CONTENTS, limits.token_busy_s, limits.attested_queue)

    async def open(self, now: float) -> Stored:
        """Make or open the file; return what has not expired at `now` (Unix time).

        Raises:
            BindError: the file cannot be used.
        """
        stored = Stored((), ())

        async def read(db: aiosqlite.Connection) -> None:
            nonlocal stored
            stored = await _stored(db, now)

        await self.behind.open(read)
        return stored

    def keep(self, result: Result) -> None:
        """Remember a result, in the place of one of the same level."""
        key = _key(result)
        rest = astuple(result)
        at = (result.id, result.token_sha256, result.spiffe_id, result.attester, *rest[7:])
        self.behind.put(key, _KEEP_RESULT, (*key, *at))

    def drop(self, result: Result) -> None:
        """Forget the result of that binding, app and level."""
        key = _key(result)
        self.behind.put(key, _DROP_RESULT, key)

    def drop_expired(self, now: float) -> None:
        """Forget what had expired at `now` (Unix time)."""
        self.behind.put("expired", _DROP_EXPIRED, (now,))

    def keep_attester(self, attester: Attester) -> None:
        """Remember an attester, in the place of what was known of it."""
        firmware = attester.firmware.to_bytes(_FIRMWARE_OCTETS)
        clock_ms = min(attester.clock_ms, _MOST_INTEGER)
        values = (*astuple(attester)[:-3], clock_ms, firmware, attester.used_at)
        self.behind.put((attester.name, attester.app), _KEEP_ATTESTER, values)

    def drop_attesters(self, attesters: Iterable[Attester]) -> None:
        """Forget attesters."""
        for each in attesters:
            key = (each.name, each.app)
            self.behind.put(key, _DROP_ATTESTER, key)


def _key(result: Result) -> tuple[object, ...]:
    binding = result.binding
    return (str(binding.kind), binding.value, result.app, int(result.level))


async def _stored(db: aiosqlite.Connection, now: float) -> Stored:
    """Return what the file says.

    Raises:
        UnfitError: no such thing was ever written by us.
    """
    await db.execute(_DROP_EXPIRED, (now,))
    results = await db.execute_fetchall(f"SELECT {_RESULT_COLUMNS} FROM result ORDER BY at")  # noqa: S608 - a constant
    attesters = await db.execute_fetchall(f"SELECT {_ATTESTER_COLUMNS} FROM attester")  # noqa: S608 - a constant
    try:
        return Stored(tuple(map(_result, results)), tuple(map(_attester, attesters)))
    except (ValueError, TypeError) as error:
        raise UnfitError(f"it is damaged ({error}); move it away") from None


def _result(row: Iterable[Any]) -> Result:
    kind, value, app, level, unique, token_sha256, spiffe_id, attester, *rest = row
    binding = Binding(Kind(kind), value)
    _ = binding.digest  # raises for what is no digest
    return Result(unique, token_sha256, binding, app, spiffe_id, Level(level), attester, *rest)


def _attester(row: Iterable[Any]) -> Attester:
    *values, firmware, used_at = row
    values += [int.from_bytes(firmware), used_at]
    return Attester(*values)
