"""Messages over a stream: `PeerError` is allowed."""

from proxy.errors import PeerError
from proxy.wire.framing import Deframer, frame

SEEDS: tuple[bytes, ...] = (
    frame(bytes(12)),
    frame(bytes(12)) + frame(bytes(range(40))),
    b"\0\x0c" + bytes(11),
    b"\0\0" + bytes(12),
    b"\xff\xff" + bytes(12),
)


def target(data: bytes) -> None:
    """How a stream is cut changes nothing, and the messages are the stream."""
    whole = _read(data, len(data) + 1)
    assert _read(data, 1) == whole
    assert _read(data, 5) == whole
    if whole is not None:
        assert data.startswith(b"".join(map(frame, whole)))


def _read(data: bytes, size: int) -> list[bytes] | None:
    deframer = Deframer(512)
    taken: list[bytes] = []
    try:
        for at in range(0, len(data), size):
            taken += deframer.feed(data[at : at + size])
    except PeerError:
        return None
    return taken
