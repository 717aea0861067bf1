"""Do53: DNS over UDP and over TCP (RFC 1035, section 4.2; RFC 7766).

Datagrams are drained on the reader, a batch a wake-up; what can be answered at once is
answered there, and only a miss becomes a task.
"""

import asyncio
import socket
from contextlib import suppress
from typing import override

from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.resolver.message import STREAM_OCTETS
from proxy.resolver.query import Asker, Miss, Resolver
from proxy.resolver.stream import DnsStream
from proxy.transport.datagrams import Datagrams
from proxy.transport.peer import SocketAddress
from rules.facts import Principal

_DATAGRAM_OCTETS = 1232  # what our OPT says that we take; the rest is cut, and fails to parse
_RECEIVE_BUFFER_OCTETS = 4 << 20  # a burst while the loop is busy; Unbound so-rcvbuf: 4m


class Do53Udp:
    """One UDP socket."""

    def __init__(
        self,
        sock: socket.socket,
        listener: str,
        resolver: Resolver,
        identifier: Identifier,
        limits: Limits,
    ) -> None:
        self._socket = sock
        self._listener = listener
        self._resolver = resolver
        self._identifier = identifier
        self._limits = limits
        self._pending: set[asyncio.Task[None]] = set()
        self._datagrams = Datagrams(sock, _DATAGRAM_OCTETS)

    def start(self) -> None:
        """Answer from now on."""
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_OCTETS)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._drain)

    def close(self) -> None:
        """Stop answering; pending misses are dropped."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        for task in self._pending:
            task.cancel()
        self._socket.close()

    def _drain(self) -> None:
        principal = self._identifier.udp(self._listener)
        hits = self._resolver.hits.table(principal, "udp")
        for wire, peer in self._datagrams.drain(hits.answer, self._resolver.now()):
            self._serve(wire, peer, principal)

    def _serve(self, wire: bytes, peer: SocketAddress, principal: Principal | None) -> None:
        asker = Asker(principal, "udp", self._limits.dns_udp_octets, peer, self._listener)
        reply = self._resolver.serve(wire, asker)
        if isinstance(reply, Miss):
            self._await(reply, peer)
        elif reply is not None:
            self._send(reply, peer)

    def _await(self, miss: Miss, peer: SocketAddress) -> None:
        if len(self._pending) >= self._limits.dns_udp_in_flight:
            self._send(self._resolver.shed(miss, "dns_udp_in_flight"), peer)
            return
        task = asyncio.get_running_loop().create_task(self._finish(miss, peer))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _finish(self, miss: Miss, peer: SocketAddress) -> None:
        self._send(await self._resolver.finish(miss), peer)

    def _send(self, reply: bytes, peer: SocketAddress) -> None:
        # The peer may be gone or its buffer full: UDP promises nothing.
        with suppress(OSError):
            self._socket.sendto(reply, peer)


class Do53Tcp(DnsStream):
    """One TCP connection (RFC 7766)."""

    @override
    def asker(self, principal: Principal, peer: SocketAddress) -> Asker:
        return Asker(principal, "tcp", STREAM_OCTETS, peer, self._listener.name)
