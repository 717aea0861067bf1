"""Chunked content, in any pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import PeerError, UpstreamError
from proxy.limits import Limits
from proxy.wire.body import ChunkedReader, write_chunk, write_last
from proxy.wire.fields import upstream_malformed
from tests.proxy.wire.vectors import messages

_LIMITS = Limits()
_TAKEN = messages("chunked-")


def read(octets: bytes, size: int) -> tuple[bytes, ChunkedReader]:
    reader = ChunkedReader(_LIMITS)
    pieces: list[bytes] = []
    for at in range(0, len(octets), size):
        pieces += reader.feed(octets[at : at + size])
    assert all(pieces)
    return b"".join(pieces), reader


def test_takes_content_whole_and_octet_by_octet() -> None:
    for size in (1, 2, 3, 7, 1000):
        content, reader = read(_TAKEN["chunked-two-chunks"], size)
        assert content == b"hello world"
        assert (reader.done, reader.octets, reader.leftover) == (True, 11, b"")


@pytest.mark.parametrize("name", _TAKEN)
def test_takes_each_vector_however_it_is_cut(name: str) -> None:
    expected, whole = read(_TAKEN[name], 1000)
    for size in (1, 2, 5):
        content, reader = read(_TAKEN[name], size)
        assert reader.done
        assert (content, reader.trailers) == (expected, whole.trailers)


@pytest.mark.parametrize("name", messages("refused-chunked-"))
@pytest.mark.parametrize("size", [1, 1000])
def test_refuses_what_two_readers_may_read_in_two_ways(name: str, size: int) -> None:
    """Chunk extensions; bare LF; sizes with signs, prefixes and white space."""
    with pytest.raises(PeerError):
        read(messages(name)[name], size)


def test_drops_trailers_that_have_no_place_there() -> None:
    _, reader = read(_TAKEN["chunked-forbidden-trailers"], 1000)
    assert reader.trailers == ((b"x-checksum", b"abc"),)


def test_keeps_what_follows_the_body() -> None:
    reader = ChunkedReader(_LIMITS)
    assert reader.feed(b"1\r\na\r\n0\r\n\r\nGET ") == [b"a"]
    assert reader.feed(b"next") == []
    assert reader.leftover == b"GET next"


def test_hands_on_a_large_chunk_before_it_is_whole() -> None:
    reader = ChunkedReader(_LIMITS)
    assert reader.feed(b"10000\r\n") == []
    assert reader.feed(b"x" * 40000) == [b"x" * 40000]
    assert reader.feed(b"x" * 25536 + b"\r") == [b"x" * 25536]
    assert reader.feed(b"\n0\r\n\r\n") == []
    assert reader.done


def test_blames_the_origin_where_it_sends() -> None:
    with pytest.raises(UpstreamError):
        ChunkedReader(_LIMITS, upstream_malformed).feed(b"x\r\n")


def test_refuses_a_size_line_over_its_limit() -> None:
    reader = ChunkedReader(Limits(chunk_line_octets=4))
    with pytest.raises(PeerError, match="no chunk size"):
        reader.feed(b"00005\r\nhello")


def test_bounds_the_trailers() -> None:
    """Slow loris on a body: what is held of its trailers is bounded."""
    reader = ChunkedReader(Limits(head_octets=20))
    assert reader.feed(b"0\r\nA: b\r\n") == []
    with pytest.raises(PeerError, match="more than 20 octets"):
        reader.feed(b"A: " + b"b" * 20)
    with pytest.raises(PeerError, match="more than 1 trailer"):
        ChunkedReader(Limits(head_fields=1)).feed(b"0\r\nA: b\r\nC: d\r\n\r\n")


def test_an_empty_chunk_is_not_written_because_it_would_end_the_body() -> None:
    assert write_chunk(b"") == b""
    assert write_chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


def test_writes_the_end_with_trailers() -> None:
    assert write_last() == b"0\r\n\r\n"
    assert write_last([(b"x", b"y")]) == b"0\r\nx: y\r\n\r\n"


@given(st.lists(st.binary(max_size=50), max_size=6), st.integers(1, 60))
def test_what_is_written_reads_back(pieces: list[bytes], size: int) -> None:
    octets = b"".join(map(write_chunk, pieces)) + write_last([(b"x-end", b"1")])
    content, reader = read(octets, size)
    assert content == b"".join(pieces)
    assert reader.done
    assert reader.trailers == ((b"x-end", b"1"),)


@given(st.binary(max_size=80), st.sampled_from([*_TAKEN.values()]), st.data())
def test_any_octets_give_content_or_an_error_whatever_the_cut(
    noise: bytes, octets: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(octets)))
    stream = octets[:at] + noise + octets[at:]
    try:
        whole = read(stream, 1000)[0]
    except PeerError:
        with pytest.raises(PeerError):
            read(stream, 1)
    else:
        assert read(stream, 1)[0] == whole
