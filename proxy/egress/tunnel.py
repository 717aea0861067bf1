"""Octets both ways, unread: half-close, back-pressure, limits in time, and what was counted."""

import asyncio
from functools import partial
from typing import Protocol, override

from proxy.egress.admission import Admission
from proxy.egress.asker import Asker
from proxy.egress.context import Context
from proxy.egress.evidence import Opened, Passed, record_closing
from proxy.egress.known import Route
from proxy.egress.linger import Linger, reset
from proxy.egress.obligations import Passage, read
from proxy.egress.origin import OriginKey
from proxy.egress.standing import Standing, Told, disowned, revoked, withdrawn
from rules.decision import Decision, Reason, Verdict
from rules.facts import Connect

# RFC 8446, sections 5.1 and 6.2: a record with the fatal alert access_denied(49)
ACCESS_DENIED = bytes((21, 3, 3, 0, 2, 2, 49))
_SEEN = Passage()  # of a tunnel that a request was upgraded to: its opening was read
_LOOKS = 8  # times per idle limit that a tunnel is looked at


class Side(asyncio.Protocol):
    """One end of a tunnel: what it receives is written to the `other` transport."""

    __slots__ = ("ended", "lost", "octets", "other", "transport", "tunnel")

    def __init__(
        self, tunnel: "Tunnel", transport: asyncio.Transport, other: asyncio.Transport
    ) -> None:
        self.tunnel = tunnel
        self.transport = transport
        self.other = other
        self.octets = 0
        self.ended = False
        self.lost = False

    @override
    def data_received(self, data: bytes) -> None:
        self.octets += len(data)
        self.other.write(data)

    @override
    def eof_received(self) -> bool:
        self.ended = True
        self.tunnel.half_closed(self)
        return self.transport.can_write_eof()  # TLS is closed whole whatever this returns

    @override
    def pause_writing(self) -> None:
        self.other.pause_reading()

    @override
    def resume_writing(self) -> None:
        if not self.other.is_closing():
            self.other.resume_reading()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.tunnel.lost(self)


class Gate(Protocol):
    """Stands before a tunnel until the client's first octets were judged."""

    def late(self) -> None:
        """The client took longer than `hello_s`."""


class Tunnel:
    """A tunnel, its limits and its evidence."""

    __slots__ = (
        "_admission", "_born", "_closed", "_gate", "_opened", "_quiet_since", "_seen",
        "_standing", "client", "context", "deadline", "origin", "route",
    )  # fmt: skip
    is_busy = False  # a tunnel may last for a day: the end does not wait for it

    def __init__(
        self,
        context: Context,
        admission: Admission,
        opened: Opened,
        standing: Standing,
        route: Route | None = None,
    ) -> None:
        self.context = context
        self._admission = admission
        self._opened = opened
        self._standing = standing
        self.route = route
        self._gate: Gate | None = None
        self._born = self._quiet_since = asyncio.get_running_loop().time()
        self._seen = 0
        self._closed = False
        self.deadline = self._born
        self.client: Side
        self.origin: Side
        context.metrics.tunnels.value += 1

    def join(self, client: Side, origin: Side, gate: Gate | None = None) -> None:
        """Take both transports over and relay from now on; neither may be lost already."""
        self.client = client
        self.origin = origin
        self._gate = gate
        # The client's transport has had its limit from the start.
        origin.transport.set_write_buffer_limits(high=self.context.limits.tunnel_buffer_octets)
        client.transport.set_protocol(client)
        origin.transport.set_protocol(origin)
        self.deadline = self._born + self.context.first_look_s
        self.context.deadlines.add(self)

    def gate_passed(self) -> None:
        """Let the tunnel last: the client's first octets were judged."""
        self._gate = None

    def bare(self) -> None:
        """Let bare sides do the relaying from now on; what was counted so far stays counted."""
        client, origin = self.client, self.origin
        near, far = client.transport, origin.transport
        self.client = bare = Side(self, near, far)
        bare.octets, bare.ended = client.octets, client.ended
        near.set_protocol(bare)
        self.origin = bare = Side(self, far, near)
        bare.octets, bare.ended = origin.octets, origin.ended
        far.set_protocol(bare)
        self._gate = None

    def dissolve(self) -> None:
        """Be no tunnel any more: whoever calls has taken both transports."""
        self._closed = True
        self.context.deadlines.discard(self)
        self.context.metrics.tunnels.value -= 1

    def half_closed(self, side: Side) -> None:
        """Pass the end of one direction on; with the second, the tunnel ends."""
        if (self.client.ended and self.origin.ended) or not side.other.can_write_eof():
            self.close()  # TLS has no half-close in asyncio
        elif not side.other.is_closing():
            side.other.write_eof()
            now = self._quiet_since = asyncio.get_running_loop().time()
            look = now + self.context.limits.tunnel_half_closed_s / _LOOKS
            self.deadline = min(self.deadline, look)  # there the limits are looked at one by one

    def lost(self, side: Side) -> None:
        """End the tunnel: one of its connections is gone."""
        if side is self.client:
            self._admission.release()
        if not self._closed:
            self.close()
        if self.client.lost and self.origin.lost:
            self.context.deadlines.discard(self)
            del self.client, self.origin  # a cycle, which would wait for the collector

    def close(self) -> None:
        """End both connections once what was written is sent; record what passed."""
        if self._closed:
            return
        self._closed = True
        self.client.transport.close()
        self.origin.transport.close()
        now = self._quiet_since = asyncio.get_running_loop().time()
        self.deadline = now + self.context.limits.linger_s
        self._report(now)

    def cut(self, reason: Reason, text: str) -> None:
        """End a tunnel that must not be: tell the client's TLS, audit the reason."""
        if self._closed:
            return
        context = self.context
        decision = Decision(Verdict.DENY, reason)
        context.authorizer.record(self._opened.flow, self._opened.facts, decision, text=text)
        context.metrics.tunnel_cuts.add(reason)
        self._closed = True
        context.deadlines.discard(self)
        self._report(asyncio.get_running_loop().time())
        self.origin.transport.abort()
        client = self.client.transport
        client.write(ACCESS_DENIED)
        Linger(context, self._admission, client, self._standing.asker).begin()

    @property
    def asker(self) -> Asker:
        """Who asked for it."""
        return self._standing.asker

    def stale(self) -> Decision | None:
        """Return why the tunnel may not go on by the rules of now; None if it may."""
        return None if self._closed else self.lapsed()

    def lapsed(self) -> Decision | None:
        """Return the same of one that has ended, too: what it has not yet sent is part of it."""
        facts = self._opened.facts
        is_connect = isinstance(facts, Connect)
        passage = read(self._opened.decision.obligations) if is_connect else _SEEN
        return withdrawn(self.context, self._standing, facts, passage)

    def disowned(self) -> Decision | None:
        """Return why its asker is not who it was any more; None while it is."""
        return None if self._closed else disowned(self._standing, self._opened.facts.principal)

    def revoked(self, *, apps_only: bool) -> Decision | None:
        """Return the decision that ends it, what it has not yet sent included; None: it stands."""
        standing, facts = self._standing, self._opened.facts
        key = None
        if standing.secure is not None:
            key = OriginKey(facts.principal, facts.host, facts.port, standing.secure)
        return revoked(
            self.context, standing.asker, standing.value, facts.principal, key, apps_only=apps_only
        )

    def halt(self, decision: Decision) -> Told | None:
        """End both connections with a reset, at once; what is returned records why."""
        was_closed, self._closed = self._closed, True
        self.context.deadlines.discard(self)
        for side in (self.client, self.origin):
            if not side.lost:
                reset(side.transport)
        if was_closed:
            return None
        self.context.metrics.tunnel_cuts.add(decision.reason)
        now = asyncio.get_running_loop().time()
        return partial(self._told, decision, self._passed(now), now)

    def sever(self, decision: Decision) -> None:
        """End both connections with a reset, and record why."""
        told = self.halt(decision)
        if told is not None:
            told()

    def _told(self, decision: Decision, passed: Passed, now: float) -> None:
        self.context.authorizer.record(self._opened.flow, self._opened.facts, decision)
        record_closing(self.context, self._opened, self.route, passed, now)

    def expired(self, now: float) -> None:
        """Keep the limits in time, which are looked at a few times per idle limit."""
        limits = self.context.limits
        if self._closed:  # a peer that does not read its last octets
            if not self._is_unsent() or now >= self._quiet_since + limits.tunnel_half_closed_s:
                self._abort()
            else:
                self.deadline = now + limits.linger_s
            return
        seen = self.client.octets + self.origin.octets
        if seen != self._seen:
            self._seen = seen
            self._quiet_since = now
        if self._gate is not None and now >= self._born + limits.hello_s:
            self.context.metrics.bounds.add("hello_s")
            self._gate.late()
        elif now >= self._born + limits.tunnel_life_s:
            self._end_for("life", "tunnel_life_s")
        elif now >= self._quiet_since + self._patience_s():
            if self._is_half_closed():
                self._end_for("half-closed", "tunnel_half_closed_s")
            else:
                self._end_for("idle", "tunnel_idle_s")
        else:
            self._set_deadline(now)

    def end(self) -> None:
        """End at once, at shutdown."""
        if not self._closed:
            self.context.metrics.tunnel_cuts.add("shutdown")
            self.close()
        self._abort()

    def _end_for(self, cut: str, bound: str) -> None:
        self.context.metrics.tunnel_cuts.add(cut)
        self.context.metrics.bounds.add(bound)
        self.close()
        self._abort()

    def _abort(self) -> None:
        self.context.deadlines.discard(self)
        self.client.transport.abort()
        self.origin.transport.abort()

    def _report(self, now: float) -> None:
        """Write the closing line: it stands under the id of the one that opened the tunnel."""
        record_closing(self.context, self._opened, self.route, self._passed(now), now)

    def _passed(self, now: float) -> Passed:
        """Count what has passed, as the tunnel ends."""
        context = self.context
        up, down = self.client.octets, self.origin.octets
        context.metrics.tunnels.value -= 1
        octets = context.metrics.octets
        octets.add("up", n=up)
        octets.add("down", n=down)
        return Passed(up, down, now - self._born)

    def _is_unsent(self) -> bool:
        both = (self.client.transport, self.origin.transport)
        return any(transport.get_write_buffer_size() for transport in both)

    def _is_half_closed(self) -> bool:
        return self.client.ended or self.origin.ended

    def _patience_s(self) -> float:
        limits = self.context.limits
        return limits.tunnel_half_closed_s if self._is_half_closed() else limits.tunnel_idle_s

    def _set_deadline(self, now: float) -> None:
        limits = self.context.limits
        patience_s = self._patience_s()
        self.deadline = min(
            self._born + limits.tunnel_life_s,
            self._quiet_since + patience_s,
            now + patience_s / _LOOKS,
            self._born + limits.hello_s if self._gate is not None else float("inf"),
        )
