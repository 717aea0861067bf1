"""Send flow control: content waits for windows, and goes out in order."""

import pytest

from proxy.wire.h2_frame import ErrorCode, Flag, H2Error, Kind
from proxy.wire.h2_reply import whole
from proxy.wire.h2_sending import Sending
from tests.proxy.wire.h2_peer import Frame, content, kinds, split

ONE, THREE = (1).to_bytes(4), (3).to_bytes(4)
BLOCK = b"\x88"


def out(sending: Sending) -> list[Frame]:
    return list(split(sending.take()))


def test_a_reply_within_the_windows_is_sent_at_once() -> None:
    sending = Sending()
    sending.reply(ONE, whole(BLOCK, b"answer"))
    frames = out(sending)
    assert kinds(frames) == [Kind.HEADERS, Kind.DATA]
    assert content(frames) == b"answer"
    assert frames[1].flags == Flag.END_STREAM
    assert sending.take() == b""


def test_a_reply_without_content_ends_with_its_head() -> None:
    sending = Sending()
    sending.reply(ONE, whole(BLOCK, b""))
    assert out(sending) == [
        Frame(Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, 1, BLOCK),
    ]
    assert not sending.unsent


def test_large_content_is_cut_into_frames() -> None:
    sending = Sending()
    sending.reply(ONE, whole(BLOCK, bytes(40000)))
    frames = out(sending)
    assert [len(frame.payload) for frame in frames[1:]] == [16384, 16384, 7232]
    assert [frame.flags for frame in frames[1:]] == [0, 0, Flag.END_STREAM]


def test_the_connection_s_window_holds_content_back() -> None:
    sending = Sending()
    sending.reply(ONE, whole(BLOCK, bytes(60000)))
    sending.reply(THREE, whole(BLOCK, b"x" * 9000))
    assert len(content(out(sending), 3)) == 65535 - 60000
    assert sending.unsent_octets == 9000 - 5535
    sending.widen(0, 1000)
    assert len(content(out(sending), 3)) == 1000
    sending.widen(0, 100000)
    last = out(sending)
    assert len(content(last, 3)) == 9000 - 6535
    assert last[-1].flags == Flag.END_STREAM
    assert not sending.unsent
    sending.reply(ONE, whole(BLOCK, b"plain again"))
    assert content(out(sending)) == b"plain again"


def test_a_zero_window_of_streams_holds_content_back() -> None:
    """threats.md, "Parser, transport, cache": exhaustion; here by windows that never open."""
    sending = Sending()
    sending.begin_with(0)
    sending.reply(ONE, whole(BLOCK, b"answer"))
    assert kinds(out(sending)) == [Kind.HEADERS]
    assert sending.unsent_octets == 6
    sending.widen(1, 2)
    assert content(out(sending)) == b"an"
    sending.begin_with(1)
    assert content(out(sending)) == b"s"
    sending.begin_with(100)
    assert content(out(sending)) == b"wer"


def test_a_window_may_fall_below_zero() -> None:
    """RFC 9113, section 6.9.2."""
    sending = Sending()
    sending.begin_with(4)
    sending.reply(ONE, whole(BLOCK, b"answer"))
    assert content(out(sending)) == b"answ"
    sending.begin_with(1)  # the stream's window is -3 now
    sending.widen(1, 3)
    assert content(out(sending)) == b""
    sending.widen(1, 1)
    assert content(out(sending)) == b"e"


def test_a_stream_s_own_window_counts_before_its_reply() -> None:
    sending = Sending()
    sending.begin_with(0)
    sending.widen(1, 6)
    sending.reply(ONE, whole(BLOCK, b"answer"))
    assert content(out(sending)) == b"answer"


def test_what_is_reset_is_not_sent() -> None:
    sending = Sending()
    sending.begin_with(0)
    sending.reply(ONE, whole(BLOCK, b"answer"))
    sending.take()
    sending.forget(1)
    sending.begin_with(100)
    assert out(sending) == []
    assert sending.unsent_octets == 0


def test_an_early_reply_is_followed_after_its_last_octet() -> None:
    sending = Sending()
    sending.begin_with(3)
    sending.reply_early(1, whole(BLOCK, b"answer"), b"then")
    assert not sending.take().endswith(b"then")
    sending.begin_with(6)
    assert sending.take().endswith(b"then")


def test_a_table_that_the_peer_shrinks_is_told_shrunk_once() -> None:
    """RFC 9113, section 4.3.1: hpack readers refuse a block without the update."""
    sending = Sending()
    sending.shrink_table(8192)
    sending.reply(ONE, whole(BLOCK, b"a"))
    assert out(sending)[0].payload == BLOCK
    sending.shrink_table(0)
    for block in (b"\x20" + BLOCK, BLOCK):
        sending.reply(THREE, whole(BLOCK, b"a"))
        assert out(sending)[0].payload == block


@pytest.mark.parametrize("stream", [0, 1])
def test_refuses_a_window_over_2_31(stream: int) -> None:
    sending = Sending()
    with pytest.raises(H2Error) as refused:
        sending.widen(stream, 2**31 - 1)
    assert (refused.value.code, refused.value.stream) == (ErrorCode.FLOW_CONTROL_ERROR, stream)


def test_refuses_settings_that_widen_a_stream_over_2_31() -> None:
    sending = Sending()
    sending.widen(1, 1)
    with pytest.raises(H2Error) as refused:
        sending.begin_with(2**31 - 1)
    assert refused.value.stream == 0
