"""Frames of HTTP/2, held against hyperframe."""

import pytest
from hyperframe.frame import Frame as TheirFrame
from hyperframe.frame import GoAwayFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.h2_frame import (
    SETTINGS_ACK,
    ErrorCode,
    Flag,
    H2Error,
    Kind,
    Setting,
    check_octets,
    read_head,
    read_increment,
    read_settings,
    unpadded,
    without_priority,
    write_frame,
    write_goaway,
    write_reset,
    write_settings,
    write_window_update,
)


def theirs(octets: bytes) -> TheirFrame:
    frame, length = TheirFrame.parse_frame_header(memoryview(octets[:9]))
    frame.parse_body(memoryview(octets[9 : 9 + length]))
    assert len(octets) == 9 + length
    return frame


def test_writes_what_another_reader_reads() -> None:
    settings = theirs(write_settings({Setting.HEADER_TABLE_SIZE: 0, Setting.MAX_FRAME_SIZE: 16384}))
    assert isinstance(settings, SettingsFrame)
    assert settings.settings == {1: 0, 5: 16384}
    reset = theirs(write_reset(7, ErrorCode.CANCEL))
    assert isinstance(reset, RstStreamFrame)
    assert (reset.stream_id, reset.error_code) == (7, 8)
    goaway = theirs(write_goaway(9, ErrorCode.ENHANCE_YOUR_CALM, "calm"))
    assert isinstance(goaway, GoAwayFrame)
    assert (goaway.last_stream_id, goaway.error_code, goaway.additional_data) == (9, 11, b"calm")
    update = theirs(write_window_update(3, 70000))
    assert isinstance(update, WindowUpdateFrame)
    assert (update.stream_id, update.window_increment) == (3, 70000)
    assert "ACK" in theirs(SETTINGS_ACK).flags


def test_a_payload_that_no_frame_holds_is_a_bug_of_ours() -> None:
    with pytest.raises(OverflowError):
        write_frame(0, 0, 1, bytes(1 << 24))


def test_reads_a_head_and_ignores_the_reserved_bit() -> None:
    octets = write_frame(Kind.PING, Flag.ACK, 0x8000_0005, bytes(8))
    assert read_head(b"x" + octets, 1) == (8, Kind.PING, Flag.ACK, 5)


def test_refuses_a_frame_that_is_longer_than_was_announced() -> None:
    with pytest.raises(H2Error) as refused:
        read_head((16385).to_bytes(3) + bytes(6), 0)
    assert (refused.value.code, refused.value.stream) == (ErrorCode.FRAME_SIZE_ERROR, 0)
    assert read_head((16384).to_bytes(3) + bytes(6), 0)[0] == 16384


@given(st.binary(max_size=40), st.integers(0, 255))
def test_padding_is_taken_off(content: bytes, padding: int) -> None:
    payload = bytes((padding,)) + content + bytes(padding)
    assert unpadded(Flag.PADDED, payload) == content
    assert unpadded(0, payload) == payload


@pytest.mark.parametrize("payload", [b"", b"\1", b"\2x", b"\xff" + bytes(254)])
def test_refuses_padding_longer_than_its_frame(payload: bytes) -> None:
    with pytest.raises(H2Error) as refused:
        unpadded(Flag.PADDED, payload)
    assert refused.value.code is ErrorCode.PROTOCOL_ERROR


def test_a_priority_is_taken_off() -> None:
    assert without_priority(Flag.PRIORITY, bytes(5) + b"block") == b"block"
    assert without_priority(0, b"block") == b"block"
    with pytest.raises(H2Error) as refused:
        without_priority(Flag.PRIORITY, bytes(4))
    assert (refused.value.code, refused.value.stream) == (ErrorCode.FRAME_SIZE_ERROR, 0)


def test_checks_a_length() -> None:
    check_octets(bytes(4), 4)
    with pytest.raises(H2Error) as refused:
        check_octets(bytes(5), 4, 3)
    assert (refused.value.code, refused.value.stream) == (ErrorCode.FRAME_SIZE_ERROR, 3)


def test_reads_settings_in_order_and_keeps_unknown_ones() -> None:
    payload = b"\0\4\0\0\0\1\0\4\0\0\0\2\xff\xff\0\0\0\3"
    assert read_settings(payload) == [(4, 1), (4, 2), (0xFFFF, 3)]


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        pytest.param(bytes(5), ErrorCode.FRAME_SIZE_ERROR, id="cut"),
        pytest.param(b"\0\2\0\0\0\2", ErrorCode.PROTOCOL_ERROR, id="push 2"),
        pytest.param(b"\0\4\x80\0\0\0", ErrorCode.FLOW_CONTROL_ERROR, id="window 2^31"),
        pytest.param(b"\0\5\0\0\x3f\xff", ErrorCode.PROTOCOL_ERROR, id="frame 16383"),
        pytest.param(b"\0\5\1\0\0\0", ErrorCode.PROTOCOL_ERROR, id="frame 2^24"),
    ],
)
def test_refuses_settings_that_are_forbidden(payload: bytes, code: ErrorCode) -> None:
    with pytest.raises(H2Error) as refused:
        read_settings(payload)
    assert refused.value.code is code


def test_reads_an_increment() -> None:
    assert read_increment(b"\x80\0\0\7", 1) == 7


@pytest.mark.parametrize(
    ("octets", "code", "stream"),
    [(4, ErrorCode.PROTOCOL_ERROR, 5), (3, ErrorCode.FRAME_SIZE_ERROR, 0)],
)
def test_refuses_an_increment_of_nothing(octets: int, code: ErrorCode, stream: int) -> None:
    """RFC 9113, section 6.9: another length ends the connection."""
    with pytest.raises(H2Error) as refused:
        read_increment(bytes(octets), 5)
    assert (refused.value.code, refused.value.stream) == (code, stream)
