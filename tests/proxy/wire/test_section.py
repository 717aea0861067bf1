"""Field sections: what a proxy keeps of them, and a memory that never differs from reading."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import PeerError
from proxy.wire.fields import request_malformed
from proxy.wire.section import SectionMemory, read_section

MOST = 8


def test_tells_the_fields_that_bear_on_framing_and_routing() -> None:
    section = read_section(
        b"\r\nHost: a\r\nX: 1\r\nContent-Length: 5", MOST, request_malformed, b""
    )
    assert section.bearing == {b"host": b"a", b"content-length": b"5"}
    assert section.fields == ((b"host", b"a"), (b"x", b"1"), (b"content-length", b"5"))
    assert section.options == frozenset()


def test_keeps_what_is_end_to_end_without_the_field_that_is_dropped() -> None:
    octets = b"\r\nHost: a\r\nConnection: close\r\nTE: x\r\nX:1"
    section = read_section(octets, MOST, request_malformed, b"host")
    assert section.kept == b"x: 1\r\n"
    assert section.options == {b"close"}


def test_no_fields_are_a_section_too() -> None:
    assert read_section(b"", MOST, request_malformed, b"host").kept == b""


@pytest.mark.parametrize(
    "octets",
    [
        b"\r\nHost : a",
        b"\r\n folded",
        b"\r\nX: a\nb",
        b"\r\nHost: a\r\nHost: a",
        b"\r\nContent-Length: 1\r\nContent-Length: 1",
        b"\r\nConnection: Host",
        b"\r\nX: 1" * (MOST + 1),
    ],
)
def test_what_two_readers_may_read_in_two_ways_is_refused(octets: bytes) -> None:
    """threats.md, HTTP itself: duplicate Content-Length, bare LF, obs-fold, space before colon."""
    memory = SectionMemory(b"host")
    for _ in range(2):  # a refusal is not remembered as anything
        with pytest.raises(PeerError):
            memory.read(octets, MOST, request_malformed)


def test_fields_that_may_repeat_are_joined() -> None:
    octets = b"\r\nConnection: close\r\nConnection: te"
    section = read_section(octets, MOST, request_malformed, b"host")
    assert section.bearing[b"connection"] == b"close,te"
    assert section.options == {b"close", b"te"}


def test_the_same_octets_are_read_once() -> None:
    memory = SectionMemory(b"host")
    first = memory.read(b"\r\nX: 1", MOST, request_malformed)
    assert memory.read(bytes(bytearray(b"\r\nX: 1")), MOST, request_malformed) is first
    assert memory.read(b"\r\nX: 2", MOST, request_malformed).fields == ((b"x", b"2"),)


def test_after_a_refusal_the_memory_is_as_before() -> None:
    memory = SectionMemory(b"host")
    first = memory.read(b"\r\nX: 1", MOST, request_malformed)
    with pytest.raises(PeerError):
        memory.read(b"\r\nX : 1", MOST, request_malformed)
    assert memory.read(b"\r\nX: 1", MOST, request_malformed) is first


@given(st.lists(st.sampled_from([b"\r\nX: 1", b"\r\nx: 1", b"\r\nY:2", b"", b"\r\nHost: h"])))
def test_memory_and_reading_agree(sections: list[bytes]) -> None:
    memory = SectionMemory(b"host")
    for octets in sections:
        expected = read_section(octets, MOST, request_malformed, b"host")
        assert memory.read(octets, MOST, request_malformed) == expected
