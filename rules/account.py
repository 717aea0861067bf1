"""An app's tallies: one for each suffix that it asked below lately, and one for all together."""

from msgspec import Struct

from rules.changes import Changes
from rules.name import ROOT, DomainName
from rules.ration import Ration, Room
from rules.space_saving import Ranks, rank_of
from rules.tally import Row, Tally
from rules.tiers import ORDINARY, Tiers
from rules.window import TICK_S, add, take

SPENT = 256
"""Names that an app may still connect to: a page of a browser has a hundred."""


class AccountRow(Struct, array_like=True):
    """What is kept of an app on a disk, beside its tallies."""

    since: int
    whole: Row
    ghost: Row | None


class Account:
    """What one app is counted with; nothing that another app does reaches it.

    `whole` counts over all suffixes; what an app then connects to is given back to it, because
    whoever may connect there needs no names to say something.  `ghost` has, in each bucket, the
    most that a tally had which was evicted: newcomers inherit it.  `since` is when the app first
    asked (Unix time).
    """

    __slots__ = (
        "_last", "_memory", "_places", "_ranks", "_spent", "app", "changes", "evicted", "ghost",
        "since", "table", "whole",
    )  # fmt: skip

    def __init__(self, app: str, places: Ration, memory: Ration, now: float) -> None:
        self.app, self.since, self.evicted = app, int(now), 0
        self._places, self._memory = Room(places), Room(memory)
        self._ranks = Ranks()
        self.table: dict[DomainName, Tally] = {}
        self.changes = Changes()
        self._spent: dict[tuple[DomainName, str], tuple[int, int]] = {}
        self.ghost: Tally | None = None
        self._last: Tally | None = None  # that was used
        self.whole = Tally(ROOT, ORDINARY, self._memory, now, int(now) // TICK_S)

    def tally(self, suffix: DomainName, tiers: Tiers, now: float, tick: int) -> Tally:
        """Return the tally of `suffix`, moved to `now`; a new one may evict another."""
        tally = self.table.get(suffix)
        if tally is None:
            tally = self._newcomer(suffix, tiers, now, tick)
        rank = before = tally.rank
        if tick > tally.tick:
            rank = tally.rank = tally.move_to(now, tick)
        else:
            rank = tally.rank = max(before, rank_of(tally.names[3]))
            if rank == before and tally is self._last:
                return tally
        self._last = tally
        self._ranks.move(suffix, before, rank)
        return tally

    def any(self, suffix: DomainName) -> Tally | None:
        """Return the tally of `suffix`; "." is that of all together."""
        return self.whole if suffix == ROOT else self.table.get(suffix)

    def spend(self, suffix: DomainName, sub: str, octets: int, tick: int) -> None:
        """Count octets over all suffixes, and remember for which name, to be given back.

        Of more than `SPENT` names those of longest ago are given back no more.
        """
        add(self.whole.names, octets)
        if len(self._spent) >= SPENT:
            del self._spent[next(iter(self._spent))]
        self._spent[suffix, sub] = octets, tick

    def give_back(self, suffix: DomainName, sub: str) -> None:
        """Count what a name cost over all suffixes no more: the app connects to it."""
        spent = self._spent.pop((suffix, sub), None)
        if spent is not None:
            take(self.whole.names, *spent)
            self.changed(self.whole)

    def forget_spent(self) -> None:
        """Give nothing back of what was counted until now: it counts no more anyway."""
        self._spent.clear()

    def changed(self, tally: Tally) -> None:
        """Note that a tally has to be written."""
        self.changes.put(tally.suffix, is_stored=tally.is_stored)

    def row(self) -> AccountRow:
        """Return what is kept of the app, beside its tallies."""
        ghost = None if self.ghost is None else self.ghost.row()
        return AccountRow(self.since, self.whole.row(), ghost)

    def restore(self, suffix: DomainName, row: Row, tiers: Tiers, now: float) -> None:
        """Take in the row of a tally.

        Raises:
            ValueError: it says what no tally can be.
        """
        tick = int(now) // TICK_S
        tally = self.tally(suffix, tiers, now, tick)
        tally.is_stored = True
        tally.take_in(row)
        self.tally(suffix, tiers, now, tick)

    def take_in(self, row: AccountRow, now: float) -> None:
        """Be what `row` says.

        Raises:
            ValueError: it says what no account can be.
        """
        self.whole.take_in(row.whole)
        if row.ghost is not None:
            self.ghost = Tally(ROOT, ORDINARY, self._memory, now, int(now) // TICK_S)
            self.ghost.take_in(row.ghost)
        self.since = row.since

    def _newcomer(self, suffix: DomainName, tiers: Tiers, now: float, tick: int) -> Tally:
        if not self._places.take(1):
            self._evict(now, tick)
        tally = Tally(suffix, tiers.of(suffix), self._memory, now, tick)
        if self.ghost is not None:
            tally.inherit(self.ghost)
        self.table[suffix] = tally
        return tally

    def _evict(self, now: float, tick: int) -> None:
        # Not the other suffix of the very name: what is counted of it has to stay.
        spare = None if self._last is None else self._last.suffix
        suffix = DomainName(self._ranks.least(spare))
        tally = self._take_out(suffix)
        if self.ghost is None:
            self.ghost = Tally(ROOT, ORDINARY, self._memory, now, tick)
        self.ghost.inherit(tally)
        self.evicted += 1
        self.changes.gone(suffix, is_stored=tally.is_stored)
        self.changes.put(ROOT, is_stored=self.whole.is_stored)

    def _take_out(self, suffix: DomainName) -> Tally:
        tally = self.table.pop(suffix)
        self._ranks.drop(suffix, tally.rank)
        tally.drop()
        return tally
