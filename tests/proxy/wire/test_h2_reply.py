"""Replies, whole but for their stream."""

from proxy.wire.h2_frame import Flag, Kind
from proxy.wire.h2_reply import Reply, whole
from tests.proxy.wire.h2_peer import Frame, split


def sent(reply: Reply, stream: bytes) -> list[Frame]:
    ending = (stream, reply.content) if reply.content else ()
    return list(split(b"".join((reply.head, stream, reply.middle, *ending))))


def test_a_reply_with_content_is_two_frames() -> None:
    assert sent(whole(b"block", b"content"), b"\0\0\0\5") == [
        Frame(Kind.HEADERS, Flag.END_HEADERS, 5, b"block"),
        Frame(Kind.DATA, Flag.END_STREAM, 5, b"content"),
    ]


def test_a_reply_without_content_is_one() -> None:
    assert sent(whole(b"block", b""), b"\0\0\0\5") == [
        Frame(Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, 5, b"block")
    ]
