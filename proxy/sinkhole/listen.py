"""The sinkhole: where denied names are pointed, and what answers there on ports 80 and 443.

An address is given out only while both of its sockets listen.  One that cannot have them is no
reason not to start: `problem` says what is in the way, and its names stay NXDOMAIN.
"""

import errno
import socket
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address

from proxy.config_sinkhole import SinkholeSettings
from proxy.errors import BindError
from proxy.sandbox.lease import is_lent
from proxy.sinkhole.heard import HTTP_PORT, HTTPS_PORT
from proxy.sinkhole.told import Names, Told
from proxy.sinkhole.visits import Desk, Visits
from proxy.transport.holder import holder
from proxy.transport.listen import bind_tcp
from rules.address import Address
from rules.decision import Decision
from rules.name import DomainName
from rules.rtype import AAAA, A

PORTS = (HTTP_PORT, HTTPS_PORT)
_IPV4, _IPV6 = 4, 6
_NO_CAPABILITY = "give us CAP_NET_BIND_SERVICE (AmbientCapabilities= of the unit), and restart"
_CURES = {
    errno.EACCES: _NO_CAPABILITY,
    errno.EPERM: _NO_CAPABILITY,
    errno.EADDRNOTAVAIL: "no interface holds it: `ip address add {address} dev lo`, and restart",
    errno.EADDRINUSE: "have {holder} listen on an address of its own, and restart",
    errno.EAFNOSUPPORT: "this host has no IPv6: take sinkhole.v6 away",
}


class Sinkhole:
    """Both addresses, and who visits them; call it from the loop's thread only.

    `listeners` are those where DNS is asked, `ADDRESS:PORT` each; `ports` those of HTTP and TLS.
    """

    def __init__(
        self,
        settings: SinkholeSettings,
        listeners: Iterable[str],
        desk: Desk,
        ports: tuple[int, int] = PORTS,
    ) -> None:
        self._settings = settings
        self._ports = ports
        self._listeners = tuple(listeners)
        self._desk = desk
        self._names = Names(desk.limits, desk.metrics)
        self._visits = Visits(desk, self._names)
        self._bound: dict[int, tuple[Address, list[socket.socket]]] = {}  # by IP version
        self._problems: dict[Address, str] = {}

    def bind(self) -> None:
        """Listen on both ports of each address, where that can be."""
        for address in self._settings.addresses:
            try:
                self._bound[address.version] = address, _bind(address, self._ports)
            except BindError as error:
                self._problems[address] = _explain(address, error, self._ports)

    async def start(self) -> None:
        """Answer from now on."""
        for _, sockets in self._bound.values():
            http, tls = sockets
            await self._visits.start(http, is_tls=False)
            await self._visits.start(tls, is_tls=True)

    def stop(self) -> None:
        """Stop accepting, and give no address out any more; what is open stays."""
        self._visits.stop()
        for each in self.sockets:
            each.close()  # for what was bound and never served
        self._bound.clear()

    async def close(self) -> None:
        """Stop, and end every connection."""
        self.stop()
        await self._visits.close()

    def is_up(self, version: int) -> bool:
        """Return whether the address of an IP version, 4 or 6, is answered on both ports."""
        return version in self._bound

    @property
    def addresses(self) -> frozenset[Address]:
        """The addresses that are up: they are ours, and nobody's destination."""
        return frozenset(address for address, _ in self._bound.values())

    @property
    def sockets(self) -> list[socket.socket]:
        """What is bound: of each address that is up the socket for HTTP, then that for TLS."""
        return [each for _, sockets in self._bound.values() for each in sockets]

    @property
    def problem(self) -> str:
        """What is in the way of an address that was asked for; empty where nothing is."""
        return "; ".join(self._problems.values())

    @property
    def is_same_for_all(self) -> bool:
        """Whether `records` says the same at every listener but those of leases."""
        return not self.is_up(_IPV4) or all(map(_is_near, self._listeners))

    def records(self, rtype: int, listener: str) -> tuple[bytes, ...] | None:
        """Return the rdata that stands for a denied name asked for at `listener`; perhaps none.

        None: no address of ours is up for who asks there.  A loopback address is that of whoever
        uses it, so that only who is near, on this host, is given ours; a sandbox with a lease is
        in a network of its own, and reaches neither.
        """
        if is_lent(listener):
            return None
        near = [version for version in self._bound if version == _IPV6 or _is_near(listener)]
        if not near:
            return None
        version = {A: _IPV4, AAAA: _IPV6}.get(rtype)
        return (self._bound[version][0].packed,) if version in near else ()

    def told(self, app: str, name: DomainName, id: str, decision: Decision) -> None:  # noqa: A002 - the word of the reference
        """Remember that `app` was given our address for `name`, in the refusal `id`."""
        self._names.add(Told(app, name, id, decision, self._desk.wall()))


def _bind(address: Address, ports: Iterable[int]) -> list[socket.socket]:
    bound: list[socket.socket] = []
    try:
        for port in ports:
            bound.append(bind_tcp(str(address), port))  # noqa: PERF401 - those before it are closed
    except BindError:
        for each in bound:
            each.close()
        raise
    return bound


def _explain(address: Address, error: BindError, ports: Iterable[int]) -> str:
    cause = error.__cause__
    number = cause.errno if isinstance(cause, OSError) else None
    cure = _CURES.get(number or 0, "see bind(2), or take the address away")
    holders = filter(None, (holder(port, socket.SOCK_STREAM) for port in ports))
    cure = cure.format(address=address, holder=next(holders, "what holds the port"))
    return f"{str(error).partition(';')[0]}; {cure}"


@lru_cache(maxsize=64)  # listeners are few
def _is_near(listener: str) -> bool:
    """Return whether only this host reaches a listener."""
    return ip_address(listener.rpartition(":")[0].strip("[]")).is_loopback
