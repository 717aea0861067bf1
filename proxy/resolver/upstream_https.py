"""DNS over HTTPS to an upstream (RFC 8484): HTTP/2 on one connection, a stream for each query.

The connection is dialled, kept alive, retired and made anew as those of `upstream_stream` are; a
query that the server did not process is sent again by the same rules.  What differs: the id is 0
(section 4.1), the stream says which answer is whose, and a query that nobody waits for any more
ends its stream.  A request carries what RFC 8484 asks for and no more: no user agent, no cookie.

This module loads h2, and is itself loaded only where an upstream is `https://`.
"""

import asyncio
import contextlib
import ssl
from typing import cast, override

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from proxy.errors import UpstreamError
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.upstream_connection import Connection, Owner, StreamAttempt
from proxy.resolver.upstream_query import ID_OCTETS, Entropy
from proxy.resolver.upstream_stream import StreamUpstream
from proxy.resolver.upstream_url import UpstreamAddress
from rules.decision import Reason

MEDIA_TYPE = b"application/dns-message"  # RFC 8484, section 6
MESSAGE_OCTETS = 65535  # RFC 8484, section 6: what DNS over TCP can carry
STREAMS = 100_000  # on one connection, then the next is made; nginx keepalive_requests 1000
UNREAD_OCTETS = 262144  # of ours that the peer leaves unread, then it is left; Envoy buffers 1 MiB
_ID = bytes(ID_OCTETS)  # RFC 8484, section 4.1: 0 in every request
_KEY_OCTETS = 4
_FRAME_HEAD_OCTETS = 9
# RFC 9113, section 6.5.2: nothing is pushed, a frame and a window hold no more than by default.
_SETTINGS = {
    SettingCodes.ENABLE_PUSH: 0,
    SettingCodes.HEADER_TABLE_SIZE: 4096,
    SettingCodes.INITIAL_WINDOW_SIZE: 65535,
    SettingCodes.MAX_FRAME_SIZE: 16384,
    SettingCodes.MAX_HEADER_LIST_SIZE: 16384,
}


class HttpsUpstream(StreamUpstream):
    """An upstream that is asked over HTTP/2."""

    def __init__(
        self,
        address: UpstreamAddress,
        limits: Limits,
        metrics: Metrics,
        entropy: Entropy,
        ssl_context: ssl.SSLContext,
    ) -> None:
        """`ssl_context` verifies the upstream, and offers the ALPN id h2 alone."""
        super().__init__(address, limits, metrics, entropy, ssl_context)
        self.label = "doh"
        self.make_connection = self._http

    def _http(self, _owner: Owner) -> Connection:
        return HttpsConnection(self, self.address)

    @override
    async def _connect(self) -> Connection | UpstreamError:
        connection = await super()._connect()
        if isinstance(connection, HttpsConnection) and not connection.is_http2:
            connection.abandon()
            # RFC 9113, section 3.2: over TLS, HTTP/2 is what ALPN agreed on, or nothing.
            return UpstreamError(Reason.UPSTREAM_TLS, "it does not speak HTTP/2 (ALPN h2)")
        return connection


class _Exchange:
    """One stream: what of the request waits for the window, and what came of the response."""

    __slots__ = ("content", "problem", "unsent")

    def __init__(self, unsent: bytes) -> None:
        self.unsent = unsent
        self.content = bytearray()
        self.problem = ""


class _FrameLengths:
    """Refuses a frame by its first octets: h2 would keep up to 16 MiB before it looks."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._head = b""  # of the next frame, while it is not whole
        self._left = 0  # octets of the present frame

    def fit(self, data: bytes) -> bool:
        """Return whether every frame that begins in `data` has a length that was agreed on."""
        at = 0
        while at < len(data):
            skipped = min(self._left, len(data) - at)
            self._left -= skipped
            at += skipped
            part = data[at : at + _FRAME_HEAD_OCTETS - len(self._head)]
            self._head += part
            at += len(part)
            if len(self._head) == _FRAME_HEAD_OCTETS:
                self._left = int.from_bytes(self._head[:3])  # RFC 9113, section 4.1
                self._head = b""
                if self._left > _SETTINGS[SettingCodes.MAX_FRAME_SIZE]:
                    return False
        return True


class HttpsConnection(Connection):
    """Queries out as they come, answers in on their streams."""

    def __init__(self, owner: Owner, address: UpstreamAddress) -> None:
        super().__init__(owner)
        config = H2Configuration(client_side=True, header_encoding=None)
        self._http = H2Connection(config)
        self._http.local_settings = Settings(client=True, initial_values=_SETTINGS)
        self._http.max_inbound_frame_size = _SETTINGS[SettingCodes.MAX_FRAME_SIZE]
        self._exchanges: dict[int, _Exchange] = {}
        self._frames = _FrameLengths()
        self._is_flushing = False
        self._head = (
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", address.authority.encode()),
            (b":path", address.path.encode()),
            (b"accept", MEDIA_TYPE),
            (b"content-type", MEDIA_TYPE),
        )

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin HTTP/2, where that is what was agreed on."""
        super().connection_made(transport)
        tls = cast("ssl.SSLObject | None", transport.get_extra_info("ssl_object"))
        self.is_http2 = tls is not None and tls.selected_alpn_protocol() == "h2"
        if self.is_http2:
            self._http.initiate_connection()
            self._schedule()

    @property
    @override
    def has_room(self) -> bool:
        most = self._http.remote_settings.max_concurrent_streams  # RFC 9113, section 5.1.2
        return len(self._exchanges) < min(self._owner.limits.upstream_tcp_pipeline, most)

    @override
    def send(self, attempt: StreamAttempt, *, is_fresh: bool) -> None:
        """Open a stream for a query."""
        stream = self._http.get_next_available_stream_id()
        key = stream.to_bytes(_KEY_OCTETS)
        self._under_way[key] = attempt
        self._wanted += 1
        attempt.sent(self, key, is_fresh=is_fresh)
        message = attempt.query.message(_ID)
        length = str(len(message)).encode()
        self._http.send_headers(stream, (*self._head, (b"content-length", length)))
        self._exchanges[stream] = _Exchange(message)
        self._send_content(stream)
        self._schedule()
        if stream > 2 * STREAMS:
            self._owner.retire(self)

    @override
    def give_up(self, attempt: StreamAttempt) -> None:
        """End the stream of a query; nothing of it is remembered."""
        stream = int.from_bytes(attempt.query_id)
        self._close_stream(stream)
        self._reset(stream)
        self._go_on()

    @override
    def data_received(self, data: bytes) -> None:
        """Take what came on the streams."""
        if not self._frames.fit(data):
            self._fail("HTTP/2: a frame longer than was agreed")
            return
        try:
            events = self._http.receive_data(data)
        except ProtocolError as error:
            self._fail(f"HTTP/2: {error}")
            return
        for event in events:
            self._take_event(event)
        if any(isinstance(event, WindowUpdated | RemoteSettingsChanged) for event in events):
            self._send_contents()  # last: streams that other events end are gone by now
        self._schedule()
        if self._transport.get_write_buffer_size() > UNREAD_OCTETS:
            self._fail("HTTP/2: it asks for replies that it does not read")
            return
        self._go_on()

    def _take_event(self, event: Event) -> None:
        match event:
            case ResponseReceived():
                self._take_head(event)
            case DataReceived():
                self._take_content(event)
            case StreamEnded():
                self._take_end(event.stream_id)
            case StreamReset():
                self._take_reset(event)
            case ConnectionTerminated():
                # RFC 9113, section 6.8.  h2 reads no further, so what is open is asked again.
                text = f"HTTP/2: it ended the connection ({_name(event.error_code)})"
                self._failure = UpstreamError(Reason.UPSTREAM_UNREACHABLE, text)
                self._owner.retire(self)
                self.abandon()
            case _:  # pushes are refused by setting; pings and settings h2 answers itself
                pass

    def _take_head(self, event: ResponseReceived) -> None:
        exchange = self._exchanges.get(event.stream_id)
        if exchange is not None:
            exchange.problem = _problem_of(event.headers)

    def _take_content(self, event: DataReceived) -> None:
        self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        exchange = self._exchanges.get(event.stream_id)
        if exchange is None:
            return
        exchange.content += event.data
        if len(exchange.content) > MESSAGE_OCTETS:
            self._refuse(event.stream_id, "longer than a DNS message")

    def _take_end(self, stream: int) -> None:
        exchange = self._exchanges.get(stream)
        if exchange is None:
            return
        message = bytes(exchange.content)
        attempt = self._close_stream(stream)
        if exchange.unsent:  # RFC 9113, section 8.1: an answer may come before all was sent
            self._reset(stream)
        query = attempt.query
        if exchange.problem:
            attempt.settle(_malformed(exchange.problem))
        elif message[:ID_OCTETS] == _ID and query.is_answered_by(message):
            self._answer(attempt, message)
        else:
            self._owner.metrics.upstream.add(self._owner.label, "mismatched")
            attempt.settle(_malformed("a message that does not answer the query"))

    def _take_reset(self, event: StreamReset) -> None:
        if event.stream_id not in self._exchanges:
            return
        attempt = self._close_stream(event.stream_id)
        text = f"HTTP/2: it reset the stream ({_name(event.error_code)})"
        error = UpstreamError(Reason.UPSTREAM_UNREACHABLE, text)
        if event.error_code == ErrorCodes.REFUSED_STREAM:  # RFC 9113, section 8.7: not processed
            attempt.connection = None
            self._owner.returned(attempt, self.answered, error)
        else:
            attempt.settle(error)

    def _refuse(self, stream: int, text: str) -> None:
        attempt = self._close_stream(stream)
        self._reset(stream)
        attempt.settle(_malformed(text))

    def _close_stream(self, stream: int) -> StreamAttempt:
        del self._exchanges[stream]
        self._wanted -= 1
        return cast("StreamAttempt", self._under_way.pop(stream.to_bytes(_KEY_OCTETS)))

    def _reset(self, stream: int) -> None:
        # h2 has read on: the stream, or the connection, may be over by what came behind.
        with contextlib.suppress(ProtocolError):
            self._http.reset_stream(stream, ErrorCodes.CANCEL)  # RFC 9113, section 7
        self._schedule()

    def _send_contents(self) -> None:
        if not self._transport.is_closing():
            for stream in tuple(self._exchanges):
                self._send_content(stream)

    def _send_content(self, stream: int) -> None:
        exchange = self._exchanges[stream]
        # RFC 9113, section 5.2: no more than the windows of stream and connection let through.
        room = self._http.local_flow_control_window(stream)
        if exchange.unsent and room > 0:
            part, exchange.unsent = exchange.unsent[:room], exchange.unsent[room:]
            self._http.send_data(stream, part, end_stream=not exchange.unsent)

    def _go_on(self) -> None:
        if self._is_finishing:
            self.finish()
        else:
            self._owner.pour()

    def _schedule(self) -> None:
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    @override
    def _flush(self) -> None:
        self._is_flushing = False
        data = self._http.data_to_send()
        if data and not self._transport.is_closing():
            self._transport.write(data)


def _problem_of(headers: list[tuple[bytes, bytes]]) -> str:
    """Return why a response with this head is no DNS message; nothing where it may be one."""
    fields = dict(headers)
    if len(fields) != len(headers) and sum(name == b"content-type" for name, _ in headers) > 1:
        return "a response with two media types"
    status = fields.get(b":status", b"")
    if status != b"200":  # RFC 8484, section 4.2.1: only a successful one holds a DNS answer
        return f"HTTP status {_shown(status)}"
    media_type = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media_type != MEDIA_TYPE:
        return f"media type {_shown(media_type) or 'none'}"
    if fields.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        return "encoded content, which nobody asked for"
    if fields.get(b"age", b"0").strip() != b"0":  # RFC 8484, section 5.1: its TTLs are too long
        return "an answer out of a cache of HTTP, though a POST has none"
    return ""


def _shown(value: bytes) -> str:
    return value[:80].decode("ascii", "backslashreplace")


def _name(code: ErrorCodes | int | None) -> str:
    return code.name if isinstance(code, ErrorCodes) else f"error {code}"


def _malformed(text: str) -> UpstreamError:
    return UpstreamError(Reason.UPSTREAM_MALFORMED, text)
