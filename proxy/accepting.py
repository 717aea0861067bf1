"""Which protocol each socket speaks: from bound sockets to planes, and their end."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from functools import partial

from msgspec import Struct, structs

from proxy.admin import Admin
from proxy.binding import Bound, close_all
from proxy.egress.cut import cut_lent, tell
from proxy.egress.plane import Egress
from proxy.flow import Plane
from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.metrics import ListenerKind, Metrics, TlsKind
from proxy.resolver.do53 import Do53Tcp, Do53Udp
from proxy.resolver.doh import DohPlane
from proxy.resolver.dot import Dot
from proxy.resolver.query import Resolver
from proxy.sandbox.lease import Lease, LeaseError
from proxy.sandbox.leases import Leases
from proxy.sandbox.lent import check_lent, our_namespace
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

    `unverified` records a client whose certificate did not hold.  Without `leases` none is served.
    """

    resolver: Resolver
    identifier: Identifier
    egress: Egress
    doh: DohPlane
    admin: Admin
    tls: dict[str, ServerTls]
    unverified: Record
    leases: Leases | None = None


class _Open:
    """What is served for the appliance itself, or for one lease."""

    def __init__(self, namespace: int = 0) -> None:
        self.namespace = namespace
        self.listeners: list[Listener] = []
        self.datagrams: list[Do53Udp] = []

    def stop(self) -> None:
        """Stop accepting; what is open stays."""
        for listener in self.listeners:
            listener.stop()

    async def close(self) -> int:
        """End every connection; return how many datagrams were dropped."""
        await asyncio.gather(*(listener.close() for listener in self.listeners))
        for udp in self.datagrams:
            udp.close()
        return self.overflown

    @property
    def overflown(self) -> int:
        """How many datagrams the kernel has dropped."""
        return sum(udp.overflown for udp in self.datagrams)


class Accepting:
    """Every socket that agents and scrapers reach."""

    def __init__(self, planes: Planes, limits: Limits, metrics: Metrics) -> None:
        self._planes = planes
        self._limits = limits
        self._metrics = metrics
        self._own = _Open()
        self._lent: dict[str, _Open] = {}  # by the lease's id
        self._overflown = 0  # of leases that have ended
        metrics.udp_overflows.sources.append(self._overflows)

    async def start(self, bound: Bound) -> None:
        """Serve on `bound` from now on."""
        if bound.kind == "metrics":
            await self._planes.admin.start(bound.socket)
        else:
            await self._serve(bound, self._own)

    async def lend(self, lease: Lease, bounds: Sequence[Bound]) -> None:
        """Serve on the sockets of a lease, and take who comes there for it, until `end`.

        The sockets are ours from now on, and closed where they cannot be served.

        Raises:
            LeaseError: they are not what a lease has, or there is no room for another.
        """
        lent = [structs.replace(each, label=lease.listener(each.kind)) for each in bounds]
        try:
            namespace = self._granted(lease, lent)
        except LeaseError:
            close_all(lent)
            raise
        served = self._lent[lease.id] = _Open(namespace)
        try:
            for each in lent:
                await self._serve(each, served)
        except BaseException:
            await self.end(lease.id)
            close_all(lent)
            raise

    def _granted(self, lease: Lease, lent: Sequence[Bound]) -> int:
        """Grant a lease for these sockets; return their network namespace."""
        leases = self._planes.leases
        if leases is None or any(each.kind not in _BOUND for each in lent):
            raise LeaseError("a lease cannot have such listeners here")
        taken = [our_namespace(), *(each.namespace for each in self._lent.values())]
        namespace = check_lent([(each.kind, each.socket) for each in lent], taken)
        leases.grant(lease, dict.fromkeys(each.label for each in lent))
        return namespace

    async def end(self, unique: str) -> None:
        """End a lease: its listeners, and everything that came by them."""
        served = self._lent.pop(unique, None)
        if served is None or self._planes.leases is None:
            return
        self._planes.leases.end(unique)
        served.stop()
        names = {each.name for each in served.listeners}
        _, evidence = cut_lent(self._planes.egress, names)
        self._overflown += await served.close()
        await tell(evidence)

    def stop(self) -> None:
        """Stop accepting; what is open stays."""
        for each in (self._own, *self._lent.values()):
            each.stop()
        self._planes.doh.leave()

    async def close(self) -> None:
        """Stop accepting and end every connection."""
        await asyncio.gather(*(self.end(each) for each in tuple(self._lent)))
        await self._own.close()
        await self._planes.admin.close()

    def _overflows(self) -> int:
        lent = sum(each.overflown for each in self._lent.values())
        return self._overflown + self._own.overflown + lent

    async def _serve(self, bound: Bound, served: _Open) -> None:
        if bound.socket.type != socket.SOCK_DGRAM:
            served.listeners.append(await self._listen(bound))
            return
        planes = self._planes
        udp = Do53Udp(bound.socket, bound.label, planes.resolver, planes.identifier, self._limits)
        udp.start()
        served.datagrams.append(udp)

    async def _listen(self, bound: Bound) -> Listener:
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
        return listener

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
