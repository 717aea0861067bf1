"""Chunked content, in and out (RFC 9112, section 7.1).

Chunks are decoded and encoded anew.  Chunk extensions are refused: nobody needs them, and
parsers differ about where they end.  Large chunks cost a slice, never a loop over octets.
"""

import re
from collections.abc import Iterable

from proxy.limits import Limits
from proxy.wire.fields import (
    Blame,
    Field,
    Fields,
    read_trailers,
    request_malformed,
    show,
    write_fields,
)

_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
_SIZE_BEGINNING = re.compile(rb"[0-9A-Fa-f]{0,16}\r?")
_MOST_OCTETS = 2**63 - 1


class ChunkedReader:
    """Decodes a chunked body as its octets come; holds at most a line or the trailers.

    `done` is set with the last octet of the body; then `trailers` are known and `leftover` is
    what follows.  `octets` counts the content so far.
    """

    def __init__(self, limits: Limits, blame: Blame = request_malformed) -> None:
        """`blame` makes the error for who sends: see `proxy.wire.fields`."""
        self.done = False
        self.octets = 0
        self.trailers: Fields = ()
        self.leftover = b""
        self._limits = limits
        self._blame = blame
        self._held = b""  # an incomplete line, or the trailer section so far
        self._left = 0  # octets of the current chunk still to come
        self._in_chunk = False  # its content, or the CRLF after it
        self._in_trailers = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pieces of content in `data`, never an empty one.

        Raises:
            ProxyError: malformed coding, or a line or trailers over the limit.
        """
        data = self._held + data if self._held else data
        self._held = b""
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and not self.done:
            step = self._content if self._in_chunk else self._line
            after = step(data, at, pieces)
            if after < 0:
                self._held = data[at:]
                break
            at = after
        if self.done:
            self.leftover += data[at:]
        return pieces

    def _content(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Take what there is of a chunk; return the offset after it, -1 for "more"."""
        if self._left:
            piece = data[at : at + self._left]
            pieces.append(piece)
            self._left -= len(piece)
            self.octets += len(piece)
            return at + len(piece)
        end = data[at : at + 2]
        if end == b"\r\n":
            self._in_chunk = False
            return at + 2
        if end != b"\r":
            raise self._blame("a chunk does not end where its size says")
        return -1

    def _line(self, data: bytes, at: int, _pieces: list[bytes]) -> int:
        if self._in_trailers:
            return self._trailers(data, at)
        end = data.find(b"\r\n", at, at + self._limits.chunk_line_octets + 2)
        if end < 0:
            return self._await_line(data, at)
        line = data[at:end]
        # RFC 9112, section 7.1.1: a chunk extension is refused; so is white space about the size.
        if not _SIZE.fullmatch(line) or int(line, 16) > _MOST_OCTETS:
            raise self._blame(f"{show(line)} is no chunk size")
        self._left = int(line, 16)
        self._in_chunk = self._left > 0
        self._in_trailers = self._left == 0
        return end + 2

    def _await_line(self, data: bytes, at: int) -> int:
        if not _SIZE_BEGINNING.fullmatch(data, at):
            raise self._blame(f"{show(data[at : at + 40])} is no chunk size")
        return -1

    def _trailers(self, data: bytes, at: int) -> int:
        """Read the trailer section: fields, and an empty line."""
        if data.startswith(b"\r\n", at):
            self.done = True
            return at + 2
        end = data.find(b"\r\n\r\n", at, at + self._limits.head_octets)
        if end < 0:
            if len(data) - at >= self._limits.head_octets:
                raise self._blame(f"trailers of more than {self._limits.head_octets} octets")
            return -1
        section = data[at : end + 2]
        self.trailers = read_trailers(section, self._limits.head_fields, self._blame)
        self.done = True
        return end + 4


def write_chunk(data: bytes) -> bytes:
    """Return `data` as one chunk; nothing for no data, because an empty chunk ends a body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def write_last(trailers: Iterable[Field] = ()) -> bytes:
    """Return the last chunk and the trailer section."""
    return b"0\r\n" + write_fields(trailers) + b"\r\n"
