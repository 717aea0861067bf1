"""The public suffix list, as a value that comes in from outside (publicsuffix.org/list).

`ICANN` suffixes are registries: a wildcard over one is every customer of that registry.
`PRIVATE` suffixes are hosts of many tenants: a wildcard over one is every tenant.
"""

from msgspec import Struct

from rules.name import DomainName, ancestors, is_below, parent

UNDELEGATED = frozenset({"corp", "home", "internal", "invalid", "lan", "local", "mail", "test"})
"""Single labels that the root does not delegate, so that a private zone may use them."""


class SuffixRules(Struct, frozen=True):
    """One division of the list: plain rules, parents of `*.` rules, and `!` exceptions."""

    exact: frozenset[str]
    wild: frozenset[str]
    exceptions: frozenset[str]

    def holds(self, name: DomainName) -> bool:
        """Return whether `name` is a public suffix of this division."""
        if name in self.exceptions:
            return False
        return name in self.exact or ("." in name and parent(name) in self.wild)


class PublicSuffixes(Struct, frozen=True):
    """The list, with what lies above each private suffix kept for wildcards that reach down."""

    icann: SuffixRules
    private: SuffixRules
    above_private: frozenset[str]

    def is_registry(self, name: DomainName) -> bool:
        """Return whether `name` is an ICANN suffix; an unlisted single label is one."""
        unlisted = "." not in name and name not in UNDELEGATED
        return unlisted or self.icann.holds(name) or name in self.icann.wild

    def is_shared(self, name: DomainName) -> bool:
        """Return whether `name` is at or below a private suffix."""
        return self.private.holds(name) or any(map(self.private.holds, ancestors(name)))

    def registrable(self, name: DomainName) -> DomainName | None:
        """Return the registrable domain of `name`: one label below its longest suffix."""
        below = name
        for candidate in (name, *ancestors(name)):
            if candidate in self.icann.exceptions or candidate in self.private.exceptions:
                return candidate  # the list's format: its suffix is what an exception stands in
            if self.icann.holds(candidate) or self.private.holds(candidate):
                return below if is_below(below, candidate) else None
            below = candidate
        return DomainName(".".join(name.rsplit(".", 2)[-2:])) if "." in name else None


def read_suffixes(lines: list[str]) -> PublicSuffixes:
    """Return the list that `lines` spell (the format of publicsuffix.org/list)."""
    parts: dict[bool, tuple[set[str], set[str], set[str]]] = {
        False: (set(), set(), set()),
        True: (set(), set(), set()),
    }
    private = False
    for line in lines:
        private = private or "===BEGIN PRIVATE DOMAINS===" in line
        rule = line.split("//", 1)[0].strip().lower()
        if rule:
            _add(rule if rule.isascii() else rule.encode("idna").decode("ascii"), parts[private])
    icann, tenants = (SuffixRules(*map(frozenset, parts[key])) for key in (False, True))
    above = {up for name in tenants.exact | tenants.wild for up in ancestors(DomainName(name))}
    return PublicSuffixes(icann, tenants, frozenset(above | tenants.wild))


def _add(rule: str, into: tuple[set[str], set[str], set[str]]) -> None:
    exact, wild, exceptions = into
    if rule.startswith("!"):
        exceptions.add(rule[1:])
    elif rule.startswith("*."):
        wild.add(rule[2:])
    else:
        exact.add(rule)
