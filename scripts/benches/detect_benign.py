"""The ordinary replay against the detector, and against the rules of others."""

import math
import sys
import time
import zlib
from collections import Counter

from rules.detector import Detector, Outcome
from rules.name import DomainName
from rules.rtype import AAAA, HTTPS, TXT
from rules.watch import Mode
from scripts.benches import benign
from scripts.benches.benign import Counts
from scripts.benches.benign_apps import CONNECTS, NXDOMAIN, Query
from scripts.benches.benign_names import World
from scripts.benches.compared import RULES, Domains, Rule
from scripts.benches.detect_tunnels import NOW

RDATA_OCTETS = {AAAA: 16, TXT: 120, HTTPS: 40}


class Half:
    """One half of the domains, replayed: what was asked, what came of it, what it cost."""

    def __init__(self, name: str, world: World, detector: Detector, *, is_compared: bool) -> None:
        self.name, self.world, self.detector = name, world, detector
        self.domains = Domains(world.suffixes)
        self.seen: set[DomainName] = set()
        self.counts = Counts()
        self.found: Counter[Outcome] = Counter()
        self.refused: dict[Outcome, set[tuple[str, DomainName]]] = {each: set() for each in Outcome}
        self.lines: dict[tuple[str, str], str] = {}
        self.cpu_s = 0.0
        self.rules: dict[str, Rule] = {n: make() for n, make in RULES.items() if is_compared}
        self.alarmed: dict[str, set[DomainName]] = {name: set() for name in self.rules}

    def miss(self, query: Query) -> None:
        """Ask the detector, as the resolver does, and tell it what came of it."""
        at_s, index, name, rtype, _, kind = query
        app, now, detector = f"app{index}", NOW + at_s, self.detector
        found = detector.ask(app, name, rtype, is_named=False, mode=Mode.BLOCK, now=now)
        self.seen.add(self.domains.of(name))
        if found is not None:
            self._note(found.outcome, app, found.suffix, f"{found!r}")
            if found.outcome > Outcome.ALERT:
                return
        octets = 0 if kind == NXDOMAIN else RDATA_OCTETS.get(rtype, 0)
        rdata = (zlib.crc32(name.encode()).to_bytes(octets),) if octets else ()
        back = detector.answered(
            app, name, rtype, rdata=rdata, is_nxdomain=kind == NXDOMAIN, mode=Mode.BLOCK, now=now
        )
        if back is not None:
            self._note(back.outcome, app, back.suffix, f"{back!r}")
        if kind == CONNECTS:
            detector.connected(app, name, now)

    def _note(self, outcome: Outcome, app: str, suffix: DomainName, line: str) -> None:
        self.found[outcome] += 1
        self.refused[outcome].add((app, suffix))
        self.lines.setdefault((outcome.name, f"{app} {suffix}"), line)

    def both(self, query: Query) -> None:
        """Ask the detector and every rule of others."""
        self.miss(query)
        at_s, index, name, rtype, _, _ = query
        domain = self.domains.of(name)
        for title, rule in self.rules.items():
            if rule.alarms(f"app{index}", name, domain, rtype, at_s):
                self.alarmed[title].add(domain)

    def replay(self, length_h: int) -> None:
        """Run it, and say how far it is after every day."""
        began = time.process_time()

        def told(counts: Counts) -> None:
            if counts.hours % 24 == 0:
                said = f"day {counts.hours // 24} of {math.ceil(length_h / 24)}"
                cpu_s = time.process_time() - began
                print(
                    f"  {self.name}: {said}, {counts.queries:,} queries, {cpu_s:.0f} s of CPU",
                    file=sys.stderr,
                    flush=True,
                )

        each = self.both if self.rules else self.miss
        self.counts = benign.replay(self.world, length_h, each, told)
        self.cpu_s = time.process_time() - began

    def wrong(self, *outcomes: Outcome) -> int:
        """Return how many suffixes (or whole apps) any of these came of."""
        return len(set().union(*(self.refused[each] for each in outcomes)))

    @property
    def refusals(self) -> int:
        """Return how many queries were refused."""
        return sum(count for outcome, count in self.found.items() if outcome > Outcome.ALERT)
