"""The lines of tunnels and of requests that are sent on.

A tunnel has two: that it was opened, and what passed through it.
Lines that say the same fold within a second (`proxy.audit_fold`).  Of a route in use the open
fold is known, so that one more tunnel is one more count in it.
"""

from msgspec import Struct

from proxy.audit_fold import Repeats
from proxy.egress.context import Context
from proxy.egress.errand import Errand
from proxy.egress.known import Route
from proxy.flow import Flow
from rules.decision import Decision
from rules.facts import Connect, Request


class Opened(Struct, frozen=True):
    """Why a tunnel is open: `recorded` is the id of the audit line that says so."""

    flow: Flow
    facts: Connect | Request
    decision: Decision
    recorded: str


class Passed(Struct, frozen=True):
    """The octets of each direction, and how long it took in seconds."""

    up: int
    down: int
    duration_s: float


def record_opening(
    context: Context, flow: Flow, route: Route, decision: Decision, address: str, now: float
) -> str:
    """Record that a tunnel of `route` to `address` opens; return the id of the line."""
    opens, generation = route.opens, context.authorizer.generation
    fold = opens.fold
    if fold is not None and now < route.opens_until and fold.line.generation == generation:
        opens.count += 1
        return fold.id
    recorded = context.authorizer.record(
        flow, route.connect, decision, repeats=opens, address=address
    )
    route.opens_until = now + opens.left_s
    return recorded


def record_request(
    context: Context, errand: Errand, facts: Request, decision: Decision, address: str, now: float
) -> None:
    """Record that a request goes to `address`; the same again within the second is one more."""
    repeats, generation = errand.repeats, context.authorizer.generation
    fold = None if repeats is None else repeats.fold
    if (
        repeats is not None
        and fold is not None
        and now < errand.repeats_until
        and fold.line.generation == generation
        and (errand.repeated is facts or errand.repeated == facts)
    ):
        repeats.count += 1
        return
    if repeats is None:
        errand.repeats = repeats = Repeats()
    errand.repeated = facts
    context.authorizer.record(errand.flow, facts, decision, repeats=repeats, address=address)
    errand.repeats_until = now + repeats.left_s


def record_closing(
    context: Context, opened: Opened, route: Route | None, passed: Passed, now: float
) -> None:
    """Record what has passed through a tunnel of `route`; None where no CONNECT opened it."""
    closes = None if route is None else route.closes
    fold = None if closes is None else closes.fold
    if (
        route is not None
        and fold is not None
        and now < route.closes_until
        and fold.id == opened.recorded
        and fold.line.generation == context.authorizer.generation
    ):
        route.closes.more(passed.up, passed.down, passed.duration_s)
        return
    context.authorizer.record(
        opened.flow,
        opened.facts,
        opened.decision,
        id=opened.recorded,
        repeats=closes,
        octets_up=passed.up,
        octets_down=passed.down,
        duration=round(passed.duration_s, 6),
    )
    if route is not None and closes is not None:
        route.closes_until = now + closes.left_s
