"""What is counted of an app's look-ups below one suffix."""

from msgspec import Struct

from rules.budget import Limits, is_calm
from rules.name import DomainName
from rules.novelty import DAY_S, Answers, Known, digests_in
from rules.ration import Room
from rules.space_saving import rank_of
from rules.window import Meter, meter, raised, restored, roll

NAMES, ANSWERS, CHOICE = 1, 4, 16
"""Bits of `told`: that an alert limit was passed; twice as much: a hard one."""

_CONNECTED = 256  # names: as evidence a share of so many is enough
_ANSWER_RANK_BITS = 4  # answers have sixteen times the budget of names


class Limited(Struct, frozen=True):
    """The limits of one tier, of all that is counted; those of `choice` in bits."""

    alert: Limits
    block: Limits
    answers_alert: Limits
    answers_block: Limits
    choice: Limits

    def times(self, factor: int) -> "Limited":
        """Return these limits, `factor` times as wide."""
        return Limited(*(getattr(self, field).times(factor) for field in self.__struct_fields__))


class Row(Struct, array_like=True):
    """A tally as it is kept on a disk."""

    names: list[int]
    answers: list[int] | None
    choice: list[int] | None
    turned: tuple[int, int]
    known: tuple[list[str], list[str]]
    records: tuple[bytes, bytes]
    connected: list[str]
    counts: tuple[int, int, int, int]
    told: int


class Tally:
    """Meters of names and, where there is any, of answers and of choice; and what is known."""

    __slots__ = (
        "_records", "_room", "_since", "answers", "choice", "connected", "is_stored", "known",
        "names", "nxdomains", "others", "queries", "rank", "resolved", "suffix", "tick", "tier",
        "told",
    )  # fmt: skip

    def __init__(self, suffix: DomainName, tier: str, room: Room, now: float, tick: int) -> None:
        self.suffix, self.tier = suffix, tier
        self.names: Meter = meter(tick)
        self.answers: Meter | None = None
        self.choice: Meter | None = None
        self.known = Known(room, now)
        self._room, self._since = room, now
        self._records: Answers | None = None  # most have none for long
        self.connected: set[str] | None = None
        self.queries = self.others = self.nxdomains = self.resolved = 0
        self.told, self.rank, self.tick = 0, -1, -1  # `tick`: it was moved to
        self.is_stored = False

    @property
    def records(self) -> Answers:
        """The records that came from below."""
        if self._records is None:
            self._records = Answers(self._room, self._since)
        return self._records

    def drop(self) -> None:
        """Give the room of what is known back."""
        self.known.drop()
        if self._records is not None:
            self._records.drop()

    def move_to(self, now: float, tick: int) -> int:
        """Let go of what is too old; return the class of what is left."""
        self.tick = tick
        if now - self.known.turned >= DAY_S:
            self.known.turn(now)
            self.connected = None
        names = self.names
        roll(names, tick)
        if self.choice is not None:
            roll(self.choice, tick)
        if self.answers is None:
            return rank_of(names[3])
        self.records.turn(now)
        roll(self.answers, tick)
        return rank_of(max(names[3], self.answers[3] >> _ANSWER_RANK_BITS))

    def rearm(self, limits: Limited) -> None:
        """Forget what was told, once the windows are below half of the limits."""
        for bits, of, limit in (
            (NAMES, self.names, limits.alert),
            (ANSWERS, self.answers, limits.answers_alert),
            (CHOICE, self.choice, limits.choice),
        ):
            if self.told & (3 * bits) and (of is None or is_calm(of, limit)):
                self.told &= ~(3 * bits)

    def connect(self, sub: str) -> bool:
        """Return whether it is news that the app reached for `sub`."""
        if self.connected is None:
            self.connected = set()
        if sub in self.connected or len(self.connected) >= _CONNECTED:
            return False
        self.connected.add(sub)
        return True

    def clear(self, tick: int) -> None:
        """Count anew; what is known stays known."""
        self.tick = -1
        self.names, self.answers, self.choice, self.told = meter(tick), None, None, 0

    def inherit(self, other: "Tally") -> None:
        """Count at least what the other has, in every bucket."""
        self.tick = -1
        self.names = raised(self.names, other.names)
        if other.answers is not None:
            self.answers = raised(self.answers, other.answers)
        if other.choice is not None:
            self.choice = raised(self.choice, other.choice)

    def row(self) -> Row:
        """Return the tally as a row."""
        records, fresh, old = self._records, set(), set()
        turned = self.known.turned
        if records is not None:
            turned, fresh, old = records.turned, records.fresh, records.old
        return Row(
            names=list(self.names),
            answers=None if self.answers is None else list(self.answers),
            choice=None if self.choice is None else list(self.choice),
            turned=(self.known.turned, turned),
            known=(self.known.fresh, self.known.old),
            records=(b"".join(sorted(fresh)), b"".join(sorted(old))),
            connected=sorted(self.connected or ()),
            counts=(self.queries, self.others, self.nxdomains, self.resolved),
            told=self.told,
        )

    def take_in(self, row: Row) -> None:
        """Be what `row` says.

        Raises:
            ValueError: it says what no tally can be.
        """
        self.tick = -1
        self.names = restored(row.names)
        self.answers = None if row.answers is None else restored(row.answers)
        self.choice = None if row.choice is None else restored(row.choice)
        self.known.take_in(row.turned[0], *row.known)
        if any(row.records):
            self.records.take_in(row.turned[1], *map(digests_in, row.records))
        self.connected = set(row.connected) or None
        self.queries, self.others, self.nxdomains, self.resolved = row.counts
        self.told = row.told
