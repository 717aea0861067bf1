"""A request that became a tunnel in another protocol (RFC 9110, section 7.8)."""

from typing import Protocol

from proxy.egress.admission import Admission
from proxy.egress.evidence import Opened
from proxy.egress.exchange import Client, Order
from proxy.egress.origin import OriginConnection
from proxy.egress.standing import Standing
from proxy.egress.tunnel import Side, Tunnel
from proxy.wire.head import BodyKind, RequestHead

_SWITCHABLE = b"websocket"  # RFC 6455; h2c would carry requests past us (RFC 7540, section 3.2)


def asked_upgrade(head: RequestHead) -> bytes:
    """Return the protocol that a request asks to switch to, if we would; b"" for none."""
    if b"upgrade" not in head.options or head.minor == 0:
        return b""
    wanted = [value.lower() for name, value in head.fields if name == b"upgrade"]
    fits = wanted == [_SWITCHABLE] and head.method == "GET" and head.body.kind is BodyKind.NONE
    return _SWITCHABLE if fits else b""


class Upgraded(Client, Protocol):
    """The client's connection, as an upgrade needs it."""

    admission: Admission

    def leave(self) -> bytes:
        """Give the transport up to a tunnel; return what was read and not yet used."""


def upgrade(client: Upgraded, order: Order, origin: OriginConnection, data: bytes) -> None:
    """Relay both ways from now on, beginning with `data`, which came after the origin's 101."""
    context, flow = client.context, order.errand.flow
    # With an id of its own it does not fold into the line of the request that asked for it.
    recorded = context.authorizer.record(
        flow, order.facts, order.decision, id=context.new_id(), upgrade="websocket"
    )
    secure = order.key.secure
    asker = client.asker
    standing = Standing(asker, asker.value, origin.address, secure, origin.chain)
    opened = Opened(flow, order.facts, order.decision, recorded)
    tunnel = Tunnel(context, client.admission, opened, standing)
    near, far = client.transport, origin.leave()
    early = client.leave()
    tunnel.join(Side(tunnel, near, far), Side(tunnel, far, near))
    near.resume_reading()
    far.resume_reading()
    if data:
        tunnel.origin.data_received(data)
    if early:
        tunnel.client.data_received(early)
