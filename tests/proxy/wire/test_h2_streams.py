"""Streams of an HTTP/2 connection: requests in every shape, and what is none."""

import pytest

from proxy.limits import Limits
from proxy.wire.h2_frame import ErrorCode, Flag, Kind, Setting, write_frame, write_settings
from proxy.wire.h2_reply import whole
from proxy.wire.h2_streams import CONNECTION_WINDOW, STREAM_WINDOW
from tests.proxy.wire.h2_peer import BLOCK, WHOLE, Asked, Frame, Talk, code, content, kinds, status


def opened(limits: Limits | None = None) -> Talk:
    talk = Talk(limits)
    talk.open()
    return talk


def test_a_get_in_one_frame_is_answered() -> None:
    talk = opened()
    frames = talk.get(b"/a")
    assert status(frames) == b"200"
    assert content(frames) == b"/a -"


def test_a_head_that_was_heard_is_not_read_again() -> None:
    """Its octets stand for it, but only since the tables are empty."""
    talk = opened()
    talk.get(b"/a")  # says that the table is empty
    for _ in range(3):
        assert content(talk.get(b"/b")) == b"/b -"
    assert [each.path for each in talk.echo.heard] == [b"/a", b"/b"]


def test_no_octets_stand_for_a_head_while_there_are_tables() -> None:
    """A block means then what the blocks before it make of it."""
    talk = opened()
    same = b"\x82\x87\x84"  # GET, https, /
    talk.memory.known[b"\x20" + same] = Asked(b"/another", None, is_final=False)
    assert content(talk.send(Kind.HEADERS, WHOLE, 1, b"\x20" + same)) == b"/ -"


def test_a_post_is_served_with_its_content() -> None:
    talk = opened()
    first = talk.send(Kind.HEADERS, Flag.END_HEADERS, 1, talk.block(b"/p", post=True))
    assert first == []
    assert talk.send(Kind.DATA, 0, 1, b"con") == []
    assert content(talk.send(Kind.DATA, Flag.END_STREAM | Flag.PADDED, 1, b"\2tent\0\0")) == (
        b"/p content"
    )


def test_content_is_as_long_as_was_said() -> None:
    """RFC 9113, section 8.1.1."""
    talk = opened()
    block = talk.block(b"/p", (b"content-length", b"3"), post=True)
    for octets, ends in (
        (b"con", Kind.HEADERS),
        (b"cont", Kind.RST_STREAM),
        (b"", Kind.RST_STREAM),
    ):
        stream = talk.next()
        talk.send(Kind.HEADERS, Flag.END_HEADERS, stream, block)
        assert talk.send(Kind.DATA, Flag.END_STREAM, stream, octets)[0].kind == ends
    answer = talk.send(Kind.HEADERS, WHOLE, talk.next(), block)
    assert code(answer[0]) == ErrorCode.PROTOCOL_ERROR


def test_trailers_end_a_request() -> None:
    talk = opened()
    talk.send(Kind.HEADERS, Flag.END_HEADERS, 1, talk.block(b"/p", post=True))
    talk.send(Kind.DATA, 0, 1, b"x")
    trailers = talk.encoder.encode([(b"a", b"b")])
    assert content(talk.send(Kind.HEADERS, WHOLE, 1, trailers)) == b"/p x"


@pytest.mark.parametrize("flags", [Flag.END_HEADERS, WHOLE])
def test_trailers_that_end_nothing_or_are_a_request_end_the_stream(flags: int) -> None:
    talk = opened()
    block = talk.block(b"/p", post=True)
    talk.send(Kind.HEADERS, Flag.END_HEADERS, 1, block)
    trailers = talk.encoder.encode([(b"a", b"b")]) if flags == Flag.END_HEADERS else block
    frames = talk.send(Kind.HEADERS, flags, 1, trailers)
    assert kinds(frames) == [Kind.RST_STREAM]
    assert code(frames[0]) == ErrorCode.PROTOCOL_ERROR


def test_a_block_may_come_in_continuations() -> None:
    talk = opened()
    block = talk.block(b"/a")
    talk.send(Kind.HEADERS, Flag.END_STREAM, 1, block[:3])
    talk.send(Kind.CONTINUATION, 0, 1, block[3:5])
    assert content(talk.send(Kind.CONTINUATION, Flag.END_HEADERS, 1, block[5:])) == b"/a -"


def test_a_head_with_padding_and_priority_is_answered() -> None:
    talk = opened()
    payload = b"\1" + bytes(5) + talk.block(b"/a") + b"\0"
    flags = WHOLE | Flag.PADDED | Flag.PRIORITY
    assert content(talk.send(Kind.HEADERS, flags, 1, payload)) == b"/a -"


def test_a_flood_of_continuations_ends_the_connection() -> None:
    """threats.md, "HTTP itself": unbounded header; CVE-2024-27316."""
    talk = opened()
    talk.send(Kind.HEADERS, Flag.END_STREAM, 1, b"")
    frames = talk.say(write_frame(Kind.CONTINUATION, 0, 1, bytes(1000)) * 9)
    assert kinds(frames) == [Kind.GOAWAY]
    assert code(frames[0]) == ErrorCode.ENHANCE_YOUR_CALM
    assert talk.echo.bounds == ["doh_head_octets"]
    assert talk.connection.is_done


def test_a_flood_of_empty_continuations_ends_the_connection() -> None:
    """threats.md, "HTTP itself": unbounded header; CVE-2024-27316 without an octet."""
    talk = opened(Limits(doh_control_frames=50))
    talk.send(Kind.HEADERS, Flag.END_STREAM, 1, b"")
    frames = talk.say(write_frame(Kind.CONTINUATION, 0, 1) * 60)
    assert code(frames[-1]) == ErrorCode.ENHANCE_YOUR_CALM
    assert talk.echo.bounds == ["doh_control_frames"]


def test_streams_beyond_the_bound_are_refused_and_may_come_again() -> None:
    """threats.md, "HTTP itself": unbounded stream counts."""
    talk = opened(Limits(doh_streams=2))
    for _ in range(2):
        assert talk.get(b"/wait") == []
    for _ in range(2):
        frames = talk.get(b"/wait")
        assert kinds(frames) == [Kind.RST_STREAM]
        assert code(frames[0]) == ErrorCode.REFUSED_STREAM
    assert talk.echo.bounds == ["doh_streams"] * 2
    talk.connection.reply(1, whole(BLOCK, b"late"))
    talk.frames()
    assert talk.get(b"/wait") == []
    assert len(talk.echo.served) == 3


def test_content_that_is_too_long_is_answered_at_once() -> None:
    """threats.md, "HTTP itself": unbounded body."""
    talk = opened(Limits(doh_body_octets=100))
    talk.send(Kind.HEADERS, Flag.END_HEADERS, 1, talk.block(b"/p", post=True))
    frames = talk.send(Kind.DATA, 0, 1, bytes(101))
    assert talk.echo.served == [(1, b"/p", None)]
    assert kinds(frames) == [Kind.HEADERS, Kind.DATA, Kind.RST_STREAM]
    assert code(frames[2]) == ErrorCode.NO_ERROR
    assert talk.echo.bounds == ["doh_body_octets"]


def test_what_is_final_is_answered_before_its_content() -> None:
    talk = opened()
    frames = talk.send(Kind.HEADERS, Flag.END_HEADERS, 1, talk.block(b"/final", post=True))
    assert kinds(frames) == [Kind.HEADERS, Kind.DATA, Kind.RST_STREAM]
    assert talk.memory.known == {}
    assert talk.send(Kind.DATA, Flag.END_STREAM, 1, b"late") == []
    assert len(talk.echo.served) == 1


def refused(frames: list[Frame]) -> bool:
    """Return whether a stream was reset because it is closed."""
    return kinds(frames) == [Kind.RST_STREAM] and code(frames[0]) == ErrorCode.STREAM_CLOSED


def begun(talk: Talk) -> int:
    """Return a stream that was answered early."""
    stream = talk.next()
    assert talk.send(Kind.HEADERS, Flag.END_HEADERS, stream, talk.block(b"/final", post=True))
    return stream


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.HEADERS])
def test_what_was_under_way_when_we_ended_a_stream_is_ignored_once(kind: Kind) -> None:
    """RFC 9113, section 5.1."""
    talk = opened()
    stream = begun(talk)
    last = talk.encoder.encode([(b"a", b"b")]) if kind == Kind.HEADERS else b"late"
    assert talk.send(Kind.DATA, 0, stream, b"late") == []
    assert talk.send(kind, WHOLE, stream, last) == []
    assert refused(talk.send(kind, WHOLE, stream, last))


def test_a_stream_s_window_is_what_may_have_been_under_way() -> None:
    talk = opened()
    stream, part = begun(talk), bytes(16384)
    for _ in range(STREAM_WINDOW // len(part)):
        frames = talk.send(Kind.DATA, 0, stream, part)
        assert set(kinds(frames)) <= {Kind.WINDOW_UPDATE}  # the connection's, given back
    assert refused(talk.send(Kind.DATA, 0, stream, b"x"))


def test_few_streams_are_remembered_for_what_was_under_way() -> None:
    talk = opened(Limits(doh_streams=2))
    first, second, third = (begun(talk) for _ in range(3))
    assert refused(talk.send(Kind.DATA, 0, first, b"late"))
    assert talk.send(Kind.DATA, 0, third, b"late") == []
    assert talk.send(Kind.RST_STREAM, 0, second, bytes(4)) == []
    assert refused(talk.send(Kind.DATA, 0, second, b"late"))


def test_an_early_reply_that_the_window_holds_back_outlives_what_was_under_way() -> None:
    talk = opened()
    talk.say(write_settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    stream = begun(talk)
    assert talk.send(Kind.DATA, 0, stream, b"late") == []
    frames = talk.send(Kind.WINDOW_UPDATE, 0, stream, (100).to_bytes(4))
    assert kinds(frames) == [Kind.DATA, Kind.RST_STREAM]
    assert code(frames[1]) == ErrorCode.NO_ERROR


def test_a_flood_after_an_early_reply_ends_the_connection() -> None:
    talk = opened(Limits(doh_control_frames=50))
    frames = talk.say(write_frame(Kind.DATA, 0, begun(talk)) * 60)
    assert code(frames[-1]) == ErrorCode.ENHANCE_YOUR_CALM


def test_a_reply_comes_when_it_is_there() -> None:
    talk = opened()
    talk.get(b"/a")
    talk.get(b"/wait")
    assert talk.get(b"/wait") == []  # known by its octets
    assert talk.connection.is_waited_for
    reply = whole(BLOCK, b"late")
    talk.connection.reply(5, reply)
    talk.connection.reply(3, reply)
    assert [frame.stream for frame in talk.frames()] == [5, 5, 3, 3]
    talk.connection.reply(3, reply)  # answered already
    assert talk.frames() == []
    assert not talk.connection.is_waited_for


def test_a_window_that_is_widened_before_the_reply_counts_for_it() -> None:
    talk = opened()
    talk.say(write_settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    talk.get(b"/wait")
    talk.send(Kind.WINDOW_UPDATE, 0, 1, (4).to_bytes(4))
    talk.connection.reply(1, whole(BLOCK, b"late"))
    assert content(talk.frames()) == b"late"


def test_a_stream_that_is_reset_is_cancelled_and_not_answered() -> None:
    talk = opened()
    talk.get(b"/wait")
    assert talk.send(Kind.RST_STREAM, 0, 1, bytes(4)) == []
    assert talk.echo.cancelled == [1]
    talk.connection.reply(1, whole(BLOCK, b"late"))
    assert talk.frames() == []


def test_a_rapid_reset_ends_the_connection() -> None:
    """threats.md, "HTTP itself": unbounded stream counts; CVE-2023-44487."""
    talk = opened(Limits(doh_control_frames=100, doh_control_frames_a_second=0))
    frames: list[Frame] = []
    for _ in range(120):
        stream = talk.next()
        frames += talk.send(Kind.HEADERS, WHOLE, stream, talk.block(b"/wait"))
        frames += talk.send(Kind.RST_STREAM, 0, stream, (8).to_bytes(4))
    assert kinds(frames) == [Kind.GOAWAY]
    assert code(frames[0]) == ErrorCode.ENHANCE_YOUR_CALM
    assert len(talk.echo.served) <= 100


def test_a_client_that_waits_for_replies_may_reset_some() -> None:
    talk = opened(Limits(doh_control_frames=10, doh_control_frames_a_second=0))
    for _ in range(60):
        talk.get(b"/a")
        stream = talk.next()
        talk.send(Kind.HEADERS, WHOLE, stream, talk.block(b"/wait"))
        assert talk.send(Kind.RST_STREAM, 0, stream, bytes(4)) == []


@pytest.mark.parametrize(
    ("kind", "flags", "stream"),
    [
        pytest.param(Kind.HEADERS, WHOLE, 0, id="HEADERS on 0"),
        pytest.param(Kind.HEADERS, WHOLE, 2, id="HEADERS on an even stream"),
        pytest.param(Kind.DATA, 0, 0, id="DATA on 0"),
        pytest.param(Kind.DATA, 0, 2, id="DATA on an even stream"),
        pytest.param(Kind.DATA, 0, 9, id="DATA on an idle stream"),
        pytest.param(Kind.CONTINUATION, 0, 1, id="CONTINUATION of nothing"),
        pytest.param(Kind.HEADERS, WHOLE | Flag.PADDED, 1, id="padding that is not there"),
    ],
)
def test_a_frame_that_has_no_place_ends_the_connection(kind: int, flags: int, stream: int) -> None:
    talk = opened()
    talk.get(b"/a")
    talk.next()
    frames = talk.send(kind, flags, stream)
    assert (kinds(frames), code(frames[0])) == ([Kind.GOAWAY], ErrorCode.PROTOCOL_ERROR)


def test_a_frame_between_a_block_s_parts_ends_the_connection() -> None:
    talk = opened()
    talk.get(b"/a")
    block = talk.block(b"/a")
    talk.send(Kind.HEADERS, Flag.END_STREAM, 3, block[:2])
    frames = talk.send(Kind.HEADERS, WHOLE, 5, block)  # its block is known
    assert (kinds(frames), code(frames[0])) == ([Kind.GOAWAY], ErrorCode.PROTOCOL_ERROR)
    assert len(talk.echo.served) == 1


@pytest.mark.parametrize("path", [b"/a", b"/wait"])
def test_a_stream_is_used_once(path: bytes) -> None:
    """RFC 9113, section 5.1.1: whether its reply was sent or is awaited."""
    talk = opened()
    talk.get(b"/b")
    talk.get(path)
    talk.next()
    for stream in (3, 1):
        frames = talk.send(Kind.HEADERS, WHOLE, stream, talk.block(path))
        assert (kinds(frames), code(frames[0])) == ([Kind.RST_STREAM], ErrorCode.STREAM_CLOSED)


def test_a_known_head_on_an_even_stream_ends_the_connection() -> None:
    talk = opened()
    for _ in range(2):
        talk.get(b"/a")
    frames = talk.send(Kind.HEADERS, WHOLE, 6, talk.block(b"/a"))
    assert kinds(frames) == [Kind.GOAWAY]


def test_a_malformed_head_ends_its_stream_only() -> None:
    talk = opened()
    frames = talk.get(b"/a", (b"Upper", b"x"))
    assert (kinds(frames), code(frames[0])) == ([Kind.RST_STREAM], ErrorCode.PROTOCOL_ERROR)
    assert content(talk.get(b"/a")) == b"/a -"


def test_more_content_than_the_windows_let_ends_stream_or_connection() -> None:
    talk = opened()
    talk.send(Kind.HEADERS, Flag.END_HEADERS, 1, talk.block(b"/p", post=True))
    padded = write_frame(Kind.DATA, Flag.PADDED, 1, b"\xff" + bytes(255))
    frames = talk.say(padded * (STREAM_WINDOW // 256 + 1))
    assert kinds(frames) == [Kind.RST_STREAM, Kind.WINDOW_UPDATE]
    assert code(frames[0]) == ErrorCode.FLOW_CONTROL_ERROR


def test_the_connection_s_window_bounds_what_its_streams_hold() -> None:
    talk = opened(Limits(doh_body_octets=STREAM_WINDOW))
    frames: list[Frame] = []
    for _ in range(CONNECTION_WINDOW // (4 * 16000) + 1):
        stream = talk.next()
        talk.send(Kind.HEADERS, Flag.END_HEADERS, stream, talk.block(b"/p", post=True))
        frames += talk.say(write_frame(Kind.DATA, 0, stream, bytes(16000)) * 4)
    assert kinds(frames) == [Kind.GOAWAY]
    assert code(frames[0]) == ErrorCode.FLOW_CONTROL_ERROR


def test_what_is_owed_is_given_back_before_a_stream_is_refused() -> None:
    talk = opened()
    whole, *streams = [talk.next() for _ in range(5)]
    for stream in (whole, *streams):
        talk.send(Kind.HEADERS, Flag.END_HEADERS, stream, talk.block(b"/p", post=True))
    talk.send(Kind.DATA, Flag.END_STREAM, whole, bytes(4096))
    left = CONNECTION_WINDOW - 4096
    frames: list[Frame] = []
    for stream in streams:
        octets = min(left, 65535)
        left -= octets
        for at in range(0, octets, 16384):
            frames += talk.send(Kind.DATA, 0, stream, bytes(min(16384, octets - at)))
    assert left == 0
    assert [(frame.kind, frame.payload) for frame in frames] == [
        (Kind.WINDOW_UPDATE, (4096).to_bytes(4))
    ]


def test_streams_that_fill_the_window_together_do_not_wait_for_ever() -> None:
    """RFC 9113, section 5.2.2: a client that is fair to its streams would never end one."""
    talk = opened()
    streams = [talk.next() for _ in range(8)]
    for stream in streams:
        talk.send(Kind.HEADERS, Flag.END_HEADERS, stream, talk.block(b"/p", post=True))
    idle = talk.next()
    talk.send(Kind.HEADERS, Flag.END_HEADERS, idle, talk.block(b"/p", post=True))
    frames: list[Frame] = []
    for _ in range(2):
        for stream in streams:
            assert not frames
            frames += talk.send(Kind.DATA, 0, stream, bytes(16384))
    refused, update = frames
    assert (refused.kind, refused.stream) == (Kind.RST_STREAM, streams[-1])
    assert code(refused) == ErrorCode.REFUSED_STREAM
    assert (update.kind, update.stream) == (Kind.WINDOW_UPDATE, 0)
    assert int.from_bytes(update.payload) == 2 * 16384
    assert talk.echo.bounds == ["doh_streams"]
    ended = talk.send(Kind.DATA, Flag.END_STREAM, streams[0], b"end")
    assert content(ended, streams[0]).startswith(b"/p ")
    assert Kind.WINDOW_UPDATE in kinds(ended)


def test_content_that_was_taken_is_given_back() -> None:
    talk = opened()
    updates = 0
    for _ in range(20):
        stream = talk.next()
        talk.send(Kind.HEADERS, Flag.END_HEADERS, stream, talk.block(b"/wait", post=True))
        frames = talk.send(Kind.DATA, Flag.END_STREAM, stream, bytes(16384))
        updates += sum(
            int.from_bytes(frame.payload) for frame in frames if frame.kind == Kind.WINDOW_UPDATE
        )
    assert updates >= 20 * 16384 - CONNECTION_WINDOW // 4


def test_empty_content_that_ends_nothing_is_counted() -> None:
    """threats.md, "Parser, transport, cache": exhaustion; CVE-2019-9518."""
    talk = opened(Limits(doh_control_frames=20, doh_control_frames_a_second=0))
    talk.send(Kind.HEADERS, Flag.END_HEADERS, 1, talk.block(b"/p", post=True))
    frames = talk.say(write_frame(Kind.DATA, 0, 1) * 30)
    assert code(frames[-1]) == ErrorCode.ENHANCE_YOUR_CALM


def test_a_client_that_takes_no_replies_gets_no_more_streams() -> None:
    """threats.md, "Parser, transport, cache": exhaustion; here by a client that never reads."""
    talk = opened(Limits(doh_unsent_octets=50000))
    frames: list[Frame] = []
    for _ in range(2):
        frames += talk.get(b"/large/60000")
    assert len(content(frames)) == 65535
    refused = talk.get(b"/a")
    assert (refused[0].kind, code(refused[0])) == (Kind.RST_STREAM, ErrorCode.REFUSED_STREAM)
    assert talk.echo.bounds == ["doh_unsent_octets"]
    talk.send(Kind.WINDOW_UPDATE, 0, 0, (1 << 20).to_bytes(4))
    assert content(talk.get(b"/a")) == b"/a -"


def test_after_goaway_nothing_new_is_served() -> None:
    talk = opened()
    talk.get(b"/wait")
    talk.get(b"/a")
    talk.connection.leave()
    talk.connection.leave()
    frames = talk.frames()
    assert [(frame.kind, code(frame)) for frame in frames] == [(Kind.GOAWAY, ErrorCode.NO_ERROR)]
    assert frames[0].payload[:4] == (3).to_bytes(4)
    assert talk.get(b"/a") == []
    assert talk.send(Kind.DATA, Flag.END_STREAM, 5, b"of the one that is ignored") == []
    assert not talk.connection.is_done
    talk.connection.reply(1, whole(BLOCK, b"late"))
    assert kinds(talk.frames()) == [Kind.HEADERS, Kind.DATA]
    assert talk.connection.is_done


def test_an_error_of_the_connection_cancels_what_is_awaited() -> None:
    talk = opened()
    talk.get(b"/wait")
    talk.send(Kind.HEADERS, Flag.END_HEADERS, talk.next(), talk.block(b"/p", post=True))
    assert kinds(talk.send(Kind.PING, 0, 0, b"short")) == [Kind.GOAWAY]
    assert talk.echo.cancelled == [1]
    assert talk.get(b"/a") == []


def test_the_memory_of_heads_is_bounded() -> None:
    talk = opened(Limits(doh_known_heads=2))
    for number in range(5):
        talk.get(b"/%d" % number)
    assert len(talk.memory.known) == 2
    assert talk.evicted == 2  # the first came while the table was being emptied
