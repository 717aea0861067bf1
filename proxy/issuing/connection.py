"""gRPC on a connection that the appliance accepted: grpclib's protocol, with bounds of ours.

Each connection has services of its own, which know their caller: an entitlement belongs to a
connection, and nothing that the caller sends can name another.  What grpclib leaves open is
bounded here: how long a message may be, how many calls are under way, and how many frames come
that are no call (`proxy.wire.h2_budget`).  Whoever breaks the protocol loses the connection.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any, override

from grpclib.config import Configuration
from grpclib.encoding.proto import ProtoCodec
from grpclib.protocol import AbstractHandler, Connection, EventsProcessor, H2Protocol, Stream
from grpclib.server import Handler, Server
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from proxy.issuing.caller import Caller
from proxy.limits import Limits
from proxy.wire.h2_budget import Budget

logger = logging.getLogger(__name__)

_PREFIX_OCTETS = 5  # gRPC over HTTP2, Length-Prefixed-Message: a flag and four octets of length
_FRAMES_A_REPLY = 2  # times its credit: gRPC's C core resets, pings and updates two windows
_TURN_OCTETS = 512  # of a connection at once: 40 of the least frames, one call as clients make them
_WINDOW_OCTETS = 65535  # RFC 9113, section 6.9.2: what every peer begins with; grpclib's is 4 MiB
_CONFIGURATION = Configuration(
    http2_connection_window_size=_WINDOW_OCTETS, http2_stream_window_size=_WINDOW_OCTETS
).__for_server__()
_H2 = H2Configuration(  # what comes in is checked: RFC 9113, section 8.2
    client_side=False,
    header_encoding="ascii",
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)

# grpclib tells of every call that a client ends early as of an error; services tell of ours.
logging.getLogger("grpclib").setLevel(logging.CRITICAL)

type Services = Callable[[str, Caller], Collection[Any]]
"""Makes the services of a new connection, of its kind and caller."""
type Bound = Callable[[str, str], None]
"""Counts that the app's (first) use of a limit (second) came to its bound."""


class Prefixes:
    """Follows the lengths of the messages of one stream, before anything is kept of them."""

    __slots__ = ("_head", "_most", "_rest")

    def __init__(self, most_octets: int) -> None:
        self._most = most_octets
        self._head = b""
        self._rest = 0

    def take(self, octets: bytes) -> bool:
        """Return whether `octets` belong to messages that are short enough, and not compressed."""
        while octets:
            if self._rest:
                skipped = min(self._rest, len(octets))
                self._rest -= skipped
                octets = octets[skipped:]
                continue
            wanted = _PREFIX_OCTETS - len(self._head)
            self._head += octets[:wanted]
            octets = octets[wanted:]
            if len(self._head) < _PREFIX_OCTETS:
                return True
            flag, self._rest = self._head[0], int.from_bytes(self._head[1:])
            self._head = b""
            if flag or self._rest > self._most:  # we announce no grpc-accept-encoding
                return False
        return True


class BoundedProcessor(EventsProcessor):
    """Takes HTTP/2 events of one connection, within bounds."""

    def __init__(
        self, handler: AbstractHandler, connection: Connection, protocol: "AdoptedProtocol"
    ) -> None:
        super().__init__(handler, connection)
        self._protocol = protocol
        self._prefixes: dict[int, Prefixes] = {}
        limits = protocol.limits
        self._clock = asyncio.get_running_loop().time
        burst, a_second = limits.workload_control_frames, limits.workload_control_frames_a_second
        self._budget = Budget(burst, a_second, self._clock())
        self._replies = 0

    @override
    def process(self, event: Event) -> None:
        if not self._is_useful(event) and not self._spent():
            self._protocol.bound("workload_control_frames")
            self._protocol.abort()
        elif event.__class__ in getattr(self, "processors", ()):  # RFC 9113, 4.1: else ignored
            super().process(event)

    @override
    def register(self, stream: Stream) -> Callable[[], None]:
        """Return what releases `stream`, once: a call may be cancelled before it has begun."""
        release = super().register(stream)
        self._prefixes[stream.id or 0] = Prefixes(self._protocol.limits.workload_message_octets)
        return lambda: self._release(stream, release)

    def _release(self, stream: Stream, release: Callable[[], None]) -> None:
        self._prefixes.pop(stream.id or 0, None)
        if stream.id in self.streams:
            release()

    @override
    def process_request_received(self, event: RequestReceived) -> None:
        self._protocol.calls += 1
        if len(self.streams) < self._protocol.limits.workload_streams:
            super().process_request_received(event)
            return
        self._protocol.bound("workload_streams")
        stream = self.connection.create_stream(stream_id=event.stream_id)
        if stream.closable:
            stream.reset_nowait(ErrorCodes.REFUSED_STREAM)  # RFC 9113, section 8.7: try again

    @override
    def process_stream_reset(self, event: StreamReset) -> None:
        stream = self.streams.get(event.stream_id)
        super().process_stream_reset(event)
        if stream is not None:  # its task may never have begun, and would release nothing
            self._forget(stream)

    @override
    def process_data_received(self, event: DataReceived) -> None:
        if not event.data:  # grpclib takes an empty frame for the end of its message
            self.connection.ack(event.stream_id, event.flow_controlled_length)
            return
        stream = self.streams.get(event.stream_id)
        prefixes = self._prefixes.get(event.stream_id)
        super().process_data_received(event)
        if stream is not None and prefixes is not None and not prefixes.take(event.data):
            self._protocol.bound("workload_message_octets")
            self._cut(stream)

    def _cut(self, stream: Stream) -> None:
        """End a call; its client reads RESOURCE_EXHAUSTED (gRPC over HTTP2, Errors)."""
        if stream.closable:
            stream.reset_nowait(ErrorCodes.ENHANCE_YOUR_CALM)
        stream.__terminated__("too long a message")
        self.handler.cancel(stream)
        self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        self._prefixes.pop(stream.id or 0, None)
        if self.streams.pop(stream.id or 0, None) is not None:
            self.connection.ack(stream.id or 0, stream.buffer.unacked_size())
            self.connection.stream_close_waiter.set()

    def _is_useful(self, event: Event) -> bool:
        if isinstance(event, DataReceived):  # the first of a call is a part of it
            stream = self.streams.get(event.stream_id)
            return bool(event.data) and stream is not None and not stream.data_received
        return isinstance(event, RequestReceived | StreamEnded | TrailersReceived)

    def _spent(self) -> bool:
        replies = self.connection.messages_sent
        new, self._replies = replies - self._replies, replies
        return self._budget.spend(self._clock(), _FRAMES_A_REPLY * new)


class AdoptedProtocol(H2Protocol):
    """One connection; `ended` is called once it is gone."""

    def __init__(
        self,
        services: Collection[Any],
        caller: Caller,
        limits: Limits,
        bound: Bound,
        ended: Callable[["AdoptedProtocol"], None],
    ) -> None:
        server = Server(services)
        mapping = {path: each for one in services for path, each in one.__mapping__().items()}
        handler = Handler(mapping, ProtoCodec(), None, server.__dispatch__)
        super().__init__(handler, _CONFIGURATION, _H2)
        self.caller = caller
        self.limits = limits
        self.calls = 0
        self._bound = bound
        self._ended = ended
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()  # no more than the loop reads at once

    @override
    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        super().connection_made(transport)
        self.processor = BoundedProcessor(self.handler, self.connection, self)

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        self._unread.clear()
        super().connection_lost(exc)
        self._ended(self)

    @override
    def data_received(self, data: bytes) -> None:
        """Take a little in each turn of the loop: a flood of frames is not to hold up others."""
        if len(data) <= _TURN_OCTETS:
            self._take(data)
            return
        self._unread += data
        if self._transport is not None:
            self._transport.pause_reading()
        self._take_on()

    def _take_on(self) -> None:
        octets = bytes(self._unread[:_TURN_OCTETS])
        del self._unread[:_TURN_OCTETS]
        if octets:
            self._take(octets)
        if self._unread:
            asyncio.get_running_loop().call_soon(self._take_on)
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _take(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except Exception as error:  # noqa: BLE001 - whatever h2 stumbles over, the peer sent it
            logger.info("connection %d breaks HTTP/2: %r", self.caller.number, error)
            self.abort()
        if self.connection.is_closing():
            self.abort()
        elif self._unsent_octets > self.limits.workload_unsent_octets:
            self.bound("workload_unsent_octets")  # h2 answers much, and is never told to wait
            self.abort()

    @property
    def is_idle(self) -> bool:
        """Whether it has begun, and no call is under way."""
        return self._transport is not None and not self.processor.streams

    @property
    def _unsent_octets(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def bound(self, limit: str) -> None:
        """Count that a limit was reached."""
        self._bound(self.caller.app, limit)

    def abort(self) -> None:
        """End the connection now, whatever is still to be sent or read."""
        self._unread.clear()
        if self._transport is not None:
            self._transport.abort()
