"""Content of messages with a length or until the connection ends, read as chunked content is.

Every reader has `feed`, `done`, `leftover` and `trailers`, as `proxy.wire.body.ChunkedReader`.
"""

from typing import Protocol

from proxy.limits import Limits
from proxy.wire.body import ChunkedReader
from proxy.wire.fields import Blame, Fields
from proxy.wire.head import Body, BodyKind


class ContentReader(Protocol):
    """Finds the end of the content in the octets that follow a head."""

    done: bool
    leftover: bytes
    trailers: Fields

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pieces of content in `data`; what follows the end is `leftover`."""


class LengthReader:
    """Content of a known length (RFC 9112, section 6.2)."""

    __slots__ = ("_left", "done", "leftover", "trailers")

    def __init__(self, octets: int) -> None:
        self._left = octets
        self.done = not octets
        self.leftover = b""
        self.trailers: Fields = ()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the content in `data`."""
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            return [data]
        self._left = 0
        self.done = True
        if len(data) > left:
            self.leftover = data[left:]
            data = data[:left]
        return [data] if data else []


class CloseReader:
    """Content of a response that ends with its connection (RFC 9112, section 6.3, item 8)."""

    __slots__ = ("done", "leftover", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.leftover = b""
        self.trailers: Fields = ()

    def feed(self, data: bytes) -> list[bytes]:
        """Return `data`: all of it is content."""
        return [data]


def reader_of(body: Body, limits: Limits, blame: Blame) -> ContentReader:
    """Return what reads `body`; `blame` makes the error for whoever sends it."""
    match body.kind:
        case BodyKind.NONE:
            return LengthReader(0)
        case BodyKind.LENGTH:
            return LengthReader(body.octets)
        case BodyKind.CHUNKED:
            return ChunkedReader(limits, blame)
        case BodyKind.UNTIL_CLOSE:
            return CloseReader()
