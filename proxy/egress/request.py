"""One plain HTTP request: facts, decisions, obligations, then onto a connection to its origin.

Decided for every request, never once per connection.  With an idle connection to the origin
at hand all of it happens at once, without a task.
"""

import re
from collections.abc import Coroutine
from typing import Protocol

from msgspec import Struct

from proxy.egress import internal
from proxy.egress.asker import Asker
from proxy.egress.context import Context
from proxy.egress.dial import Undialled, dial, is_allowed
from proxy.egress.dialling import refusable
from proxy.egress.errand import NO_PREFIX, Errand
from proxy.egress.exchange import Client, Order, via
from proxy.egress.identity_context import REVOKED
from proxy.egress.inward import Inward
from proxy.egress.obligations import read
from proxy.egress.origin import OriginConnection, OriginKey
from proxy.egress.standing import as_of, changed, is_revoked, may_go
from proxy.egress.upgrade import asked_upgrade
from proxy.errors import PeerError
from proxy.flow import Flow
from proxy.wire.fields import Field, request_malformed, write_fields
from proxy.wire.head import (
    BodyKind,
    RequestHead,
    coding_fields,
    end_to_end,
    write_request,
    write_response,
)
from proxy.wire.host import format_authority, format_host
from proxy.wire.target import HTTP_PORT, absolute_form, check_host
from rules.address import Address
from rules.decision import Decision, Reason, Verdict
from rules.errors import MalformedPathError
from rules.facts import Connect, Facts, Principal, Request
from rules.name import DomainName
from rules.path import normal_path
from rules.special import OUR_ZONE

UNKNOWN_OBLIGATION = Decision(
    Verdict.DENY, Reason.INTERNAL_ERROR, text="its rule asks for what this version cannot do"
)
REPEAT_OCTETS = (
    4096  # longer heads are read each time; nginx reads 1 KiB at first, 8 KiB if need be
)

_ALLOW = Verdict.ALLOW
_TRACE = Decision(Verdict.DENY, Reason.METHOD_NOT_ALLOWED, text="TRACE is never forwarded")
_LOCAL = Decision(Verdict.ALLOW, Reason.LOCAL)
_HOPS = re.compile(rb"\d{1,9}")


class Requester(Client, Protocol):
    """The client's connection, as a request needs it."""

    asker: Asker
    authority: tuple[DomainName | Address, int] | None
    errand: Errand | None
    repeat: "Repeat | None"

    def new_flow(self, principal: Principal, flow: str = "") -> Flow:
        """Return the flow of a new errand; `flow` is its id where it has one already."""

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Let `work` decide what becomes of the request; nothing else is read meanwhile."""

    def begin(self, order: Order, origin: OriginConnection) -> None:
        """Relay `order` over `origin`."""

    def refuse(self, flow: Flow, facts: Facts, decision: Decision, head: RequestHead) -> None:
        """Answer with the reason, and record it."""

    def attend(self, inward: Inward) -> None:
        """Give what comes to `inward` until its content is whole."""

    def respond(self, head: RequestHead, octets: bytes, *, is_read: bool = False) -> None:
        """Answer with a response of our own; `is_read`: the content of the request was read."""

    def stay(self) -> None:
        """Last until the request under way is answered, whatever ends the connection meanwhile."""


class Repeat(Struct, frozen=True):
    """The last request of a connection, for clients that send the very same once more.

    `octets` was read as `head` and became `order`, under the rules and tokens of `state`.
    """

    octets: bytes
    head: RequestHead
    order: Order
    state: tuple[int, int]


def is_current(client: Requester, repeat: Repeat) -> bool:
    """Return whether the same octets are still the same request, of the same asker."""
    errand = repeat.order.errand
    is_same = errand is client.errand and repeat.state == client.context.state
    return is_same and errand.passage is not None


def serve_again(client: Requester, repeat: Repeat) -> None:
    """Decide on a request that `is_current`, and send it on as it was sent before."""
    order = repeat.order
    errand, context = order.errand, client.context
    decision = context.authorizer.authorize(errand.flow, order.facts)
    if decision.verdict is _ALLOW:
        _send(client, order)
    else:
        client.refuse(errand.flow, order.facts, decision, repeat.head)


def serve(client: Requester, head: RequestHead, octets: bytes = b"") -> None:
    """Decide on a request and send it on, or refuse it; `octets` may be remembered as `head`.

    Raises:
        PeerError: the request names no origin, or names two.
    """
    client.repeat = None
    if head.method == "CONNECT":  # only inside of one (RFC 9110, section 9.3.6)
        raise request_malformed("a CONNECT inside a tunnel")
    principal = client.asker.of(head.fields)
    if isinstance(principal, Decision):  # what was presented counts for nobody
        stranger = client.asker.stranger()
        errand, facts, _ = _read(client, head, stranger)
        client.refuse(errand.flow, facts, principal, head)
        return
    errand, facts, target = _read(client, head, principal)
    if head.method == "TRACE":
        client.refuse(errand.flow, facts, _TRACE, head)
    elif errand.connect.host == OUR_ZONE and errand.connect.port == HTTP_PORT:
        _answer(client, errand, facts, head)
    else:
        order = _decide(client, errand, facts, head, target)
        if order is not None:
            if octets and len(octets) <= REPEAT_OCTETS and _is_usual(order):
                client.repeat = Repeat(octets, head, order, client.context.state)
            _send(client, order)


def _read(
    client: Requester, head: RequestHead, principal: Principal
) -> tuple[Errand, Request, bytes]:
    errand, target = _errand(client, head, principal)
    return errand, _facts(errand, head.method, target), target


def _decide(
    client: Requester, errand: Errand, facts: Request, head: RequestHead, target: bytes
) -> Order | None:
    """Return what to send on; None where the client has its answer."""
    authorizer = client.context.authorizer
    if errand.passage is None or errand.generation != authorizer.generation:
        connect = _reach(client.context, errand)
        if connect is not None:
            client.refuse(errand.flow, errand.connect, connect, head)
            return None
    decision = authorizer.authorize(errand.flow, facts)
    if decision.verdict is not _ALLOW:
        client.refuse(errand.flow, facts, decision, head)
        return None
    passage = read(decision.obligations)
    if passage is None:
        client.refuse(errand.flow, facts, UNKNOWN_OBLIGATION, head)
        return None
    key = errand.way(passage.upgrade)
    if is_revoked(client.context, key):
        client.refuse(errand.flow, facts, REVOKED, head)
        return None
    hops = _hops(head)
    if hops == 0:  # RFC 9110, section 7.6.2: we are the final recipient
        authorizer.record(errand.flow, facts, decision)
        client.respond(head, write_response(200, b"OK", [(b"content-length", b"0"), via(1)]))
        return None
    return _order(errand, key, facts, decision, head, target, hops)


def _is_usual(order: Order) -> bool:
    """Return whether the same octets would become the same order, and nothing follows them."""
    is_bare = order.body.kind is BodyKind.NONE and not order.upgrade
    return is_bare and not order.last and order.errand.fields is not None


def _send(client: Requester, order: Order) -> None:
    origin = _pooled(client.context, order)
    if origin is None:
        client.start(_send_fresh(client, order, client.context.state))
    else:
        client.begin(order, origin)


def _reach(context: Context, errand: Errand) -> Decision | None:
    """Ask whether the errand's origin may be reached; return the denial, if it is one."""
    authorizer = context.authorizer
    errand.passage, errand.generation = None, authorizer.generation
    connect = authorizer.authorize(errand.flow, errand.connect)
    if connect.verdict is not _ALLOW:
        return connect
    errand.passage = read(connect.obligations)
    return UNKNOWN_OBLIGATION if errand.passage is None else None


def send_again(client: Requester, order: Order) -> None:
    """Send `order` on a fresh connection, with every decision made anew."""
    context, connect = client.context, order.errand.connect
    is_asker = client.asker.again(client.asker.value) == connect.principal
    is_allowed_still = may_go(context, order.key, context.authorizer.still(order.facts))
    if is_asker and is_allowed_still and _reach(context, order.errand) is None:
        client.start(_send_fresh(client, order, context.state))
    else:
        client.failed(order, Reason.UPSTREAM_UNREACHABLE, "the origin closed an idle connection")


async def _send_fresh(client: Requester, order: Order, before: tuple[int, int]) -> None:
    """Dial; `before` is what was decided under, for this begins a turn of the loop later."""
    context, errand = client.context, order.errand
    types = errand.passage.types if errand.passage is not None else frozenset[int]()
    work = dial(context, errand, types, order.key)
    origin = await refusable(context, errand.connect, work)
    if isinstance(origin, Undialled):
        client.refuse(errand.flow, origin.facts, origin.decision, _head_of(order))
    elif origin.early:
        origin.end()
        failure = context.authorizer.fails(Reason.UPSTREAM_MALFORMED, "octets before the request")
        client.refuse(errand.flow, order.facts, failure, _head_of(order))
    elif context.state != before and not _holds(client, order, origin):
        origin.end()
        decision = changed(context, client.asker, order.facts)
        client.refuse(errand.flow, order.facts, decision, _head_of(order))
    else:
        client.begin(order, origin)


def _holds(client: Requester, order: Order, origin: OriginConnection) -> bool:
    """Return whether the rules and tokens of now would let the order go the same way."""
    context, errand = client.context, order.errand
    now = client.asker.still(errand.connect.principal)
    if now is None or not is_allowed(context, errand, origin):
        return False
    authorize = context.authorizer.authorize
    connect = authorize(errand.flow, as_of(errand.connect, now))
    asked = authorize(errand.flow, as_of(order.facts, now))
    return connect.verdict is _ALLOW and may_go(context, order.key, asked)


def _pooled(context: Context, order: Order) -> OriginConnection | None:
    grounds = context.allowed.grounds(context.authorizer.generation)
    while origin := context.pool.take(order.key):
        if origin.grounds is grounds:
            return origin
        if is_allowed(context, order.errand, origin):
            origin.grounds = grounds
            return origin
        origin.end()
    return None


def _errand(client: Requester, head: RequestHead, principal: Principal) -> tuple[Errand, bytes]:
    """Return the errand of a request, and its target in origin-form."""
    errand, target = client.errand, head.target
    if (
        errand is not None
        and (errand.connect.principal is principal or errand.connect.principal == principal)
        and target.startswith(errand.prefix)
        and head.host == errand.host_value
        and b"#" not in target
    ):
        return errand, target[len(errand.prefix) - 1 :]
    host, port, rest = _read_target(client, head)
    check_host(head, host, port)
    if errand is None or not is_for(errand.connect, principal, host, port):
        errand = client.errand = new_errand(client, principal, host, port)
    spelled = rest.startswith(b"/") and target.endswith(rest)
    errand.prefix = target[: len(target) - len(rest) + 1] if spelled else NO_PREFIX
    errand.host_value = head.host
    return errand, rest


def is_for(connect: Connect, principal: Principal, host: DomainName | Address, port: int) -> bool:
    """Return whether `connect` asks whether `principal` may reach `host` and `port`."""
    return (connect.principal, connect.host, connect.port) == (principal, host, port)


def new_errand(
    client: Requester, principal: Principal, host: DomainName | Address, port: int
) -> Errand:
    """Return the errand of `principal` to an origin."""
    route = client.context.routes.get(principal, host, port)
    return Errand(client.new_flow(principal), route.connect, route.key, route)


def _read_target(client: Requester, head: RequestHead) -> tuple[DomainName | Address, int, bytes]:
    if client.authority is None:
        return absolute_form(head.target, head.method)
    host, port = client.authority
    if head.target.startswith(b"/") and b"#" not in head.target:
        return host, port, head.target
    if head.target == b"*" and head.method == "OPTIONS":  # RFC 9112, section 3.2.4
        return host, port, head.target
    said = absolute_form(head.target, head.method)
    if said[:2] != (host, port):
        raise PeerError(Reason.AUTHORITY_MISMATCH, "the target is not the tunnel's authority")
    return said


def _facts(errand: Errand, method: str, target: bytes) -> Request:
    connect = errand.connect
    path = target.partition(b"?")[0].decode("ascii")
    if path != "*":
        try:
            path = normal_path(path)
        except MalformedPathError as error:
            raise request_malformed(str(error)) from None
    return Request(connect.principal, method, connect.host, connect.port, path)


def _answer(client: Requester, errand: Errand, facts: Request, head: RequestHead) -> None:
    context = client.context
    context.authorizer.record(errand.flow, facts, _LOCAL)
    context.metrics.proxy_requests.add("internal", "allowed")
    api = context.api
    if api is not None and api.takes(facts.path) and not internal.is_from_a_page(head):
        Inward(api, client, errand.flow, facts, head).begin()
    else:
        client.respond(head, internal.answer(context, facts.principal, head, facts.path))


def _hops(head: RequestHead) -> int | None:
    """Return the value of Max-Forwards, which counts for OPTIONS (RFC 9110, section 7.6.2)."""
    if head.method != "OPTIONS":
        return None
    values = [value for name, value in head.fields if name == b"max-forwards"]
    if not values:
        return None
    if len(values) > 1 or not _HOPS.fullmatch(values[0]):
        raise request_malformed("Max-Forwards is one decimal number")
    return int(values[0])


def _order(  # noqa: PLR0913, PLR0917 - all that an order is made of
    errand: Errand,
    key: OriginKey,
    facts: Request,
    decision: Decision,
    head: RequestHead,
    target: bytes,
    hops: int | None,
) -> Order:
    _, mark, query = target.partition(b"?")
    sent = facts.path.encode("ascii") + mark + query  # the normal form is what was decided on
    # HTTP/1.0 persistence is ambiguous through a proxy (RFC 9112, appendix C.2.2): no.
    last = head.minor == 0 or not head.persistent
    upgrade = b""
    if head.fields != errand.fields or last or hops is not None:
        # What follows a 101 cannot be read, and is not decided about.
        is_readable = errand.passage is not None and errand.passage.only_readable
        upgrade = b"" if is_readable else asked_upgrade(head)
        errand.written = _written(errand, head, hops, upgrade)
        is_usual = not (last or hops is not None or b"upgrade" in head.options)
        errand.fields = head.fields if is_usual else None
    octets = b"%b %b%b" % (head.method.encode("ascii"), sent, errand.written)
    return Order(errand, facts, decision, octets, head.minor, head.body, key, upgrade, last)


def _written(errand: Errand, head: RequestHead, hops: int | None, upgrade: bytes) -> bytes:
    """Return the head that the origin gets, from the space before HTTP/1.1."""
    if not errand.host_field:
        host, port = errand.connect.host, errand.connect.port
        spelled = format_host(host) if port == HTTP_PORT else format_authority(host, port)
        errand.host_field = spelled.encode("ascii")
    fields: list[Field] = [(b"host", errand.host_field)]
    kept = head.kept
    if hops is not None:
        counted = (b"host", b"max-forwards")
        kept = write_fields([each for each in end_to_end(head.fields) if each[0] not in counted])
        fields.append((b"max-forwards", b"%d" % (hops - 1)))
    fields += coding_fields(head.body)
    fields.append(via(head.minor))
    if upgrade:
        fields += [(b"connection", b"upgrade"), (b"upgrade", upgrade)]
    return write_request("", b"", fields, kept)[1:]


def _head_of(order: Order) -> RequestHead:
    """Return what a refusal needs to know of the request."""
    options = frozenset({b"close"} if order.last else ())
    return RequestHead(order.facts.method, b"", order.minor, (), order.body, options=options)
