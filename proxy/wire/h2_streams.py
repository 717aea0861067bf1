"""The requests of one HTTP/2 connection: streams from their first HEADERS to their reply.

RFC 9113, sections 5, 6.1, 6.2 and 8.1.  A request is given to the `Application` when it is whole;
what is malformed ends its stream, and what breaks the connection is an `H2Error` of stream 0.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from msgspec import Struct

from proxy.limits import Limits
from proxy.wire.h2_block import BlockMemory, BlockReader
from proxy.wire.h2_fields import H2Request, check_trailers, read_fields
from proxy.wire.h2_frame import (
    WINDOW_OCTETS,
    ErrorCode,
    Flag,
    H2Error,
    unpadded,
    without_priority,
    write_reset,
    write_window_update,
)
from proxy.wire.h2_reply import Reply
from proxy.wire.h2_sending import Sending

# A stream's window is longer than any content that is taken: none ever needs an update, and what
# is too long can be told so.  The connection's bounds what all its streams hold.
STREAM_WINDOW = 2 * (WINDOW_OCTETS + 1)
CONNECTION_WINDOW = 4 * (WINDOW_OCTETS + 1)
_GIVE_BACK = CONNECTION_WINDOW // 4  # octets of content that are worth a WINDOW_UPDATE
_RESERVED = 1 << 31  # RFC 9113, section 4.1: a bit of the frame's head, and of no number
_NOTHING: Mapping[bytes, Any] = MappingProxyType({})


class Heard(Protocol):
    """What the application made of a request's head."""

    @property
    def octets(self) -> int | None:
        """What Content-Length said."""

    @property
    def is_final(self) -> bool:
        """Whether the reply is known whatever the content is."""


class Application[T: Heard](Protocol):
    """Who answers the requests of a connection."""

    def hear(self, request: H2Request) -> T:
        """Return what will stand for this head when its octets come again; pure."""

    def serve(self, stream: int, request: T, content: bytes | None) -> Reply | None:
        """Return the reply, or None: `H2Connection.reply` follows.  Content None: too long."""

    def cancel(self, stream: int) -> None:
        """Nobody waits for the reply on `stream` any more."""

    def hit_bound(self, bound: str) -> None:
        """A named limit was met."""


class _Stream[T: Heard](Struct):
    """A request whose content comes, or whose reply is awaited."""

    request: T
    content: bytearray
    received: int = 0  # octets of DATA frames, padding among them
    is_ended: bool = False


class Streams[T: Heard]:
    """The streams of one connection.

    `known` are the heads that may be answered by their octets now; `last` is the highest stream
    that was opened; `replies` counts what was answered; `due` is the stream whose CONTINUATION
    must come next.
    """

    __slots__ = (
        *("_app", "_block", "_blocks", "_ignored", "_is_leaving", "_late", "_limits", "_memory"),
        *("_most", "_open"),
        *("_owed", "_room", "_sending", "_spend", "known", "last", "replies"),
    )

    def __init__(
        self,
        app: Application[T],
        memory: BlockMemory[T],
        limits: Limits,
        sending: Sending,
        spend: Callable[[], None],
    ) -> None:
        """`spend` counts a frame that is no request, and raises where there are too many."""
        self.known: Mapping[bytes, T] = _NOTHING
        self.last = 0
        self.replies = 0
        self._app = app
        self._memory = memory
        self._limits = limits
        self._most = limits.doh_streams
        self._sending = sending
        self._spend = spend
        self._blocks = BlockReader(limits.doh_head_octets)
        self._open: dict[int, _Stream[T]] = {}
        self._room, self._owed = CONNECTION_WINDOW, 0  # what may come; what was taken since told
        self._block: tuple[int, int, bytearray] | None = None  # stream, flags, fragments so far
        self._is_leaving = False
        self._late: dict[int, int] = {}  # of streams we ended: octets that may be under way
        self._ignored = 0  # the highest stream that came after we left

    @property
    def seen(self) -> int:
        """The highest stream that the peer opened, those among them that are ignored."""
        return max(self.last, self._ignored)

    @property
    def due(self) -> int | None:
        """The stream whose block is not whole yet, None where there is none."""
        return None if self._block is None else self._block[0]

    @property
    def is_empty(self) -> bool:
        """Whether no stream is open."""
        return not self._open

    @property
    def is_waiting(self) -> bool:
        """Whether the peer waits for a reply of ours."""
        return any(each.is_ended for each in self._open.values())

    def has(self, stream: int) -> bool:
        """Return whether a stream is open."""
        return stream in self._open

    def obeyed(self) -> None:
        """Note that the peer acknowledged our settings."""
        self._blocks.obeyed()

    def leave(self) -> None:
        """Open no further streams."""
        self._is_leaving = True
        self.known = _NOTHING

    def ask(self, stream: int, number: bytes, request: T) -> bool:
        """Answer a whole request of a known head; return False where it needs a closer look.

        `number` is the stream in its four octets.
        """
        if not self.last < stream < _RESERVED or not stream & 1 or self._sending.unsent:
            return False
        if len(self._open) >= self._most or request.octets:
            return False
        self.last = stream
        reply = self._app.serve(stream, request, b"")
        if reply is None:
            self._open[stream] = _Stream(request, bytearray(), is_ended=True)
        else:
            self.replies += 1
            self._sending.reply(number, reply)
        return True

    def reply(self, stream: int, reply: Reply) -> None:
        """Answer a request that `serve` had no reply to at once; one that was reset is dropped."""
        it = self._open.pop(stream, None)
        if it is not None:
            self._reply(stream, it, reply)

    def drop_all(self) -> None:
        """Forget every stream, and what is waited for on it."""
        while self._open:
            stream, it = self._open.popitem()
            if it.is_ended:
                self._app.cancel(stream)

    def take_headers(self, flags: int, stream: int, payload: bytes) -> None:
        """Take a HEADERS frame (RFC 9113, section 6.2)."""
        if not stream & 1:  # RFC 9113, section 5.1.1: clients open odd streams; 0 is none
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream of even number")
        fragment = without_priority(flags, unpadded(flags, payload))
        self._block = (stream, flags, bytearray())
        self.known = _NOTHING  # until the block is whole
        self._take_fragment(flags, fragment)

    def take_continuation(self, flags: int, _stream: int, payload: bytes) -> None:
        """Take a CONTINUATION frame, of the stream that is due (RFC 9113, section 6.10)."""
        self._spend()
        self._take_fragment(flags, payload)

    def _take_fragment(self, flags: int, fragment: bytes) -> None:
        if self._block is None:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        stream, first_flags, block = self._block
        block += fragment
        if len(block) > self._limits.doh_head_octets:
            self._app.hit_bound("doh_head_octets")
            raise H2Error(ErrorCode.ENHANCE_YOUR_CALM, "too many octets of fields")
        if flags & Flag.END_HEADERS:
            self._block = None
            try:
                is_ended = bool(first_flags & Flag.END_STREAM)
                self._take_block(stream, bytes(block), is_ended=is_ended)
            finally:
                if self._blocks.is_stateless and not self._is_leaving:
                    self.known = self._memory.known

    def _take_block(self, stream: int, block: bytes, *, is_ended: bool) -> None:
        """Take a whole block: it is read whatever becomes of it, for later ones may build on it."""
        is_stateless = self._blocks.is_stateless
        known = self._memory.known.get(block) if is_stateless and stream > self.last else None
        fields = self._blocks.read(block) if known is None else []
        it = self._open.get(stream)
        if it is not None and not it.is_ended:
            check_trailers(fields, stream)
            if not is_ended:  # RFC 9113, section 8.1
                raise H2Error(ErrorCode.PROTOCOL_ERROR, "trailers that end nothing", stream)
            self._end(stream, it)
            return
        if stream <= self.last:
            self._take_late(stream, 0, "HEADERS", is_ended=is_ended)
            return
        if self._is_leaving:  # RFC 9113, section 6.8: later ones are ignored
            self._ignored = stream
            return
        self.last = stream
        self._check_room(stream)
        request = known or self._app.hear(read_fields(fields, stream))
        if is_stateless and known is None and not request.is_final:
            self._memory.keep(block, request)
        self._begin(stream, request, is_ended=is_ended)

    def _check_room(self, stream: int) -> None:
        """Refuse what there is no room for; the client may ask again (RFC 9113, section 8.7)."""
        limits, sending = self._limits, self._sending
        if len(self._open) + len(sending.unsent) >= self._most:
            self._app.hit_bound("doh_streams")
        elif sending.unsent_octets >= limits.doh_unsent_octets:
            self._app.hit_bound("doh_unsent_octets")
        else:
            return
        raise H2Error(ErrorCode.REFUSED_STREAM, "no room for another stream", stream)

    def _begin(self, stream: int, request: T, *, is_ended: bool) -> None:
        it = _Stream(request, bytearray())
        if is_ended:
            self._end(stream, it)
        elif request.is_final:
            self._serve(stream, it, b"")
        else:
            self._open[stream] = it

    def take_data(self, flags: int, stream: int, payload: bytes) -> None:
        """Take a DATA frame (RFC 9113, section 6.1)."""
        if not stream & 1 or stream > self.seen:  # RFC 9113, sections 5.1 and 6.1
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "DATA on a stream that is idle")
        self._room -= len(payload)
        if self._room < 0:
            raise H2Error(ErrorCode.FLOW_CONTROL_ERROR, "more than the window")
        content = unpadded(flags, payload)
        if stream > self.last:  # RFC 9113, section 6.8: ignored, but for the window
            self._give_back(len(payload))
            return
        it = self._open.get(stream)
        if it is None or it.is_ended:
            self._give_back(len(payload))
            self._take_late(stream, len(payload), "DATA", is_ended=bool(flags & Flag.END_STREAM))
            return
        it.received += len(payload)
        if it.received > STREAM_WINDOW:
            raise H2Error(ErrorCode.FLOW_CONTROL_ERROR, "more than the window", stream)
        it.content += content
        if len(it.content) > self._limits.doh_body_octets:
            self._app.hit_bound("doh_body_octets")
            self._serve(stream, it, None)
        elif flags & Flag.END_STREAM:
            self._end(stream, it)
        elif not content:
            self._spend()
        if not self._room:
            self._make_room()

    def _make_room(self) -> None:
        """Give back what is owed, else refuse the newest stream: together they fill the window.

        A client that is fair to its streams would wait for ever: this one it may ask again (RFC
        9113, sections 5.2.2 and 8.7).
        """
        self._give_back(0)
        if self._room:
            return
        newest = max(stream for stream, it in self._open.items() if it.received)
        self._app.hit_bound("doh_streams")
        raise H2Error(ErrorCode.REFUSED_STREAM, "no room for its content", newest)

    def _end(self, stream: int, it: _Stream[T]) -> None:
        """Serve a request that is whole."""
        it.is_ended = True
        octets = it.request.octets
        if octets is not None and octets != len(it.content):  # RFC 9113, section 8.1.1
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "content-length is not that of DATA", stream)
        self._serve(stream, it, bytes(it.content))

    def _serve(self, stream: int, it: _Stream[T], content: bytes | None) -> None:
        reply = self._app.serve(stream, it.request, content)
        if reply is not None:
            self._open.pop(stream, None)
            self._reply(stream, it, reply)
            return
        self._open[stream] = it
        self._give_back(it.received)
        it.received, it.content = 0, bytearray()

    def _reply(self, stream: int, it: _Stream[T], reply: Reply) -> None:
        self.replies += 1
        self._give_back(it.received)
        if it.is_ended:
            self._sending.reply(stream.to_bytes(4), reply)
        else:  # RFC 9113, section 8.1: send no more of it
            self._late[stream] = STREAM_WINDOW - it.received
            if len(self._late) > self._most:
                del self._late[next(iter(self._late))]
            self._sending.reply_early(stream, reply, write_reset(stream, ErrorCode.NO_ERROR))

    def _take_late(self, stream: int, octets: int, what: str, *, is_ended: bool) -> None:
        """Ignore what was under way when we ended the stream (RFC 9113, section 5.1).

        That is what its window let through, up to its end; anything else is an error.
        """
        left = self._late.pop(stream, -1) - octets
        if left < 0:
            raise H2Error(ErrorCode.STREAM_CLOSED, f"{what} on a closed stream", stream)
        if not is_ended:
            self._late[stream] = left
        self._spend()

    def _give_back(self, octets: int) -> None:
        """Let the peer send as much content as is not held any more."""
        self._owed += octets
        if self._owed >= _GIVE_BACK or (self._owed and self._room < _GIVE_BACK):
            self._sending.write(write_window_update(0, self._owed))
            self._room += self._owed
            self._owed = 0

    def drop(self, stream: int) -> None:
        """Forget a stream that ended without a reply."""
        self._sending.forget(stream)
        self._late.pop(stream, None)
        it = self._open.pop(stream, None)
        if it is not None:
            self._give_back(it.received)
            if it.is_ended:
                self._app.cancel(stream)
