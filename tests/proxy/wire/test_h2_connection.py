"""An HTTP/2 connection: its beginning, its control frames, its end; the h2 library as a client."""

import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.limits import Limits
from proxy.wire.h2_connection import TURN, TURN_OCTETS
from proxy.wire.h2_frame import (
    PREFACE,
    SETTINGS_ACK,
    ErrorCode,
    Flag,
    Kind,
    Setting,
    read_settings,
    write_frame,
    write_settings,
    write_window_update,
)
from proxy.wire.h2_reply import whole
from tests.proxy.wire.h2_peer import BLOCK, WHOLE, Talk, code, content, kinds


def opened(limits: Limits | None = None) -> Talk:
    talk = Talk(limits)
    talk.open()
    return talk


def test_says_what_it_takes_before_anything_else() -> None:
    limits = Limits()
    settings, update = Talk(limits).frames()
    assert settings.kind == Kind.SETTINGS
    assert dict(read_settings(settings.payload)) == {
        Setting.HEADER_TABLE_SIZE: 0,
        Setting.MAX_CONCURRENT_STREAMS: limits.doh_streams,
        Setting.INITIAL_WINDOW_SIZE: 131072,
        Setting.MAX_HEADER_LIST_SIZE: limits.doh_head_octets,
    }
    assert (update.kind, update.stream) == (Kind.WINDOW_UPDATE, 0)


def test_settings_are_acknowledged() -> None:
    assert kinds(
        opened().say(write_settings({Setting.MAX_FRAME_SIZE: 20000, Setting.ENABLE_PUSH: 0}))
    ) == [Kind.SETTINGS]


def test_the_preface_may_come_octet_by_octet() -> None:
    talk = Talk()
    talk.frames()
    for octet in PREFACE:
        assert talk.say(bytes((octet,))) == []
    assert kinds(talk.say(write_settings({}))) == [Kind.SETTINGS]


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"])
def test_what_does_not_begin_as_http2_is_ended(octets: bytes) -> None:
    talk = Talk()
    talk.frames()
    frames = talk.say(octets)
    assert (kinds(frames), code(frames[0])) == ([Kind.GOAWAY], ErrorCode.PROTOCOL_ERROR)
    assert talk.connection.is_done
    assert talk.say(PREFACE) == []


@pytest.mark.parametrize("first", [SETTINGS_ACK, write_frame(Kind.PING, 0, 0, bytes(8))])
def test_settings_come_first(first: bytes) -> None:
    """RFC 9113, section 3.4."""
    talk = Talk()
    talk.frames()
    frames = talk.say(PREFACE + first)
    assert (kinds(frames), code(frames[0])) == ([Kind.GOAWAY], ErrorCode.PROTOCOL_ERROR)


def test_a_ping_is_answered_and_an_answer_is_not() -> None:
    talk = opened()
    (pong,) = talk.send(Kind.PING, 0, 0, b"12345678")
    assert (pong.kind, pong.flags, pong.payload) == (Kind.PING, Flag.ACK, b"12345678")
    assert talk.send(Kind.PING, Flag.ACK, 0, b"12345678") == []


def test_frames_that_say_nothing_to_us_are_taken() -> None:
    talk = opened()
    talk.get(b"/a")
    for kind, stream, payload in (
        (Kind.PRIORITY, 7, bytes(5)),
        (Kind.GOAWAY, 0, bytes(8)),
        (0xBE, 3, b"unknown"),
        (Kind.WINDOW_UPDATE, 1, (5).to_bytes(4)),
        (Kind.RST_STREAM, 1, bytes(4)),
    ):
        assert talk.send(kind, 0, stream, payload) == []
    assert content(talk.get(b"/a")) == b"/a -"


@pytest.mark.parametrize(
    ("kind", "flags", "stream", "payload", "expected"),
    [
        (Kind.PING, 0, 0, bytes(7), ErrorCode.FRAME_SIZE_ERROR),
        (Kind.PING, 0, 1, bytes(8), ErrorCode.PROTOCOL_ERROR),
        (Kind.SETTINGS, Flag.ACK, 0, bytes(6), ErrorCode.FRAME_SIZE_ERROR),
        (Kind.SETTINGS, 0, 1, b"", ErrorCode.PROTOCOL_ERROR),
        (Kind.SETTINGS, 0, 0, bytes(5), ErrorCode.FRAME_SIZE_ERROR),
        (Kind.SETTINGS, 0, 0, b"\0\4\xff\0\0\0", ErrorCode.FLOW_CONTROL_ERROR),
        (Kind.GOAWAY, 0, 1, bytes(8), ErrorCode.PROTOCOL_ERROR),
        (Kind.PRIORITY, 0, 0, bytes(5), ErrorCode.PROTOCOL_ERROR),
        (Kind.RST_STREAM, 0, 0, bytes(4), ErrorCode.PROTOCOL_ERROR),
        (Kind.RST_STREAM, 0, 1, bytes(3), ErrorCode.FRAME_SIZE_ERROR),
        (Kind.RST_STREAM, 0, 99, bytes(4), ErrorCode.PROTOCOL_ERROR),
        (Kind.WINDOW_UPDATE, 0, 0, bytes(4), ErrorCode.PROTOCOL_ERROR),
        (Kind.WINDOW_UPDATE, 0, 0, bytes(3), ErrorCode.FRAME_SIZE_ERROR),
        (Kind.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff", ErrorCode.FLOW_CONTROL_ERROR),
        (Kind.WINDOW_UPDATE, 0, 99, (1).to_bytes(4), ErrorCode.PROTOCOL_ERROR),
        (Kind.PUSH_PROMISE, 0, 1, bytes(8), ErrorCode.PROTOCOL_ERROR),
        (Kind.HEADERS, WHOLE, 3, b"\xff\xff\xff", ErrorCode.COMPRESSION_ERROR),
    ],
)
def test_what_breaks_the_connection_ends_it(
    kind: int, flags: int, stream: int, payload: bytes, expected: ErrorCode
) -> None:
    talk = opened()
    talk.get(b"/a")
    frames = talk.send(kind, flags, stream, payload)
    assert (kinds(frames), code(frames[0])) == ([Kind.GOAWAY], expected)
    assert talk.connection.is_over


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        (Kind.PRIORITY, bytes(4), ErrorCode.FRAME_SIZE_ERROR),
        (Kind.WINDOW_UPDATE, bytes(4), ErrorCode.PROTOCOL_ERROR),
        (Kind.WINDOW_UPDATE, b"\x7f\xff\xff\xff", ErrorCode.FLOW_CONTROL_ERROR),
    ],
)
def test_what_breaks_a_stream_ends_that(kind: int, payload: bytes, expected: ErrorCode) -> None:
    talk = opened()
    talk.get(b"/wait")
    frames = talk.send(kind, 0, 1, payload)
    assert (kinds(frames), code(frames[0])) == ([Kind.RST_STREAM], expected)
    assert talk.echo.cancelled == [1]
    assert not talk.connection.is_over


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(write_frame(Kind.PING, 0, 0, bytes(8)), id="PING"),
        pytest.param(write_settings({}), id="SETTINGS"),
        pytest.param(write_frame(Kind.PRIORITY, 0, 1, bytes(5)), id="PRIORITY"),
        pytest.param(write_frame(0xBE, 0, 1), id="unknown"),
        pytest.param(write_window_update(0, 1), id="WINDOW_UPDATE"),
        pytest.param(write_frame(Kind.DATA, 0, 1), id="errors of streams"),
        pytest.param(write_frame(Kind.GOAWAY, 0, 0, bytes(8)), id="GOAWAY"),
    ],
)
def test_a_flood_of_frames_that_ask_nothing_ends_the_connection(frame: bytes) -> None:
    """threats.md, "Parser, transport, cache": exhaustion; CVE-2019-9512, -9515, -9518."""
    talk = opened(Limits(doh_control_frames=50, doh_control_frames_a_second=0))
    talk.get(b"/a")
    frames = talk.say(frame * 100)
    assert (frames[-1].kind, code(frames[-1])) == (Kind.GOAWAY, ErrorCode.ENHANCE_YOUR_CALM)
    assert len(frames) <= 54
    assert talk.echo.bounds == ["doh_control_frames"]


def test_pings_now_and_then_are_no_flood() -> None:
    talk = opened(Limits(doh_control_frames=5, doh_control_frames_a_second=1))
    for _ in range(50):
        talk.now += 1.0
        assert kinds(talk.send(Kind.PING, 0, 0, bytes(8))) == [Kind.PING]


def test_a_frame_that_is_too_long_is_not_waited_for() -> None:
    talk = opened()
    frames = talk.say((16385).to_bytes(3) + bytes(6))
    assert (kinds(frames), code(frames[0])) == ([Kind.GOAWAY], ErrorCode.FRAME_SIZE_ERROR)


def test_a_turn_takes_few_frames_that_have_to_be_read() -> None:
    """Decoding a block takes a tenth of a millisecond; a long one takes three."""
    talk = opened()
    talk.get(b"/a")
    heads = [talk.block(b"/%d" % number) for number in range(TURN)]
    frames = [write_frame(Kind.HEADERS, WHOLE, talk.next(), block) for block in heads]
    assert talk.connection.receive(b"".join(frames), 0.0)
    assert len(talk.echo.served) == 1 + 6
    while talk.connection.go_on(0.0):
        pass
    assert len(talk.echo.served) == 1 + TURN
    long = talk.block(b"/a", (b"b", b"x" * 7000))
    frames = [write_frame(Kind.HEADERS, WHOLE, talk.next(), long) for _ in range(3)]
    assert talk.connection.receive(b"".join(frames), 0.0)
    assert len(talk.echo.served) == 2 + TURN + 1


def test_a_turn_takes_so_many_frames() -> None:
    talk = opened()
    for _ in range(2):
        talk.get(b"/a")
    octets = b"".join(
        write_frame(Kind.HEADERS, WHOLE, talk.next(), talk.block(b"/a")) for _ in range(TURN + 1)
    )
    assert talk.connection.receive(octets, 0.0)
    assert len(talk.frames()) == 2 * TURN
    assert not talk.connection.go_on(0.0)
    assert content(talk.frames()) == b"/a -"


def test_a_turn_writes_so_much() -> None:
    talk = opened()
    talk.say(
        write_settings({Setting.INITIAL_WINDOW_SIZE: 1 << 30}) + write_window_update(0, 1 << 30)
    )
    octets = b"".join(
        write_frame(Kind.HEADERS, WHOLE, talk.next(), talk.block(b"/large/60000"))
        for _ in range(10)
    )
    assert talk.connection.receive(octets, 0.0)
    assert TURN_OCTETS <= len(talk.connection.take()) < TURN_OCTETS + 61000
    while talk.connection.go_on(0.0):
        pass
    assert len(talk.echo.served) == 10


def test_a_late_reply_is_sent_and_the_last_one_ends_what_is_left() -> None:
    talk = opened()
    talk.get(b"/wait")
    assert talk.connection.is_waited_for
    talk.connection.leave()
    talk.connection.leave()
    assert kinds(talk.frames()) == [Kind.GOAWAY]
    done = [talk.connection.is_done]
    talk.connection.reply(1, whole(BLOCK, b"late"))
    done.append(talk.connection.is_done)
    assert content(talk.frames()) == b"late"
    assert done == [False, True]
    assert talk.connection.replies == 1


def test_what_was_sent_before_our_goaway_came_spoils_no_reply_that_is_due() -> None:
    """RFC 9113, section 6.8: a POST may cross the GOAWAY; its stream is ignored."""
    talk = opened()
    talk.get(b"/wait")
    talk.connection.leave()
    assert kinds(talk.frames()) == [Kind.GOAWAY]
    for kind, flags, payload in (
        (Kind.HEADERS, Flag.END_HEADERS, talk.block(b"/a")),
        (Kind.WINDOW_UPDATE, 0, (9).to_bytes(4)),
        (Kind.DATA, 0, b"query"),
        (Kind.RST_STREAM, 0, bytes(4)),
    ):
        assert talk.say(write_frame(kind, flags, 3, payload)) == []
    talk.connection.reply(1, whole(BLOCK, b"late"))
    assert content(talk.frames()) == b"late"
    assert kinds(talk.send(Kind.DATA, 0, 5, b"idle")) == [Kind.GOAWAY]


def test_another_stream_s_continuation_ends_the_connection() -> None:
    talk = opened()
    talk.send(Kind.HEADERS, Flag.END_STREAM, 1, b"")
    frames = talk.send(Kind.CONTINUATION, Flag.END_HEADERS, 3, talk.block(b"/a"))
    assert (kinds(frames), code(frames[0])) == ([Kind.GOAWAY], ErrorCode.PROTOCOL_ERROR)


def test_a_peer_that_has_no_table_is_told_that_ours_is_empty() -> None:
    talk = opened()
    talk.say(write_settings({Setting.HEADER_TABLE_SIZE: 0}))
    assert talk.get(b"/a")[0].payload == b"\x20" + BLOCK


def test_a_window_is_widened_for_what_waits() -> None:
    talk = opened()
    talk.say(write_settings({Setting.INITIAL_WINDOW_SIZE: 2}))
    assert content(talk.get(b"/a")) == b"/a"
    assert content(talk.send(Kind.WINDOW_UPDATE, 0, 1, (2).to_bytes(4))) == b" -"


def test_of_many_windows_in_one_frame_the_last_one_counts() -> None:
    """threats.md, Parser, transport, cache: a frame's settings, each a walk over all streams."""
    talk = opened()
    talk.say(write_settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    assert kinds(talk.get(b"/a")) == [Kind.HEADERS]
    window = Setting.INITIAL_WINDOW_SIZE.to_bytes(2)
    many = b"".join(window + octets.to_bytes(4) for octets in (*range(2000), 0))
    assert kinds(talk.say(write_frame(Kind.SETTINGS, 0, 0, many))) == [Kind.SETTINGS]
    assert content(talk.say(write_settings({Setting.INITIAL_WINDOW_SIZE: 9}))) == b"/a -"


def test_what_comes_while_octets_wait_is_taken_after_them() -> None:
    talk = opened()
    frames = [
        write_frame(Kind.HEADERS, WHOLE, talk.next(), talk.block(b"/a")) for _ in range(TURN + 4)
    ]
    assert talk.connection.receive(b"".join(frames[:-2]), 0.0)
    talk.connection.receive(b"".join(frames[-2:]), 0.0)
    assert [each[0] for each in talk.echo.served] == list(range(1, 2 * TURN + 8, 2))


@given(st.lists(st.integers(1, 40), max_size=30))
def test_how_the_octets_are_cut_changes_nothing(cuts: list[int]) -> None:
    talk, whole = Talk(), Talk()
    encoder = talk.encoder
    encoder.header_table_size = 0
    octets = PREFACE + write_settings({}) + SETTINGS_ACK
    for stream in range(1, 12, 2):
        octets += write_frame(
            Kind.HEADERS,
            WHOLE,
            stream,
            whole.block(b"/a") if stream > 1 else b"\x20" + whole.block(b"/a"),
        )
    expected = whole.say(octets)
    got = talk.frames()
    for cut in cuts:
        got += talk.say(octets[:cut])
        octets = octets[cut:]
    assert got + talk.say(octets) == expected


def test_the_h2_library_asks_and_is_answered() -> None:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    talk = Talk()
    client.initiate_connection()
    got: dict[int, bytes] = {}
    sent = 0
    for turn in range(40):
        for _ in range(8):
            stream = client.get_next_available_stream_id()
            head = [(":method", "POST"), (":scheme", "https"), (":authority", "a"), (":path", "/x")]
            client.send_headers(stream, head)
            client.send_data(stream, bytes(1 + turn), end_stream=True)
            sent += 1
        talk.connection.receive(client.data_to_send(), talk.now)
        while talk.connection.go_on(talk.now):
            pass
        for event in client.receive_data(talk.connection.take()):
            if isinstance(event, h2.events.DataReceived):
                client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                got[event.stream_id] = got.get(event.stream_id, b"") + event.data
    assert len(got) == sent == len(talk.echo.served)
    assert set(got.values()) == {b"/x " + bytes(1 + turn) for turn in range(40)}
