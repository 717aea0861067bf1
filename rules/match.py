"""The rules of one generation, laid out so that a decision looks up and never searches.

An app's rules lie in tables by the base of their pattern, where a name is looked up label by
label (the longest base first), and by network.  The rules of one pattern are a `Level`: those
that differ in nothing but id and paths stand there once, and their paths lie in one tree.  What
is here never says yes or no: that is `rules.decide`.
"""

from collections.abc import Iterable
from operator import attrgetter

from msgspec import Struct
from msgspec.structs import replace

from rules.address import Address, Network
from rules.name import ROOT
from rules.path import PathIndex
from rules.pattern import HostPattern, PatternKind
from rules.rtype import AAAA, A
from rules.ruleset import AllowRule, App, DenyRule, Ruleset

ADDRESS_TYPES = frozenset({A, AAAA})

_EVERY = (HostPattern(PatternKind.EVERY, ROOT),)


class Level[R: AllowRule | DenyRule](Struct, frozen=True, gc=False):
    """The rules of one pattern, or of one network, in the order of their ids.

    Of rules that differ in id and paths only, one stands in `questions` (which may match a
    Question) and in `origins` (which may match anything else).  `paths` holds every rule that
    has paths; `selective`: some rule in `origins` has methods or paths.
    """

    questions: tuple[R, ...]
    origins: tuple[R, ...]
    paths: PathIndex[R] | None = None
    selective: bool = False


type Levels[R: AllowRule | DenyRule] = tuple[Level[R], ...]
"""Most specific first; an app's own allows before those of a pack with the same pattern."""


class HostTable[R: AllowRule | DenyRule](Struct, frozen=True):
    """Levels by pattern: the base of the pattern is the key."""

    exact: dict[str, Levels[R]]
    child: dict[str, Levels[R]]
    below: dict[str, Levels[R]]
    every: Levels[R]

    def levels(self, name: str) -> Levels[R]:
        """Return the levels whose pattern matches `name`."""
        found = self.exact.get(name, ())
        if self.child or self.below:
            base = name.partition(".")[2]
            found += self.child.get(base, ())
            return found + self.above(base)
        return found + self.every if self.every else found

    def above(self, base: str) -> Levels[R]:
        """Return the levels that match everything below `base`."""
        found: Levels[R] = ()
        below = self.below
        while base and below:
            levels = below.get(base)
            if levels is not None:
                found += levels
            base = base.partition(".")[2]
        return found + self.every if found else self.every


class NetworkTable[R: AllowRule | DenyRule](Struct, frozen=True):
    """Levels by network: (bits of an address, of a prefix, by the prefix), longest first."""

    lengths: tuple[tuple[int, int, dict[int, Levels[R]]], ...]

    def levels(self, address: Address) -> Levels[R]:
        """Return the levels whose network holds `address`."""
        found: Levels[R] = ()
        for bits, length, by_prefix in self.lengths:
            if bits == address.max_prefixlen:
                found += by_prefix.get(int(address) >> (bits - length), ())
        return found


class AppIndex(Struct, frozen=True):
    """One app's rules.

    `allows` and `denies` go by host, `literals` and `networks` by address (allows without a
    host; denies with `addresses`, with a host or without).  `ancestors` holds each name below
    which an allow matches something.  `selective`: some rule has methods or paths.
    """

    app: App
    allows: HostTable[AllowRule]
    literals: NetworkTable[AllowRule]
    denies: HostTable[DenyRule]
    networks: NetworkTable[DenyRule]
    ancestors: frozenset[str]
    selective: bool


class RuleIndex(Struct, frozen=True):
    """Every app's rules, under the generation of the `Ruleset` that they came from."""

    generation: int
    apps: dict[str, AppIndex]


def index_rules(ruleset: Ruleset) -> RuleIndex:
    """Return the index that decisions are made on."""
    apps = {name: index_app(app) for name, app in ruleset.apps.items()}
    return RuleIndex(ruleset.generation, apps)


def index_app(app: App) -> AppIndex:
    """Return one app's index."""
    hosts = [(rule, rule.patterns) for rule in app.allows if rule.patterns]
    literals = [(rule, rule.addresses) for rule in app.allows if not rule.patterns]
    denies = [rule for rule in app.denies if is_of_questions(rule) or is_of_origins(rule)]
    networks = [(rule, rule.addresses) for rule in denies if rule.addresses is not None]
    return AppIndex(
        app=app,
        allows=_host_table(hosts),
        literals=_network_table(literals),
        denies=_host_table([(r, r.patterns or _EVERY) for r in denies if r.addresses is None]),
        networks=_network_table(networks),
        ancestors=_ancestors(hosts),
        selective=any(map(is_selective, app.allows)) or any(map(is_selective, app.denies)),
    )


def is_selective(rule: AllowRule | DenyRule) -> bool:
    """Return whether the rule judges requests one by one, by method or path."""
    return rule.methods is not None or rule.paths is not None


def is_of_questions(rule: AllowRule | DenyRule) -> bool:
    """Return whether a Question can match: no deny about ports, addresses or requests does."""
    if isinstance(rule, AllowRule):
        return bool(rule.patterns)
    return rule.ports is None and rule.addresses is None and not is_selective(rule)


def is_of_origins(rule: AllowRule | DenyRule) -> bool:
    """Return whether what is no Question can match.

    A deny with types is of Questions only, and so is an allow of names without A and AAAA.
    """
    if isinstance(rule, AllowRule):
        return not rule.patterns or not ADDRESS_TYPES.isdisjoint(rule.types)
    return rule.types is None


def _host_table[R: AllowRule | DenyRule](
    entries: list[tuple[R, tuple[HostPattern, ...]]],
) -> HostTable[R]:
    tables: dict[PatternKind, dict[str, Levels[R]]] = {kind: {} for kind in PatternKind}
    clashes: dict[tuple[PatternKind, str], list[R]] = {}
    for rule, patterns in entries:
        levels = (_level((rule,)),)
        for pattern in patterns:
            present = tables[pattern.kind].setdefault(pattern.base, levels)
            if present is not levels:
                place = pattern.kind, pattern.base
                clashes.setdefault(place, [_rule_of(present)]).append(rule)
    gather = _Gatherer[R]()
    for (kind, base), rules in clashes.items():
        tables[kind][base] = gather.levels(rules)
    return HostTable(
        exact=tables[PatternKind.EXACT],
        child=tables[PatternKind.CHILD],
        below=tables[PatternKind.BELOW],
        every=tables[PatternKind.EVERY].get(ROOT, ()),
    )


def _rule_of[R: AllowRule | DenyRule](levels: Levels[R]) -> R:
    return (levels[0].questions or levels[0].origins)[0]


def _network_table[R: AllowRule | DenyRule](
    entries: list[tuple[R, tuple[Network, ...]]],
) -> NetworkTable[R]:
    places: dict[Network, list[R]] = {}
    for rule, networks in entries:
        for network in networks:
            places.setdefault(network, []).append(rule)
    gather = _Gatherer[R]()
    tables: dict[tuple[int, int], dict[int, Levels[R]]] = {}
    for network, rules in places.items():
        bits, length = network.max_prefixlen, network.prefixlen
        prefix = int(network.network_address) >> (bits - length)
        tables.setdefault((bits, length), {})[prefix] = gather.levels(rules)
    return NetworkTable(tuple((*key, tables[key]) for key in sorted(tables, reverse=True)))


class _Gatherer[R: AllowRule | DenyRule]:
    """Makes levels, once for all places that have the same rules."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, ...], Levels[R]] = {}

    def levels(self, rules: list[R]) -> Levels[R]:
        key = tuple(map(id, rules))
        if key not in self._made:
            own = tuple(rule for rule in rules if not _is_packed(rule))
            packed = tuple(rule for rule in rules if _is_packed(rule))
            self._made[key] = tuple(_level(part) for part in (own, packed) if part)
        return self._made[key]


def _is_packed(rule: AllowRule | DenyRule) -> bool:
    return isinstance(rule, AllowRule) and rule.from_pack


def _level[R: AllowRule | DenyRule](rules: tuple[R, ...]) -> Level[R]:
    if len(rules) > 1:
        return _merged(rules)
    rule = rules[0]
    questions = rules if is_of_questions(rule) else ()
    origins = rules if is_of_origins(rule) else ()
    if rule.methods is None and rule.paths is None:
        return Level(questions, origins)
    return Level(questions, origins, _path_index(rules), bool(origins))


def _merged[R: AllowRule | DenyRule](rules: tuple[R, ...]) -> Level[R]:
    distinct = _distinct(rules)
    origins = tuple(filter(is_of_origins, distinct))
    selective = any(map(is_selective, origins))
    return Level(tuple(filter(is_of_questions, distinct)), origins, _path_index(rules), selective)


def _path_index[R: AllowRule | DenyRule](rules: tuple[R, ...]) -> PathIndex[R] | None:
    globs = [(glob, rule) for rule in rules if is_of_origins(rule) for glob in rule.paths or ()]
    return PathIndex(globs) if globs else None


def _distinct[R: AllowRule | DenyRule](rules: tuple[R, ...]) -> tuple[R, ...]:
    kept: dict[AllowRule | DenyRule, R] = {}
    for rule in sorted(rules, key=attrgetter("id")):
        kept.setdefault(_shape(rule), rule)
    return tuple(kept.values())


def _shape(rule: AllowRule | DenyRule) -> AllowRule | DenyRule:
    paths = None if rule.paths is None else ()
    if isinstance(rule, AllowRule):
        return replace(rule, id="", patterns=(), paths=paths)
    # The host of a deny with addresses is not said by the level, which is a network's.
    patterns = None if rule.addresses is None else rule.patterns
    return replace(rule, id="", text="", patterns=patterns, paths=paths)


def _ancestors(hosts: Iterable[tuple[AllowRule, tuple[HostPattern, ...]]]) -> frozenset[str]:
    above: set[str] = set()
    for _, patterns in hosts:
        above.add(ROOT)
        for pattern in patterns:
            base: str = pattern.base
            if pattern.kind is PatternKind.EXACT:
                base = base.partition(".")[2]
            while base and base not in above:
                above.add(base)
                base = base.partition(".")[2]
    return frozenset(above)
