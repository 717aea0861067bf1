"""Messages over a stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import PeerError
from proxy.wire.framing import Deframer, frame
from rules.decision import Reason

_MESSAGE = bytes(range(12))


def test_writes_the_length_in_two_octets() -> None:
    assert frame(_MESSAGE) == b"\0\x0c" + _MESSAGE


def test_refuses_to_write_what_has_no_length() -> None:
    with pytest.raises(OverflowError):
        frame(bytes(65536))


def test_takes_several_messages_of_one_read() -> None:
    deframer = Deframer()
    assert deframer.feed(frame(_MESSAGE) + frame(_MESSAGE * 2) + b"\0") == [_MESSAGE, _MESSAGE * 2]
    assert not deframer.is_empty


def test_takes_a_message_that_comes_octet_by_octet() -> None:
    """A slow length prefix holds no more than itself."""
    deframer = Deframer()
    taken = [deframer.feed(bytes([octet])) for octet in frame(_MESSAGE)]
    assert taken[-1] == [_MESSAGE]
    assert not any(taken[:-1])
    assert deframer.is_empty


@pytest.mark.parametrize("octets", [0, 1, 11, 513, 65535])
def test_refuses_lengths_out_of_bounds_before_their_octets_come(octets: int) -> None:
    with pytest.raises(PeerError, match=f"of {octets} octets") as refused:
        Deframer(512).feed(octets.to_bytes(2))
    assert refused.value.reason is Reason.REQUEST_MALFORMED


def test_takes_the_largest_message() -> None:
    assert Deframer().feed(frame(bytes(65535))) == [bytes(65535)]


@given(st.lists(st.binary(min_size=12, max_size=60), max_size=6), st.integers(1, 40))
def test_messages_do_not_depend_on_how_the_stream_is_cut(messages: list[bytes], size: int) -> None:
    stream = b"".join(frame(message) for message in messages)
    deframer = Deframer()
    taken: list[bytes] = []
    for at in range(0, len(stream), size):
        taken += deframer.feed(stream[at : at + size])
    assert taken == messages
    assert deframer.is_empty
