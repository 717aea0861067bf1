"""Records as values: names in rdata, our own SOA, and what counts as negative."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.resolver.answer import Answer, Rcode, Record, negative, read_name, soa
from proxy.wire.question import write_name
from rules.errors import MalformedNameError
from rules.name import ROOT, parse

NAME = parse("www.example.com")


@pytest.mark.parametrize("name", [NAME, parse("a"), ROOT])
def test_reads_a_name_where_it_stands(name: str) -> None:
    wire = b"\0\x0a" + write_name(parse(name) if name != "." else ROOT) + b"rest"
    assert read_name(wire, 2) == (name, len(wire) - 4)


@pytest.mark.parametrize(
    "rdata",
    [b"", b"\x03ww", b"\x03www", b"\xc0\x0c", b"\x03www\xc0\x0c", b"\x40\0", b"\x03w.w\0"],
)
def test_does_not_read_half_a_name_or_a_pointer(rdata: bytes) -> None:
    with pytest.raises(MalformedNameError):
        read_name(rdata)


@given(st.binary(max_size=300), st.integers(0, 20))
def test_reads_any_octets_or_says_what_is_wrong(rdata: bytes, offset: int) -> None:
    try:
        name, end = read_name(rdata, offset)
    except MalformedNameError:
        return
    assert rdata[offset:end].lower() == write_name(name)


def test_makes_an_soa_whose_minimum_is_its_ttl() -> None:
    record = soa(NAME, 5)
    assert (record.owner, record.rtype, record.ttl) == (NAME, 6, 5)
    primary, end = read_name(record.rdata)
    responsible, end = read_name(record.rdata, end)
    assert (primary, responsible) == ("sallyport.internal", "nobody.invalid")
    numbers = [int.from_bytes(record.rdata[at : at + 4]) for at in range(end, end + 20, 4)]
    assert numbers == [1, 3600, 1200, 604800, 5]


def test_tells_a_negative_answer() -> None:
    found = Record(NAME, 1, 60, bytes(4))
    alias = Record(NAME, 5, 60, write_name(parse("a.example")))
    assert not Answer(Rcode.NOERROR, (found,), ttl=60).is_negative
    assert negative(Rcode.NXDOMAIN, NAME, 5).is_negative
    assert Answer(Rcode.NXDOMAIN, (alias,)).is_negative
    assert Answer(Rcode.NOERROR, (alias,), (soa(NAME, 5),)).is_negative
    assert Answer(Rcode.NOERROR).is_negative
