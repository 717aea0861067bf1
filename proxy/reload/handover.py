"""Rules on their way from the process that read them to the one that decides by them.

What is handed over is read in pieces of well under a millisecond, so that whoever answers
queries can do so between any two.  It is pickled, because nothing else keeps the values and what
they share; it comes from a child of ours that runs the same code, and the reader makes nothing
but the values that rules are made of.
"""

import hashlib
import io
import pickle
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import batched
from struct import Struct as Layout
from typing import Any, BinaryIO, override

from msgspec import Struct
from msgspec.structs import replace

from proxy.reload.table import ReadList, ReadLists
from rules.address import Network
from rules.decision import FileCertificate, Refuse, SvidCertificate, UpgradeTls
from rules.errors import Place, Problem, Severity
from rules.facts import Level
from rules.match import Steps
from rules.path import PathGlob
from rules.pattern import HostPattern, PatternKind
from rules.ruleset import (
    AllowRule,
    App,
    Capability,
    DenyRule,
    IdentityLine,
    Launched,
    ListSource,
    ReferenceValues,
    Requirements,
)
from rules.watch import Detect, Mode

_LENGTH = Layout("!I")
_PIECE = 128  # rules and their patterns in one piece: 0.1 to 0.2 ms to read
_NETWORK, _PATH = 12, 4  # as many patterns are read in the time of one of these


class Request(Struct, frozen=True):
    """What to read, and what the appliance has already.

    `digest` is of the files in force, `apps` are the digests of the apps in force: what is equal
    is not handed over again.  `listening` are the addresses that identity lines may name.
    `lists` are those in force under `lists_digest`.  `table` and `progress` are descriptors: of
    the file that a table is written to, and of a pipe for news.
    """

    folders: tuple[str, ...]
    first_run: bool = False
    system: bool = False
    listening: tuple[str, ...] = ()
    digest: str = ""
    apps: dict[str, str] = {}
    lists: tuple[ListSource, ...] = ()
    lists_digest: str = ""
    table: int = -1
    progress: int = -1


class Heading(Struct, frozen=True):
    """What was read, before the rules themselves.

    `digest` is of the files, and empty where they cannot be used: then `problems` says why.
    `apps` are the digests of all apps; `files`, `notes` and `in_memory` are as in `RuleFiles`.
    `lists` are what the rules name; None where nobody knows.
    """

    digest: str = ""
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    in_memory: bool = False
    apps: tuple[tuple[str, str], ...] = ()
    lists: ReadLists | None = None


class Opening(Struct, frozen=True):
    """An app, without its rules, which follow."""

    app: App


class Rules(Struct, frozen=True):
    """Some rules of the app; the patterns and networks of one with many follow."""

    rules: tuple[AllowRule | DenyRule, ...]


class Patterns(Struct, frozen=True):
    """Some patterns of the rule that came last."""

    patterns: tuple[HostPattern, ...]


class Networks(Struct, frozen=True):
    """Some networks of the rule that came last."""

    networks: tuple[Network, ...]


type Piece = Heading | Opening | Rules | Patterns | Networks

_VALUES: dict[tuple[str, str], Any] = {
    (kind.__module__, kind.__qualname__): kind
    for kind in (
        *(Heading, Opening, Rules, Patterns, Networks),
        *(Problem, Place, Severity),
        *(App, AllowRule, DenyRule, IdentityLine, Requirements, Level, Refuse),
        *(ReferenceValues, Launched, Capability),
        *(Detect, Mode, ListSource, ReadList, ReadLists),
        *(HostPattern, PatternKind, PathGlob),
        *(UpgradeTls, SvidCertificate, FileCertificate),
        *(IPv4Address, IPv6Address, IPv4Network, IPv6Network, frozenset),
    )
}


class ForeignValueError(Exception):
    """What was handed over is not made of what rules are made of."""


class _Reader(pickle.Unpickler):
    @override
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        found = _VALUES.get((module_name, global_name))
        if found is None:
            raise ForeignValueError(f"{module_name}.{global_name}")
        return found


def write_piece(out: BinaryIO, piece: Piece) -> None:
    """Write one piece behind those that are there."""
    _write(out, _octets(piece))


def app_pieces(app: App) -> list[bytes]:
    """Return the pieces of one app, to be digested and written."""
    pieces: list[Piece] = [Opening(replace(app, allows=(), denies=()))]
    for rules in (app.allows, app.denies):
        pieces += _rule_pieces(rules)
    return [_octets(piece) for piece in pieces]


def digest_of(pieces: Iterable[bytes]) -> str:
    """Return the digest of an app: equal ones are equal apps."""
    hashed = hashlib.sha256()
    for octets in pieces:
        hashed.update(octets)
    return hashed.hexdigest()


def write_pieces(out: BinaryIO, pieces: Iterable[bytes]) -> None:
    """Write what `app_pieces` returned."""
    for octets in pieces:
        _write(out, octets)


def read_pieces(source: BinaryIO) -> Iterator[Piece]:
    """Yield one piece after another.

    Raises:
        ForeignValueError: a value that is no part of rules.
        EOFError: the last piece is cut short.
    """
    while length := source.read(_LENGTH.size):
        octets = source.read(_LENGTH.unpack(length.ljust(_LENGTH.size))[0])
        if len(length) < _LENGTH.size or len(octets) < _LENGTH.unpack(length)[0]:
            raise EOFError("the rules were not handed over whole")
        yield _Reader(io.BytesIO(octets)).load()


def read_apps(pieces: Iterator[Piece]) -> Iterator[Steps[App]]:
    """Yield, for each app that follows, the steps in which it is read; finish one before the next.

    Raises:
        ForeignValueError: rules of no app.
    """
    following: list[App] = []
    first = next(pieces, None)
    if isinstance(first, Opening):
        following.append(first.app)
    elif first is not None:
        raise ForeignValueError("rules of no app")
    while following:
        yield _read_app(following.pop(), pieces, following)


def _read_app(opened: App, pieces: Iterator[Piece], following: list[App]) -> Steps[App]:
    rules = _Gathered()
    for piece in pieces:
        match piece:
            case Patterns():
                rules.add_patterns(piece.patterns)
            case Networks():
                rules.add_networks(piece.networks)
            case Rules():
                rules.add(piece.rules)
            case Opening():
                following.append(piece.app)
                break
            case Heading():
                raise ForeignValueError("a heading among rules")
        yield
    rules.finish()
    yield
    return replace(opened, allows=tuple(rules.allows), denies=tuple(rules.denies))


class _Gathered:
    """The rules of one app so far, and the patterns and networks of the last of them."""

    def __init__(self) -> None:
        self.allows: list[AllowRule] = []
        self.denies: list[DenyRule] = []
        self.patterns: list[HostPattern] = []
        self.networks: list[Network] = []

    def add(self, rules: tuple[AllowRule | DenyRule, ...]) -> None:
        self.finish()
        for rule in rules:
            if isinstance(rule, AllowRule):
                self.allows.append(rule)
            else:
                self.denies.append(rule)

    def add_patterns(self, patterns: tuple[HostPattern, ...]) -> None:
        self._check_rule()
        self.patterns += patterns

    def add_networks(self, networks: tuple[Network, ...]) -> None:
        self._check_rule()
        self.networks += networks

    def finish(self) -> None:
        """Give the last rule its patterns and networks, if they came apart from it."""
        if self.denies:
            self.denies.append(self._whole(self.denies.pop()))
        elif self.allows:
            self.allows.append(self._whole(self.allows.pop()))

    def _check_rule(self) -> None:
        if not (self.allows or self.denies):
            raise ForeignValueError("patterns or networks of no rule")

    def _whole[R: AllowRule | DenyRule](self, rule: R) -> R:
        patterns, self.patterns = tuple(self.patterns), []
        networks, self.networks = tuple(self.networks), []
        if not patterns and not networks:
            return rule
        return replace(
            rule, patterns=patterns or rule.patterns, addresses=networks or rule.addresses
        )


def _rule_pieces(rules: Iterable[AllowRule | DenyRule]) -> Iterator[Piece]:
    gathered: list[AllowRule | DenyRule] = []
    weight = 0
    for rule in rules:
        if _weight(rule) > _PIECE:
            bare = replace(rule, patterns=rule.patterns and (), addresses=rule.addresses and ())
            yield Rules((*gathered, bare))
            yield from (Patterns(some) for some in batched(rule.patterns or (), _PIECE))
            few = _PIECE // _NETWORK
            yield from (Networks(some) for some in batched(rule.addresses or (), few))
            gathered, weight = [], 0
            continue
        gathered.append(rule)
        weight += _weight(rule)
        if weight >= _PIECE:
            yield Rules(tuple(gathered))
            gathered, weight = [], 0
    if gathered:
        yield Rules(tuple(gathered))


def _weight(rule: AllowRule | DenyRule) -> int:
    """Return how long the rule takes to read, in patterns."""
    networks, paths = len(rule.addresses or ()), len(rule.paths or ())
    return 1 + len(rule.patterns or ()) + _NETWORK * networks + _PATH * paths


def _octets(piece: Piece) -> bytes:
    return pickle.dumps(piece, pickle.HIGHEST_PROTOCOL)


def _write(out: BinaryIO, octets: bytes) -> None:
    out.write(_LENGTH.pack(len(octets)) + octets)
