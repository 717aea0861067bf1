"""One request on its way to an origin, and the response on its way back.

Both are written new from what was read, so that the two sides cannot read them differently
(RFC 9112, section 11.2).  Back-pressure: whoever reads slowly stops the other side's reading.
"""

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Protocol

from msgspec import Struct

from proxy.egress.asker import Asker
from proxy.egress.content import CloseReader, ContentReader, reader_of
from proxy.egress.context import Context
from proxy.egress.errand import Errand
from proxy.egress.identity_context import REVOKED
from proxy.egress.linger import reset
from proxy.egress.origin import OriginConnection, OriginKey, Replay
from proxy.egress.secure import words_of
from proxy.egress.standing import Standing, Told, disowned, is_revoked, withdrawn
from proxy.errors import UpstreamError
from proxy.flow import Flow
from proxy.wire.body import write_chunk, write_last
from proxy.wire.fields import Field, request_malformed, upstream_malformed
from proxy.wire.head import (
    Body,
    BodyKind,
    ResponseHead,
    read_response,
    write_response,
)
from rules.decision import Decision, Reason
from rules.facts import Request

_CONTINUE = 100
_SWITCHING = 101
_FINAL = 200
_NO_CONTENT = 204
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110, section 9.2.2
_VIA = {minor: (b"via", b"1.%d sallyport" % minor) for minor in (0, 1)}  # RFC 9110, 7.6.3
_CHUNKED = (b"transfer-encoding", b"chunked")
_CLOSE = (b"connection", b"close")
_REPLAY_OCTETS = 4096  # heads of responses that are longer are read each time
_COUNTED = (BodyKind.LENGTH, BodyKind.NONE)


class Order(Struct, frozen=True):
    """A request that was decided on: `octets` is its head as the origin gets it.

    `key` is of the connections that it may go on over: plain ones, or TLS.  `upgrade` is the
    protocol that the client asked to switch to, b"" for none.  `last`: the client's connection
    ends with this exchange.
    """

    errand: Errand
    facts: Request
    decision: Decision
    octets: bytes
    minor: int
    body: Body
    key: OriginKey
    upgrade: bytes = b""
    last: bool = False


class Client(Protocol):
    """The client's connection, as an exchange needs it."""

    asker: Asker
    context: Context
    transport: asyncio.Transport

    def pause(self) -> None:
        """Read no more of the client for now."""

    def resume(self) -> None:
        """Read on."""

    def done(self, *, close: bool) -> None:
        """The response is complete."""

    def retry(self, order: Order) -> None:
        """Send `order` on a fresh connection: the origin closed an idle one unseen."""

    def failed(self, order: Order, reason: Reason, text: str) -> None:
        """There is no response: say why."""

    def broken(self, order: Order, reason: Reason, text: str) -> None:
        """The exchange broke off half-way: record why, and let the client see that."""

    def switched(self, order: Order, origin: OriginConnection, data: bytes) -> None:
        """Both sides agreed on another protocol; `data` came after the origin's 101."""


class Exchange:
    """Relays one `order` over one `origin`."""

    __slots__ = (
        "_buffer", "_close", "_coded", "_context", "_interim", "_loop", "_octets", "_reader",
        "_request", "_reusable", "client", "order", "origin", "sent",
    )  # fmt: skip

    def __init__(self, client: Client, order: Order, origin: OriginConnection) -> None:
        self.client = client
        self.order = order
        self.origin = origin
        self._context = client.context
        self._loop = asyncio.get_running_loop()
        self.sent = order.body.kind is BodyKind.NONE
        self._request: ContentReader | None = None
        if not self.sent:
            self._request = reader_of(order.body, self._context.limits, request_malformed)
        self._reader: ContentReader | None = None  # of the response, once its head was read
        self._buffer = b""
        self._interim = 0
        self._octets = 0  # of the response so far
        self._close = order.last
        self._coded = False  # the response goes out chunked
        self._reusable = False

    @property
    def key(self) -> OriginKey | None:
        """The connections that its request may go on over."""
        return self.order.key

    @property
    def begun(self) -> bool:
        """Whether a part of the response was sent to the client."""
        return self._reader is not None

    def begin(self) -> None:
        """Send the head."""
        origin = self.origin
        origin.receiver = self
        origin.deadline = self._loop.time() + self._context.limits.response_head_s
        origin.transport.write(self.order.octets)

    def send(self, data: bytes) -> bytes:
        """Send request content on; return what follows its end.

        Raises:
            PeerError: the chunked coding is malformed.
        """
        reader = self._request
        if reader is None:
            return data
        pieces = reader.feed(data)
        coded = self.order.body.kind is BodyKind.CHUNKED
        self._context.metrics.octets.add("up", n=len(data) - len(reader.leftover))
        limits = self._context.limits
        patience_s = limits.requests_in_body_s
        if reader.done:
            self.sent = True
            self._request = None
            patience_s = limits.response_head_s
        octets = _encode(pieces, reader, coded=coded)
        if octets:
            self.origin.transport.write(octets)
        self.origin.deadline = self._loop.time() + patience_s
        return reader.leftover

    def stale(self) -> Decision | None:
        """Return why the request may not go on by the rules of now; None if it may."""
        return withdrawn(self._context, self._standing, self.order.facts, None)

    def disowned(self) -> Decision | None:
        """Return why its asker is not who it was any more; None while it is."""
        if is_revoked(self._context, self.order.key):
            return REVOKED
        return disowned(self._standing, self.order.facts.principal)

    @property
    def _standing(self) -> Standing:
        asker = self.client.asker
        secure = self.order.key.secure
        return Standing(asker, asker.value, self.origin.address, secure, self.origin.chain)

    def halt(self, decision: Decision) -> Told:
        """End the origin's connection with a reset; what is returned records why."""
        order = self.order
        self.origin.receiver = None
        reset(self.origin.transport)
        return partial(self._told, order.errand.flow, order.facts, decision)

    def _told(self, flow: Flow, facts: Request, decision: Decision) -> None:
        self._context.authorizer.record(flow, facts, decision)

    def client_lost(self) -> None:
        """Nobody waits for the response any more."""
        self._drop_origin()

    def client_full(self) -> None:
        """Read no more of the origin until the client has read what it was sent."""
        self.origin.transport.pause_reading()

    def client_ready(self) -> None:
        """Read on."""
        if not self.origin.transport.is_closing():
            self.origin.transport.resume_reading()

    # The origin's side: proxy.egress.origin.Receiver

    def receive(self, data: bytes) -> None:
        """Take octets of the response."""
        self._octets += len(data)
        try:
            if self._reader is None and not self._replay(data):
                self._receive_head(self._buffer + data if self._buffer else data)
            elif self._reader is not None:
                self._relay(b"", self._reader, data)
        except UpstreamError as error:
            self._fail(error.reason, str(error))

    def origin_ended(self) -> None:
        """Finish a response that lasts until its connection ends."""
        if isinstance(self._reader, CloseReader):
            self._reader.done = True
            self._relay(b"", self._reader, b"")

    def origin_lost(self) -> None:
        """Retry what is safe to send twice, else say what happened."""
        if self._reader is None and not self._octets and self._may_retry():
            self.origin.receiver = None
            self.client.retry(self.order)
        elif words := words_of(self.origin.failure):
            # It refused our certificate, which TLS 1.3 says after the handshake; or was cut short.
            self._fail(Reason.UPSTREAM_TLS, words)
        else:
            self._fail(Reason.UPSTREAM_UNREACHABLE, "the origin closed before its response ended")

    def origin_full(self) -> None:
        """Read no more of the client until the origin has read what it was sent."""
        self.client.pause()

    def origin_ready(self) -> None:
        """Read on."""
        self.client.resume()

    def origin_late(self) -> None:
        """End what takes too long."""
        if self.sent and self._reader is None:
            self._context.metrics.bounds.add("response_head_s")
            self._fail(Reason.UPSTREAM_TIMEOUT, "no response within response_head_s")
        else:
            self._context.metrics.bounds.add("requests_in_body_s")
            self._drop_origin()
            text = "no octet within requests_in_body_s"
            self.client.broken(self.order, Reason.UPSTREAM_TIMEOUT, text)

    def _replay(self, data: bytes) -> bool:
        """Send on what is a whole response with the head of the last one, octet by octet.

        Its head was read, and means the same as then (`proxy.wire.section`).
        """
        last = self.origin.last
        if (
            last is None
            or not data.startswith(last.octets)
            or len(data) != len(last.octets) + last.length
            or self.order.facts.method != last.method
            or self._buffer
            or self._close
            or not self.sent
        ):
            return False
        self._reusable = last.is_persistent
        self.client.transport.write(last.written + data[len(last.octets) :])
        self._end(is_clean=True)
        return True

    def _receive_head(self, data: bytes) -> None:
        while data:
            parsed = read_response(
                data, self.order.facts.method, self._context.limits, self.origin.memory
            )
            if parsed is None:
                break
            head, octets = parsed
            read, data = data[:octets], data[octets:]
            if head.status >= _FINAL:
                self._buffer = b""
                self._begin_response(head, read, data)
                return
            if head.status == _SWITCHING:
                self._switch(head, data)
                return
            self._relay_interim(head)
        self._buffer = data

    def _relay_interim(self, head: ResponseHead) -> None:
        self._interim += 1
        if self._interim > self._context.limits.interim_responses:
            self._context.metrics.bounds.add("interim_responses")
            raise upstream_malformed("too many interim responses")
        if self.order.minor == 1:  # RFC 9110, section 15.2: not to HTTP/1.0
            fields = [_VIA[head.minor]]
            octets = write_response(head.status, head.phrase, fields, head.kept)
            self.client.transport.write(octets)

    def _switch(self, head: ResponseHead, data: bytes) -> None:
        """Leave HTTP, when that is exactly what the request asked for (RFC 9110, 7.8)."""
        wanted = self.order.upgrade
        upgrades = [value.lower() for name, value in head.fields if name == b"upgrade"]
        if not wanted or upgrades != [wanted] or b"upgrade" not in head.options:
            raise upstream_malformed("101 to a request that did not ask for it")
        fields = [_VIA[head.minor], (b"connection", b"upgrade"), (b"upgrade", wanted)]
        self.origin.receiver = None
        octets = write_response(_SWITCHING, head.phrase, fields, head.kept)
        self.client.transport.write(octets)
        self.client.switched(self.order, self.origin, data)

    def _begin_response(self, head: ResponseHead, read: bytes, data: bytes) -> None:
        self._reusable = head.persistent
        kind = head.body.kind
        fields = [_VIA[head.minor]]
        if kind is BodyKind.CHUNKED or kind is BodyKind.UNTIL_CLOSE:
            self._coded = self.order.minor == 1
            if self._coded:
                fields.append(_CHUNKED)
            else:
                self._close = True  # RFC 9112, section 6.1: no transfer coding to HTTP/1.0
        if not self.sent:
            # RFC 9112, section 9.3: the rest of the request would be read as the next one.
            self._close = True
        if self._close:
            fields.append(_CLOSE)
        written = write_response(head.status, head.phrase, fields, head.kept)
        if not self._coded and head.body.octets == len(data) and kind in _COUNTED:
            if not self._close and len(read) <= _REPLAY_OCTETS:
                self.origin.last = Replay(
                    read, written, self.order.facts.method, len(data), head.persistent
                )
            self.client.transport.write(written + data)
            self._end(is_clean=True)
        else:
            self._reader = reader = reader_of(head.body, self._context.limits, upstream_malformed)
            self._relay(written, reader, data)

    def _relay(self, before: bytes, reader: ContentReader, data: bytes) -> None:
        pieces = reader.feed(data) if data else []
        octets = _encode(pieces, reader, coded=self._coded)
        self.client.transport.write(before + octets if before else octets)
        if reader.done:
            self._end(is_clean=not reader.leftover)
        else:
            limits = self._context.limits
            self.origin.deadline = self._loop.time() + limits.requests_in_body_s

    def _end(self, *, is_clean: bool) -> None:
        """Let the origin rest unless it sent more than its response, and tell the client."""
        self._context.metrics.octets.add("down", n=self._octets)
        origin = self.origin
        if self._reusable and self.sent and is_clean:
            origin.transport.resume_reading()  # the client may have been full just now
            self._context.pool.put(origin)
        else:
            self._drop_origin()
        self.client.done(close=self._close)

    def _fail(self, reason: Reason, text: str) -> None:
        self._drop_origin()
        if self._reader is None:
            self.client.failed(self.order, reason, text)
        else:
            self.client.broken(self.order, reason, text)

    def _drop_origin(self) -> None:
        self.origin.receiver = None
        self.origin.transport.abort()

    def _may_retry(self) -> bool:
        """Whether the origin may have closed an idle connection just as the request left.

        RFC 9112, section 9.3.1: only idempotent methods are retried without asking.
        """
        order = self.order
        bare = order.body.kind is BodyKind.NONE and not order.upgrade
        return self.origin.rested and bare and order.facts.method in _IDEMPOTENT


def via(minor: int) -> Field:
    """Return the Via field of a message that came as HTTP/1.`minor`."""
    return _VIA[minor]


def _encode(pieces: Iterable[bytes], reader: ContentReader, *, coded: bool) -> bytes:
    if not coded:
        return b"".join(pieces)
    octets = b"".join([write_chunk(piece) for piece in pieces])
    return octets + write_last(reader.trailers) if reader.done else octets
