"""The answer to every fact: one function, on one index, for both planes.

Deny wins, in any order; else the most specific allow that fits decides and brings its
obligations; what nothing allows is denied.  `decide` is total: it returns for every fact.
"""

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

from msgspec.structs import replace

from rules.address import Address, embedded, is_this_host
from rules.decision import (
    Decision,
    Obligation,
    OnlyReadable,
    PeekTls,
    Reason,
    Resolve,
    TunnelUnread,
    UpgradeTls,
    Verdict,
    upgraded_port,
)
from rules.facts import (
    UNKNOWN_APP,
    Connect,
    Endpoint,
    Facts,
    Principal,
    Question,
    Request,
)
from rules.listing import has_below, has_others, leave_something, listed, listed_address
from rules.match import (
    ADDRESS_TYPES,
    AppIndex,
    Level,
    Levels,
    RuleIndex,
    index_app,
    is_selective,
    names_host,
)
from rules.name import DomainName
from rules.path import readings
from rules.required import Lack, lack, total
from rules.rtype import AAAA, A
from rules.ruleset import AllowRule, App, DenyRule
from rules.special import special_use
from rules.watched import watched
from rules.zones import Zones, zones_of

_ALLOW, _DENY = Verdict.ALLOW, Verdict.DENY
_LOCAL = Decision(_ALLOW, Reason.LOCAL)
_LOCAL_ABOVE_A_ZONE = Decision(_ALLOW, Reason.LOCAL, empty=True)
_SPECIAL = Decision(_DENY, Reason.SPECIAL_USE)
_ONLY_READABLE, _UNREAD = OnlyReadable(), TunnelUnread()
_CUT_ECH, _ACCEPT_ECH = PeekTls(), PeekTls(accept_ech=True)
_UPGRADE = (UpgradeTls(),)
_REFUSED_ADDRESS = Decision(_DENY, Reason.ADDRESS_NOT_ALLOWED)
_RESOLVE = {
    types: (Resolve(types),) for types in (frozenset({A}), frozenset({AAAA}), ADDRESS_TYPES)
}
_NOT_LISTED = frozenset({Reason.HOST_NOT_LISTED, Reason.LITERAL_NOT_ALLOWED})
_NO_RULES = index_app(App(UNKNOWN_APP))

_id = attrgetter("id")


def decide(index: RuleIndex, facts: Facts) -> Decision:
    """Return the decision on `facts`: never raises for facts of their declared types."""
    app = index.apps.get(facts.principal.app)
    if app is not None:
        return _answer(app, facts, index)
    decision = _answer(_NO_RULES, facts, index)
    # A credential was presented and names no app.
    is_unproven = facts.principal.app == UNKNOWN_APP and facts.principal.evidence
    if is_unproven and decision.reason in _NOT_LISTED:
        return Decision(_DENY, Reason.IDENTITY_UNKNOWN)
    return decision


def _answer(app: AppIndex, facts: Facts, index: RuleIndex) -> Decision:
    if isinstance(facts, Request):
        return _request(app, facts, index)
    if isinstance(facts, Question):
        return _question(app, facts, index)
    if isinstance(facts, Connect):
        return _connect(app, facts, index)
    return _endpoint(app, facts, index)


def _question(app: AppIndex, facts: Question, index: RuleIndex) -> Decision:
    name, rtype, zones = facts.name, facts.rtype, zones_of(index)
    if special_use(name) is not None and not zones.asks(name, facts.via):
        return _local(app, facts, zones)
    for denials in app.denies.levels(name):
        for denial in denials.questions:
            if denial.types is None or rtype in denial.types:
                return _refused(app, name, Reason.RULE, denial)
    refusal = listed(index.lists, app.app, facts)
    if refusal is not None:
        # Whatever is asked of an alias leads to its target: only names below it may be left.
        leaves = _is_empty(app, name) if facts.via is None else has_below(app, facts.via)
        return replace(refusal, empty=True) if leaves else refusal
    levels = app.allows.levels(facts.via or name)
    for level in levels:
        rules = [rule for rule in level.questions if rtype in rule.types]
        if rules:
            # A chain's target inherits the allow of the name whose chain it is.
            unmet = _unmet(app.app, rules, facts.principal) if facts.via is None else None
            if unmet is not None:
                return _refused(app, name, unmet.reason, rules[0], unmet.text)
            return Decision(_ALLOW, Reason.RULE, rules[0].id, watched(app, name, rules))
    if facts.via is not None:
        return Decision(_ALLOW, Reason.RULE, obligations=watched(app, name, ()))
    return _refused(app, name, Reason.TYPE_NOT_ALLOWED if levels else Reason.HOST_NOT_LISTED)


def _local(app: AppIndex, facts: Question, zones: Zones) -> Decision:
    """Return that the appliance answers itself; a chain's target is nobody's to lead to."""
    if facts.via is not None:
        return _refused(app, facts.name, Reason.SPECIAL_USE)
    # RFC 8020, section 2: NXDOMAIN here would deny the zone below.
    return _LOCAL_ABOVE_A_ZONE if zones.has_below(facts.name) else _LOCAL


def _refused(
    app: AppIndex,
    name: DomainName,
    reason: Reason,
    rule: AllowRule | DenyRule | None = None,
    text: str = "",
) -> Decision:
    return Decision(
        _DENY,
        reason,
        rule.id if rule is not None else None,
        text=rule.text if isinstance(rule, DenyRule) else text,
        refuse=app.app.refuse,
        empty=_is_empty(app, name),
    )


def _is_empty(app: AppIndex, name: DomainName) -> bool:
    """Return whether another type of the name, or a name below it, may be allowed (RFC 8020)."""
    if has_below(app, name):
        return True
    return bool(app.allows.levels(name)) and leave_something(app.denies.levels(name))


def _unmet(app: App, rules: Sequence[AllowRule], principal: Principal) -> Lack | None:
    """Return what the app or a deciding rule requires and the principal has not proven."""
    return lack(total([app.require, *[rule.require for rule in rules]]), principal)


def _connect(app: AppIndex, facts: Connect, index: RuleIndex) -> Decision:
    refusal = _refusal(app, facts, index)
    if refusal is not None:
        return refusal
    levels = _allows(app, facts.host)
    for level in levels:
        rules = [rule for rule in level.origins if facts.port in rule.ports]
        if rules:
            # What a rule with methods or paths requires is asked of the Request.
            deciding = [rule for rule in rules if not is_selective(rule)]
            unmet = _unmet(app.app, deciding, facts.principal)
            rule = (deciding or rules)[0].id
            if unmet is not None:
                return Decision(_DENY, unmet.reason, rule, text=unmet.text)
            obligations = (*_resolve(facts.host, rules), _tunnel(app, facts, rules))
            if app.upgrading and _may_upgrade(levels, facts.port):
                obligations += _UPGRADE
            return Decision(_ALLOW, Reason.RULE, rule, obligations)
    return Decision(_DENY, _missing(levels, facts))


def _request(app: AppIndex, facts: Request, index: RuleIndex) -> Decision:
    refusal = _refusal(app, facts, index)
    if refusal is not None:
        return refusal
    levels = _allows(app, facts.host)
    rules = _deciding(levels, facts)
    if not rules:
        return Decision(_DENY, _missing(levels, facts))
    others = readings(facts.path)[1:] if app.selective else ()
    read_so = [rule for path in others for rule in _deciding(levels, replace(facts, path=path))]
    # What other readings of the path require is required, too: a server may read `//a` as `/a`.
    unmet = _unmet(app.app, [*rules, *read_so], facts.principal)
    if unmet is not None:
        return Decision(_DENY, unmet.reason, rules[0].id, text=unmet.text)
    obligations = (*_resolve(facts.host, rules), *_upgrade(app, rules))
    return Decision(_ALLOW, Reason.RULE, rules[0].id, obligations)


def _refusal(app: AppIndex, facts: Connect | Request, index: RuleIndex) -> Decision | None:
    """Return the denial that no allow heals, if there is one."""
    host = facts.host
    if isinstance(host, str) and special_use(host) is not None:
        is_asked = zones_of(index).asks(host, None)
        if not is_asked:
            return _SPECIAL
    for level in _denies(app, facts.host):
        rule = min(_denying(level, facts), key=_id, default=None)
        if rule is not None:
            return Decision(_DENY, Reason.RULE, rule.id, text=rule.text)
    return listed(index.lists, app.app, facts)


def _denying(level: Level[DenyRule], facts: Connect | Request) -> Iterator[DenyRule]:
    method = facts.method if isinstance(facts, Request) else None
    for rule in level.origins:
        is_of_fact = not is_selective(rule) or (method is not None and rule.paths is None)
        if is_of_fact and _covers(rule, facts) and _has_method(rule, method):
            yield rule
    if level.paths is not None and isinstance(facts, Request):
        leaves = [leaf for path in readings(facts.path) for leaf in level.paths.find(path)]
        rules = (rule for leaf in leaves for rule in leaf.rules)
        yield from (rule for rule in rules if _covers(rule, facts) and _has_method(rule, method))


def _covers(rule: DenyRule, facts: Connect | Request) -> bool:
    """Return whether the deny is about the port, and the host where the level does not say."""
    is_port = rule.ports is None or facts.port in rule.ports
    return is_port and (rule.addresses is None or names_host(rule, facts.host))


def _has_method(rule: AllowRule | DenyRule, method: str | None) -> bool:
    return rule.methods is None or method in rule.methods


def _allows(app: AppIndex, host: DomainName | Address) -> Levels[AllowRule]:
    return app.allows.levels(host) if isinstance(host, str) else app.literals.levels(host)


def _denies(app: AppIndex, host: DomainName | Address) -> Levels[DenyRule]:
    if isinstance(host, str):
        return app.denies.levels(host)
    return _networks(app, host) + app.denies.every


def _networks(app: AppIndex, address: Address) -> Levels[DenyRule]:
    carried = (address, *embedded(address)) if app.networks.lengths else ()
    return tuple(level for one in carried for level in app.networks.levels(one))


def _resolve(host: DomainName | Address, rules: Sequence[AllowRule]) -> tuple[Resolve, ...]:
    if not isinstance(host, str):
        return ()
    types = rules[0].types
    if len(rules) > 1:
        types = types.union(*[rule.types for rule in rules])
    return _RESOLVE[types & ADDRESS_TYPES]


def _upgrade(app: AppIndex, rules: Sequence[AllowRule]) -> tuple[Obligation, ...]:
    """Return how the request must go on; of equal allows one that upgrades wins."""
    if not app.upgrading:
        return ()
    # Those that upgrade agree on the certificate: what does not is a load error.
    return next(((rule.upgrade,) for rule in rules if rule.upgrade is not None), ())


def _may_upgrade(levels: Levels[AllowRule], port: int) -> bool:
    """Return whether a request to this port may be upgraded, by an allow that may decide it."""
    if upgraded_port(port) == port:
        return False  # it is dialled as it is: a tunnel there is the client's own TLS
    for level in levels:
        rules = [rule for rule in level.origins if port in rule.ports]
        if any(rule.upgrade is not None for rule in rules):
            return True
        if not all(map(is_selective, rules)):
            return False  # it decides every request that no earlier one does
    return False


def _tunnel(app: AppIndex, facts: Connect, rules: Sequence[AllowRule]) -> Obligation:
    if app.selective and _is_selective_origin(app, facts):
        return _ONLY_READABLE
    # `ech: cut` and `tls: true` win among equal allows.
    if any(rule.tls for rule in rules):
        return _ACCEPT_ECH if all(rule.accept_ech for rule in rules) else _CUT_ECH
    return _UNREAD


def _is_selective_origin(app: AppIndex, facts: Connect) -> bool:
    """Return whether any rule at all judges requests to this host and port one by one."""
    allows = [rule for level in _allows(app, facts.host) for rule in level.origins]
    if any(is_selective(rule) and facts.port in rule.ports for rule in allows):
        return True
    denies = [rule for level in _denies(app, facts.host) for rule in level.origins]
    return any(is_selective(rule) and _covers(rule, facts) for rule in denies)


def _missing(levels: Levels[AllowRule], facts: Connect | Request) -> Reason:
    """Return what is missing when no allow fits."""
    rules = [rule for level in levels for rule in level.origins]
    if not rules and isinstance(facts.host, str):
        return Reason.HOST_NOT_LISTED
    if not rules:
        is_ours = not isinstance(facts.host, str) and is_this_host(facts.host)
        return Reason.SPECIAL_USE if is_ours else Reason.LITERAL_NOT_ALLOWED
    rules = [rule for rule in rules if facts.port in rule.ports]
    if not rules or not isinstance(facts, Request):
        return Reason.PORT_NOT_ALLOWED
    is_method = any(_has_method(rule, facts.method) for rule in rules)
    return Reason.PATH_NOT_ALLOWED if is_method else Reason.METHOD_NOT_ALLOWED


def _deciding(levels: Levels[AllowRule], facts: Request) -> Sequence[AllowRule]:
    for level in levels:
        rules = _fitting(level, facts)
        if rules:
            return rules
    return ()


def _fitting(level: Level[AllowRule], facts: Request) -> Sequence[AllowRule]:
    """Return the most specific allows of the level that fit the request; equal ones together."""
    if not level.selective:
        return [rule for rule in level.origins if facts.port in rule.ports]
    if level.paths is not None:
        leaves = level.paths.find(facts.path)
        while leaves:
            best = max([leaf.rank for leaf in leaves])
            rules = [rule for leaf in leaves if leaf.rank == best for rule in leaf.rules]
            fitting = _with_method(rules, facts)
            if fitting:
                return sorted(fitting, key=_id) if len(fitting) > 1 else fitting
            leaves = [leaf for leaf in leaves if leaf.rank != best]
    return _with_method([rule for rule in level.origins if rule.paths is None], facts)


def _with_method(rules: Sequence[AllowRule], facts: Request) -> list[AllowRule]:
    """Return the rules that fit, those with methods before those without."""
    fitting = [r for r in rules if facts.port in r.ports and _has_method(r, facts.method)]
    return [rule for rule in fitting if rule.methods is not None] or fitting


def _endpoint(app: AppIndex, facts: Endpoint, index: RuleIndex) -> Decision:
    if facts.own_listener:
        return _REFUSED_ADDRESS
    denial = next(_endpoint_denies(app, facts), None)
    if denial is not None:
        reason = Reason.RULE if denial.addresses is None else Reason.ADDRESS_NOT_ALLOWED
        return Decision(_DENY, reason, denial.id, text=denial.text)
    refusal = listed_address(index.lists, app.app, facts)
    if refusal is not None:
        return replace(refusal, empty=True) if has_others(app, facts) else refusal
    levels = _allows(app, facts.name if facts.name is not None else facts.address)
    for level in levels:
        rules = [rule for rule in level.origins if _reaches(rule, facts)]
        if rules and (_needs_no_list(facts, zones_of(index)) or _is_listed(facts.address, rules)):
            return Decision(_ALLOW, Reason.RULE, rules[0].id)
        if rules:
            return Decision(_DENY, Reason.ADDRESS_NOT_ALLOWED, rules[0].id)
    if facts.name is not None and not levels:
        return Decision(_DENY, Reason.HOST_NOT_LISTED)
    return _REFUSED_ADDRESS


def _endpoint_denies(app: AppIndex, facts: Endpoint) -> Iterator[DenyRule]:
    # A deny of ports says nothing of an address before the port is known, at the dial.
    for level in _networks(app, facts.address):
        for rule in level.origins:
            is_port = rule.ports is None or facts.port in rule.ports
            if is_port and not is_selective(rule) and names_host(rule, facts.name):
                yield rule
    hosts = app.denies.levels(facts.name) if facts.name is not None else app.denies.every
    for level in hosts:
        for rule in level.origins:
            is_port = rule.ports is None or facts.port in rule.ports
            if is_port and not is_selective(rule):
                yield rule


def _reaches(rule: AllowRule, facts: Endpoint) -> bool:
    if facts.asked is not None:  # what allows the port that is dialled says nothing of this one
        is_port = rule.upgrade is not None and facts.asked in rule.ports
    else:
        is_port = facts.port is None or facts.port in rule.ports
    rtype = A if facts.address.version == 4 else AAAA
    return is_port and (facts.name is None or rtype in rule.types)


def _needs_no_list(facts: Endpoint, zones: Zones) -> bool:
    name, is_own = facts.name, facts.own_interface
    return name is None or (not is_own and zones.may_have(name, facts.address))


def _is_listed(address: Address, rules: Iterable[AllowRule]) -> bool:
    return any(address in network for rule in rules for network in rule.addresses)
