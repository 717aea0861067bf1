"""A response as HTTP/2 sends it, whole but for the number of its stream."""

from msgspec import Struct

from proxy.wire.h2_frame import Flag, Kind


class Reply(Struct, frozen=True):
    """A response: `head`, the stream, `middle`, and where there is content the stream and that.

    `head` is the frame head of HEADERS up to its stream; `middle` is the header block and, where
    there is content, the frame head of DATA up to its stream.
    """

    head: bytes
    middle: bytes
    block: bytes
    content: bytes


def whole(block: bytes, content: bytes) -> Reply:
    """Return the reply of a header block of less than 16384 octets and its content."""
    if not content:
        return Reply(_head(len(block), Kind.HEADERS, _LAST | Flag.END_HEADERS), block, block, b"")
    head = _head(len(block), Kind.HEADERS, Flag.END_HEADERS)
    return Reply(head, block + _head(len(content), Kind.DATA, _LAST), block, content)


_LAST = Flag.END_STREAM


def _head(octets: int, kind: Kind, flags: int) -> bytes:
    return octets.to_bytes(3) + bytes((kind, flags))
