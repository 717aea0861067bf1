"""DNS over a stream (RFC 1035, section 4.2.2; RFC 7766): over TCP, and over TLS on top of it.

Queries are pipelined and answered out of order, those of one read in one write.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Coroutine
from typing import cast, override

from proxy.certificates.known import Chain
from proxy.errors import PeerError
from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.resolver.asker import Asker
from proxy.resolver.message import STREAM_OCTETS
from proxy.resolver.query import Miss, Resolver
from proxy.transport.listen import Listener
from proxy.transport.peer import SocketAddress
from proxy.transport.presented import chain_of
from proxy.wire.framing import Deframer, frame
from rules.decision import Decision
from rules.facts import Principal

_TURN = 16  # queries of one connection a turn of the loop: 1 ms in which the others wait
_HITS = 1024  # the same of queries that were answered within this second


class DnsStream(asyncio.Protocol, ABC):
    """One connection, of a kind that says who asks over it."""

    def __init__(
        self, listener: Listener, resolver: Resolver, identifier: Identifier, limits: Limits
    ) -> None:
        self._listener = listener
        self._resolver = resolver
        self._identifier = identifier
        self._limits = limits
        self._chain: Chain = ()
        self._denial: Decision | None = None  # of its certificate: nothing is answered
        self._deframer = Deframer(STREAM_OCTETS)
        self._waiting: deque[bytes] = deque()  # read, not yet served: bounded by one read
        self._pending: set[asyncio.Task[None]] = set()
        self._is_due = False  # what waits gets its turn in the next round of the loop
        self._ended = False
        self._unread = False  # the peer does not read its answers

    @abstractmethod
    def asker(self, principal: Principal, peer: SocketAddress) -> Asker:
        """Return what each query is asked with."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn who connected, before the first octet is read."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        peer = transport.get_extra_info("peername")
        if peer is None:  # reset before it was accepted: nobody is there, and nothing is held
            self._transport.set_protocol(asyncio.Protocol())
            self._transport.abort()
            return
        self._ends = (peer, transport.get_extra_info("sockname"))
        self._chain = chain_of(transport)
        self._app = self._identify().app  # whose share of the connections it is
        has_share = self._listener.claim(self._app, self._limits.dns_tcp_connections_per_app)
        if not has_share:
            self._resolver.hit_bound("dns_tcp_connections_per_app")
        if not self._listener.admit(self._transport, has_share=has_share):
            self._transport.abort()  # nothing was asked yet: the client tries again later
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
        replies: list[bytes] = []
        if self._waiting and not self._unread:
            self._active = self._loop.time()
            self._take_turn(replies)
        if replies:
            self._transport.write(b"".join(replies))
        if self._waiting:
            self._transport.pause_reading()
            if not (self._unread or self._is_due or self._is_at_cap()):
                self._is_due = True
                self._loop.call_soon(self._go_on)

    def _identify(self) -> Principal:
        """Learn who asks by the rules of now: they may have given the evidence to another app."""
        identifier, chain = self._identifier, self._chain
        self._epoch, self._named_at = identifier.epoch, identifier.naming_epoch
        return self._take(identifier.connected(*self._ends, self._listener.name, chain))

    def _refresh(self) -> None:
        """Look again where the rules, or what is proven, have changed since."""
        identifier = self._identifier
        if self._epoch == identifier.epoch:
            return
        if self._named_at != identifier.naming_epoch:
            self._identify()
            return
        self._epoch = identifier.epoch  # it is who it was: the kernel is not asked
        self._take(identifier.again(self._found, self._listener.name, self._chain))

    def _take(self, found: Principal | Decision) -> Principal:
        self._found = found
        self._denial = found if isinstance(found, Decision) else None
        if isinstance(found, Decision):
            found = self._identifier.presented_unknown(chain=self._chain, has_token=False)
        self._asker = self.asker(found, self._ends[0])
        return found

    def _take_turn(self, replies: list[bytes]) -> None:
        """Put the replies to what waits into `replies`, until the turn is over."""
        self._refresh()
        asker = self._asker
        hits = self._resolver.hits.table(asker.principal, asker.transport)
        answer = hits.answer if self._denial is None else _nothing
        now, waiting = self._resolver.now(), self._waiting
        served = 0
        for _ in range(min(len(waiting), _HITS)):
            reply = answer(waiting[0], now)
            if reply is None:
                if served == _TURN or self._is_at_cap():
                    return
                served += 1
                reply = self._served(waiting[0])
            waiting.popleft()
            if reply is not None:
                replies += (len(reply).to_bytes(2), reply)

    def _served(self, wire: bytes) -> bytes | None:
        if self._denial is not None:
            return self._resolver.refuse(wire, self._asker, self._denial)
        reply = self._resolver.serve(wire, self._asker)
        if isinstance(reply, Miss):
            self._start(self._finish(reply))
            return None
        return reply

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
        if self._transport.is_closing():
            return
        self._refresh()
        reply = self._resolver.reconsider(miss, reply, self._found)
        if reply is not None:
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


def _nothing(_wire: bytes, _now: float) -> None:
    """Answer no query by what was answered before: its asker counts for nobody."""
