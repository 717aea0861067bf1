"""Header blocks: read, remembered only when stateless, written so that hpack reads them."""

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.fields import Field
from proxy.wire.h2_block import KEPT_BLOCK_OCTETS, BlockMemory, BlockReader, write_block
from proxy.wire.h2_frame import ErrorCode, H2Error

FIELDS = [(b":method", b"GET"), (b"accept", b"application/dns-message")]


def is_stateless(reader: BlockReader) -> bool:
    return reader.is_stateless


def test_reads_what_was_encoded_with_a_table() -> None:
    reader, encoder = BlockReader(8192), Encoder()
    assert reader.read(encoder.encode(FIELDS)) == FIELDS
    second = encoder.encode(FIELDS)
    assert len(second) == 2  # both from the tables
    assert reader.read(second) == FIELDS
    assert not is_stateless(reader)


def test_is_stateless_once_the_peer_has_emptied_its_table() -> None:
    """Before that the same octets may mean something else: a memory of them would be wrong."""
    reader, encoder = BlockReader(8192), Encoder()
    reader.read(encoder.encode(FIELDS))
    reader.obeyed()
    assert not is_stateless(reader)
    encoder.header_table_size = 0
    assert reader.read(encoder.encode(FIELDS)) == FIELDS
    assert is_stateless(reader)
    first, again = (encoder.encode(FIELDS) for _ in range(2))
    assert first == again
    assert reader.read(again) == FIELDS


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b"\x82", id="no update of the table's size"),
        pytest.param(b"\x3f\xe1\x1f\x82", id="a table of 4096"),
    ],
)
def test_a_peer_that_keeps_its_table_after_it_obeyed_is_refused(block: bytes) -> None:
    reader = BlockReader(8192)
    reader.obeyed()
    with pytest.raises(H2Error) as refused:
        reader.read(block)
    assert (refused.value.code, refused.value.stream) == (ErrorCode.COMPRESSION_ERROR, 0)


def test_a_literal_with_indexing_leaves_an_empty_table_empty() -> None:
    reader = BlockReader(8192)
    reader.obeyed()
    reader.read(b"\x20\x40\x01a\x01b")
    assert is_stateless(reader)
    with pytest.raises(H2Error):
        reader.read(b"\xbe")  # the first entry of the dynamic table


@given(st.binary(max_size=64))
def test_any_octets_are_fields_or_an_error_of_the_connection(block: bytes) -> None:
    try:
        fields = BlockReader(8192).read(block)
    except H2Error as error:
        assert error.stream == 0  # noqa: PT017 - the other way out is a value
    else:
        assert all(isinstance(each, bytes) for field in fields for each in field)


def test_a_block_that_grows_is_cut_off() -> None:
    """threats.md, "HTTP itself": unbounded header; here by indexing one long field again."""
    encoder = Encoder()
    reader = BlockReader(8192)
    reader.read(encoder.encode([(b"a", b"x" * 3000)]))
    with pytest.raises(H2Error) as refused:
        reader.read(b"\xbe" * 3)
    assert refused.value.code is ErrorCode.ENHANCE_YOUR_CALM


def test_the_memory_is_bounded_and_the_oldest_makes_room() -> None:
    met: list[int] = []
    memory: BlockMemory[int] = BlockMemory(2, lambda: met.append(1))
    for number in range(3):
        memory.keep(bytes((number,)), number)
    assert memory.known == {b"\1": 1, b"\2": 2}
    assert met == [1]
    memory.keep(bytes(KEPT_BLOCK_OCTETS + 1), 7)
    assert 7 not in memory.known.values()


@pytest.mark.parametrize("status", [200, 400, 401, 404, 415, 500])
def test_writes_a_status(status: int) -> None:
    assert Decoder().decode(write_block(status, ()), raw=True) == [
        (b":status", str(status).encode())
    ]


TOKENS = st.sampled_from([b"content-type", b"www-authenticate", b"x-deny-reason", b"allow"])


@given(st.lists(st.tuples(TOKENS, st.binary(max_size=300)), max_size=4))
def test_what_is_written_reads_back_and_leaves_no_trace(fields: list[Field]) -> None:
    decoder = Decoder()
    block = write_block(200, fields)
    for _ in range(2):
        assert decoder.decode(block, raw=True) == [(b":status", b"200"), *fields]
    assert len(decoder.header_table.dynamic_entries) == 0


def test_writes_long_values() -> None:
    value = bytes(20000)
    decoder = Decoder(max_header_list_size=1 << 20)
    assert list(decoder.decode(write_block(200, [(b"a", value)]), raw=True))[1] == (b"a", value)
