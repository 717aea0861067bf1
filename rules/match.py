"""The rules of one generation, laid out so that a decision looks up and never searches.

An app's rules lie in tables by the base of their pattern, where a name is looked up label by
label (the longest base first), and by network.  The rules of one pattern are a `Level`: those
that differ in nothing but id and paths stand there once, and their paths lie in one tree.  What
is here never says yes or no: that is `rules.decide`.
"""

from collections.abc import Generator, Iterator
from itertools import chain
from operator import attrgetter

from msgspec import Struct
from msgspec.structs import replace

from rules.address import Address, Network
from rules.listed import NO_LISTS, Lists
from rules.name import ROOT, DomainName
from rules.path import PathIndex
from rules.pattern import HostPattern, PatternKind
from rules.rtype import AAAA, A
from rules.ruleset import AllowRule, App, DenyRule, Ruleset

ADDRESS_TYPES = frozenset({A, AAAA})

_EVERY = (HostPattern(PatternKind.EVERY, ROOT),)
STEP = 64  # patterns or rules between two steps: 0.1 to 0.3 ms
_SHARDS, _UNDIVIDED = 64, 4096  # parts of a table that has more patterns than this


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

type Shards[V] = tuple[dict[str, V], ...]
"""One table in parts: a name is in the part that `hash(name) % len(shards)` says.

A dict that grows copies itself while everything else waits: 5 ms for 100,000 names.
"""

type Steps[T] = Generator[None, None, T]
"""Work in pieces of well under a millisecond: whoever drives it may do something else between."""


class Names(Struct, frozen=True):
    """Names, to ask whether one is among them."""

    shards: Shards[None]

    def __contains__(self, name: str) -> bool:
        """Return whether `name` is one of them."""
        return name in self.shards[hash(name) % len(self.shards)]

    def __iter__(self) -> Iterator[str]:
        """Yield each, in no order that matters."""
        return chain.from_iterable(self.shards)


class HostTable[R: AllowRule | DenyRule](Struct, frozen=True):
    """Levels by pattern: the base of the pattern is the key; `wild`: `child` or `below` has any."""

    exact: Shards[Levels[R]]
    child: Shards[Levels[R]]
    below: Shards[Levels[R]]
    every: Levels[R]
    wild: bool

    def levels(self, name: str) -> Levels[R]:
        """Return the levels whose pattern matches `name`."""
        shards = self.exact
        found = shards[hash(name) % len(shards)].get(name, ())
        if self.wild:
            base = name.partition(".")[2]
            shards = self.child
            found += shards[hash(base) % len(shards)].get(base, ())
            return found + self.above(base)
        return found + self.every if self.every else found

    def has_name(self, name: str) -> bool:
        """Return whether some pattern is `name` itself."""
        shards = self.exact
        return name in shards[hash(name) % len(shards)]

    def above(self, base: str) -> Levels[R]:
        """Return the levels that match everything below `base`."""
        found: Levels[R] = ()
        shards = self.below
        while base and self.wild:
            levels = shards[hash(base) % len(shards)].get(base)
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
    `upgrading`: some allow has `https_upgrade`.
    """

    app: App
    allows: HostTable[AllowRule]
    literals: NetworkTable[AllowRule]
    denies: HostTable[DenyRule]
    networks: NetworkTable[DenyRule]
    ancestors: Names
    selective: bool
    upgrading: bool


class RuleIndex(Struct, frozen=True):
    """Every app's rules, under the generation of the `Ruleset` that they came from; deny lists."""

    generation: int
    apps: dict[str, AppIndex]
    lists: Lists = NO_LISTS


def index_rules(ruleset: Ruleset, lists: Lists = NO_LISTS) -> RuleIndex:
    """Return the index that decisions are made on; `lists` are what `ruleset.lists` name."""
    apps = {name: index_app(app) for name, app in ruleset.apps.items()}
    return RuleIndex(ruleset.generation, apps, lists)


def index_app(app: App) -> AppIndex:
    """Return one app's index."""
    return finish(index_steps(app))


def finish[T](steps: Steps[T]) -> T:
    """Return what `steps` come to, done without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            result: T = ended.value
            return result


def index_steps(app: App) -> Steps[AppIndex]:
    """Return one app's index, in steps."""
    patterns = yield from _patterns(app)
    shards = _SHARDS if patterns > _UNDIVIDED else 1
    allows, denies = _Hosts[AllowRule](shards), _Hosts[DenyRule](shards)
    literals, networks = _Networks[AllowRule](), _Networks[DenyRule]()
    above = _Above(shards)
    selective = upgrading = False
    for allow in app.allows:
        selective = selective or is_selective(allow)
        upgrading = upgrading or allow.upgrade is not None
        if allow.patterns:
            yield from allows.add(allow, allow.patterns)
            yield from above.add(allow.patterns)
        else:
            yield from literals.add(allow, allow.addresses)
    for deny in app.denies:
        selective = selective or is_selective(deny)
        if is_of_questions(deny) or is_of_origins(deny):
            if deny.addresses is None:
                yield from denies.add(deny, deny.patterns or _EVERY)
            else:
                yield from networks.add(deny, deny.addresses)
    return AppIndex(
        app,
        (yield from allows.table()),
        (yield from literals.table()),
        (yield from denies.table()),
        (yield from networks.table()),
        Names(above.shards),
        selective,
        upgrading,
    )


def _patterns(app: App) -> Steps[int]:
    total = 0
    rules: Iterator[AllowRule | DenyRule] = chain(app.allows, app.denies)
    for number, rule in enumerate(rules, 1):
        total += len(rule.patterns or ())
        if number % STEP == 0:
            yield
    return total


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


def names_host(rule: DenyRule, host: DomainName | Address | None) -> bool:
    """Return whether the deny's host is this one; no pattern but `*` matches a literal."""
    if rule.patterns is None:
        return True
    if isinstance(host, str):
        return any(pattern.matches(host) for pattern in rule.patterns)
    return any(pattern.kind is PatternKind.EVERY for pattern in rule.patterns)


class _Hosts[R: AllowRule | DenyRule]:
    """Lays out rules by the patterns of their hosts."""

    def __init__(self, shards: int) -> None:
        self._tables: dict[PatternKind, Shards[Levels[R]]] = {
            kind: tuple({} for _ in range(shards)) for kind in PatternKind
        }
        self._clashes: dict[tuple[PatternKind, str], list[R]] = {}
        self._added = 0

    def add(self, rule: R, patterns: tuple[HostPattern, ...]) -> Iterator[None]:
        levels = (_level((rule,)),)
        for pattern in patterns:
            shards = self._tables[pattern.kind]
            shard = shards[hash(pattern.base) % len(shards)]
            present = shard.setdefault(pattern.base, levels)
            if present is not levels:
                place = pattern.kind, pattern.base
                self._clashes.setdefault(place, [_rule_of(present)]).append(rule)
            self._added += 1
            if self._added % STEP == 0:
                yield

    def table(self) -> Steps[HostTable[R]]:
        tables = self._tables
        gather = _Gatherer[R]()
        for (kind, base), rules in self._clashes.items():
            shards = tables[kind]
            shards[hash(base) % len(shards)][base] = gather.levels(rules)
            yield
        every = tables[PatternKind.EVERY]
        child, below = tables[PatternKind.CHILD], tables[PatternKind.BELOW]
        return HostTable(
            exact=tables[PatternKind.EXACT],
            child=child,
            below=below,
            every=every[hash(ROOT) % len(every)].get(ROOT, ()),
            wild=any(child) or any(below),
        )


def _rule_of[R: AllowRule | DenyRule](levels: Levels[R]) -> R:
    return (levels[0].questions or levels[0].origins)[0]


class _Networks[R: AllowRule | DenyRule]:
    """Lays out rules by their networks."""

    def __init__(self) -> None:
        self._places: dict[Network, list[R]] = {}

    def add(self, rule: R, networks: tuple[Network, ...]) -> Iterator[None]:
        for number, network in enumerate(networks, 1):
            self._places.setdefault(network, []).append(rule)
            if number % STEP == 0:
                yield

    def table(self) -> Steps[NetworkTable[R]]:
        gather = _Gatherer[R]()
        tables: dict[tuple[int, int], dict[int, Levels[R]]] = {}
        for network, rules in self._places.items():
            bits, length = network.max_prefixlen, network.prefixlen
            prefix = int(network.network_address) >> (bits - length)
            tables.setdefault((bits, length), {})[prefix] = gather.levels(rules)
            yield
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


class _Above:
    """Gathers the names below which an allow matches something."""

    def __init__(self, shards: int) -> None:
        self.shards: Shards[None] = tuple({} for _ in range(shards))

    def add(self, patterns: tuple[HostPattern, ...]) -> Iterator[None]:
        shards = self.shards
        shards[hash(ROOT) % len(shards)][ROOT] = None
        for number, pattern in enumerate(patterns, 1):
            base: str = pattern.base
            if pattern.kind is PatternKind.EXACT:
                base = base.partition(".")[2]
            while base and base not in (shard := shards[hash(base) % len(shards)]):
                shard[base] = None
                base = base.partition(".")[2]
            if number % STEP == 0:
                yield
