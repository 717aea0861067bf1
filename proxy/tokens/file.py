"""The file of tokens: a token is on the disk (`proxy.database`) before its secret is shown."""

from collections.abc import Callable, Iterable
from pathlib import Path

import aiosqlite
import msgspec

from proxy.database.file import Contents, DatabaseFile, UnfitError, version_of
from proxy.errors import ConfigError
from proxy.limits import Limits
from proxy.tokens.known import (
    SECRET_OCTETS,
    Issued,
    JoinError,
    Purpose,
    Token,
    UnknownTokenError,
    Wanted,
    digest,
    new_secret,
)

FILE_NAME = "sallyport.sqlite"
_REMEMBERED_S = 604800.0  # an expired token is told from one that never was for a week
_LISTS = {
    Purpose.APP: "sallyport app list",
    Purpose.SCRAPE: "sallyport metrics list",
    Purpose.JOIN: "sallyport app list",
}
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
  revoked REAL,
  used REAL
) STRICT"""
_SINCE_2 = "ALTER TABLE token ADD COLUMN used REAL"
_CONTENTS = Contents(
    "tokens",
    "restore the file, or move it away and issue new tokens",
    (_TABLE,),
    (_SINCE_2,),
)
_COLUMNS = "number, digest, name, purpose, created, expires, bind_uid, rotated, revoked"


class TokenFile:
    """The tokens that are on the disk; `entropy(n)` returns n random octets."""

    def __init__(self, path: Path, limits: Limits, entropy: Callable[[int], bytes]) -> None:
        self._file = DatabaseFile(path, _CONTENTS, limits.token_busy_s)
        self._limits = limits
        self._entropy = entropy

    async def read(self) -> dict[bytes, Token]:
        """Return every token by the digest of its secret; none where there is no file.

        Raises:
            BindError: the file cannot be used; a `BusyError` where that may pass.
        """
        if not self._file.is_there:
            return {}
        async with self._file.opened() as db:
            return await _all(db)

    async def issue(self, wanted: Wanted, now: float) -> Issued:
        """Write a new token and return it with its secret; `now` is Unix time.

        Raises:
            ConfigError: its life is too long, or there are `limits.tokens` already.
            BindError: the file cannot be used.
        """
        default_s, most_s = self._lives(wanted.purpose)
        ttl_s = default_s if wanted.ttl_s is None else wanted.ttl_s
        if not 0 < ttl_s <= most_s:
            most = f"{most_s / 86400:g} days"
            raise ConfigError(f"a token lives longer than 0 s and {most} at most; shorten --ttl")
        async with self._file.changing() as db:
            await self._make_room(db, now)
            return await self._insert(db, wanted, now, now + ttl_s)

    async def look_up(self, secret: str, app: str | None, now: float) -> Token:
        """Return the token to join that `secret` is, for `app` if that is not None.

        Raises:
            JoinError: it opens no enrolment, or not of this app.
            BindError: the file cannot be used.
        """
        return _joining((await self.read()).get(digest(secret)), app, now)

    async def redeem(self, secret: str, app: str | None, now: float) -> Token:
        """Use the token to join that `secret` is: of any number at once, one succeeds.

        Raises:
            JoinError: as `look_up`, or it was used meanwhile.
            BindError: the file cannot be used.
        """
        await self.look_up(secret, app, now)  # guesses never take the writer's lock
        async with self._file.changing() as db:
            token = _joining((await _all(db)).get(digest(secret)), app, now)
            await db.execute("UPDATE token SET used = ? WHERE number = ?", (now, _number(token)))
            return msgspec.structs.replace(token, used=now)

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
        async with self._file.changing() as db:
            found = _named((await _all(db)).values(), which, purpose)
            fresh = [token for token in found if not (token.revoked or token.rotated or token.used)]
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
        async with self._file.changing() as db:
            found = _named((await _all(db)).values(), which, purpose)
            valid = [token for token in found if token.state(now) == "valid"]
            if not valid:
                raise UnknownTokenError(f"no valid token {which}; `{_LISTS[purpose]}` shows all")
            rows = [(now, _number(token)) for token in valid]
            await db.executemany("UPDATE token SET revoked = ? WHERE number = ?", rows)
            return tuple(msgspec.structs.replace(token, revoked=now) for token in valid)

    def _lives(self, purpose: Purpose) -> tuple[float, float]:
        """Return the default and the longest life of a token, in seconds."""
        limits = self._limits
        if purpose is Purpose.JOIN:
            return limits.join_token_ttl_s, limits.join_token_most_ttl_s
        return limits.token_ttl_s, limits.token_most_ttl_s

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


async def _all(db: aiosqlite.Connection) -> dict[bytes, Token]:
    version = await version_of(db)
    if not version:
        return {}
    used = "used" if version >= _CONTENTS.schema else "NULL"
    rows = await db.execute_fetchall(f"SELECT {_COLUMNS}, {used} FROM token ORDER BY number")  # noqa: S608 - constants
    try:
        return {bytes(row[1]): _token(*row) for row in rows}
    except ValueError as error:
        raise UnfitError(f"it is damaged ({error}); restore it, or move it away") from None


def _token(  # noqa: PLR0913, PLR0917 - the columns
    number: int, _digest: bytes, name: str, purpose: str, created: float, expires: float,
    bind_uid: int | None, rotated: float | None, revoked: float | None, used: float | None,
) -> Token:  # fmt: skip
    return Token(
        id=f"{name}.{number}", name=name, created=created, expires=expires,
        purpose=Purpose(purpose), bind_uid=bind_uid, rotated=rotated, revoked=revoked,
        used=used,
    )  # fmt: skip


def _joining(token: Token | None, app: str | None, now: float) -> Token:
    """Return `token` where it opens an enrolment of `app`; raises `JoinError`."""
    again = "ask the admin for another (`sallyport app join`)"
    if token is None or token.purpose is not Purpose.JOIN:
        raise JoinError(f"no such join token; {again}")
    state = token.state(now)
    if state != "valid":
        said = {"used": "was used already: it is good for once", "revoked": "was revoked"}
        raise JoinError(f"the join token {token.id} {said.get(state, 'has expired')}; {again}")
    if app is not None and token.name != app:
        raise JoinError(f"the join token {token.id} is for another app; {again}")
    return token


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
