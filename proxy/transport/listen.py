"""Binding and accepting: sockets that are ours alone, and connections that are counted.

Never SO_REUSEPORT, nor SO_REUSEADDR on UDP: another process of the same user could then bind
beside us and take a part of the agents' traffic (threats.md, "Identity").
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import cast

from proxy.errors import BindError
from proxy.transport.handshake import Handshakes, ListenerTls
from proxy.transport.holder import holder

BACKLOG = 1024  # nginx 511, Linux net.core.somaxconn 4096

_ADVICE = {
    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher port",
    errno.EPERM: "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher port",
    errno.EADDRNOTAVAIL: "no interface of this host holds that address; correct `listen:`",
    errno.EAFNOSUPPORT: "this host has no IPv6; remove the address from `listen:`",
    errno.EMFILE: "too many open files; raise LimitNOFILE or `ulimit -n`",
}


def bind_tcp(address: str, port: int) -> socket.socket:
    """Return a bound and listening, non-blocking TCP socket.

    SO_REUSEADDR only lets us return to a port whose old connections are in TIME_WAIT.

    Raises:
        BindError: what is in the way and what to do about it.
    """
    return _bind(address, port, socket.SOCK_STREAM)


def bind_udp(address: str, port: int) -> socket.socket:
    """Return a bound, non-blocking UDP socket.

    Raises:
        BindError: what is in the way and what to do about it.
    """
    return _bind(address, port, socket.SOCK_DGRAM)


def _bind(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
    bound: socket.socket | None = None
    try:
        bound = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        if family == socket.AF_INET6:
            # "::" must not take the IPv4 port as well: it is another listener, or nobody's.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
        if kind == socket.SOCK_STREAM:
            bound.listen(BACKLOG)
    except OSError as error:
        if bound is not None:
            bound.close()
        raise BindError(_explain(address, port, kind, error)) from error
    return bound


def _explain(address: str, port: int, kind: socket.SocketKind, error: OSError) -> str:
    protocol = "TCP" if kind == socket.SOCK_STREAM else "UDP"
    advice = _ADVICE.get(error.errno or 0, "see bind(2)")
    if error.errno == errno.EADDRINUSE:
        culprit = holder(port, kind)
        advice = f"end {culprit} or choose another port" if culprit else "choose another port"
    return f"cannot bind {protocol} {address} port {port}: {error.strerror}; {advice}"


class Listener:
    """One accepting socket with a bound on its open connections.

    `factory` makes the protocol of each accepted connection and is given this listener; the
    protocol calls `admit` when it is connected and `release` once it is lost.  At `limit`
    connections `admit` says no, and the protocol refuses with the words of its own protocol.
    `counted` is told of each connection whether it was admitted.
    `name` is `ADDRESS:PORT` as `listen:` has it, by default what the socket is bound to.  With
    `tls` a protocol is made for each connection whose handshake succeeded.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - a place for each of a listener's parts
        self,
        sock: socket.socket,
        factory: "Callable[[Listener], asyncio.BaseProtocol]",
        limit: int,
        at_limit: Callable[[], None],
        name: str = "",
        tls: ListenerTls | None = None,
        counted: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.socket = sock
        self.name = name or _name(sock)
        self.limit = limit
        self._factory = factory
        self._at_limit = at_limit
        self._counted = counted
        self._open: set[asyncio.BaseTransport] = set()  # those that were refused and end, too
        self._admitted: set[asyncio.BaseTransport] = set()
        self._shares: dict[str, int] = {}  # of an app; one without a connection has no entry
        self._server: asyncio.Server | None = None
        self._tls = tls
        self._handshakes: Handshakes | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def connections(self) -> int:
        """How many connections are open, with those that were refused and are about to end."""
        return len(self._open)

    async def start(self) -> None:
        """Begin to accept."""
        if self._tls is not None:
            make = partial(self._factory, self)
            self._handshakes = Handshakes(self.socket, make, self._tls)
            self._handshakes.start()
            return
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: self._factory(self), sock=self.socket, backlog=BACKLOG
        )

    def admit(self, transport: asyncio.BaseTransport, *, has_share: bool = True) -> bool:
        """Count a new connection; return False, and count the bound, where there is no room.

        One without a share of its app's is refused too, and takes no room: an app that is
        refused often enough at once would else shut out the others.
        """
        room = has_share and len(self._admitted) < self.limit
        self._open.add(transport)
        self._empty.clear()
        if room:
            self._admitted.add(transport)
        elif has_share:
            self._at_limit()
        self._counted(room)
        return room

    def release(self, transport: asyncio.BaseTransport) -> None:
        """Forget a connection that is lost; one that was never admitted is ignored."""
        self._open.discard(transport)
        self._admitted.discard(transport)
        if not self._open:
            self._empty.set()

    def stop(self) -> None:
        """Stop accepting; open connections stay."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._handshakes is not None:
            self._handshakes.stop()

    def claim(self, app: str, most: int) -> bool:
        """Count a connection of `app`; return False where it has `most` already."""
        held = self._shares.get(app, 0)
        self._shares[app] = held + 1
        return held < most

    def unclaim(self, app: str) -> None:
        """Forget a connection of `app` that was claimed, with or without success."""
        left = self._shares.pop(app, 0) - 1
        if left > 0:
            self._shares[app] = left

    async def close(self, grace_s: float = 0.0) -> None:
        """Stop accepting, then give open connections `grace_s` seconds before they are ended."""
        self.stop()
        if grace_s > 0 and self._open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), grace_s)
        for transport in tuple(self._open):
            # uvloop's transports do not derive from asyncio's.
            cast("asyncio.WriteTransport", transport).abort()


def _name(sock: socket.socket) -> str:
    address, port = sock.getsockname()[:2]
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
