"""What an HTTP/2 connection sends: frames in order, content within the peer's windows.

RFC 9113, section 5.2: a window is what the peer still takes, of a stream and of the connection.
Content over it waits here; that it may wait for ever is for the caller to bound.
"""

from msgspec import Struct

from proxy.wire.h2_frame import (
    FRAME_OCTETS,
    MOST_WINDOW_OCTETS,
    TABLE_OCTETS,
    WINDOW_OCTETS,
    ErrorCode,
    Flag,
    H2Error,
    Kind,
    write_frame,
)
from proxy.wire.h2_reply import Reply

_NO_TABLE = b"\x20"  # RFC 7541, section 6.3: the table has no octets from here on


class _Unsent(Struct):
    """Content that the windows hold back, and what is written after its last octet."""

    content: bytes
    then: bytes
    at: int = 0


class Sending:
    """The sending half.

    `octets` counts what was written since the last `take`, but for whole replies; `unsent` holds
    the streams whose content waits.
    """

    __slots__ = ("_extra", "_initial", "_out", "_plain", "_table", "_window", "octets", "unsent")

    def __init__(self) -> None:
        self.octets = 0
        self.unsent: dict[int, _Unsent] = {}
        self._out: list[bytes] = []
        self._window = self._initial = WINDOW_OCTETS
        # What a stream's window differs by from the initial one, so that a new initial one
        # (RFC 9113, section 6.9.2) moves them all.
        self._extra: dict[int, int] = {}
        self._table = b""  # what the next block begins with
        self._plain = FRAME_OCTETS  # content that goes out in one frame on any stream

    @property
    def unsent_octets(self) -> int:
        """How much content the windows hold back."""
        return sum(len(each.content) - each.at for each in self.unsent.values())

    def take(self) -> bytes:
        """Return what is to be sent now, to be sent in one piece."""
        octets = b"".join(self._out)
        self._out.clear()
        self.octets = 0
        return octets

    def write(self, octets: bytes) -> None:
        """Send frames that no window bounds."""
        self._out.append(octets)
        self.octets += len(octets)

    def reply(self, stream: bytes, reply: Reply) -> None:
        """Send a reply on the stream whose number is these four octets; its window is forgotten."""
        content = reply.content
        octets = len(content)
        if 0 < octets <= self._plain and octets <= self._window:
            self._window -= octets
            self._out += (reply.head, stream, reply.middle, stream, content)
        else:
            self.reply_early(int.from_bytes(stream), reply, b"")

    def reply_early(self, stream: int, reply: Reply, then: bytes) -> None:
        """Send a reply as the windows allow, and `then` after its last octet."""
        block, self._table = self._table + reply.block, b""
        flags = Flag.END_HEADERS if reply.content else Flag.END_HEADERS | Flag.END_STREAM
        self.write(write_frame(Kind.HEADERS, flags, stream, block))
        self.unsent[stream] = _Unsent(reply.content, then)
        self._pump()

    def forget(self, stream: int) -> None:
        """Drop what waits on a stream that ended."""
        self._extra.pop(stream, None)
        self.unsent.pop(stream, None)
        self._look()

    def widen(self, stream: int, octets: int) -> None:
        """Obey a WINDOW_UPDATE; stream 0 is the connection.

        Raises:
            H2Error: FLOW_CONTROL_ERROR, a window over 2^31 - 1 (RFC 9113, section 6.9.1).
        """
        if stream:
            self._extra[stream] = extra = self._extra.get(stream, 0) + octets
            self._check_window(self._initial + extra, stream)
        else:
            self._window += octets
            self._check_window(self._window, 0)
        self._pump()

    def begin_with(self, octets: int) -> None:
        """Obey INITIAL_WINDOW_SIZE: each window moves by the difference, below zero too.

        Raises:
            H2Error: FLOW_CONTROL_ERROR, a window over 2^31 - 1 (RFC 9113, section 6.9.2).
        """
        self._initial = octets
        self._check_window(octets + max(self._extra.values(), default=0), 0)
        self._pump()

    def shrink_table(self, octets: int) -> None:
        """Obey HEADER_TABLE_SIZE: we use no table, which has to be said once where it shrinks."""
        if octets < TABLE_OCTETS:  # RFC 9113, section 4.3.1
            self._table = _NO_TABLE
            self._look()

    def _look(self) -> None:
        """Look whether a reply can go out as it is."""
        is_plain = not (self._extra or self._table or self.unsent)
        self._plain = min(self._initial, FRAME_OCTETS) if is_plain else 0

    def _check_window(self, octets: int, stream: int) -> None:
        if octets > MOST_WINDOW_OCTETS:
            raise H2Error(ErrorCode.FLOW_CONTROL_ERROR, "a window over 2^31 - 1", stream)

    def _pump(self) -> None:
        """Send what the windows allow, the streams in the order in which they began."""
        for stream, unsent in tuple(self.unsent.items()):
            self._send(stream, unsent)
        self._look()

    def _send(self, stream: int, unsent: _Unsent) -> None:
        left = len(unsent.content) - unsent.at
        extra = self._extra.get(stream, 0)
        while (octets := min(left, FRAME_OCTETS, self._window, self._initial + extra)) > 0:
            left -= octets
            extra -= octets
            self._window -= octets
            part = unsent.content[unsent.at : unsent.at + octets]
            unsent.at += octets
            self.write(write_frame(Kind.DATA, 0 if left else Flag.END_STREAM, stream, part))
        if left:
            self._extra[stream] = extra
        else:
            self.write(unsent.then)
            self.forget(stream)
