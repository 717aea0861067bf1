"""A name as the suffix that somebody registered and what stands below it, at two levels.

At the ICANN level the suffix is what a registry sold; at the private level it is what a host of
many tenants gave to one of them (publicsuffix.org/list).  For most names the levels are one.
"""

from rules.name import ROOT, DomainName
from rules.suffix import UNDELEGATED, PublicSuffixes, SuffixRules

type Below = tuple[DomainName, str]
"""A suffix, and the labels below it, the one nearest to it first: "c.b.a" of "a.b.c"."""


class Splitter:
    """Splits names; made once of the list, which it does not copy."""

    def __init__(self, suffixes: PublicSuffixes) -> None:
        self._icann, self._private = suffixes.icann, suffixes.private
        self._above_private = suffixes.above_private
        self._depths = _depths(suffixes.icann)  # of top-level labels that have longer suffixes
        self._most = max(_depths(suffixes.private).values(), default=0)
        # Below these two labels, or this last one, a suffix may be of more than one.
        icann = suffixes.icann
        longer = (*icann.exact, *icann.wild, *icann.exceptions)
        self._above_icann = frozenset(
            ".".join(name.rsplit(".", 2)[1:]) for name in longer if name.count(".") > 1
        )
        # Whoever asks for an address asks twice: A and AAAA.
        self._name: DomainName = ROOT
        self._parts: tuple[Below, ...] = ((ROOT, ""),)
        wild = icann.wild | suffixes.private.wild
        self._wild = frozenset(name for name in wild if name.count(".") < 2)

    def split(self, name: DomainName) -> tuple[Below, ...]:
        """Return the suffix at the ICANN level, and that at the private level where it differs.

        A name that is a public suffix itself is a suffix with nothing below it.
        """
        if name == self._name:
            return self._parts
        self._name, self._parts = name, self._split(name)
        return self._parts

    def _split(self, name: DomainName) -> tuple[Below, ...]:
        dot = name.rfind(".")
        before = name.rfind(".", 0, max(dot, 0))
        tail = name[before + 1 :]
        if name[dot + 1 :] in UNDELEGATED:  # a private zone: nobody sold what is directly below it
            top, below = name[dot + 1 :], name[: max(dot, 0)]
            return ((DomainName(top), ".".join(below.split(".")[::-1])),)
        if (
            tail in self._icann.exact
            or tail in self._above_private
            or tail in self._private.exact
            or tail in self._above_icann
            or tail in self._wild
            or name[dot + 1 :] in self._wild
        ):
            return self._split_anywhere(name)
        if before < 0:
            return ((name, ""),)
        below = name[:before]
        if "." in below:
            below = ".".join(below.split(".")[::-1])
        return ((DomainName(tail), below),)

    def _split_anywhere(self, name: DomainName) -> tuple[Below, ...]:
        labels = name.split(".")
        top = labels[-1]
        depth = self._depths.get(top)
        # The list's default rule is `*`: the last label.
        public = (depth and _public(labels, self._icann, depth)) or 1
        first = _below(labels, name, public + 1)
        if len(labels) > 2 and self._may_be_shared(f"{labels[-2]}.{top}", top):
            shared = _public(labels, self._private, self._most)
            if public < shared < len(labels):
                return (first, _below(labels, name, shared + 1))
        return (first,)

    def _may_be_shared(self, tail: str, top: str) -> bool:
        """Return whether any rule of the private division could name what ends in `tail`."""
        private = self._private
        return tail in self._above_private or tail in private.exact or top in private.wild


def _depths(rules: SuffixRules) -> dict[str, int]:
    """Return, by their last label, of how many labels the longest rules are, if of several."""
    depths: dict[str, int] = {}
    for names, more in ((rules.exact, 1), (rules.wild, 2)):
        for name in names:
            dots = name.count(".")
            if dots + more > 1:
                top = name[name.rfind(".") + 1 :]
                depths[top] = max(depths.get(top, 0), dots + more)
    return depths


def _public(labels: list[str], rules: SuffixRules, most: int) -> int:
    """Return of how many labels the public suffix is; 0: no rule of this division names it."""
    exact, wild, found = rules.exact, rules.wild, 0
    above = ""
    for count, label in enumerate(labels[: -most - 1 : -1], 1):
        name = f"{label}.{above}" if above else label
        if above in wild:
            if name in rules.exceptions:
                return count - 1  # the list's format: its suffix is what an exception stands in
            found = count
        elif name in exact:
            found = count
        above = name
    return found


def _below(labels: list[str], name: DomainName, count: int) -> Below:
    if len(labels) <= count:
        return name, ""
    return DomainName(".".join(labels[-count:])), ".".join(labels[-count - 1 :: -1])


def whole(sub: str, suffix: DomainName) -> str:
    """Return the name that is `sub` below `suffix`, as it was asked."""
    return ".".join([*reversed(sub.split(".")), suffix]) if sub else suffix
