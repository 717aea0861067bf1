"""Chunked content: `PeerError` is allowed."""

from proxy.errors import PeerError
from proxy.limits import Limits
from proxy.wire.body import ChunkedReader, write_chunk, write_last
from tests.proxy.wire.vectors import messages

SEEDS: tuple[bytes, ...] = tuple((messages("chunked-") | messages("refused-chunked-")).values())
_LIMITS = Limits(head_octets=512, head_fields=8)


def target(data: bytes) -> None:
    """How a stream is cut changes nothing, and what is taken can be written and read again."""
    whole = _read(data, len(data) + 1)
    for size in (1, 3):
        cut = _read(data, size)
        assert (whole is None) == (cut is None)
        if whole is not None and cut is not None:
            assert cut[0] == whole[0]
            assert (cut[1].done, cut[1].leftover) == (whole[1].done, whole[1].leftover)
            assert cut[1].trailers == whole[1].trailers
    if whole is not None and whole[1].done:
        written = write_chunk(whole[0]) + write_last(whole[1].trailers)
        again = _read(written, len(written))
        assert again is not None
        assert (again[0], again[1].trailers) == (whole[0], whole[1].trailers)


def _read(data: bytes, size: int) -> tuple[bytes, ChunkedReader] | None:
    reader = ChunkedReader(_LIMITS)
    content = b""
    try:
        for at in range(0, len(data), size):
            content += b"".join(reader.feed(data[at : at + size]))
    except PeerError:
        return None
    assert reader.octets == len(content)
    return content, reader
