"""All accounts, and their rows, as they are kept on a disk."""

from collections.abc import Iterable, Iterator

import msgspec

from rules.account import Account, AccountRow
from rules.name import ROOT, DomainName
from rules.popularity import Asked, Popularity
from rules.ration import Ration
from rules.tally import Row
from rules.tiers import Tiers
from rules.window import TICK_S

type Kept = tuple[str, str, bytes]
"""An app, a suffix and a row: of the app itself where the suffix is ".", of the suffix itself where
the app is "".  An empty row says that there is none any more."""

_DAY_S = 86400
_IDLE_S = 2 * _DAY_S  # when nothing is left of a tally
_ENCODE = msgspec.msgpack.encode
_ACCOUNT = msgspec.msgpack.Decoder(AccountRow)
_TALLY = msgspec.msgpack.Decoder(Row)
_ASKED = msgspec.msgpack.Decoder(tuple[int, str, int])


class Accounts:
    """What apps are counted with, by app; an account lasts as long as the process."""

    def __init__(
        self, places: Ration, memory: Ration, tiers: Tiers, popularity: Popularity
    ) -> None:
        self._places, self._memory = places, memory
        self._tiers, self._popularity = tiers, popularity
        self._apps: dict[str, Account] = {}
        self._unreadable = 0

    def __iter__(self) -> Iterator[Account]:
        """Yield the accounts that stand here now."""
        return iter(list(self._apps.values()))

    def find(self, app: str) -> Account | None:
        """Return the account of `app`, if it asked before."""
        return self._apps.get(app)

    def open(self, app: str, now: float) -> Account:
        """Return the account of `app`."""
        account = self._apps.get(app)
        if account is None:
            account = Account(app, self._places, self._memory, now)
            self._apps[app] = account
        return account

    def bounds(self) -> dict[str, int]:
        """Return how often each bound was met."""
        return {
            "suffixes_evicted": sum(account.evicted for account in self),
            "known_unkept": self._memory.refused,
            "popularity_full": self._popularity.full,
            "rows_unreadable": self._unreadable,
        }

    def changed(self) -> Iterator[Kept]:
        """Yield the rows that changed since they were yielded last."""
        for account in self:
            for suffix in account.changes.take():
                yield account.app, suffix, _row(account, DomainName(suffix))
        rows = self._popularity.rows
        for suffix in self._popularity.changes.take():
            asked = rows.get(suffix)
            if asked is None:
                yield "", suffix, b""
            else:
                asked.is_stored = True
                yield "", suffix, _ENCODE((asked.day, asked.app, asked.days))

    def restore(self, rows: Iterable[Kept], now: float) -> None:
        """Take in rows, in any order; of those that do not fit, the oldest are dropped."""
        tallies: list[tuple[int, str, DomainName, Row]] = []
        for app, suffix, octets in rows:
            try:
                if not app:
                    day, first, days = _ASKED.decode(octets)
                    self._popularity.restore(suffix, Asked(day, first, days), int(now) // _DAY_S)
                elif suffix == ROOT:
                    self.open(app, now).take_in(_ACCOUNT.decode(octets), now)
                else:
                    row = _TALLY.decode(octets)
                    tallies.append((row.names[0], app, DomainName(suffix), row))
            except (
                msgspec.DecodeError,
                IndexError,
                ValueError,
            ):  # a row of another version, or a damaged one
                self._unreadable += 1
        # Who was used last is last again, and so is evicted last.
        for used, app, suffix, row in sorted(tallies, key=lambda each: each[:3]):
            account = self.open(app, now)
            if now >= used * TICK_S + _IDLE_S:
                account.changes.gone(suffix, is_stored=True)
                continue
            try:
                account.restore(suffix, row, self._tiers, now)
            except ValueError:
                self._unreadable += 1


def _row(account: Account, suffix: DomainName) -> bytes:
    if suffix == ROOT:
        account.whole.is_stored = True
        return _ENCODE(account.row())
    tally = account.table.get(suffix)
    if tally is None:
        return b""
    tally.is_stored = True
    return _ENCODE(tally.row())
