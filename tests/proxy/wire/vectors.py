"""Read tests/vectors/http and tests/vectors/clienthello, and build what no client sends.

http: the file's name says what is expected: `request-`, `response-`, `chunked-` are taken,
`refused-request-`, `refused-response-`, `refused-chunked-` are not; its octets are the message.
clienthello: `about:`, `expect:`, then `C` and `S` lines in hexadecimal, from client and server.
"""

from itertools import groupby
from pathlib import Path

from msgspec import Struct

_VECTORS = Path(__file__).parents[2] / "vectors"


class Conversation(Struct, frozen=True):
    """What a client and a server said, and what is expected of the first hello."""

    name: str
    expect: str
    turns: tuple[tuple[str, bytes], ...]

    @property
    def hello(self) -> bytes:
        """The client's first octets."""
        return self.turns[0][1]


def messages(prefix: str) -> dict[str, bytes]:
    """Return the HTTP messages whose file begins with `prefix`, by file name."""
    return {path.stem: path.read_bytes() for path in sorted(_VECTORS.glob(f"http/{prefix}*.raw"))}


def conversations(prefix: str = "") -> list[Conversation]:
    """Return the TLS conversations whose file begins with `prefix`."""
    paths = sorted(_VECTORS.glob(f"clienthello/{prefix}*.hex"))
    return [_conversation(path) for path in paths]


def conversation(name: str) -> Conversation:
    """Return one TLS conversation."""
    return _conversation(_VECTORS / "clienthello" / f"{name}.hex")


def _conversation(path: Path) -> Conversation:
    _about, expect, *lines = path.read_text("ascii").splitlines()
    turns = tuple(
        (side, bytes.fromhex("".join(line[2:] for line in turn)))
        for side, turn in groupby(lines, key=lambda line: line[0])
    )
    return Conversation(path.stem, expect.removeprefix("expect: "), turns)


def vector(octets: bytes, width: int) -> bytes:
    """Return `octets` after their length (RFC 8446, section 3.4)."""
    return len(octets).to_bytes(width) + octets


def extension(number: int, data: bytes = b"") -> bytes:
    """Return one extension."""
    return number.to_bytes(2) + vector(data, 2)


def server_name(*names: bytes, kind: int = 0) -> bytes:
    """Return a server_name extension (RFC 6066, section 3)."""
    entries = b"".join(bytes([kind]) + vector(name, 2) for name in names)
    return extension(0, vector(entries, 2))


def handshake(*extensions: bytes, kind: int = 1) -> bytes:
    """Return a ClientHello message."""
    body = b"\3\3" + bytes(range(32)) + vector(bytes(32), 1) + vector(b"\x13\1\x13\2", 2) + b"\1\0"
    return bytes([kind]) + vector(body + vector(b"".join(extensions), 2), 3)


def records(message: bytes, size: int = 1 << 14, kind: int = 22) -> bytes:
    """Return `message` in records of `size` octets each."""
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(bytes([kind]) + b"\3\1" + vector(piece, 2) for piece in pieces)
