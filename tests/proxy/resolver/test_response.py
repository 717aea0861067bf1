"""Responses of upstreams become values, or fail the look-up with a reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import UpstreamError
from proxy.limits import Limits
from proxy.resolver.answer import Rcode, Record
from proxy.resolver.response import Response, Soa, read_response
from proxy.wire.question import write_name
from rules.decision import Reason
from rules.name import parse
from tests.proxy.resolver.wires import Captured, captured, labels, opt, query, response

LIMITS = Limits()
NAME = parse("www.example.com")
ALIAS = parse("edge.example.net")
POINTER = b"\xc0\x0c"


def read(wire: bytes, rtype: int = 1, limits: Limits = LIMITS) -> Response:
    return read_response(wire, NAME, rtype, limits)


def failure(wire: bytes, rtype: int = 1, limits: Limits = LIMITS) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        read(wire, rtype, limits)
    return caught.value


def raw(
    *records: bytes, flags: int = 0x8180, counts: tuple[int, int, int, int] | None = None
) -> bytes:
    """Return a response with `records` in its answer section as they are."""
    return query(flags=flags, counts=counts or (1, len(records), 0, 0), rest=b"".join(records))


def record(rdata: bytes, rtype: int = 1, *, owner: bytes = POINTER, ttl: int = 60) -> bytes:
    fixed = rtype.to_bytes(2) + b"\0\1" + ttl.to_bytes(4) + len(rdata).to_bytes(2)
    return owner + fixed + rdata


def test_reads_records_in_their_order_with_uncompressed_rdata() -> None:
    wire = response(
        "www.example.com. 30 IN CNAME edge.example.net.\n"
        "edge.example.net. 60 IN A 198.18.0.2\n"
        "edge.example.net. 20 IN A 198.18.0.1"
    )
    assert wire.count(labels(b"edge", b"example", b"net")) == 1
    assert read(wire) == Response(
        Rcode.NOERROR,
        (
            Record(NAME, 5, 30, write_name(ALIAS)),
            Record(ALIAS, 1, 60, bytes((198, 18, 0, 2))),
            Record(ALIAS, 1, 20, bytes((198, 18, 0, 1))),
        ),
    )


@pytest.mark.parametrize("message", captured("response-"), ids=lambda one: one.name)
def test_reads_the_vectors(message: Captured) -> None:
    found = read(message.wire, int(message.expect["type"]))
    assert len(found.records) == int(message.expect["records"])


def test_expands_the_names_in_rdata() -> None:
    """RFC 3597, section 4: receivers decompress the types of RFC 1035."""
    wire = raw(record(b"\0\x0a\x04mail" + POINTER, 15))
    assert read(wire).records[0].rdata == b"\0\x0a" + labels(b"mail", b"www", b"example", b"com")


def test_takes_a_ttl_with_its_top_bit_for_zero() -> None:
    """RFC 2181, section 8."""
    wire = raw(record(bytes(4), ttl=0x80000000), record(bytes(4), ttl=0x7FFFFFFF))
    assert [one.ttl for one in read(wire).records] == [0, 0x7FFFFFFF]


def test_leaves_out_other_classes_and_odd_owners() -> None:
    chaos = POINTER + b"\0\x10\0\3" + bytes(4) + b"\0\2\1a"
    odd = record(bytes(4), owner=labels(b"a b", b"com"))
    assert read(raw(chaos, odd, record(b"\x7f\0\0\1"))).records == (
        Record(NAME, 1, 60, b"\x7f\0\0\1"),
    )


def test_folds_the_case_of_owners() -> None:
    wire = raw(record(bytes(4), owner=labels(b"WWW", b"eXample", b"com")))
    assert read(wire).records[0].owner == NAME


def test_reads_the_soa_of_a_negative_answer() -> None:
    soa = "example.com. 900 IN SOA ns.example.com. h.example.com. 1 2 3 4 300"
    found = read(response(f"-- {soa}", rcode=3))
    assert found == Response(Rcode.NXDOMAIN, (), Soa(parse("example.com"), 900, 300))


def test_takes_an_soa_minimum_with_its_top_bit_for_zero() -> None:
    soa = "example.com. 900 IN SOA ns.example.com. h.example.com. 1 2 3 4 4294967295"
    assert read(response(f"-- {soa}")).soa == Soa(parse("example.com"), 900, 0)


def test_finds_no_soa_where_there_is_none_to_use() -> None:
    odd = "a\\032b.com. 900 IN SOA ns.example.com. h.example.com. 1 2 3 4 300"
    assert read(response(f"-- example.com. 9 IN NS ns.example.com.\n{odd}")).soa is None
    assert read(response("")).soa is None


def test_says_that_a_response_was_cut() -> None:
    assert read(raw(flags=0x8380)).truncated
    assert not read(raw()).truncated


@pytest.mark.parametrize(
    ("rcode", "reason"),
    [
        (1, Reason.UPSTREAM_MALFORMED),
        (2, Reason.UPSTREAM_UNREACHABLE),
        (4, Reason.UPSTREAM_MALFORMED),
        (5, Reason.UPSTREAM_UNREACHABLE),
        (6, Reason.UPSTREAM_MALFORMED),
        (15, Reason.UPSTREAM_MALFORMED),
    ],
)
def test_takes_any_other_response_code_for_a_failure(rcode: int, reason: Reason) -> None:
    error = failure(raw(flags=0x8180 | rcode))
    assert error.reason is reason
    assert f"rcode {rcode}" in str(error)


def test_reads_the_upper_bits_of_the_response_code_in_opt() -> None:
    badvers = b"\0\0\x29\x04\xd0\1\0\0\0\0\0"
    assert "rcode 16" in str(failure(raw(badvers, counts=(1, 0, 0, 1))))


MALFORMED = {
    "nothing": b"",
    "half a header": raw()[:11],
    "a query": query(),
    "an update": raw(flags=0xA980),
    "no question": raw(counts=(0, 0, 0, 0)),
    "two questions": raw(counts=(2, 0, 0, 0)),
    "an octet after it": raw() + b"\0",
    "a count without a record": raw(counts=(1, 1, 0, 0)),
    "an address of three octets": raw(record(bytes(3))),
    "an address of five octets": raw(record(bytes(5))),
    "a target cut short": raw(record(b"\x03ww", 5)),
    "a target that points to itself": raw(record(b"\xc0\x2d", 5)),
    "an owner that points ahead": raw(record(bytes(4), owner=b"\xc0\x30")),
    "service keys out of order": raw(record(b"\0\1\0\0\3\0\0\0\1\0\0", 65)),
    "two OPTs": raw(opt(), opt(), counts=(1, 0, 0, 2)),
    "an OPT among the answers": raw(opt()),
    "an OPT with an owner": raw(opt(owner=b"\1a\0"), counts=(1, 0, 0, 1)),
    "a signature we cannot check": raw(
        labels(b"k") + b"\0\xfa\0\xff" + bytes(6) + b"", counts=(1, 0, 0, 1)
    ),
    "another name": query(labels(b"example", b"com"), flags=0x8180),
    "an odd name": query(labels(b"a b"), flags=0x8180),
    "another type": query(rtype=28, flags=0x8180),
    "another class": query(rclass=3, flags=0x8180),
}


@pytest.mark.parametrize("wire", MALFORMED.values(), ids=MALFORMED)
def test_fails_whole_on_anything_malformed(wire: bytes) -> None:
    """Closes `response mismatch (CVE-2026-33596)` and `many OPTs` for what an upstream sends."""
    error = failure(wire)
    assert error.reason is Reason.UPSTREAM_MALFORMED
    assert str(error)


@pytest.mark.parametrize("section", [1, 2, 3])
def test_bounds_the_records_of_each_section_before_reading_them(section: int) -> None:
    limits = Limits(answer_records=4)
    counts = [1, 0, 0, 0]
    counts[section] = 4
    four = raw(*[record(bytes(4))] * 4, counts=(counts[0], counts[1], counts[2], counts[3]))
    assert read(four, limits=limits).rcode == Rcode.NOERROR
    counts[section] = 5
    five = raw(*[record(bytes(4))] * 5, counts=(counts[0], counts[1], counts[2], counts[3]))
    assert str(failure(five, limits=limits)) == "too many records"


REAL = response(
    "www.example.com. 30 IN CNAME edge.example.net.\n"
    "edge.example.net. 60 IN HTTPS 1 . alpn=h2,h3 ipv4hint=198.18.0.1 ech=AAT+DQAA\n"
    "edge.example.net. 60 IN TXT hello\n"
    "edge.example.net. 60 IN NAPTR 1 1 U E2U+sip !.*! .\n"
    "edge.example.net. 60 IN RRSIG A 8 2 60 20300101000000 20200101000000 1 example.net. AAAA\n"
    "-- example.com. 9 IN SOA ns.example.com. h.example.com. 1 2 3 4 300"
)


def read_or_error(wire: bytes) -> Response | UpstreamError:
    try:
        return read(wire)
    except UpstreamError as error:
        return error


@given(st.lists(st.tuples(st.integers(12, len(REAL) - 1), st.integers(0, 255)), max_size=6))
def test_reads_a_damaged_response_or_says_so(places: list[tuple[int, int]]) -> None:
    wire = bytearray(REAL)
    for at, octet in places:
        wire[at] = octet
    found = read_or_error(bytes(wire))
    if isinstance(found, Response):
        assert len(found.records) <= 5
    else:
        assert found.reason in {Reason.UPSTREAM_MALFORMED, Reason.UPSTREAM_UNREACHABLE}


@given(st.binary(max_size=200))
def test_reads_any_octets_after_the_question_or_says_so(rest: bytes) -> None:
    wire = query(flags=0x8180, counts=(1, 1, 1, 1), rest=rest)
    assert isinstance(read_or_error(wire), Response | UpstreamError)


def test_says_what_dnspython_said() -> None:
    assert str(failure(raw() + b"\0")) == "the response cannot be read: TrailingJunk"


def test_reads_the_name_servers_of_the_authority_section() -> None:
    wire = response(
        "www.example.com. 60 IN A 198.18.0.1\n"
        "--\n"
        "example.com. 900 IN NS ns1.example.com.\n"
        "example.com. 900 CH NS ns2.example.com.\n"
        "a\\\\.b.example.com. 900 IN NS ns3.example.com.\n"
        "example.com. 900 IN TXT x\n"
        "example.com. 800 IN NS ns4.example.net.\n"
    )
    found = read(wire)
    assert found.servers == (
        Record(parse("example.com"), 2, 900, write_name(parse("ns1.example.com"))),
        Record(parse("example.com"), 2, 800, write_name(parse("ns4.example.net"))),
    )
    assert len(found.records) == 1


def test_keeps_as_many_name_servers_as_an_answer_may_have_records() -> None:
    """One that is left out would be the one that a list names."""
    lines = "".join(f"example.com. 900 IN NS ns{each}.example.com.\n" for each in range(20))
    wire = response(f"--\n{lines}")
    assert len(read(wire).servers) == 20
    failed = failure(wire, limits=Limits(answer_records=19))
    assert failed.reason is Reason.UPSTREAM_MALFORMED
