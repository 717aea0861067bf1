"""Do53: DNS over UDP and over TCP (RFC 1035, section 4.2; RFC 7766).

Datagrams are drained on the reader, a batch a wake-up; what can be answered at once is
answered there, and only a miss becomes a task.
"""

import asyncio
import socket
from contextlib import suppress
from typing import override

from proxy.identify import UNKNOWN, Identifier
from proxy.limits import Limits
from proxy.resolver.lateness import Lateness
from proxy.resolver.message import STREAM_OCTETS
from proxy.resolver.query import Asker, Miss, Resolver
from proxy.resolver.stream import DnsStream
from proxy.transport.datagrams import BATCH, Datagrams
from proxy.transport.peer import SocketAddress
from rules.facts import Principal

_DATAGRAM_OCTETS = 1232  # what our OPT says that we take; the rest is cut, and fails to parse
_MISSES = 16  # a turn, where most of the last batch missed: their answers wait for the turn's end


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
        self._lateness = Lateness(limits.dns_udp_wait_s, limits.dns_udp_burst_s)
        self._datagrams = Datagrams(sock, _DATAGRAM_OCTETS, self._is_lost)
        self._most = BATCH
        self._overflown = 0
        # Asked at each wake-up: a step counts where a query comes alone.
        self._now, self._table = resolver.now, resolver.hits.table

    def start(self) -> None:
        """Answer from now on."""
        self._socket.setblocking(False)
        # socket(7): the kernel takes twice what it is asked for, and counts its own share too.
        self._socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, self._limits.dns_udp_queue_octets // 2
        )
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._drain)

    def close(self) -> None:
        """Stop answering; pending misses are dropped."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        for task in self._pending:
            task.cancel()
        self._overflown = self._datagrams.overflown
        self._socket.close()

    @property
    def overflown(self) -> int:
        """How many queries the kernel dropped because its queue was full."""
        is_open = self._socket.fileno() >= 0
        return self._datagrams.overflown if is_open else self._overflown

    def _drain(self) -> None:
        principal = self._identifier.udp(self._listener)
        answer = self._table(principal, "udp").answer
        missed = self._datagrams.drain(answer, self._now(), self._most)
        for wire, peer in missed:
            self._serve(wire, peer, principal)
        self._most = _MISSES if len(missed) >= _MISSES else BATCH
        if self._datagrams.lost:
            self._resolver.hit_bound("dns_udp_wait_s", self._datagrams.lost)
            self._datagrams.lost = 0

    def _is_lost(self, came: float, is_all: bool) -> bool:
        if is_all:
            self._lateness.rest(self._resolver.now())
            return False
        # The kernel stamps datagrams with the wall clock.
        return self._lateness.is_lost(self._resolver.wall() - came, self._resolver.now())

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
        reply = await self._resolver.finish(miss)
        principal = self._identifier.udp(self._listener) or UNKNOWN
        reply = self._resolver.reconsider(miss, reply, principal)
        if reply is not None:
            self._send(reply, peer)

    def _send(self, reply: bytes, peer: SocketAddress) -> None:
        # The peer may be gone or its buffer full: UDP promises nothing.
        with suppress(OSError):
            self._socket.sendto(reply, peer)


class Do53Tcp(DnsStream):
    """One TCP connection (RFC 7766)."""

    @override
    def asker(self, principal: Principal, peer: SocketAddress) -> Asker:
        return Asker(principal, "tcp", STREAM_OCTETS, peer, self._listener.name)
