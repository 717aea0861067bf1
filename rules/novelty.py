"""How much of a name, or of an answer, was not known before: the unit that leaks are counted in.

What is known is kept for a day after it was last met, and for two at most: in two generations, the
older of which is dropped whole.  What finds no room is not known, and so counts again.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from rules.ration import Room

DAY_S = 86400
SUFFIX_OCTETS = 65536
"""The most octets of names that one generation keeps of a suffix; a day's limit is 48 KiB."""
DIGESTS = 4096
"""The most digests of records of one generation; a day's limit is 3072 addresses of 16 octets."""

KNOWN, FADING, NAMED = -1, -2, -3
"""Of names that are known (`Known.reach`); of those whose octets are an admin's."""

_FEW = 12  # octets that are looked at one by one sooner than all at once
_NAME_COST, _DIGEST_COST = 64, 96  # what CPython spends on an item beside its octets
_BRANCHES = 256  # where a name leaves a tree of so many octets is told by one octet
_DIGEST_OCTETS = 8


class Known:
    """The sub-names that were asked below a suffix, sorted, so that neighbours share the most."""

    __slots__ = ("_room", "fresh", "octets", "old", "turned")

    def __init__(self, room: Room, now: float) -> None:
        self._room = room
        self.fresh: list[str] = []
        self.old: list[str] = []
        self.turned = int(now)
        self.octets = 0  # of `fresh`

    def __len__(self) -> int:
        """Return how many names are known; one that both generations hold counts twice."""
        return len(self.fresh) + len(self.old)

    def turn(self, now: float) -> None:
        """Drop what nobody asked for a day."""
        days = int(now - self.turned) // DAY_S
        if days < 1:
            return
        self._give_back(self.old)
        if days > 1:
            self._give_back(self.fresh)
            self.fresh = []
        self.old, self.fresh, self.octets = self.fresh, [], 0
        self.turned += days * DAY_S

    def reach(self, sub: str) -> int:
        """Return how many octets of `sub` begin a known name; less than 0: it is known itself.

        `KNOWN`: there is nothing to add; `FADING`: it is forgotten soon, unless it is added.
        """
        if not sub:
            return KNOWN  # the suffix itself says nothing
        fresh = _reach(self.fresh, sub) if self.fresh else 0
        if fresh < 0 or not self.old:
            return fresh
        old = _reach(self.old, sub)
        return FADING if old < 0 else max(fresh, old)

    def branch(self) -> int:
        """Return in octets what it tells where a new name leaves the known ones."""
        return 1 if self.octets <= _BRANCHES and not self.old else 2

    def add(self, sub: str) -> bool:
        """Return whether `sub` is known now."""
        at = bisect_left(self.fresh, sub)
        if not sub or (at < len(self.fresh) and self.fresh[at] == sub):
            return True
        if self.octets + len(sub) > SUFFIX_OCTETS or not self._room.take(len(sub) + _NAME_COST):
            return False
        self.fresh.insert(at, sub)
        self.octets += len(sub)
        return True

    def take_in(self, turned: int, fresh: Sequence[str], old: Sequence[str]) -> None:
        """Know what `fresh` and `old` were, as far as there is room."""
        self.turned = turned
        for sub in old:
            self.add(sub)
        self.old, self.fresh, self.octets = self.fresh, [], 0
        for sub in fresh:
            self.add(sub)

    def drop(self) -> None:
        """Give all the room back."""
        self._give_back(self.old)
        self._give_back(self.fresh)

    def _give_back(self, names: list[str]) -> None:
        if not names:
            return
        self._room.give_back(sum(map(len, names)) + _NAME_COST * len(names))


class Answers:
    """The records that came from below a suffix, by digests, so that a row of them is short."""

    __slots__ = ("_room", "fresh", "old", "turned")

    def __init__(self, room: Room, now: float) -> None:
        self._room = room
        self.fresh: set[bytes] = set()
        self.old: set[bytes] = set()
        self.turned = int(now)

    def turn(self, now: float) -> None:
        """Drop what did not come for a day."""
        days = int(now - self.turned) // DAY_S
        if days < 1:
            return
        self._room.give_back(_DIGEST_COST * len(self.old))
        if days > 1:
            self._room.give_back(_DIGEST_COST * len(self.fresh))
            self.fresh = set()
        self.old, self.fresh = self.fresh, set()
        self.turned += days * DAY_S

    def is_known(self, digest: bytes) -> bool:
        """Return whether a record of this digest came before."""
        return digest in self.fresh or digest in self.old

    def add(self, digest: bytes) -> bool:
        """Return whether the record is known now."""
        if digest in self.fresh:
            return True
        if len(self.fresh) >= DIGESTS or not self._room.take(_DIGEST_COST):
            return False
        self.fresh.add(digest)
        return True

    def take_in(self, turned: int, fresh: Iterable[bytes], old: Iterable[bytes]) -> None:
        """Know what `fresh` and `old` were, as far as there is room."""
        self.turned = turned
        for digest in old:
            self.add(digest)
        self.old, self.fresh = self.fresh, set()
        for digest in fresh:
            self.add(digest)

    def drop(self) -> None:
        """Give all the room back."""
        self._room.give_back(_DIGEST_COST * (len(self.old) + len(self.fresh)))


def digest_of(rdata: bytes) -> bytes:
    """Return what a record is known by: whoever wants two records of one digest tries 2**32."""
    return blake2b(rdata, digest_size=_DIGEST_OCTETS).digest()


def digests_in(octets: bytes) -> set[bytes]:
    """Return the digests that stand one after the other in `octets`."""
    return {octets[at : at + _DIGEST_OCTETS] for at in range(0, len(octets), _DIGEST_OCTETS)}


def octets_after(sub: str, reach: int) -> int:
    """Return how many octets of `sub` are new, dots not counted."""
    return len(sub) - reach - sub.count(".", reach)


def thinned(sub: str, reach: int, common: frozenset[str]) -> int:
    """Return the same, where a label that everybody uses is worth one octet.

    Only up to four labels are looked at: what has more of them is no ordinary name.
    """
    start = sub.rfind(".", 0, reach) + 1
    if sub.find(".", reach) < 0:  # it is in the last label
        new = len(sub) - reach
        return min(new, 1) if sub[start:] in common else new
    first, *others = sub[start:].split(".", 4)
    new = len(first) - (reach - start)
    octets = min(new, 1) if first in common else new
    for label in others:
        octets += 1 if label in common else len(label) - label.count(".")
    return octets


def _reach(names: list[str], sub: str) -> int:
    """Return the longest prefix that `sub` shares with one of the sorted `names`."""
    at, most, first = bisect_left(names, sub), 0, sub[0]
    if at < len(names):
        after = names[at]
        if after == sub:
            return KNOWN
        if after[0] == first:
            most = _shared(after, sub)
    if at:
        before = names[at - 1]
        # What stands before shares more with it than what stands after, or it does not count.
        if before[0] == first and before[: most + 1] == sub[: most + 1]:
            return _shared(before, sub)
    return most


def _shared(one: str, other: str) -> int:
    """Return how many octets the texts share at their beginning, with no long loop over them."""
    if one[:2] != other[:2]:
        return int(one[:1] == other[:1])
    if one[:4] != other[:4]:
        return 2 + (one[:3] == other[:3])
    least = min(len(one), len(other))
    for at in range(4, min(least, _FEW)):
        if one[at] != other[at]:
            return at
    left = int.from_bytes(one[:least].encode())
    right = int.from_bytes(other[:least].encode())
    return least - ((left ^ right).bit_length() + 7) // 8
