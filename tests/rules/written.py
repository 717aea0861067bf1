"""Rules written as short literals, for the tests of the deciding side."""

from collections.abc import Iterable

from rules.address import parse_address, parse_network
from rules.decision import Decision, Reason, Refuse, UpgradeTls, Verdict
from rules.facts import Connect, Endpoint, Evidence, Principal, Question, Request
from rules.listed import NO_LISTS, Lists
from rules.match import RuleIndex, index_rules
from rules.name import ROOT, parse
from rules.path import parse_glob
from rules.pattern import HostPattern, PatternKind
from rules.rtype import AAAA, CNAME, HTTPS, A
from rules.ruleset import AllowRule, App, DenyRule, Requirements, Ruleset
from rules.watch import Detect

WEB_TYPES = frozenset({A, AAAA, CNAME, HTTPS})
ME = Principal("me", (Evidence.LISTENER,))


def pattern(text: str) -> HostPattern:
    """Return the pattern that `text` spells."""
    if text == "*":
        return HostPattern(PatternKind.EVERY, ROOT)
    if text.startswith("**."):
        return HostPattern(PatternKind.BELOW, parse(text[3:]))
    if text.startswith("*."):
        return HostPattern(PatternKind.CHILD, parse(text[2:]))
    return HostPattern(PatternKind.EXACT, parse(text))


DETECT = Detect()


def allow(
    *hosts: str,
    id: str = "allow",  # noqa: A002 - the name of the field
    ports: Iterable[int] = (443,),
    types: Iterable[int] = WEB_TYPES,
    addresses: Iterable[str] = (),
    methods: Iterable[str] | None = None,
    paths: Iterable[str] | None = None,
    tls: bool = True,
    accept_ech: bool = False,
    require: Requirements | None = None,
    from_pack: bool = False,
    upgrade: UpgradeTls | None = None,
) -> AllowRule:
    """Return an allow with the defaults of the reference."""
    return AllowRule(
        id=id,
        patterns=tuple(map(pattern, hosts)),
        ports=frozenset(ports),
        types=frozenset(types),
        tls=tls,
        accept_ech=accept_ech,
        addresses=tuple(map(parse_network, addresses)),
        methods=None if methods is None else frozenset(methods),
        paths=None if paths is None else tuple(map(parse_glob, paths)),
        require=require or Requirements(),
        from_pack=from_pack,
        upgrade=upgrade,
    )


def deny(
    *hosts: str,
    id: str = "deny",  # noqa: A002 - the name of the field
    ports: Iterable[int] | None = None,
    types: Iterable[int] | None = None,
    addresses: Iterable[str] | None = None,
    methods: Iterable[str] | None = None,
    paths: Iterable[str] | None = None,
    text: str = "",
) -> DenyRule:
    """Return a deny; without hosts it is about every host."""
    return DenyRule(
        id=id,
        patterns=tuple(map(pattern, hosts)) or None,
        ports=None if ports is None else frozenset(ports),
        types=None if types is None else frozenset(types),
        addresses=None if addresses is None else tuple(map(parse_network, addresses)),
        methods=None if methods is None else frozenset(methods),
        paths=None if paths is None else tuple(map(parse_glob, paths)),
        text=text,
    )


def app(
    *rules: AllowRule | DenyRule,
    require: Requirements | None = None,
    refuse: Refuse = Refuse.NXDOMAIN,
    detect: Detect = DETECT,
) -> App:
    """Return the app `me` of these rules."""
    return App(
        name="me",
        require=require or Requirements(),
        refuse=refuse,
        allows=tuple(rule for rule in rules if isinstance(rule, AllowRule)),
        denies=tuple(rule for rule in rules if isinstance(rule, DenyRule)),
        detect=detect,
    )


def index(
    *rules: AllowRule | DenyRule,
    require: Requirements | None = None,
    refuse: Refuse = Refuse.NXDOMAIN,
    detect: Detect = DETECT,
    lists: Lists = NO_LISTS,
) -> RuleIndex:
    """Return the index of one app, `me`, with these rules."""
    return of_app(app(*rules, require=require, refuse=refuse, detect=detect), lists)


def of_app(one: App, lists: Lists = NO_LISTS) -> RuleIndex:
    """Return the index of one app."""
    return index_rules(Ruleset(1, {one.name: one}), lists)


def question(name: str, rtype: int = A, via: str | None = None, who: Principal = ME) -> Question:
    """Return the fact."""
    asked = parse(name) if name != "." else ROOT
    return Question(who, asked, rtype, parse(via) if via is not None else None)


def connect(host: str, port: int = 443, who: Principal = ME) -> Connect:
    """Return the fact; a host that begins like an address is a literal."""
    literal = host[0].isdigit() or ":" in host
    return Connect(who, parse_address(host) if literal else parse(host), port)


def endpoint(
    name: str | None,
    address: str,
    port: int | None = 443,
    who: Principal = ME,
    *,
    own_listener: bool = False,
    own_interface: bool = False,
    asked: int | None = None,
) -> Endpoint:
    """Return the fact; `asked` is the port that is upgraded to `port`."""
    of = parse(name) if name is not None else None
    return Endpoint(who, of, parse_address(address), port, own_listener, own_interface, asked)


def request(
    host: str, path: str = "/", method: str = "GET", port: int = 443, who: Principal = ME
) -> Request:
    """Return the fact."""
    return Request(who, method, connect(host).host, port, path)


def outcome(decision: Decision) -> tuple[Verdict, Reason, str | None]:
    """Return what most tests are about."""
    return decision.verdict, decision.reason, decision.rule
