"""What deny lists make of a fact: they come after an app's own denies, and before its allows.

And what a refused name leaves standing: NXDOMAIN would deny it as well (RFC 8020, section 2).
"""

from rules.address import Address
from rules.decision import Decision, Reason, Refuse, Verdict
from rules.facts import Connect, Endpoint, Question, Request
from rules.listed import NO_LISTS, Listed, Lists
from rules.match import AppIndex, Levels
from rules.name import DomainName
from rules.rtype import AAAA, A
from rules.ruleset import App, DenyRule


def listed(lists: Lists, app: App, facts: Question | Connect | Request) -> Decision | None:
    """Return the refusal of a fact whose name or literal a list denies; None: none does."""
    if lists is NO_LISTS:
        return None
    host = facts.name if isinstance(facts, Question) else facts.host
    return _refusal(_find(lists, app.name, host), app)


def listed_address(lists: Lists, app: App, facts: Endpoint) -> Decision | None:
    """Return the refusal of an address that a list denies; None: none does."""
    if lists is NO_LISTS:
        return None
    return _refusal(lists.find_address(app.name, facts.address, facts.name), app)


def listed_server(lists: Lists, app: App, server: DomainName, name: DomainName) -> Decision | None:
    """Return the refusal of `name`, which a listed name server is asked for; None: none is."""
    return _refusal(lists.find_server(app.name, server, name), app)


def _find(lists: Lists, app: str, host: DomainName | Address) -> Listed | None:
    return lists.find(app, host) if isinstance(host, str) else lists.find_address(app, host)


def _refusal(found: Listed | None, app: App) -> Decision | None:
    if found is None:
        return None
    refuse: Refuse = app.refuse if found.refuse is None else found.refuse
    return Decision(Verdict.DENY, Reason.LIST, found.id, refuse=refuse, local=found.local)


def has_others(app: AppIndex, facts: Endpoint) -> bool:
    """Return whether other types of the address's name, or names below it, may be allowed."""
    if facts.name is None:
        return False
    own = frozenset({A if facts.address.version == 4 else AAAA})
    rules = (rule for level in app.allows.levels(facts.name) for rule in level.questions)
    return has_below(app, facts.name) or not all(own.issuperset(rule.types) for rule in rules)


def has_below(app: AppIndex, name: DomainName) -> bool:
    """Return whether a name below this one may be allowed."""
    is_above = name in app.ancestors or bool(app.allows.above(name))
    return is_above and leave_something(app.denies.above(name))


def leave_something(levels: Levels[DenyRule]) -> bool:
    """Return whether each of the denies has an exception: of type, port, address or request."""
    return all(rule.types is not None for level in levels for rule in level.questions)
