"""HTTP/2 connections: no exception is allowed, and no peer may make us send what is no frame."""

from hpack import Encoder

from proxy.limits import Limits
from proxy.wire.h2_block import BlockMemory
from proxy.wire.h2_connection import H2Connection
from proxy.wire.h2_frame import (
    PREFACE,
    SETTINGS_ACK,
    Flag,
    Kind,
    Setting,
    write_frame,
    write_settings,
    write_window_update,
)
from tests.proxy.wire.h2_peer import GET, POST, WHOLE, Asked, Echo, split

_LIMITS = Limits(doh_streams=4, doh_body_octets=64, doh_unsent_octets=100, doh_control_frames=64)
_BEGINNING = PREFACE + write_settings({}) + SETTINGS_ACK


def _block(*fields: tuple[bytes, bytes], path: bytes = b"/a", post: bool = False) -> bytes:
    encoder = Encoder()
    encoder.header_table_size = 0
    return encoder.encode([*(POST if post else GET), (b":path", path), *fields])


_HEAD = _block()
_SECOND = _HEAD.removeprefix(b"\x20")
SEEDS: tuple[bytes, ...] = (
    write_frame(Kind.HEADERS, WHOLE, 1, _HEAD) + write_frame(Kind.HEADERS, WHOLE, 3, _SECOND) * 2,
    write_frame(Kind.HEADERS, Flag.END_HEADERS, 1, _block(post=True))
    + write_frame(Kind.DATA, 0, 1, b"content")
    + write_frame(Kind.DATA, Flag.END_STREAM | Flag.PADDED, 1, b"\2tent\0\0"),
    write_frame(Kind.HEADERS, Flag.END_STREAM, 1, _HEAD[:3])
    + write_frame(Kind.CONTINUATION, Flag.END_HEADERS, 1, _HEAD[3:]),
    write_settings({Setting.INITIAL_WINDOW_SIZE: 1, Setting.HEADER_TABLE_SIZE: 0})
    + write_frame(Kind.HEADERS, WHOLE, 1, _block(path=b"/large/99"))
    + write_window_update(1, 7)
    + write_window_update(0, 7),
    write_frame(Kind.HEADERS, WHOLE, 1, _block(path=b"/wait"))
    + write_frame(Kind.RST_STREAM, 0, 1, bytes(4))
    + write_frame(Kind.PING, 0, 0, bytes(8)),
    write_frame(Kind.GOAWAY, 0, 0, bytes(8)) + write_frame(Kind.PRIORITY, 0, 1, bytes(5)),
    write_frame(Kind.HEADERS, Flag.END_HEADERS, 1, _block(path=b"/final", post=True)),
)


def target(data: bytes) -> None:
    """How the octets are cut changes nothing that is served or sent."""
    whole = _run(data, len(data) + 1)
    assert _run(data, 7) == whole


def _run(data: bytes, size: int) -> tuple[bytes, list[tuple[int, bytes, bytes | None]]]:
    echo = Echo()
    memory: BlockMemory[Asked] = BlockMemory(4, lambda: None)
    connection = H2Connection(echo, memory, _LIMITS, 0.0)
    octets = _BEGINNING + data
    sent = b""
    for at in range(0, len(octets), size):
        waits = connection.receive(octets[at : at + size], 0.0)
        while waits:
            waits = connection.go_on(0.0)
    sent += connection.take()
    for frame in split(sent):
        assert frame.kind in Kind
    return sent, echo.served
