"""One client connection: heads off the stream, each to a tunnel, a request or a refusal."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import cast, override

from proxy.egress import connect, request
from proxy.egress.admission import Admission
from proxy.egress.asker import Asker
from proxy.egress.context import Context
from proxy.egress.denial import answer_for, as_said, deny
from proxy.egress.dial import KnownDial, Undialled
from proxy.egress.errand import Errand
from proxy.egress.evidence import record_request
from proxy.egress.exchange import Exchange, Order
from proxy.egress.inward import Inward
from proxy.egress.known import Heads, Target
from proxy.egress.linger import Linger
from proxy.egress.origin import OriginConnection
from proxy.egress.refusal import Answer, printable
from proxy.egress.underway import NEVER, UnderWay
from proxy.egress.upgrade import upgrade
from proxy.errors import PeerError
from proxy.flow import Flow
from proxy.transport.listen import Listener
from proxy.transport.presented import chain_of
from proxy.wire.head import RequestHead
from rules.address import Address
from rules.decision import Decision, Reason, Verdict
from rules.facts import Connect, Facts
from rules.name import ROOT, DomainName

logger = logging.getLogger(__name__)

_BUG = "a bug of ours while serving a client"
_UNREAD_PORT = 0  # with the root as host: the audit line of a request that names no origin


class ClientConnection(UnderWay):
    """Reads heads one after the other; while a request is under way nothing else is begun."""

    __slots__ = (
        "_dialled", "_ended", "_full", "_heads", "admission", "authority", "repeat",
    )  # fmt: skip

    def __init__(self, context: Context, listener: Listener) -> None:
        super().__init__(context, listener)
        self._heads: Heads | None = None
        self._ended = False  # the client sends no more
        self._full = False  # the client does not read what it was sent
        self._dialled: Callable[[OriginConnection | Undialled], None]
        self.authority: tuple[DomainName | Address, int] | None = None  # inside CONNECT host:80
        self.repeat: request.Repeat | None = None
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
        sockname = transport.get_extra_info("sockname")
        chain = chain_of(transport)
        self.asker = Asker(context.identifier, peer, sockname, self._listener.name, chain)
        self.admission = Admission(context, self._listener, transport, self.asker.principal.app)
        self._await_head(context.limits.head_s)
        context.deadlines.add(self)
        if not self.admission.enter():
            if self.admission.is_flooded:
                transport.abort()
            else:
                self._refuse_unread(Decision(Verdict.DENY, Reason.CAPACITY))

    @override
    def data_received(self, data: bytes) -> None:
        if not (self._buffer or self._gone or self._full or self.is_busy) and self._again(data):
            return
        exchange = self._exchange
        if exchange is not None and not exchange.sent:
            data = self._send_on(exchange, data)
        if not data:
            return
        self._buffer = self._buffer + data if self._buffer else data
        if not self.is_busy:
            self._proceed()
        if len(self._buffer) > self.context.limits.head_octets:
            self.pause()  # pipelined requests wait in the kernel, for us or for the client

    @override
    def eof_received(self) -> bool:
        self._ended = True
        exchange = self._exchange
        if exchange is not None and not exchange.sent:
            self.transport.abort()  # a body that will never be complete
        return (self.is_busy or self._full) and self.transport.can_write_eof()  # TLS ends whole

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._buffer = b""
        self.context.deadlines.discard(self)
        self.admission.release()
        if self._task is not None:
            self._task.cancel()
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
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

    # The exchange's side: proxy.egress.exchange.Client

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

    def switched(self, order: Order, origin: OriginConnection, data: bytes) -> None:
        """Become a tunnel in another protocol."""
        self._exchange = None
        upgrade(self, order, origin, data)

    # What a request and a CONNECT need: Requester, Connector

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Let `work` decide what becomes of the request; nothing else is begun meanwhile."""
        self.deadline = NEVER  # what it waits for has limits of its own
        self._exchange, self._in_head = None, False
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(self._finished)

    def dial(
        self, errand: Errand, target: Target, then: Callable[[OriginConnection | Undialled], None]
    ) -> None:
        """Let `then` decide what becomes of the request; nothing else is begun meanwhile."""
        context = self.context
        self._await_head(context.limits.connect_s)
        self._dialled = then
        self._dial = dial = KnownDial(context, errand, target, self._go_on)
        dial.begin()

    def _go_on(self, origin: OriginConnection | Undialled) -> None:
        """Let who dialled decide."""
        then, self._dial = self._dialled, None
        del self._dialled  # it knows us: a cycle would wait for the collector
        try:
            then(origin)
        except Exception:
            logger.exception(_BUG)
            self._fail_ourselves()
        if not self._gone:
            self._continue()

    def begin(self, order: Order, origin: OriginConnection) -> None:
        """Relay `order` over `origin`; content that was read already goes along."""
        context = self.context
        self._task = None
        if self._gone or self.transport.is_closing():
            origin.end()
            return
        now = asyncio.get_running_loop().time()
        record_request(context, order.errand, order.facts, order.decision, origin.address_text, now)
        context.metrics.proxy_requests.add("forward", "allowed")
        self.deadline = NEVER
        self._exchange = exchange = Exchange(self, order, origin)
        exchange.begin()
        if self._full:
            exchange.client_full()
        if not exchange.sent:
            self._send_waiting(exchange)

    def attend(self, inward: Inward) -> None:
        """Give what comes to `inward` until its content is whole."""
        self._exchange = inward
        self._in_head = True  # so to speak: it has to come as soon
        self._await_head(self.context.limits.head_s)
        self._send_waiting(inward)

    def _send_waiting(self, exchange: Exchange | Inward) -> None:
        """Send on what was read already."""
        waiting, self._buffer = self._buffer, b""
        self._buffer = self._send_on(exchange, waiting) if waiting else b""
        self.resume()

    def _send_on(self, exchange: Exchange | Inward, data: bytes) -> bytes:
        """Send content on; return what follows its end."""
        try:
            return exchange.send(data)
        except PeerError as error:
            self._malformed(error)
        except Exception:
            logger.exception(_BUG)
            self._fail_ourselves()
        return b""

    def refuse(self, flow: Flow, facts: Facts, decision: Decision, head: RequestHead) -> None:
        """Answer with the reason; the connection ends where what follows is not a request."""
        self._task = None
        answer = answer_for(self.context, self.asker, flow.principal, decision, head)
        self._refuse(flow, facts, decision, answer)

    def respond(self, head: RequestHead, octets: bytes, *, is_read: bool = False) -> None:
        """Answer with a response of our own; `is_read`: the content of the request was read."""
        self._task = self._exchange = None
        if self._gone or self.transport.is_closing():
            return
        self.transport.write(octets)
        if not self._lasts(head, is_read=is_read):
            self._linger()

    def speak_http(self, errand: Errand, octets: bytes) -> None:
        """Serve plain HTTP to the errand's origin, beginning with `octets`."""
        self.authority = (errand.connect.host, errand.connect.port)
        self.asker.stay()
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

    def _again(self, data: bytes) -> bool:
        """Serve `data` if it is what was read before; return whether it is."""
        try:
            if not connect.again(self, data):
                return False
        except Exception:
            logger.exception(_BUG)
            self._fail_ourselves()
        self._in_head = False
        self._settle()
        return True

    def _proceed(self) -> None:
        """Serve what is in the buffer, one request after the other."""
        head = None
        if self._heads is None:
            self._heads = Heads(self.context.heads, self.context.limits)
        try:
            while self._buffer and not (self._gone or self._full or self.is_busy):
                head = None
                parsed = self._heads.read(self._buffer, is_connect=self.authority is None)
                if parsed is None:
                    if not self._in_head:
                        self._in_head = True
                        self._await_head(self.context.limits.head_s)
                    break
                head, octets = parsed
                whole = self._buffer if octets == len(self._buffer) else b""
                self._buffer = self._buffer[octets:]
                self._in_head = False
                if head.method == "CONNECT" and self.authority is None:
                    connect.serve(self, head, whole)
                else:
                    request.serve(self, head, whole)
        except PeerError as error:
            self._malformed(error, head)
        except Exception:
            logger.exception(_BUG)
            self._fail_ourselves()
        self._settle()

    def _settle(self) -> None:
        if self._gone or self.is_busy:
            return
        if self._ended and not self._full:
            self._linger()  # neither a request nor the rest of one will come
        elif self._full or not self._buffer:
            self._await_head(self.context.limits.keep_alive_s)

    def _continue(self) -> None:
        """Go on after a response."""
        self._proceed()
        if self._paused and not self._gone:
            self.resume()

    def _finished(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            logger.error(_BUG, exc_info=error)
            self._fail_ourselves()
        if self._exchange is None and not self._gone:
            self._continue()

    def _refuse(
        self,
        flow: Flow,
        facts: Facts,
        decision: Decision,
        answer: Answer,
        said: str | None = None,
    ) -> None:
        deny(self.context, self.transport, flow, facts, decision, answer, said)
        if (answer.close or self._stays) and not (self._gone or self.transport.is_closing()):
            self._linger()

    def _malformed(self, error: PeerError, head: RequestHead | None = None) -> None:
        self._drop_exchange()
        decision = Decision(Verdict.DENY, error.reason, text=printable(str(error).encode()))
        self._refuse_unread(decision, None if head is None else as_said(head))

    def _fail_ourselves(self) -> None:
        self._task = None
        self._drop_exchange()
        self._refuse_unread(self.context.authorizer.fails(Reason.INTERNAL_ERROR))

    def _refuse_unread(self, decision: Decision, said: str | None = None) -> None:
        """Refuse where no origin is known: what follows cannot be trusted to be a request."""
        principal = self.asker.principal
        facts = Connect(principal, ROOT, _UNREAD_PORT)
        self._task = None
        self._refuse(self.new_flow(principal), facts, decision, Answer(close=True), said)

    def _linger(self) -> None:
        """Send what was written, read what still comes, then end."""
        self.leave()
        Linger(self.context, self.admission, self.transport, self.asker).begin()
