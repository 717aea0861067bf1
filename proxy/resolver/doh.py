"""DoH: DNS over HTTPS (RFC 8484), HTTP/2 and HTTP/1.1 behind TLS that the listener made.

A connection reads on only while its peer reads its answers, in turns that leave room for the
others; what was asked in one read is answered in one write.
"""

import asyncio
from typing import Protocol, cast, override

from proxy.agent_api.api import AgentApi
from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.refusals import Refusals
from proxy.resolver.doh_exchange import DohContext, Exchange
from proxy.resolver.doh_http1 import Http1
from proxy.resolver.doh_http2 import Endings, Http2
from proxy.resolver.doh_request import DohRequest
from proxy.resolver.query import Resolver
from proxy.transport.listen import Listener
from proxy.transport.presented import chain_of
from proxy.wire.h2_block import BlockMemory

ALPN = ("h2", "http/1.1")
_LEAST_WAIT_S = 0.05


class Speaker(Protocol):
    """One connection's HTTP, of either version."""

    @property
    def replies(self) -> int:
        """How many requests were answered."""

    @property
    def is_waited_for(self) -> bool:
        """Whether the peer waits for a reply that is not there yet."""

    @property
    def is_full(self) -> bool:
        """Whether no more should be read now."""

    @property
    def is_done(self) -> bool:
        """Whether nothing more is to be said."""

    def take(self) -> bytes:
        """Return what is to be sent now."""

    def receive(self, data: bytes, now: float, /) -> bool:
        """Take octets; return whether some of them wait for another turn."""

    def go_on(self, now: float, /) -> bool:
        """Take another turn; return whether some octets wait for one more."""

    def leave(self) -> None:
        """Answer what was asked already, and nothing after it."""

    def end(self) -> None:
        """Drop what nobody waits for any more."""


class DohPlane:
    """Every DoH connection: what they share, and their end."""

    def __init__(
        self,
        resolver: Resolver,
        identifier: Identifier,
        refusals: Refusals,
        limits: Limits,
        metrics: Metrics,
        api: AgentApi | None = None,
    ) -> None:
        self.context = DohContext(resolver, identifier, refusals, limits, metrics, api)
        self.endings = Endings()
        self.open: set[Doh] = set()
        self._memories: dict[str, BlockMemory[DohRequest]] = {}

    def factory(self, listener: Listener) -> "Doh":
        """Return the protocol of a connection that `listener` accepted."""
        return Doh(listener, self)

    def leave(self) -> None:
        """Tell every peer to ask elsewhere; connections close after their last answer."""
        for each in tuple(self.open):
            each.leave()

    def hit_bound(self, bound: str) -> None:
        """Count that a named limit was met."""
        self.context.metrics.bounds.add(bound)

    def memory(self, app: str) -> BlockMemory[DohRequest]:
        """Return the header blocks that connections of `app` repeat."""
        memory = self._memories.get(app)
        if memory is None:
            limits = self.context.limits
            memory = BlockMemory(limits.doh_known_heads, lambda: self.hit_bound("doh_known_heads"))
            if len(self._memories) >= limits.apps_remembered:
                del self._memories[next(iter(self._memories))]
                self.hit_bound("apps_remembered")
            self._memories[app] = memory
        return memory


class Doh(asyncio.Protocol):
    """One connection."""

    def __init__(self, listener: Listener, plane: DohPlane) -> None:
        self._listener = listener
        self._plane = plane
        self._limits = plane.context.limits
        self._is_due = False  # what waits gets its turn in the next round of the loop
        self._unread = False  # the peer does not read its answers
        self._replies = 0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn who connected, and which HTTP was agreed on, before the first octet is read."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        peer = transport.get_extra_info("peername")
        if peer is None:  # reset before it was accepted: nobody is there, and nothing is held
            self._transport.set_protocol(asyncio.Protocol())
            self._transport.abort()
            return
        local = transport.get_extra_info("sockname")
        chain = chain_of(transport)
        self._exchange = Exchange(self._plane.context, peer, local, self._listener.name, chain)
        self._app = self._exchange.app
        has_share = self._listener.claim(self._app, self._limits.dns_tcp_connections_per_app)
        if not has_share:
            self._plane.hit_bound("dns_tcp_connections_per_app")
        has_room = self._listener.admit(self._transport, has_share=has_share)
        metrics = self._plane.context.metrics
        metrics.connections.add("doh", "accepted" if has_room else "refused")
        self._loop = asyncio.get_running_loop()
        self._active = self._loop.time()
        self._timer = self._loop.call_later(self._limits.doh_idle_s, self._idle)
        self._speaker = self._speak()
        self._plane.open.add(self)
        if has_room:
            self._write()
        else:
            self._transport.abort()  # nothing was asked yet: the client tries again later

    @override
    def data_received(self, data: bytes) -> None:
        """Serve a turn of what was read; its answers are one write."""
        self._exchange.begin()
        self._after(waits=self._speaker.receive(data, self._loop.time()))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what nobody waits for any more."""
        self._timer.cancel()
        self._speaker.end()
        self._plane.open.discard(self)
        self._listener.release(self._transport)
        self._listener.unclaim(self._app)

    @override
    def pause_writing(self) -> None:
        """Read no further requests while the peer does not read its answers."""
        self._unread = True
        self._transport.pause_reading()

    @override
    def resume_writing(self) -> None:
        """Serve what waits, and read again."""
        self._unread = False
        self._go_on()

    def leave(self) -> None:
        """Close after the last answer that is due."""
        self._speaker.leave()
        self._after(waits=False)

    def _speak(self) -> Speaker:
        plane, limits = self._plane, self._limits
        tls = self._transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            memory = plane.memory(self._app)
            return Http2(
                self._exchange, memory, plane.endings, limits, plane.hit_bound, self._go_on
            )
        return Http1(self._exchange, limits, plane.hit_bound, self._go_on)

    def _go_on(self) -> None:
        """Serve what waits: another turn came, an answer is there, or the peer reads again."""
        self._is_due = False
        if self._transport.is_closing():
            return
        self._exchange.begin()
        waits = not self._unread and self._speaker.go_on(self._loop.time())
        self._after(waits=waits or self._unread)

    def _after(self, *, waits: bool) -> None:
        """Send the answers of a turn; read on unless something waits."""
        self._write()
        if self._speaker.is_done:
            self._transport.close()
        elif waits or self._unread or self._speaker.is_full:
            self._transport.pause_reading()
            if waits and not (self._unread or self._is_due or self._speaker.is_full):
                self._is_due = True
                self._loop.call_soon(self._go_on)
        else:
            self._transport.resume_reading()

    def _write(self) -> None:
        octets = self._speaker.take()
        if octets:
            self._transport.write(octets)
        if self._replies != self._speaker.replies:
            self._replies = self._speaker.replies
            self._active = self._loop.time()

    def _idle(self) -> None:
        """Close when nothing whole was asked for a while, or the peer takes no answer."""
        left = self._active + self._limits.doh_idle_s - self._loop.time()
        if left > 0 or self._speaker.is_waited_for:
            self._timer = self._loop.call_later(max(left, _LEAST_WAIT_S), self._idle)
            return
        self._plane.hit_bound("doh_idle_s")
        self._speaker.leave()
        self._write()
        if self._unread or not self._speaker.is_done:
            self._transport.abort()
        else:
            self._transport.close()
