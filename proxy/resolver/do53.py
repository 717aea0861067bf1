"""Do53: DNS over UDP and over TCP (RFC 1035, section 4.2; RFC 7766).

Datagrams are drained on the reader, a batch a wake-up; what can be answered at once is
answered there, and only a miss becomes a task.  TCP queries are pipelined and answered out of
order, those of one read in one write.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from typing import cast, override

from proxy.errors import PeerError
from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.resolver.query import Asker, Miss, Resolver
from proxy.transport.listen import Listener
from proxy.transport.peer import SocketAddress
from proxy.wire.framing import Deframer, frame

_DRAIN = 64  # datagrams a wake-up: measured best of 1 to 256
_TURN = 16  # queries of one connection a turn of the loop: 1 ms in which the others wait
_DATAGRAM_OCTETS = 4096  # longer queries are cut by the kernel and fail to parse
_RECEIVE_BUFFER_OCTETS = 4 << 20  # a burst while the loop is busy; Unbound so-rcvbuf: 4m
_ANSWER_OCTETS = 65535  # RFC 1035, section 4.2.2


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
        receive = self._socket.recvfrom
        for _ in range(_DRAIN):
            try:
                wire, peer = receive(_DATAGRAM_OCTETS)
            except OSError:  # drained, or an ICMP error of an earlier reply
                return
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


class Do53Tcp(asyncio.Protocol):
    """One TCP connection (RFC 7766)."""

    def __init__(
        self, listener: Listener, resolver: Resolver, identifier: Identifier, limits: Limits
    ) -> None:
        self._listener = listener
        self._resolver = resolver
        self._identifier = identifier
        self._limits = limits
        self._deframer = Deframer(_ANSWER_OCTETS)
        self._waiting: deque[bytes] = deque()  # read, not yet served: bounded by one read
        self._pending: set[asyncio.Task[None]] = set()
        self._is_due = False  # what waits gets its turn in the next round of the loop
        self._ended = False
        self._unread = False  # the peer does not read its answers

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn who connected, before the first octet is read."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        peer = transport.get_extra_info("peername")
        if peer is None:  # reset before it was accepted: nobody is there, and nothing is held
            self._transport.set_protocol(asyncio.Protocol())
            self._transport.abort()
            return
        if not self._listener.admit(self._transport):
            self._transport.abort()  # nothing was asked yet: the client tries again later
        local = transport.get_extra_info("sockname")
        principal = self._identifier.tcp(peer, local, self._listener.name)
        self._app = principal.app
        if not self._listener.claim(self._app, self._limits.dns_tcp_connections_per_app):
            self._resolver.hit_bound("dns_tcp_connections_per_app")
            self._transport.abort()
        self._asker = Asker(principal, "tcp", _ANSWER_OCTETS, peer, self._listener.name)
        self._loop = asyncio.get_running_loop()
        self._active = self._loop.time()
        self._timer = self._loop.call_later(self._limits.dns_tcp_idle_s, self._idle)

    @override
    def data_received(self, data: bytes) -> None:
        """Serve the whole queries of this read, a turn at a time; a turn's answers in one write."""
        try:
            self._waiting += self._deframer.feed(data)
        except PeerError:
            self._transport.close()
            return
        if not self._is_due:
            self._serve()

    @override
    def eof_received(self) -> bool:
        """Answer what was asked before the peer closed its half (RFC 7766, section 6.2.4)."""
        self._ended = True
        return bool(self._pending or self._waiting)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what nobody waits for any more."""
        self._timer.cancel()
        self._listener.release(self._transport)
        self._listener.unclaim(self._app)
        for task in self._pending:
            task.cancel()

    @override
    def pause_writing(self) -> None:
        """Read no further queries while the peer does not read its answers."""
        self._unread = True
        self._transport.pause_reading()

    @override
    def resume_writing(self) -> None:
        """Serve what waits, and read again."""
        self._unread = False
        self._go_on()

    def _go_on(self) -> None:
        """Serve what waits; read on, or close after the last answer, once nothing does."""
        self._is_due = False
        if self._transport.is_closing():
            return
        self._serve()
        if self._waiting or self._unread:
            return
        self._transport.resume_reading()
        if self._ended and not self._pending:
            self._transport.close()

    def _serve(self) -> None:
        """Serve one turn; the connection is read no further while anything waits."""
        replies = []
        for _ in range(min(_TURN, len(self._waiting))):
            if self._unread or self._is_at_cap():
                break
            self._active = self._loop.time()
            reply = self._resolver.serve(self._waiting.popleft(), self._asker)
            if isinstance(reply, Miss):
                self._start(self._finish(reply))
            elif reply is not None:
                replies.append(frame(reply))
        if replies:
            self._transport.write(b"".join(replies))
        if self._waiting:
            self._transport.pause_reading()
            if not (self._unread or self._is_due or self._is_at_cap()):
                self._is_due = True
                self._loop.call_soon(self._go_on)

    def _is_at_cap(self) -> bool:
        """Return whether no further miss may pend (RFC 7766, section 6.2.1.1)."""
        if len(self._pending) < self._limits.dns_tcp_in_flight:
            return False
        self._resolver.hit_bound("dns_tcp_in_flight")
        return True

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._pending.add(task)
        task.add_done_callback(self._done)

    async def _finish(self, miss: Miss) -> None:
        reply = await self._resolver.finish(miss)
        if not self._transport.is_closing():
            self._transport.write(frame(reply))

    def _done(self, task: asyncio.Task[None]) -> None:
        self._pending.discard(task)
        self._active = self._loop.time()
        if not self._is_due:
            self._go_on()

    def _idle(self) -> None:
        """Close when nothing whole was asked and nothing pends (RFC 7766, section 6.2.3)."""
        left = self._active + self._limits.dns_tcp_idle_s - self._loop.time()
        if left <= 0 and not self._pending:
            self._resolver.hit_bound("dns_tcp_idle_s")
            self._transport.abort()
            return
        self._timer = self._loop.call_later(max(left, 0.05), self._idle)
