"""CONNECT: from the authority to a tunnel, with every decision made before the 2xx.

The order is the security property (ARCHITECTURE.md): Connect, look-up, Endpoint, dial, a look at
the generation, 2xx, ClientHello, tunnel.  No octet of the client goes to the origin before that.
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Protocol

from proxy.egress.admission import Admission
from proxy.egress.dial import Undialled, dial, is_allowed, known_target
from proxy.egress.dialling import refusable
from proxy.egress.errand import Errand
from proxy.egress.evidence import Opened, record_opening
from proxy.egress.hello import HTTP_PORT, Expected, Opening, Waiting
from proxy.egress.known import KnownHead, Route, Target
from proxy.egress.obligations import Passage, read
from proxy.egress.origin import OriginConnection
from proxy.egress.request import (
    UNKNOWN_OBLIGATION,
    Requester,
    is_current,
    serve_again,
)
from proxy.egress.standing import GONE, Standing, as_of, changed
from proxy.egress.tunnel import Side, Tunnel
from proxy.target import authority
from proxy.wire.head import RequestHead
from proxy.wire.target import authority_form, check_host
from rules.decision import Decision, Reason, Verdict
from rules.facts import Connect, Principal
from rules.special import OUR_ZONE

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"

_ALLOW = Verdict.ALLOW
_authority = lru_cache(maxsize=1024)(authority_form)  # agents come back to the same origins
_UNREADABLE = Decision(Verdict.DENY, Reason.INSPECTION_UNAVAILABLE)


class Connector(Requester, Protocol):
    """The client's connection, as a CONNECT needs it."""

    admission: Admission

    def dial(
        self, errand: Errand, target: Target, then: Callable[[OriginConnection | Undialled], None]
    ) -> None:
        """Let `then` decide what becomes of the request; nothing else is read meanwhile."""

    def leave(self) -> bytes:
        """Give the transport up to a tunnel; return what was read and not yet used."""

    def speak_http(self, errand: Errand, octets: bytes) -> None:
        """Take the transport back: plain HTTP to the errand's origin begins with `octets`."""


def again(client: Connector, data: bytes) -> bool:
    """Serve `data` if it is what was read before, octet by octet; return whether it is."""
    repeat = client.repeat
    if repeat is not None and repeat.octets == data:
        is_same = is_current(client, repeat)
        if is_same:
            serve_again(client, repeat)
        return is_same
    known = client.context.heads.find(data) if client.authority is None else None
    if known is None or known.route is None:
        return False
    client.repeat = None
    principal = client.asker.of(known.head.fields)
    if principal is known.principal:
        _decide(client, known.head, known.route)
    else:
        _find_route(client, known.head, principal, known)
    return True


def serve(client: Connector, head: RequestHead, octets: bytes = b"") -> None:
    """Decide on a CONNECT and open the tunnel, or refuse it; `octets` were read as `head`.

    Raises:
        PeerError: the target is no authority, or Host names another.
    """
    client.repeat = None
    known = client.context.heads.find(octets)
    _find_route(client, head, client.asker.of(head.fields), known)


def _find_route(
    client: Connector, head: RequestHead, principal: Principal | Decision, known: KnownHead | None
) -> None:
    """Find out where to, and decide; `known` is told its route."""
    host, port = _authority(head.target)
    if head.host != head.target and not _names_us(client, head):
        check_host(head, host, port)
    context = client.context
    if isinstance(principal, Decision):  # what was presented counts for nobody
        stranger = client.asker.stranger()
        connect = Connect(stranger, host, port)
        client.refuse(client.new_flow(stranger), connect, principal, head)
        return
    route = context.routes.get(principal, host, port)
    if known is not None and head.host == head.target:
        known.principal, known.route = principal, route
    _decide(client, head, route)


def _decide(client: Connector, head: RequestHead, route: Route) -> None:
    context, connect = client.context, route.connect
    host, port, principal = connect.host, connect.port, connect.principal
    target = known_target(context, route, asyncio.get_running_loop().time())
    flow = client.new_flow(principal, route.flow if target is not None else "")
    errand = Errand(flow, connect, route.key, route)
    if host == OUR_ZONE and port == HTTP_PORT:
        client.transport.write(ESTABLISHED)
        client.speak_http(errand, b"")
        return
    decision = context.authorizer.authorize(flow, connect)
    blame = _blame(decision, port)
    if blame is not None:
        client.refuse(flow, connect, blame, head)
    elif _awaits_requests(decision):
        context.metrics.proxy_requests.add("connect", "allowed")
        client.transport.write(ESTABLISHED)
        client.speak_http(errand, b"")  # each request is decided on, looked up and dialled
    elif target is None:
        client.start(_open(client, errand, decision, head, context.state))
    else:
        then = partial(_opened, client, errand, decision, head, context.state)
        client.dial(errand, target, then)


def _names_us(client: Connector, head: RequestHead) -> bool:
    """Return whether Host is this proxy itself, as Node's bare `http.request` writes it.

    It says nothing of another origin, and the Host of a CONNECT goes nowhere.
    """
    sockname = client.transport.get_extra_info("sockname")
    return head.host is not None and head.host == authority(*sockname[:2]).encode()


def _blame(decision: Decision, port: int) -> Decision | None:
    """Return why a Connect that was decided on cannot be carried out; None if it can."""
    if decision.verdict is not _ALLOW:
        return decision
    passage = read(decision.obligations)
    if passage is None:
        return UNKNOWN_OBLIGATION
    if passage.only_readable and port != HTTP_PORT:
        return Decision(_UNREADABLE.verdict, _UNREADABLE.reason, decision.rule)
    return None


def _awaits_requests(decision: Decision) -> bool:
    """Return whether nothing is dialled, or tunnelled, before a request says over TLS or not."""
    passage = read(decision.obligations)
    return passage is not None and passage.upgrade is not None


async def _open(
    client: Connector,
    errand: Errand,
    decision: Decision,
    head: RequestHead,
    before: tuple[int, int],
) -> None:
    """Dial; `before` is what was decided under, for this begins a turn of the loop later."""
    context = client.context
    passage = read(decision.obligations)
    assert passage is not None  # noqa: S101 - for the type checker: _blame has read it
    origin = await refusable(context, errand.connect, dial(context, errand, passage.types))
    _opened(client, errand, decision, head, before, origin)


def _opened(
    client: Connector,
    errand: Errand,
    decision: Decision,
    head: RequestHead,
    before: tuple[int, int],
    origin: OriginConnection | Undialled,
) -> None:
    """Establish the tunnel, unless the rules changed meanwhile and have another answer now."""
    context, connect = client.context, errand.connect
    authorizer = context.authorizer
    if isinstance(origin, Undialled):
        client.refuse(errand.flow, origin.facts, origin.decision, head)
        return
    if context.state != before:
        now = client.asker.still(connect.principal)
        decision = authorizer.authorize(errand.flow, as_of(connect, now or connect.principal))
        blame = _blame(decision, connect.port)
        if now is None or blame is not None or not is_allowed(context, errand, origin):
            origin.end()
            client.refuse(errand.flow, connect, changed(context, client.asker, connect), head)
            return
    if _awaits_requests(decision):
        origin.end()
        client.refuse(errand.flow, connect, GONE, head)
        return
    passage = read(decision.obligations)
    if passage is None or origin.transport.is_closing():
        gone = authorizer.fails(Reason.UPSTREAM_UNREACHABLE, "the origin closed at once")
        client.refuse(errand.flow, connect, gone, head)
        return
    _establish(client, errand, origin, decision, passage)


def _establish(
    client: Connector,
    errand: Errand,
    origin: OriginConnection,
    decision: Decision,
    passage: Passage,
) -> None:
    context, connect = client.context, errand.connect
    route = errand.route or context.routes.get(connect.principal, connect.host, connect.port)
    now = asyncio.get_running_loop().time()
    recorded = record_opening(context, errand.flow, route, decision, origin.address_text, now)
    context.metrics.proxy_requests.add("connect", "allowed")
    standing = Standing(client.asker, client.asker.value, origin.address, chain=origin.chain)
    opened = Opened(errand.flow, connect, decision, recorded)
    tunnel = Tunnel(context, client.admission, opened, standing, route)
    near, far = client.transport, origin.leave()
    near.write(ESTABLISHED)
    early = client.leave()
    if passage.unread and connect.port != HTTP_PORT:
        tunnel.join(Side(tunnel, near, far), Side(tunnel, far, near))
    else:
        as_http = None
        if connect.port == HTTP_PORT:
            as_http = partial(_readable, client, errand, tunnel, origin)
        opening = Opening(tunnel, near, far, Expected(connect.host, passage, as_http))
        tunnel.join(opening, Waiting(tunnel, far, near, opening), opening)
    if early:
        tunnel.client.data_received(early)
    if origin.early:
        tunnel.origin.data_received(origin.early)


def _readable(
    client: Connector, errand: Errand, tunnel: Tunnel, origin: OriginConnection, octets: bytes
) -> None:
    """Make a tunnel a plain connection: its dialled one rests until the first request."""
    tunnel.dissolve()
    origin.come_back()
    if isinstance(tunnel.origin, Waiting) and tunnel.origin.held:  # nobody asked for it
        origin.end()
    else:
        client.context.pool.put(origin)
    client.speak_http(errand, octets)
