"""Which protocol each socket speaks: from bound sockets to planes, and their end."""

import asyncio
import socket
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from proxy.admin import Admin
from proxy.binding import Bound
from proxy.egress.plane import Egress
from proxy.flow import Plane
from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.metrics import ListenerKind, Metrics, TlsKind
from proxy.resolver.do53 import Do53Tcp, Do53Udp
from proxy.resolver.doh import DohPlane
from proxy.resolver.dot import Dot
from proxy.resolver.query import Resolver
from proxy.transport.handshake import ListenerTls
from proxy.transport.listen import Listener
from proxy.transport.server_tls import ServerTls
from proxy.unverified import Record

type Factory = Callable[[Listener], asyncio.BaseProtocol]

_BOUND = {
    "do53": "dns_tcp_connections",
    "dot": "dns_tcp_connections",
    "doh": "dns_tcp_connections",
    "proxy": "proxy_connections",
    "proxy_tls": "proxy_connections",
}
_TLS: dict[str, tuple[TlsKind, Plane]] = {
    "dot": ("dot", Plane.DNS),
    "doh": ("doh", Plane.DNS),
    "proxy_tls": ("proxy_tls", Plane.HTTP),
}


class Planes(Struct, frozen=True):
    """What serves each kind of listener; `tls` holds the contexts of those that speak TLS.

    `unverified` records a client whose certificate did not hold.
    """

    resolver: Resolver
    identifier: Identifier
    egress: Egress
    doh: DohPlane
    admin: Admin
    tls: dict[str, ServerTls]
    unverified: Record


class Accepting:
    """Every socket that agents and scrapers reach."""

    def __init__(self, planes: Planes, limits: Limits, metrics: Metrics) -> None:
        self._planes = planes
        self._limits = limits
        self._metrics = metrics
        self._listeners: list[Listener] = []
        self._datagrams: list[Do53Udp] = []

    async def start(self, bound: Bound) -> None:
        """Serve on `bound` from now on."""
        planes = self._planes
        if bound.kind == "metrics":
            await planes.admin.start(bound.socket)
        elif bound.socket.type == socket.SOCK_DGRAM:
            udp = Do53Udp(
                bound.socket, bound.label, planes.resolver, planes.identifier, self._limits
            )
            udp.start()
            self._datagrams.append(udp)
            self._metrics.udp_overflows.sources.append(lambda: udp.overflown)
        else:
            await self._listen(bound)

    def stop(self) -> None:
        """Stop accepting; what is open stays."""
        for listener in self._listeners:
            listener.stop()
        self._planes.doh.leave()

    async def close(self) -> None:
        """Stop accepting and end every connection."""
        await asyncio.gather(*(listener.close() for listener in self._listeners))
        await self._planes.admin.close()
        for udp in self._datagrams:
            udp.close()

    async def _listen(self, bound: Bound) -> None:
        name = _BOUND[bound.kind]
        listener = Listener(
            bound.socket,
            self._factory(bound.kind),
            getattr(self._limits, name),
            partial(self._metrics.bounds.add, name),
            bound.label,
            self._tls(bound),
            self._counted(bound.kind),
        )
        await listener.start()
        self._listeners.append(listener)

    def _tls(self, bound: Bound) -> ListenerTls | None:
        found = _TLS.get(bound.kind)
        if found is None:
            return None
        (kind, plane), limits, metrics = found, self._limits, self._metrics
        return ListenerTls(
            self._planes.tls[kind],
            limits.tls_handshakes,
            limits.tls_handshake_s,
            metrics.bounds.add,
            partial(metrics.tls_handshakes.add, kind),
            partial(self._planes.unverified, plane, bound.label),
        )

    def _counted(self, kind: str) -> Callable[[bool], None]:
        """Return what counts the connections of a stream of DNS; the others count their own."""
        if kind not in {"do53", "dot"}:
            return lambda _: None
        listener: ListenerKind = "dot" if kind == "dot" else "do53"
        add = self._metrics.connections.add
        return lambda room: add(listener, "accepted" if room else "refused")

    def _factory(self, kind: str) -> Factory:
        planes = self._planes
        if kind in {"proxy", "proxy_tls"}:
            return planes.egress.factory
        if kind == "doh":
            return planes.doh.factory
        stream = Dot if kind == "dot" else Do53Tcp
        return lambda listener: stream(listener, planes.resolver, planes.identifier, self._limits)
