"""One client connection: heads off the stream, each to a tunnel, a request or a refusal."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import cast, override

from proxy.egress import connect, request
from proxy.egress.admission import Admission
from proxy.egress.context import Context
from proxy.egress.errand import Errand
from proxy.egress.exchange import Exchange, Order
from proxy.egress.linger import Linger
from proxy.egress.origin import OriginConnection
from proxy.egress.refusal import Answer, printable, refuse
from proxy.egress.tunnel import Side, Tunnel
from proxy.errors import PeerError
from proxy.flow import Flow, Plane, new_id
from proxy.metrics import RequestKind
from proxy.target import authority, describe
from proxy.transport.listen import Listener
from proxy.wire.head import BodyKind, RequestHead, read_request
from proxy.wire.section import SectionMemory
from rules.address import Address
from rules.decision import Decision, Reason, Verdict
from rules.facts import Connect, Facts, Principal
from rules.name import ROOT, DomainName

logger = logging.getLogger(__name__)

_ENTROPY_OCTETS = 10
_NEVER = float("inf")
_UNREAD_PORT = 0  # with the root as host: the audit line of a request that names no origin
_NO_HEAD = RequestHead("", b"", 1, (), options=frozenset({b"close"}))


class ClientConnection(asyncio.Protocol):
    """Reads heads one after the other; while a request is under way nothing else is begun."""

    __slots__ = (
        "_buffer", "_ended", "_exchange", "_full", "_gone", "_in_head", "_listener", "_memory",
        "_paused", "_task", "admission", "authority", "context", "deadline", "errand",
        "principal", "transport",
    )  # fmt: skip

    def __init__(self, context: Context, listener: Listener) -> None:
        self.context = context
        self._listener = listener
        self._memory = SectionMemory(b"host")
        self._buffer = b""
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._in_head = False  # a part of a head was read
        self._ended = False  # the client sends no more
        self._full = False  # the client does not read what it was sent
        self._paused = False  # we do not read what the client sends
        self._gone = False  # nothing more is done for this connection
        self.authority: tuple[DomainName | Address, int] | None = None  # inside CONNECT host:80
        self.errand: Errand | None = None
        self.deadline = _NEVER
        self.transport: asyncio.Transport
        self.principal: Principal
        self.admission: Admission

    # asyncio's side

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        context = self.context
        self.transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=context.limits.tunnel_buffer_octets)
        peer = transport.get_extra_info("peername")
        if peer is None:  # reset before it was accepted: there is nobody to answer
            transport.set_protocol(asyncio.Protocol())
            transport.abort()
            return
        # Before the first octet is read: the peer's socket may be gone later.
        self.principal = context.identifier.tcp(
            peer, transport.get_extra_info("sockname"), self._listener.name
        )
        self.admission = Admission(context, self._listener, transport, self.principal.app)
        self._await_head(context.limits.head_s)
        context.deadlines.add(self)
        if not self.admission.enter():
            if self.admission.is_flooded:
                transport.abort()
            else:
                self._refuse_unread(Decision(Verdict.DENY, Reason.CAPACITY))

    @override
    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        try:
            if exchange is not None and not exchange.sent:
                data = exchange.send(data)
            if not data:
                return
            self._buffer = self._buffer + data if self._buffer else data
            if exchange is None and self._task is None:
                self._proceed()
            if len(self._buffer) > self.context.limits.head_octets:
                self.pause()  # pipelined requests wait in the kernel, for us or for the client
        except PeerError as error:
            self._malformed(error)
        except Exception:
            logger.exception("a bug of ours while serving a client")
            self._fail_ourselves()

    @override
    def eof_received(self) -> bool:
        self._ended = True
        exchange = self._exchange
        if exchange is not None and not exchange.sent:
            self.transport.abort()  # a body that will never be complete
        return self.is_busy or self._full  # what was asked before is answered

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._buffer = b""
        self.context.deadlines.discard(self)
        self.admission.release()
        if self._task is not None:
            self._task.cancel()
        if self._exchange is not None:
            self._exchange.client_lost()
            self._exchange = None

    @override
    def pause_writing(self) -> None:
        self._full = True
        if self._exchange is not None:
            self._exchange.client_full()

    @override
    def resume_writing(self) -> None:
        self._full = False
        if self._exchange is not None:
            self._exchange.client_ready()
        else:
            self._continue()

    # Deadlines' side: proxy.egress.deadlines.Timed

    def expired(self, now: float) -> None:  # noqa: ARG002 - a limit of either kind ends it
        """End a connection that is idle, or slow with a head (slow loris)."""
        self.deadline = _NEVER
        self.context.metrics.bounds.add("head_s" if self._in_head else "keep_alive_s")
        self.end()

    def end(self) -> None:
        """End at once."""
        self._gone = True
        self.transport.abort()

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return self._exchange is not None or self._task is not None

    # The exchange's side: proxy.egress.exchange.Client

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

    def done(self, *, close: bool) -> None:
        """Go on with the next request, if the connection lasts."""
        exchange, self._exchange = self._exchange, None
        if not close and not (self._ended and not self._buffer):
            self._continue()
        elif exchange is not None and exchange.sent and not self._buffer:
            self._gone = True
            self._await_head(self.context.limits.requests_in_body_s)  # a client that reads slowly
            self.transport.close()
        else:
            self._linger()

    def retry(self, order: Order) -> None:
        """Send `order` once more: the origin closed an idle connection as it left."""
        self._exchange = None
        request.send_again(self, order)

    def failed(self, order: Order, reason: Reason, text: str) -> None:
        """Say why there is no response."""
        exchange, self._exchange = self._exchange, None
        decision = self.context.authorizer.fails(reason, text)
        close = order.last or (exchange is not None and not exchange.sent)
        self._refuse(order.errand.flow, order.facts, decision, Answer(
            is_head=order.facts.method == "HEAD", close=close
        ))  # fmt: skip
        self._continue()

    def broken(self) -> None:
        """Let the client see that the response is not complete (RFC 9112, section 8)."""
        self._exchange = None
        self.transport.abort()

    def switched(self, order: Order, origin: OriginConnection, data: bytes) -> None:
        """Become a tunnel in another protocol."""
        self._exchange = None
        context, flow = self.context, order.errand.flow
        recorded = context.authorizer.record(flow, order.facts, order.decision, upgrade="websocket")
        tunnel = Tunnel(context, self.admission, flow, order.facts, order.decision, recorded)
        near, far = self.transport, origin.leave()
        early = self.leave()
        tunnel.join(Side(tunnel, near, far), Side(tunnel, far, near))
        near.resume_reading()
        far.resume_reading()
        if data:
            tunnel.origin.data_received(data)
        if early:
            tunnel.client.data_received(early)

    # What a request and a CONNECT need: Requester, Connector

    def new_flow(self, principal: Principal) -> Flow:
        """Return the flow of a new errand."""
        context, transport = self.context, self.transport
        return Flow(
            id=new_id(context.wall(), context.entropy(_ENTROPY_OCTETS)),
            principal=principal,
            plane=Plane.HTTP,
            peer=authority(*transport.get_extra_info("peername")[:2]),
            listener=self._listener.name,
        )

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Let `work` decide what becomes of the request; nothing else is begun meanwhile."""
        self.deadline = _NEVER  # what it waits for has limits of its own
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(self._finished)

    def begin(self, order: Order, origin: OriginConnection) -> None:
        """Relay `order` over `origin`; content that was read already goes along."""
        context = self.context
        self._task = None
        if self._gone or self.transport.is_closing():
            origin.end()
            return
        context.authorizer.record(
            order.errand.flow, order.facts, order.decision, address=origin.address_text
        )
        context.metrics.proxy_requests.add("forward", "allowed")
        self.deadline = _NEVER
        self._exchange = exchange = Exchange(self, order, origin)
        exchange.begin()
        if self._full:
            exchange.client_full()
        if not exchange.sent:
            self._send_waiting(exchange)

    def _send_waiting(self, exchange: Exchange) -> None:
        """Send the content on that came before there was anywhere to send it."""
        buffer, self._buffer = self._buffer, b""
        try:
            self._buffer = exchange.send(buffer) if buffer else b""
        except PeerError as error:
            self._malformed(error)
            return
        self.resume()

    def refuse(self, flow: Flow, facts: Facts, decision: Decision, head: RequestHead) -> None:
        """Answer with the reason; the connection ends where what follows is not a request."""
        self._task = None
        has_body = head.body.kind is not BodyKind.NONE
        close = has_body or head.method == "CONNECT" or not head.persistent or head.minor == 0
        self._refuse(flow, facts, decision, Answer(is_head=head.method == "HEAD", close=close))

    def respond(self, head: RequestHead, octets: bytes) -> None:
        """Answer with a response of our own."""
        self.transport.write(octets)
        if not head.persistent or head.body.kind is not BodyKind.NONE or head.minor == 0:
            self._linger()

    def leave(self) -> bytes:
        """Give the transport up to a tunnel; return what was read and not yet used."""
        self._task = None
        self._gone = True
        self._paused = False
        self.errand = None
        self.context.deadlines.discard(self)
        early, self._buffer = self._buffer, b""
        return early

    def speak_http(self, errand: Errand, octets: bytes) -> None:
        """Serve plain HTTP to the errand's origin, beginning with `octets`."""
        self.authority = (errand.connect.host, errand.connect.port)
        self.errand = errand
        if self._gone:
            self._gone = False
            self.context.deadlines.add(self)
            self.transport.set_protocol(self)
            self.transport.resume_reading()
            self._await_head(self.context.limits.head_s)
        if octets:
            self.data_received(octets)

    # Our own

    def _proceed(self) -> None:
        """Serve what is in the buffer, one request after the other."""
        while self._buffer and not (self._gone or self._full or self.is_busy):
            parsed = read_request(self._buffer, self.context.limits, self._memory)
            if parsed is None:
                if not self._in_head:
                    self._in_head = True
                    self._await_head(self.context.limits.head_s)
                break
            head, octets = parsed
            self._buffer = self._buffer[octets:]
            self._in_head = False
            if head.method == "CONNECT" and self.authority is None:
                connect.serve(self, head)
            else:
                request.serve(self, head)
        if self._gone or self.is_busy:
            return
        if self._ended and not self._full:
            self._linger()  # neither a request nor the rest of one will come
        elif self._full or not self._buffer:
            self._await_head(self.context.limits.keep_alive_s)

    def _continue(self) -> None:
        """Go on after a response."""
        try:
            self._proceed()
        except PeerError as error:
            self._malformed(error)
        except Exception:
            logger.exception("a bug of ours while serving a client")
            self._fail_ourselves()
        if self._paused and not self._gone:
            self.resume()

    def _finished(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            logger.error("a bug of ours while serving a client", exc_info=error)
            self._fail_ourselves()
        if self._exchange is None and not self._gone:
            self._continue()

    def _refuse(self, flow: Flow, facts: Facts, decision: Decision, answer: Answer) -> None:
        context = self.context
        detail = {"text": decision.text} if decision.text else {}
        recorded = context.authorizer.record(flow, facts, decision, **detail)
        kind: RequestKind = "connect" if isinstance(facts, Connect) else "forward"
        failed = decision.verdict is Verdict.FAIL
        context.metrics.proxy_requests.add(kind, "failed" if failed else "refused")
        if self._gone or self.transport.is_closing():
            return
        target = describe(facts)[0]
        self.transport.write(refuse(decision, recorded, flow.principal.app, target, answer))
        if answer.close:
            self._linger()

    def _malformed(self, error: PeerError) -> None:
        self._drop_exchange()
        decision = Decision(Verdict.DENY, error.reason, text=printable(str(error).encode()))
        self._refuse_unread(decision)

    def _fail_ourselves(self) -> None:
        self._task = None
        self._drop_exchange()
        self._refuse_unread(self.context.authorizer.fails(Reason.INTERNAL_ERROR))

    def _refuse_unread(self, decision: Decision) -> None:
        """Refuse where no origin is known: what follows cannot be trusted to be a request."""
        facts = Connect(self.principal, ROOT, _UNREAD_PORT)
        self.refuse(self.new_flow(self.principal), facts, decision, _NO_HEAD)

    def _drop_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_lost()
            if exchange.begun:
                self.transport.abort()  # a refusal would be read as content of the response

    def _linger(self) -> None:
        """Send what was written, read what still comes, then end."""
        self.leave()
        Linger(self.context, self.admission, self.transport).begin()

    def _await_head(self, patience_s: float) -> None:
        self.deadline = asyncio.get_running_loop().time() + patience_s
