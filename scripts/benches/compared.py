"""What others publish, on the same queries: entropy thresholds, RITA, the Zeek package.

They alert and block nothing: what is compared is when the first alarm is, and on what ordinary
domains there is one.  Each sees what our detector sees: what no cache answered.
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from rules.name import DomainName
from rules.suffix import PublicSuffixes

HOUR_S, DAY_S = 3600.0, 86400.0


class Rule(Protocol):
    """A rule that tells, of each query, whether it raises the alarm for its domain."""

    def alarms(
        self, app: str, name: DomainName, domain: DomainName, rtype: int, at_s: float
    ) -> bool:
        """Return whether the alarm is raised now."""


def entropy(text: str) -> float:
    """Return Shannon's entropy of the characters of `text`, in bits a character."""
    length = len(text)
    return -sum(n / length * math.log2(n / length) for n in Counter(text).values())


class Entropy:
    """More than so many bits a character in the sub-name: the threshold of many a guide."""

    def __init__(self, bits: float) -> None:
        self._bits = bits
        self._known: dict[DomainName, bool] = {}

    def alarms(
        self, app: str, name: DomainName, domain: DomainName, rtype: int, at_s: float
    ) -> bool:
        """Look at the one name."""
        del app, rtype, at_s
        found = self._known.get(name)
        if found is None:
            sub = name[: -len(domain) - 1]
            found = bool(sub) and entropy(sub) > self._bits
            if len(self._known) < 1_000_000:
                self._known[name] = found
        return found


class Rita:
    """So many distinct names below a registrable domain in a day, over all hosts.

    activecm/rita, default_config.hjson: `c2_score_thresholds` base 100, low 500, medium 800,
    high 1000 subdomains; below the base a domain is not looked at (analysis/spagooper.go).
    """

    def __init__(self, subdomains: int) -> None:
        self._subdomains = subdomains
        self._day = -1
        self._names: dict[DomainName, set[DomainName]] = {}

    def alarms(
        self, app: str, name: DomainName, domain: DomainName, rtype: int, at_s: float
    ) -> bool:
        """Count the name into its day."""
        del app, rtype
        if int(at_s // DAY_S) != self._day:
            self._day, self._names = int(at_s // DAY_S), {}
        names = self._names.setdefault(domain, set())
        names.add(name)
        return len(names) >= self._subdomains


class AnomalousDns:
    """The Zeek package jbaggs/anomalous-dns, as it is by default.

    an-dns-domain.zeek: more than 8 distinct names below a domain within 60 minutes of the first
    (`domain_query_limit`), reverse zones excepted.  an-dns-oversized.zeek: a name over 90
    characters, PTR and NetBIOS excepted, and some names.  an-dns-query_type.zeek: NULL and 65399.
    The sizes of answers and of connections are no part of a replay of queries: left out.
    """

    LIMIT, OVERSIZE, TYPES = 8, 90, frozenset({10, 65399})
    IGNORED_TYPES, IGNORED = frozenset({12, 32}), ("gstatic.com", "mcafee.com")
    REVERSE = (".in-addr.arpa", ".ip6.arpa")

    def __init__(self) -> None:
        self._names: dict[DomainName, tuple[float, set[DomainName]]] = {}

    def alarms(
        self, app: str, name: DomainName, domain: DomainName, rtype: int, at_s: float
    ) -> bool:
        """Look at type, length and count."""
        del app
        oversized = len(name) > self.OVERSIZE and rtype not in self.IGNORED_TYPES
        if rtype in self.TYPES or (oversized and not name.endswith(self.IGNORED)):
            return True
        if name.endswith(self.REVERSE):
            return False
        began, names = self._names.get(domain, (-HOUR_S, set()))
        if at_s - began >= HOUR_S:
            names = set()
            self._names[domain] = (at_s, names)
        names.add(name)
        return len(names) > self.LIMIT


RULES: dict[str, Callable[[], Rule]] = {
    "entropy > 3.5 bits": lambda: Entropy(3.5),
    "entropy > 4.0 bits": lambda: Entropy(4.0),
    "RITA, base 100": lambda: Rita(100),
    "RITA, low 500": lambda: Rita(500),
    "Zeek anomalous-dns": AnomalousDns,
}


class Domains:
    """The registrable domain of each name, kept."""

    def __init__(self, suffixes: PublicSuffixes) -> None:
        self._suffixes = suffixes
        self._known: dict[DomainName, DomainName] = {}

    def of(self, name: DomainName) -> DomainName:
        """Return it; the name itself where it is a suffix."""
        found = self._known.get(name)
        if found is None:
            found = self._suffixes.registrable(name) or name
            if len(self._known) < 1_000_000:
                self._known[name] = found
        return found
