"""A client's connection, as far as the request goes that is under way on it."""

import asyncio

from proxy.egress.asker import Asker
from proxy.egress.context import Context
from proxy.egress.dial import KnownDial
from proxy.egress.errand import Errand
from proxy.egress.exchange import Exchange, Order
from proxy.egress.inward import Inward
from proxy.egress.linger import reset
from proxy.egress.standing import Told, revoked
from proxy.flow import Flow, Plane
from proxy.transport.listen import Listener
from proxy.wire.head import BodyKind, RequestHead
from rules.decision import Decision, Reason
from rules.facts import Principal

NEVER = float("inf")


class UnderWay(asyncio.Protocol):
    """What holds the client back meanwhile, how long he may take, and what ends it all early."""

    __slots__ = (
        "_buffer", "_dial", "_exchange", "_gone", "_in_head", "_listener", "_paused", "_stays",
        "_task", "asker", "context", "deadline", "errand", "transport",
    )  # fmt: skip

    def __init__(self, context: Context, listener: Listener) -> None:
        self.context = context
        self._listener = listener
        self._buffer = b""  # read, and not yet used
        self._in_head = False  # a part of a head was read
        self._paused = False  # we do not read what the client sends
        self._exchange: Exchange | Inward | None = None
        self._task: asyncio.Task[None] | None = None
        self._dial: KnownDial | None = None
        self._gone = False  # nothing more is done for this connection
        self._stays = False  # what is under way is the last of it, and is answered
        self.deadline = NEVER
        self.errand: Errand | None = None
        self.asker: Asker
        self.transport: asyncio.Transport

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return self._exchange is not None or self._task is not None or self._dial is not None

    def new_flow(self, principal: Principal, flow: str = "") -> Flow:
        """Return the flow of a new errand; `flow` is its id where it has one already."""
        id_ = flow or self.context.new_id()
        return Flow(id_, principal, Plane.HTTP, listener=self._listener.name)

    def end(self) -> None:
        """End at once."""
        self._gone = True
        self.transport.abort()

    def stay(self) -> None:
        """Last until the request under way is answered, whatever ends the connection meanwhile."""
        self._stays = True

    def _lasts(self, head: RequestHead, *, is_read: bool) -> bool:
        """Return whether another request may follow on this one; `is_read`: its content was."""
        is_whole = is_read or head.body.kind is BodyKind.NONE
        return head.persistent and bool(head.minor) and is_whole and not self._stays

    def pause(self) -> None:
        """Read no more for now."""
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on, unless more than a head is waiting already."""
        waiting = len(self._buffer) > self.context.limits.head_octets
        if self._paused and not waiting and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def broken(self, order: Order, reason: Reason, text: str) -> None:
        """Let the client see that the response is not complete (RFC 9112, section 8)."""
        self._exchange = None
        context = self.context
        decision = context.authorizer.fails(reason, text)
        context.authorizer.record(order.errand.flow, order.facts, decision, text=text)
        context.metrics.proxy_requests.add("forward", "failed")
        self.transport.abort()

    def _drop_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_lost()
            if exchange.begun:
                self.transport.abort()  # a refusal would be read as content of the response

    def leave(self) -> bytes:
        """Give the transport up to a tunnel; return what was read and not yet used."""
        self._task = None
        self._gone = True
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        self.errand = None
        self.context.deadlines.discard(self)
        early, self._buffer = self._buffer, b""
        return early

    # Deadlines' side: proxy.egress.deadlines.Timed

    def expired(self, now: float) -> None:  # noqa: ARG002 - a limit of either kind ends it
        """End a connection that is idle, or slow with a head (slow loris), or a slow dial."""
        self.deadline = NEVER
        if self._dial is not None:
            self._dial.late()
            return
        self.context.metrics.bounds.add("head_s" if self._in_head else "keep_alive_s")
        self.end()

    def _await_head(self, patience_s: float) -> None:
        self.deadline = asyncio.get_running_loop().time() + patience_s

    # The sweep's side: proxy.egress.sweep.Sweepable

    def stale(self) -> Decision | None:
        """Return why the request under way may not go on by the rules of now; None if it may."""
        # One that is being dialled is compared before it is sent.
        return None if self._exchange is None else self._exchange.stale()

    def lapsed(self) -> Decision | None:
        """Return the same of less that is proven of its asker: a rest is asked of the next one."""
        return self.stale()

    def disowned(self) -> Decision | None:
        """Return why the asker of the request under way is not who it was; None while it is."""
        return None if self._exchange is None else self._exchange.disowned()

    def revoked(self, *, apps_only: bool) -> Decision | None:
        """Return the decision that ends the connection, if it rests or not; None: it stands."""
        asker = self.asker
        shown = asker.principal if isinstance(asker.shown, Decision) else asker.shown
        key = None if self._exchange is None else self._exchange.key
        return revoked(self.context, asker, asker.value, shown, key, apps_only=apps_only)

    def halt(self, decision: Decision) -> Told | None:
        """End the connection and the request under way with resets; what is returned records why.

        A request that is being dialled gets its refusal: nothing of it has been sent.  So does who
        is cut because of what it has just asked of us: nothing else is read of it any more.
        """
        if self._stays:
            return None
        exchange, self._exchange = self._exchange, None
        if exchange is None and self._refuse_dial(decision):
            return None
        self._gone = True
        reset(self.transport)
        return None if exchange is None else exchange.halt(decision)

    def sever(self, decision: Decision) -> None:
        """End the request under way at both sides, and record why."""
        told = self.halt(decision)
        if told is not None:
            told()

    def _refuse_dial(self, decision: Decision) -> bool:
        """End a dial that is under way, so that its request is refused; return whether one is."""
        if self._dial is not None:
            self._dial.refuse(decision)
            return True
        dialling = None if self._task is None else self.context.dials.get(self._task)
        if dialling is not None:
            dialling.refuse(decision)
        return dialling is not None
