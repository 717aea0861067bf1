"""Each tunnel against the detector: what leaves before the door shuts, and in the worst hour."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from msgspec import Struct

from rules.detector import Detector, Outcome
from rules.errors import MalformedNameError
from rules.name import DomainName, parse
from rules.rtype import A
from rules.watch import Mode
from scripts.benches.exfil_tools import Sent, Tunnel

NOW = 1_790_000_000.0
APP = "tunnel"
WINDOWS_S = (120.0, 3600.0, 86400.0)


type Gone = tuple[float, int, int, int]
"""A query that left: when, octets of the unit, octets of the sub-name, bits of payload."""


class Unit:
    """The unit of docs/detection.md, counted here a second time and in another way.

    A name costs the octets that follow the longest beginning that it has in common with any name
    before it, both read from the zone on, dots not counted, and one more; a known name nothing.
    """

    def __init__(self) -> None:
        self._known: dict[str, list[str]] = {}

    def cost(self, name: DomainName) -> int:
        """Return what `name` costs, below the zone of two labels that it ends in."""
        labels = name.split(".")
        zone, sub = ".".join(labels[-2:]), ".".join(reversed(labels[:-2]))
        known = self._known.setdefault(zone, [])
        place = bisect_left(known, sub)
        if not sub or (place < len(known) and known[place] == sub):
            return 0
        beside = known[max(place - 1, 0) : place + 1]
        shared = max((_shared(sub, other) for other in beside), default=0)
        known.insert(place, sub)
        return len(sub[shared:].replace(".", "")) + 1


def _shared(one: str, other: str) -> int:
    """Return how long a beginning two texts have in common."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))


class Leak(Struct, frozen=True):
    """What left: the unit's octets, octets of sub-names as they are, payload octets."""

    octets: int = 0
    raw: int = 0
    payload: float = 0.0
    queries: int = 0
    seconds: float = 0.0


class Run(Struct, frozen=True):
    """One run: what left before the first refusal, in all, and in the worst of each window."""

    tunnel: Tunnel
    outcome: Outcome
    before: Leak
    whole: Leak
    worst: tuple[int, ...]
    worst_payload: float  # octets, in the worst hour

    @property
    def bar(self) -> int:
        """Return what it may leak: 512 octets before it is refused, or 1 KiB in any hour."""
        return 1024 if self.tunnel.is_slow else 512

    @property
    def figure(self) -> int:
        """Return what is held against the bar."""
        if self.tunnel.is_choice:
            return round(self.worst_payload)
        return self.worst[1] if self.tunnel.is_slow else self.before.octets

    @property
    def is_stopped(self) -> bool:
        """Return whether anything of it was refused."""
        return self.outcome > Outcome.ALERT

    @property
    def is_caught(self) -> bool:
        """Return whether it was refused, and in time."""
        return self.is_stopped and self.figure <= self.bar


def run(detector: Detector, tunnel: Tunnel, seed: int) -> Run:
    """Put one tunnel through; a held suffix is held, a passing refusal passes."""
    unit, held = Unit(), set[str]()
    gone: list[Gone] = []
    outcome, before = Outcome.PASS, -1
    for sent in tunnel.queries(seed):
        name = parsed(sent.name)
        if name is None or _zone(name) in held:
            continue
        said = _ask(detector, name, sent)
        if said <= Outcome.ALERT:
            if not sent.is_cover:
                gone.append((sent.at_s, unit.cost(name), _raw(name), sent.payload_bits))
            continue
        if before < 0 and not sent.is_cover:
            before = len(gone)
        outcome = outcome if sent.is_cover else max(outcome, said)
        if said is Outcome.BLOCK:
            held.add(_zone(name))
    first = gone if before < 0 else gone[:before]
    worst = tuple(_worst(gone, window_s) for window_s in WINDOWS_S)
    payload = _worst([(at_s, bits, 0, 0) for at_s, _, _, bits in gone], 3600.0) / 8
    return Run(tunnel, outcome, _leak(first), _leak(gone), worst, payload)


def _zone(name: DomainName) -> str:
    return ".".join(name.split(".")[-2:])


def parsed(name: str) -> DomainName | None:
    """Return the name as our listeners take it; None where they refuse it as malformed."""
    try:
        return parse(name)
    except MalformedNameError:
        return None


def _raw(name: DomainName) -> int:
    return len("".join(name.split(".")[:-2]))


def _ask(detector: Detector, name: DomainName, sent: Sent) -> Outcome:
    """Ask, and take the answer, as the resolver does."""
    now = NOW + sent.at_s
    found = detector.ask(APP, name, sent.rtype, is_named=False, mode=Mode.BLOCK, now=now)
    if found is not None and found.outcome > Outcome.ALERT:
        return found.outcome
    rdata = [sent.answer] if sent.answer and sent.rtype != A else []
    back = detector.answered(
        APP, name, sent.rtype, rdata=rdata, is_nxdomain=False, mode=Mode.BLOCK, now=now
    )
    said = [each.outcome for each in (found, back) if each is not None]
    return max(said, default=Outcome.PASS)


def _leak(gone: Sequence[Gone]) -> Leak:
    if not gone:
        return Leak()
    _, octets, raw, bits = zip(*gone, strict=True)
    return Leak(sum(octets), sum(raw), sum(bits) / 8, len(gone), gone[-1][0] - gone[0][0])


def _worst(gone: Sequence[Gone], window_s: float) -> int:
    """Return the most octets that left within any such window."""
    most = inside = first = 0
    for at_s, octets, _, _ in gone:
        inside += octets
        while gone[first][0] <= at_s - window_s:
            inside -= gone[first][1]
            first += 1
        most = max(most, inside)
    return most


def worst_of(runs: Iterable[Run]) -> Run:
    """Return the run that leaked most of several of one tunnel."""
    return max(runs, key=lambda each: (not each.is_caught, each.figure))
