"""Why a decision came out as it did: each rule of the asker's app, and what it lacked.

For people (`sallyport explain`), never on the way of a request.  The last step is the decision
itself, made by `rules.decide`; the others only say in words what the rules and lists hold.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from rules.address import Address, embedded, special_purpose
from rules.attestable import lacking
from rules.decide import decide
from rules.decision import Decision, FileCertificate, Reason, UpgradeTls, Verdict, upgraded_port
from rules.facts import Connect, Endpoint, Evidence, Facts, Level, Principal, Question, Request
from rules.freshness import just_made, thresholds
from rules.listed import Lists
from rules.match import (
    AppIndex,
    RuleIndex,
    is_of_origins,
    is_of_questions,
    is_selective,
    names_host,
)
from rules.name import DomainName, ancestors
from rules.path import readings
from rules.required import describe, describe_proven, total
from rules.rtype import AAAA, A, mnemonic
from rules.ruleset import AllowRule, App, DenyRule, ListSource, Ruleset
from rules.zones import Zones, is_private, zones_of

STEPS_HERE = 200  # rules of the same host that do not fit; more are counted
STEPS_ELSEWHERE = 50  # rules of other hosts
VALUES_SHOWN = 4

_OF_QUESTIONS = "a deny with ports, addresses, methods or paths never covers a look-up"
_OF_ORIGINS = "a deny with types covers look-ups only"
_OF_LOOK_UPS = "an allow without A and AAAA covers look-ups only"
_OF_REQUESTS = "methods and paths cover requests only; to this host only readable HTTP passes"
_WORDS = {
    Reason.LOCAL: "a special-use name, answered by the appliance itself",
    Reason.SPECIAL_USE: "special-use names and this host's own addresses are never reached",
    Reason.HOST_NOT_LISTED: "no allow names the host",
    Reason.LITERAL_NOT_ALLOWED: "no allow names the address",
    Reason.LIST: "a deny list names it",
    Reason.TYPE_NOT_ALLOWED: "no allow of the name holds the record type",
    Reason.PORT_NOT_ALLOWED: "no allow of the host holds the port",
    Reason.METHOD_NOT_ALLOWED: "no allow of the host and port holds the method",
    Reason.PATH_NOT_ALLOWED: "no allow of the host, port and method holds the path",
    Reason.ADDRESS_NOT_ALLOWED: "the address may not stand for the name",
    Reason.IDENTITY_UNKNOWN: "what was presented names no app",
    Reason.MTLS_REQUIRED: "a client certificate is required",
    Reason.ATTESTATION_REQUIRED: "an attestation is required",
}


class StepKind(StrEnum):
    """What a step is about."""

    DENY = "deny"
    LIST = "list"
    ALLOW = "allow"
    DECISION = "decision"


class ListAlone(Struct, frozen=True):
    """One deny list by itself, and as if it had no `except`."""

    source: ListSource
    lists: Lists


class Step(Struct, frozen=True):
    """One rule or list that was tried, or the decision that came of all of them.

    `rule` is None for rules that are only counted, and for a decision that no rule gave.
    """

    rule: str | None
    kind: StepKind
    matched: bool
    why: str
    decision: Decision | None = None


def explain(index: RuleIndex, facts: Facts, lists: Sequence[ListAlone] = ()) -> tuple[Step, ...]:
    """Return each rule of the asker's app with why it matched or not; last, the decision.

    `lists` are those of `index`, in their order.
    """
    decision = decide(index, facts)
    zones = zones_of(index)
    steps: list[Step] = []
    app = index.apps.get(facts.principal.app)
    if app is not None:
        steps += _steps(StepKind.DENY, app.app.denies, facts, decision, zones)
    steps += _list_steps(lists, facts, decision)
    if app is not None:
        steps += _steps(StepKind.ALLOW, app.app.allows, facts, decision, zones)
    words = _WORDS.get(decision.reason) or f"the rule says {decision.verdict}"
    allowed = decision.verdict is Verdict.ALLOW
    if app is not None:
        words += _proof(app, facts, decision)
    words += _where(facts, decision, zones)
    return (*steps, Step(decision.rule, StepKind.DECISION, allowed, words, decision))


def assume(facts: Facts, ruleset: Ruleset, level: Level) -> Facts:
    """Return `facts` as of one who was attested at `level` a moment ago.

    Where no evidence says what the attestation is bound to, it is a lease if the level is launched
    or the app is known by a lease alone, else a certificate.
    """
    who = facts.principal
    ages_s = thresholds(ruleset).get(who.app, ())
    evidence = who.evidence
    if not {Evidence.LEASE, Evidence.CERTIFICATE} & {*evidence}:
        evidence = (_bound(ruleset.apps.get(who.app), level), *evidence)
    proven = Principal(who.app, evidence, just_made(level, ages_s))
    return replace(facts, principal=proven)


def _bound(app: App | None, level: Level) -> Evidence:
    lines = () if app is None else app.identity
    by_lease = any(line.lease for line in lines) and not any(line.spiffe for line in lines)
    return Evidence.LEASE if by_lease or level is Level.LAUNCHED else Evidence.CERTIFICATE


def _proof(app: AppIndex, facts: Facts, decision: Decision) -> str:
    """Return in words what must be proven, and what the asker has."""
    if isinstance(facts, Endpoint) or (isinstance(facts, Question) and facts.via is not None):
        return ""  # it was asked of what led here
    rules = [rule for rule in app.app.allows if rule.id == decision.rule]
    if isinstance(facts, Connect):
        rules = [rule for rule in rules if not is_selective(rule)]
    required = describe(total([app.app.require, *[rule.require for rule in rules]]))
    if not required:
        is_unmet = decision.reason in {Reason.ATTESTATION_REQUIRED, Reason.MTLS_REQUIRED}
        return "; a rule of another reading of the path requires it" if is_unmet else ""
    who = facts.principal
    said = f": {decision.text}" if decision.reason is Reason.ATTESTATION_REQUIRED else ""
    shown = ", ".join(who.evidence) or "nothing"
    proven = describe_proven(who.attested)
    never = (lacking(app.app, each.level) for each in who.attested)
    but = "".join(f"; but {each[0]}" for each in never if each is not None)
    return f"{said}; required: {required}; shown: {shown}; attested: {proven}{but}"


def _where(facts: Facts, decision: Decision, zones: Zones) -> str:
    """Return in words who is asked for an allowed name, where that is a zone's resolvers."""
    host = _host(facts)
    apex = zones.apex(host) if isinstance(host, str) else None
    if apex is None or decision.verdict is not Verdict.ALLOW or decision.reason is Reason.LOCAL:
        return ""
    return f"; it is in the zone {apex}, whose resolvers alone are asked"


def _upgrade(facts: Facts, decision: Decision) -> str:
    """Return in words that the request goes on over TLS, and what is presented there."""
    upgrade = next((each for each in decision.obligations if isinstance(each, UpgradeTls)), None)
    if upgrade is None or not isinstance(facts, Connect | Request):
        return ""
    port = upgraded_port(facts.port)
    if isinstance(facts, Connect):
        return f"; requests may go on over TLS to port {port} (https_upgrade), nothing else passes"
    shown = upgrade.certificate
    if shown is None:
        return f"; it goes on over TLS to port {port} (https_upgrade), without a certificate"
    which = f"in {shown.cert}" if isinstance(shown, FileCertificate) else f"of {shown.spiffe}"
    return f"; it goes on over TLS to port {port} (https_upgrade), with the certificate {which}"


def _list_steps(lists: Sequence[ListAlone], facts: Facts, decision: Decision) -> Iterator[Step]:
    """Yield each list with the line of it that names the host, and who lets it pass."""
    app = facts.principal.app
    host = facts.address if isinstance(facts, Endpoint) else _host(facts)
    for one in lists:
        source = one.source
        if not one.lists.covers(app):
            yield Step(source.shown, StepKind.LIST, matched=False, why=f"it does not cover {app}")
            continue
        found = (
            one.lists.find(app, host)
            if isinstance(host, str)
            else one.lists.find_address(app, host, getattr(facts, "name", None))
        )
        passing = _passing(source, facts)
        if found is None:
            why = f"it denies no {host}"
            yield Step(source.shown, StepKind.LIST, matched=False, why=why)
        elif passing is not None:
            why = f"{found.trigger} denies it, but `except: {passing}` of {source.place} passes it"
            yield Step(found.id, StepKind.LIST, matched=False, why=why)
        else:
            fits = "it decides" if found.id == decision.rule else "it fits; another decides"
            yield Step(found.id, StepKind.LIST, matched=True, why=f"{fits}: {found.trigger}")


def _passing(source: ListSource, facts: Facts) -> DomainName | None:
    """Return the exception of a list that lets the name pass; an address passes with its name."""
    host = _host(facts)
    names = (host, *ancestors(host)) if isinstance(host, str) else ()
    return next((name for name in names if name in source.excepts), None)


def _steps(
    kind: StepKind,
    rules: Iterable[AllowRule | DenyRule],
    facts: Facts,
    decision: Decision,
    zones: Zones,
) -> Iterator[Step]:
    room = {True: STEPS_ELSEWHERE, False: STEPS_HERE}
    counted = 0
    for rule in rules:
        elsewhere = _elsewhere(rule, facts)
        why = elsewhere or next(filter(None, _lacks(rule, facts, zones)), "")
        if why and not room[bool(elsewhere)]:
            counted += 1
            continue
        if why:
            room[bool(elsewhere)] -= 1
        decides = rule.id == decision.rule
        fits = f"it decides{_upgrade(facts, decision)}" if decides else "it fits; another decides"
        yield Step(rule.id, kind, not why, why or fits)
    if counted:
        yield Step(None, kind, matched=False, why=f"{counted:,} more that do not match")


def _elsewhere(rule: AllowRule | DenyRule, facts: Facts) -> str:
    """Return in words that the rule is about other hosts; nothing where it is about this one."""
    host = _host(facts)
    if isinstance(rule, DenyRule):
        is_here = names_host(rule, host)
    else:
        if isinstance(facts, Question) and facts.via is not None:
            host = facts.via  # whose allow a chain's target inherits
        if bool(rule.patterns) is not isinstance(host, str):
            return (
                "it allows names, no literals" if rule.patterns else "it allows literals, no names"
            )
        is_here = any(one.matches(host) for one in rule.patterns) if isinstance(host, str) else True
    return "" if is_here else f"{_shown(rule.patterns or ())} does not match {host}"


def _host(facts: Facts) -> DomainName | Address:
    if isinstance(facts, Question):
        return facts.name
    if isinstance(facts, Endpoint):
        return facts.name if facts.name is not None else facts.address
    return facts.host


def _lacks(rule: AllowRule | DenyRule, facts: Facts, zones: Zones) -> Iterator[str]:
    """Yield in words what of the fact the rule is not about; nothing for what fits."""
    if isinstance(facts, Question):
        yield "" if is_of_questions(rule) else _OF_QUESTIONS
        yield _type(rule.types, facts.rtype)
        return
    if not is_of_origins(rule):
        yield _OF_ORIGINS if isinstance(rule, DenyRule) else _OF_LOOK_UPS
    if isinstance(rule, DenyRule) and is_selective(rule) and not isinstance(facts, Request):
        yield _OF_REQUESTS
    yield _port(rule, facts)
    yield _address(rule, facts, zones)
    if isinstance(facts, Request):
        yield _method(rule, facts)
        yield _path(rule, facts)


def _type(types: Collection[int] | None, rtype: int) -> str:
    if types is None or rtype in types:
        return ""
    return f"type {mnemonic(rtype)} is not in {_shown(mnemonic(one) for one in sorted(types))}"


def _port(rule: AllowRule | DenyRule, facts: Connect | Endpoint | Request) -> str:
    port = facts.port
    if isinstance(facts, Endpoint) and isinstance(rule, AllowRule) and facts.asked is not None:
        port = facts.asked
        if rule.upgrade is None:
            return f"it does not say https_upgrade, by which port {facts.port} is dialled"
    if rule.ports is None or port in rule.ports:
        return ""
    if port is None:
        return "it waits until the port is known" if isinstance(rule, DenyRule) else ""
    return f"port {port} is not in {_shown(sorted(rule.ports))}"


def _address(rule: AllowRule | DenyRule, facts: Connect | Endpoint | Request, zones: Zones) -> str:
    if isinstance(facts, Endpoint):
        address: DomainName | Address = facts.address
        if isinstance(rule, AllowRule) and rule.patterns:
            return _standing(rule, facts, zones)
    else:
        address = facts.host
    if rule.addresses is None or (isinstance(rule, AllowRule) and rule.patterns):
        return ""
    if isinstance(address, str):
        return "a deny with addresses covers literals and what names resolve to"
    carried = embedded(address) if isinstance(rule, DenyRule) else ()
    if any(one in network for one in (address, *carried) for network in rule.addresses):
        return ""
    return f"{address} is not in {_shown(rule.addresses)}"


def _standing(rule: AllowRule, facts: Endpoint, zones: Zones) -> str:
    """Return in words why the address may not stand for a name that the rule allows."""
    address = facts.address
    if facts.own_listener:
        return f"{address} is a listener of the appliance"
    lacking = _type(rule.types, A if address.version == 4 else AAAA)
    if lacking or any(address in network for network in rule.addresses):
        return lacking
    if facts.own_interface:
        return f"{address} is an address of this host, not in {_shown(rule.addresses)}"
    blocks = ((one, special_purpose(one)) for one in (address, *embedded(address)))
    special = next(((one, block) for one, block in blocks if block is not None), None)
    if special is None or (facts.name and zones.apex(facts.name) and is_private(address)):
        return ""
    return f"{special[0]} is {special[1]}, not in {_shown(rule.addresses)}"


def _method(rule: AllowRule | DenyRule, facts: Request) -> str:
    if rule.methods is None or facts.method in rule.methods:
        return ""
    return f"method {facts.method} is not in {_shown(sorted(rule.methods))}"


def _path(rule: AllowRule | DenyRule, facts: Request) -> str:
    tried = readings(facts.path) if isinstance(rule, DenyRule) else (facts.path,)
    if rule.paths is None or any(glob.matches(path) for glob in rule.paths for path in tried):
        return ""
    return f"{facts.path} does not match {_shown(glob.text for glob in rule.paths)}"


def _shown(values: Iterable[object]) -> str:
    """Return the first values as a list, and how many more there are."""
    texts = [str(value) for value in values]
    more = len(texts) - VALUES_SHOWN
    tail = [f"{more:,} more"] if more > 0 else []
    return f"[{', '.join(texts[:VALUES_SHOWN] + tail)}]"
