"""An HTTP/2 client octet by octet, and an application that says what it was asked."""

import re
from collections.abc import Iterator

from hpack import Decoder, Encoder
from msgspec import Struct

from proxy.limits import Limits
from proxy.wire.h2_block import BlockMemory, write_block
from proxy.wire.h2_connection import H2Connection
from proxy.wire.h2_fields import H2Request
from proxy.wire.h2_frame import (
    HEAD_OCTETS,
    PREFACE,
    SETTINGS_ACK,
    Flag,
    Kind,
    read_head,
    write_frame,
    write_settings,
)
from proxy.wire.h2_reply import Reply, whole

WHOLE = Flag.END_STREAM | Flag.END_HEADERS
GET = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"))
POST = ((b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"localhost"))
BLOCK = write_block(200, ())


class Frame(Struct, frozen=True):
    """One frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class Asked(Struct, frozen=True):
    """What the application makes of a head: paths below /final need no content."""

    path: bytes
    octets: int | None
    is_final: bool


class Echo:
    """Answers with the path and the content; /wait is answered later, /large at length."""

    def __init__(self) -> None:
        self.heard: list[H2Request] = []
        self.served: list[tuple[int, bytes, bytes | None]] = []
        self.cancelled: list[int] = []
        self.bounds: list[str] = []

    def hear(self, request: H2Request) -> Asked:
        self.heard.append(request)
        return Asked(request.path, request.octets, request.path.startswith(b"/final"))

    def serve(self, stream: int, request: Asked, content: bytes | None) -> Reply | None:
        self.served.append((stream, request.path, content))
        if request.path == b"/wait":
            return None
        if large := re.fullmatch(rb"/large/([0-9]{1,6})", request.path):
            return whole(BLOCK, bytes(int(large[1])))
        return whole(BLOCK, request.path + b" " + (content or b"-"))

    def cancel(self, stream: int) -> None:
        self.cancelled.append(stream)

    def hit_bound(self, bound: str) -> None:
        self.bounds.append(bound)


class Talk:
    """A client and the connection that it talks to; the clock is what a test says."""

    def __init__(self, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self.echo = Echo()
        self.evicted = 0
        self.memory: BlockMemory[Asked] = BlockMemory(limits.doh_known_heads, self._evict)
        self.connection = H2Connection(self.echo, self.memory, limits, 0.0)
        self.now = 0.0
        self.encoder = Encoder()
        self._stream = -1

    def _evict(self) -> None:
        self.evicted += 1

    def open(self) -> list[Frame]:
        """Send what a client sends first, and obey the server's settings."""
        self.encoder.header_table_size = 0
        return self.say(PREFACE + write_settings({}) + SETTINGS_ACK)

    def block(self, path: bytes, *fields: tuple[bytes, bytes], post: bool = False) -> bytes:
        """Return the header block of a request."""
        head = POST if post else GET
        return self.encoder.encode([*head, (b":path", path), *fields])

    def next(self) -> int:
        """Return the number of a new stream."""
        self._stream += 2
        return self._stream

    def say(self, octets: bytes) -> list[Frame]:
        """Send octets; return what comes back, every turn of it."""
        waits = self.connection.receive(octets, self.now)
        while waits:
            waits = self.connection.go_on(self.now)
        return self.frames()

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> list[Frame]:
        """Send one frame."""
        return self.say(write_frame(kind, flags, stream, payload))

    def get(self, path: bytes, *fields: tuple[bytes, bytes]) -> list[Frame]:
        """Send a GET in one frame on a new stream."""
        return self.send(Kind.HEADERS, WHOLE, self.next(), self.block(path, *fields))

    def frames(self) -> list[Frame]:
        """Return what is to be sent now."""
        return list(split(self.connection.take()))


def split(octets: bytes) -> Iterator[Frame]:
    """Return the frames of what was sent."""
    at = 0
    while at < len(octets):
        length, kind, flags, stream = read_head(octets, at)
        at += HEAD_OCTETS
        yield Frame(kind, flags, stream, octets[at : at + length])
        at += length


def kinds(frames: list[Frame]) -> list[int]:
    return [frame.kind for frame in frames]


def content(frames: list[Frame], stream: int | None = None) -> bytes:
    """Return the content of the DATA frames."""
    return b"".join(
        frame.payload
        for frame in frames
        if frame.kind == Kind.DATA and stream in {None, frame.stream}
    )


def status(frames: list[Frame]) -> bytes:
    """Return the status that the first HEADERS frame tells."""
    first = next(frame for frame in frames if frame.kind == Kind.HEADERS)
    fields = Decoder().decode(first.payload, raw=True)
    return bytes(dict(fields)[b":status"])


def code(frame: Frame) -> int:
    """Return the error code of a RST_STREAM or GOAWAY frame."""
    return int.from_bytes(
        frame.payload[-4:] if frame.kind == Kind.RST_STREAM else frame.payload[4:8]
    )
