"""The octets of a table mean the same to who writes and who reads them."""

from hypothesis import given
from hypothesis import strategies as st

from rules.address import parse_network
from rules.decision import LocalRecord
from rules.lists.layout import (
    Deed,
    Scope,
    Sizes,
    hasher,
    key_of_network,
    key_of_prefix,
    key_of_server,
    padded,
    read_header,
    read_records,
    sieve_of_key,
    sieve_of_name,
    sizes_for,
    split_tag,
    tag_of,
    write_header,
    write_record,
    write_records,
)

counts = st.integers(0, 2**32 - 1)
sizes = st.builds(
    Sizes,
    st.integers(0, 64),
    counts,
    st.integers(0, 16),
    st.integers(6, 32),
    counts,
    counts,
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**33 - 1),
    st.integers(0, 2**129 - 1),
)


@given(sizes, st.binary(max_size=16))
def test_a_header_is_read_as_it_was_written(made: Sizes, key: bytes) -> None:
    octets = write_header(made, key)
    assert read_header(memoryview(octets + b"more")) == (made, key)
    assert len(octets) == padded(len(octets))


def test_other_octets_are_no_header() -> None:
    octets = write_header(Sizes(1, 0, 0, 6, 0, 0, False, False, 0, 0), b"")
    assert read_header(memoryview(octets[:-1])) is None
    assert read_header(memoryview(b"X" + octets[1:])) is None
    assert read_header(memoryview(b"")) is None


@given(sizes)
def test_sections_follow_each_other_aligned(made: Sizes) -> None:
    begins = made.sections()
    assert list(begins) == sorted(begins)
    assert all(begin % 8 == 0 for begin in begins)
    assert begins[-1] - begins[2] >= 14 * made.rows + 8 * made.extras + made.blob_octets


def test_a_million_rows_are_nineteen_megabytes() -> None:
    index_bits, filter_bits = sizes_for(1_000_000)
    made = Sizes(1, 1_000_000, index_bits, filter_bits, 0, 0, False, False, 0, 0)
    assert made.sections()[-1] < 19_000_000
    assert sizes_for(0) == (0, 6)


def test_keys_of_names_servers_and_networks_differ() -> None:
    keys = {
        b"a.example",
        key_of_server(b"a.example"),
        key_of_network(parse_network("10.0.0.0/8")),
        key_of_network(parse_network("10.0.0.0/9")),
        key_of_network(parse_network("a00::/8")),
    }
    assert (
        len({hasher(b"k")(key) for key in keys}) == len(keys) == len(set(map(sieve_of_key, keys)))
    )
    assert key_of_prefix(0x0A010203, 8, 32) == key_of_network(parse_network("10.0.0.0/8"))
    assert key_of_prefix(0x0A010203, 32, 32) == key_of_network(parse_network("10.1.2.3"))


def test_another_secret_gives_another_hash() -> None:
    assert hasher(b"a" * 16)(b"a.example") == hasher(b"a" * 16)(b"a.example")
    assert hasher(b"a" * 16)(b"a.example") != hasher(b"b" * 16)(b"a.example")


def test_a_name_is_sifted_from_its_last_label_on() -> None:
    assert sieve_of_name(b"example") != sieve_of_name(b"a.example") != sieve_of_name(b"b.example")


@given(st.integers(0, 63), st.sampled_from(Scope), st.sampled_from(Deed))
def test_a_tag_is_split_as_it_was_made(number: int, scope: Scope, deed: Deed) -> None:
    assert split_tag(tag_of(number, scope, deed)) == (number, scope, deed)


@given(
    st.lists(
        st.builds(
            LocalRecord, st.integers(0, 65535), st.integers(0, 2**31 - 1), st.binary(max_size=300)
        )
    )
)
def test_local_records_are_read_as_they_were_written(records: list[LocalRecord]) -> None:
    octets = write_records([write_record(each) for each in records])
    assert list(read_records(memoryview(b"before" + octets + b"after"), 6)) == records
