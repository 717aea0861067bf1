"""What one app has asked for last, as far as pieces of something longer may be put together of it.

Of each zone, and of all of them, the ends of three texts are remembered: the sub-names with their
dots collapsed, without the labels that the name before in the zone ended with as well; their
left-most labels; the longest of their other labels, without those that all names there end with.
"""

from rules.secret_scan import Hit

_RECENT = 64  # names that add nothing again; a page of the web asks for as many
_REFUSED = 64  # names that stay refused
_ZONES = 16  # in which pieces are put together, beside other names
_MARKS = b"-_"
_SECOND = "ac co com edu go gob gov ltd mil ne net nom or org plc sch"
_SHARED = frozenset(_SECOND.split())  # as in `co.uk`; `ab.io` is what somebody rents
_ALL = 1 << 10  # more labels than a name has

type Ends = tuple[bytes, ...]
"""One end, where all three are the same, or three."""

_NOTHING: Ends = (b"",)


class Zone:
    """What was asked for below one name.

    `labels` are those of the last name of several, `fixed` how many all such names end with, and
    `ends` those of the texts.
    """

    __slots__ = ("ends", "fixed", "labels")

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.fixed = _ALL
        self.ends: Ends = _NOTHING


class Step:
    """What a name adds: `texts` are to be looked at, and the ends are those after it."""

    __slots__ = ("ends", "ends_in_zone", "fixed", "labels", "texts", "zone")

    def __init__(self, zone: Zone, sub_name: str, before: Ends, reach: int, around: int) -> None:
        self.zone = zone
        self.labels, self.fixed = zone.labels, zone.fixed
        labels = sub_name.split(".")
        pieces = self._several(labels) if len(labels) > 1 else (_squeezed(sub_name),)
        texts, self.ends = _joined(before, pieces, reach, around)
        self.texts = texts
        if zone.ends == before:
            self.ends_in_zone = self.ends
        else:
            in_zone, self.ends_in_zone = _joined(zone.ends, pieces, reach, around)
            self.texts = texts + in_zone

    def _several(self, labels: list[str]) -> Ends:
        """Return the pieces of a name of several labels."""
        shared = _shared(labels, self.labels)
        if self.labels:
            self.fixed = min(self.fixed, shared)
        self.labels = labels
        fixed = 0 if self.fixed == _ALL else self.fixed
        others = labels[1 : len(labels) - fixed] or labels[:1]
        texts = "".join(labels[: len(labels) - shared]), labels[0], max(others, key=len)
        one, two, three = map(_squeezed, texts)
        return (one,) if one == two == three else (one, two, three)


class Trail:
    """Of one app; `reach` is how many characters of an end matter.

    `refused` are names that completed a secret with others, and what was found; whoever goes on
    with the next piece is not to get further with it.
    """

    __slots__ = ("_reach", "_zones", "ends", "recent", "refused")

    def __init__(self, reach: int) -> None:
        self.recent: dict[str, None] = {}
        self.refused: dict[str, Hit] = {}
        self.ends: Ends = _NOTHING
        self._reach = reach
        self._zones: dict[str, Zone] = {}

    def step(self, name: str, around: int | None = None) -> Step | None:
        """Return what `name` adds; None of a zone's own name.  No end is changed by it.

        `around`: so many characters on either side of where pieces meet are to be looked at.
        """
        sub_name = below(name)
        if not sub_name:
            return None
        zone = self._zone(name[len(sub_name) + 1 :])
        return Step(zone, sub_name, self.ends, self._reach, around or self._reach)

    def take(self, name: str, step: Step | None) -> None:
        """Remember `name`, and what it adds."""
        if len(self.recent) >= _RECENT:
            del self.recent[next(iter(self.recent))]
        self.recent[name] = None
        if step is not None:
            self._follow(step, step.ends, step.ends_in_zone)

    def refuse(self, name: str, step: Step, hit: Hit, least: int) -> None:
        """Remember that `name` is refused for `hit`, and so much of it that nothing is found in.

        `least` is how many characters are.
        """
        if len(self.refused) >= _REFUSED:
            del self.refused[next(iter(self.refused))]
        self.refused[name] = hit
        self._follow(step, _cut(step.ends, least - 1), _cut(step.ends_in_zone, least - 1))

    def _follow(self, step: Step, ends: Ends, ends_in_zone: Ends) -> None:
        self.ends = ends
        step.zone.ends = ends_in_zone
        step.zone.labels, step.zone.fixed = step.labels, step.fixed

    def _zone(self, name: str) -> Zone:
        """Return a zone; at the bound the one that was asked for longest ago is forgotten."""
        zone = self._zones.pop(name, None)
        if zone is None:
            zone = Zone()
            if len(self._zones) >= _ZONES:
                del self._zones[next(iter(self._zones))]
        self._zones[name] = zone
        return zone


def below(name: str) -> str:
    """Return what stands before the zone: two labels, or three of `co.uk` and its like.

    Where that guess is wrong, labels that stay the same drop out all the same.
    """
    if name.count(".") < 2:
        return ""
    sub_name, second, top = name.rsplit(".", 2)
    is_shared = len(top) == 2 and second in _SHARED and "." in sub_name
    return sub_name.rpartition(".")[0] if is_shared else sub_name


def _shared(labels: list[str], others: list[str]) -> int:
    """Return how many labels both end with; the first of `labels` is never one of them."""
    most, shared = min(len(labels) - 1, len(others)), 0
    while shared < most and labels[-1 - shared] == others[-1 - shared]:
        shared += 1
    return shared


def _squeezed(text: str) -> bytes:
    return text.encode().translate(None, _MARKS)


def _joined(ends: Ends, pieces: Ends, reach: int, around: int) -> tuple[tuple[bytes, ...], Ends]:
    """Return the texts around where `pieces` meet `ends`, and the ends after them."""
    if len(ends) == 1 == len(pieces):
        (end,), (piece,) = ends, pieces
        texts = (end[-around:] + piece[:around],) if end else ()
        return texts, ((end + piece)[-reach:],)
    (a, b, c), (x, y, z) = _three(ends), _three(pieces)
    both = ((a, x), (b, y), (c, z)) if a else ()
    p, q, r = (a + x)[-reach:], (b + y)[-reach:], (c + z)[-reach:]
    one = (p,) if p == q == r else (p, q, r)
    return (*{end[-around:] + piece[:around] for end, piece in both},), one


def _cut(ends: Ends, most: int) -> Ends:
    cut = tuple(end[-most:] for end in ends)
    return cut[:1] if len({*cut}) == 1 else cut


def _three(ends: Ends) -> Ends:
    return ends * 3 if len(ends) == 1 else ends
