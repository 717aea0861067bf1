"""CONNECT: from the authority to a tunnel, with every decision made before the 2xx.

The order is the security property (ARCHITECTURE.md): Connect, look-up, Endpoint, dial, a look at
the generation, 2xx, ClientHello, tunnel.  No octet of the client goes to the origin before that.
"""

from functools import lru_cache
from typing import Protocol

from proxy.egress.admission import Admission
from proxy.egress.dial import Undialled, dial, is_allowed
from proxy.egress.errand import Errand
from proxy.egress.hello import HTTP_PORT, Expected, Opening, SpeakingFirst
from proxy.egress.obligations import Passage, read
from proxy.egress.origin import OriginConnection
from proxy.egress.request import (
    CHANGED,
    PRESENTED,
    UNKNOWN_OBLIGATION,
    Requester,
    new_errand,
    presents_credentials,
)
from proxy.egress.tunnel import Side, Tunnel
from proxy.target import authority
from proxy.wire.head import RequestHead
from proxy.wire.target import authority_form, check_host
from rules.decision import Decision, Reason, Verdict
from rules.special import OUR_ZONE

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"

_ALLOW = Verdict.ALLOW
_authority = lru_cache(maxsize=1024)(authority_form)  # agents come back to the same origins
_UNREADABLE = Decision(Verdict.DENY, Reason.INSPECTION_UNAVAILABLE)


class Connector(Requester, Protocol):
    """The client's connection, as a CONNECT needs it."""

    admission: Admission

    def leave(self) -> bytes:
        """Give the transport up to a tunnel; return what was read and not yet used."""

    def speak_http(self, errand: Errand, octets: bytes) -> None:
        """Take the transport back: plain HTTP to the errand's origin begins with `octets`."""


def serve(client: Connector, head: RequestHead) -> None:
    """Decide on a CONNECT and open the tunnel, or refuse it.

    Raises:
        PeerError: the target is no authority, or Host names another.
    """
    host, port = _authority(head.target)
    if head.host != head.target and not _names_us(client, head):
        check_host(head, host, port)
    errand = new_errand(client, host, port)
    context = client.context
    if presents_credentials(head):
        flow = client.new_flow(context.identifier.presented_unknown())
        client.refuse(flow, errand.connect, PRESENTED, head)
        return
    if host == OUR_ZONE and port == HTTP_PORT:
        client.transport.write(ESTABLISHED)
        client.speak_http(errand, b"")
        return
    decision = context.authorizer.authorize(errand.flow, errand.connect)
    blame = _blame(decision, port)
    if blame is not None:
        client.refuse(errand.flow, errand.connect, blame, head)
        return
    client.start(_open(client, errand, decision, head))


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


async def _open(client: Connector, errand: Errand, decision: Decision, head: RequestHead) -> None:
    context, connect = client.context, errand.connect
    authorizer = context.authorizer
    generation = authorizer.generation
    passage = read(decision.obligations)
    assert passage is not None  # noqa: S101 - for the type checker: _blame has read it
    origin = await dial(context, errand, passage.types)
    if isinstance(origin, Undialled):
        client.refuse(errand.flow, origin.facts, origin.decision, head)
        return
    if authorizer.generation != generation:
        decision = authorizer.authorize(errand.flow, connect)
        if _blame(decision, connect.port) or not is_allowed(context, errand, origin):
            origin.end()
            client.refuse(errand.flow, connect, CHANGED, head)
            return
        passage = read(decision.obligations) or passage
    if origin.transport.is_closing():
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
    recorded = context.authorizer.record(
        errand.flow, connect, decision, address=origin.address_text
    )
    context.metrics.proxy_requests.add("connect", "allowed")
    tunnel = Tunnel(context, client.admission, errand.flow, connect, decision, recorded)
    near, far = client.transport, origin.leave()
    near.write(ESTABLISHED)
    early = client.leave()
    if passage.unread and connect.port != HTTP_PORT:
        tunnel.join(Side(tunnel, near, far), Side(tunnel, far, near))
    else:
        expected = Expected(connect.host, connect.port, passage)

        def as_http(octets: bytes) -> None:
            _readable(client, errand, tunnel, origin, octets)

        opening = Opening(tunnel, near, far, expected, as_http)
        if passage.unread and not passage.only_readable:
            tunnel.join(opening, SpeakingFirst(tunnel, far, near), opening)
        else:
            tunnel.join(opening, Side(tunnel, far, near), opening)
            far.pause_reading()
    near.resume_reading()
    if early:
        tunnel.client.data_received(early)


def _readable(
    client: Connector, errand: Errand, tunnel: Tunnel, origin: OriginConnection, octets: bytes
) -> None:
    """Make a tunnel a plain connection: its dialled one rests until the first request."""
    tunnel.dissolve()
    origin.come_back()
    client.context.pool.put(origin)
    client.speak_http(errand, octets)
