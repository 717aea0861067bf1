"""Queries are read strictly; replies say what is meant in as many octets as fit."""

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.resolver.answer import Answer, Rcode, Record, soa
from proxy.resolver.message import (
    EDNS_OPTIONS,
    EXTRA_TEXT_OCTETS,
    STREAM_OCTETS,
    UDP_OCTETS,
    Edns,
    ExtendedError,
    Query,
    QueryError,
    cut_text,
    encode_answer,
    read_query,
    reply,
    truncated,
)
from proxy.wire.question import write_name
from rules import rtype as rr
from rules.decision import Reason
from rules.name import parse
from tests.proxy.resolver.wires import EXAMPLE, Captured, captured, labels, opt, option, query

NAME = parse("www.example.com")
ALIAS = parse("edge.cdn.example.net")
OPT_COUNT = (1, 0, 0, 1)


def said(flag: bool) -> str:
    return "yes" if flag else "no"


def address(last: int, ttl: int = 60) -> Record:
    return Record(NAME, 1, ttl, bytes((198, 18, 0, last)))


def refused(wire: bytes) -> QueryError:
    with pytest.raises(QueryError) as caught:
        read_query(wire)
    return caught.value


@pytest.mark.parametrize("message", captured("query-"), ids=lambda one: one.name)
def test_reads_what_real_clients_ask(message: Captured) -> None:
    read = read_query(message.wire)
    edns = read.edns
    assert message.expect == {
        "name": read.name,
        "type": str(read.rtype),
        "rd": said(read.rd),
        "ad": said(read.ad),
        "cd": said(read.cd),
        "payload": str(edns.payload_octets) if edns else "no",
        "do": said(edns is not None and edns.do),
    }


@pytest.mark.parametrize("message", captured("bad-"), ids=lambda one: one.name)
def test_refuses_what_real_clients_can_be_made_to_send(message: Captured) -> None:
    error = refused(message.wire)
    assert error.reply is not None
    answered = dns.message.from_wire(error.reply)
    assert (dns.rcode.to_text(answered.rcode()), error.reason) == (
        message.expect["rcode"],
        message.expect["reason"],
    )
    assert answered.id == int.from_bytes(message.wire[:2])


@pytest.mark.parametrize(
    "wire",
    [b"", query()[:11], query(flags=0x8180), query(flags=0x8000, counts=(0, 0, 0, 0))],
    ids=["nothing", "half a header", "a response", "a response's header"],
)
def test_says_nothing_to_what_is_no_query(wire: bytes) -> None:
    error = refused(wire)
    assert error.reply is None
    assert error.reason is Reason.REQUEST_MALFORMED


MALFORMED = Reason.REQUEST_MALFORMED
BAD = {
    "no question": (query(counts=(0, 0, 0, 0)), Rcode.FORMERR, MALFORMED),
    "two questions": (query(counts=(2, 0, 0, 0)), Rcode.FORMERR, MALFORMED),
    "opcode STATUS": (query(flags=0x1000), Rcode.NOTIMP, MALFORMED),
    "opcode NOTIFY": (query(flags=0x2000), Rcode.NOTIMP, MALFORMED),
    "TC set": (query(flags=0x0300), Rcode.FORMERR, MALFORMED),
    "an answer record": (query(counts=(1, 1, 0, 0)), Rcode.FORMERR, MALFORMED),
    "an authority record": (query(counts=(1, 0, 1, 0)), Rcode.FORMERR, MALFORMED),
    "a question cut short": (query()[:-3], Rcode.FORMERR, MALFORMED),
    "a pointer in the question": (query(b"\xc0\x0c"), Rcode.FORMERR, MALFORMED),
    "a pointer after a label": (query(b"\x03www\xc0\x0c"), Rcode.FORMERR, MALFORMED),
    "a reserved label type": (query(b"\x40abc\0"), Rcode.FORMERR, MALFORMED),
    "256 octets of name": (
        query(labels(*[b"a" * 63] * 3, b"a" * 62)),
        Rcode.FORMERR,
        Reason.NAME_MALFORMED,
    ),
    "a dot in a label": (query(labels(b"www.example", b"com")), Rcode.FORMERR, "name-malformed"),
    "a NUL in a label": (query(labels(b"a\0b", b"com")), Rcode.FORMERR, "name-malformed"),
    "a U-label": (query(labels("ü".encode(), b"com")), Rcode.FORMERR, "name-malformed"),
    "a percent sign": (query(labels(b"a%2e", b"com")), Rcode.FORMERR, "name-malformed"),
    "a wildcard": (query(labels(b"*", b"com")), Rcode.FORMERR, "name-malformed"),
    "an octet after it": (query(rest=b"\0"), Rcode.FORMERR, MALFORMED),
    "many octets after it": (query(rest=b"x" * 64), Rcode.FORMERR, MALFORMED),
    "an OPT that is not counted": (query(rest=opt()), Rcode.FORMERR, MALFORMED),
    "a count without an OPT": (query(counts=OPT_COUNT), Rcode.FORMERR, MALFORMED),
    "half an OPT": (query(counts=OPT_COUNT, rest=opt()[:10]), Rcode.FORMERR, MALFORMED),
    "class CH": (query(rclass=3), Rcode.REFUSED, Reason.TYPE_NOT_ALLOWED),
    "class HS": (query(rclass=4), Rcode.REFUSED, Reason.TYPE_NOT_ALLOWED),
    "class ANY": (query(rclass=255), Rcode.REFUSED, Reason.TYPE_NOT_ALLOWED),
    "class 0": (query(rclass=0), Rcode.REFUSED, Reason.TYPE_NOT_ALLOWED),
    "type 0": (query(rtype=0), Rcode.FORMERR, MALFORMED),
    "type OPT": (query(rtype=41), Rcode.FORMERR, MALFORMED),
    "type AXFR": (query(rtype=252), Rcode.NOTIMP, Reason.TYPE_NOT_ALLOWED),
    "type IXFR": (query(rtype=251), Rcode.NOTIMP, Reason.TYPE_NOT_ALLOWED),
    "type TKEY": (query(rtype=249), Rcode.NOTIMP, Reason.TYPE_NOT_ALLOWED),
    "an unassigned meta type": (query(rtype=128), Rcode.NOTIMP, Reason.TYPE_NOT_ALLOWED),
}


@pytest.mark.parametrize(("wire", "rcode", "reason"), BAD.values(), ids=BAD)
def test_refuses_malformed_queries(wire: bytes, rcode: Rcode, reason: Reason) -> None:
    """Closes `compression pointers in the question; QDCOUNT other than 1 (RFC 9619)`.

    And `a label that contains a dot or a NUL byte on the wire; 63/255 limits`, `classes CH and
    HS`, `trailing bytes`.
    """
    error = refused(wire)
    assert (error.rcode, error.reason) == (rcode, reason)
    assert error.reply is not None
    answered = dns.message.from_wire(error.reply)
    assert answered.rcode().value == rcode
    assert (answered.id, answered.flags & dns.flags.QR) == (0x1234, dns.flags.QR)
    assert answered.opt is None
    assert str(error)


IN_OPT = {
    "an owner that is not the root": (opt(owner=b"\x01a\0"), Rcode.FORMERR),
    "options beyond the record": (opt(length=8), Rcode.FORMERR),
    "octets after the record": (opt() + b"\0", Rcode.FORMERR),
    "a second OPT": (opt() + opt(), Rcode.FORMERR),
    "half an option's head": (opt(b"\0\x0a\0"), Rcode.FORMERR),
    "an option beyond the record": (opt(b"\0\x0a\0\x09" + bytes(8)), Rcode.FORMERR),
    "too many options": (opt(option(10) * (EDNS_OPTIONS + 1)), Rcode.FORMERR),
    "version 1": (opt(version=1), Rcode.BADVERS),
    "version 255 with odd options": (opt(b"\xff", version=255), Rcode.BADVERS),
}


@pytest.mark.parametrize(("record", "rcode"), IN_OPT.values(), ids=IN_OPT)
def test_refuses_malformed_edns(record: bytes, rcode: Rcode) -> None:
    """Closes `long EDNS lists (CVE-2026-41292)` and `many OPTs`."""
    error = refused(query(counts=OPT_COUNT, rest=record))
    assert (error.rcode, error.reason) == (rcode, MALFORMED)
    assert error.reply is not None
    assert dns.message.from_wire(error.reply).rcode().value == rcode


def test_answers_an_error_inside_opt_with_opt() -> None:
    """RFC 6891, section 7: the response MUST include an OPT record."""
    error = refused(query(counts=OPT_COUNT, rest=opt(b"\0")))
    assert error.reply is not None
    assert dns.message.from_wire(error.reply).edns == 0


def test_refuses_two_opts_by_their_count() -> None:
    error = refused(query(counts=(1, 0, 0, 2), rest=opt() + opt()))
    assert (error.rcode, str(error)) == (Rcode.FORMERR, "more than one additional record")


def test_refuses_a_record_that_is_not_opt() -> None:
    """A TSIG taken off unread would be believed to have been checked."""
    tsig = b"\0" + (250).to_bytes(2) + (255).to_bytes(2) + bytes(4) + bytes(2)
    error = refused(query(counts=OPT_COUNT, rest=tsig))
    assert (error.rcode, str(error)) == (Rcode.FORMERR, "no OPT record of the root")


def test_takes_as_many_options_as_the_bound() -> None:
    read = read_query(query(counts=OPT_COUNT, rest=opt(option(65001, b"x") * EDNS_OPTIONS)))
    assert read.edns == Edns(1232, do=False, others=True)


def test_hands_on_the_query_with_an_error_that_can_be_worded() -> None:
    error = refused(query(labels(b"a b"), counts=OPT_COUNT, rest=opt()))
    assert error.query is not None
    assert (error.query.name, error.query.edns) == (".", Edns(1232))
    assert refused(query(counts=(2, 0, 0, 0))).query is None


def test_folds_case_in_the_name_and_echoes_it_in_the_question() -> None:
    mixed = labels(b"wWw", b"ExAmPlE", b"COM")
    read = read_query(query(mixed))
    assert (read.name, read.question) == (NAME, mixed + b"\0\x01\0\x01")
    assert reply(read, Rcode.NOERROR)[12:] == read.question


def read_or_error(wire: bytes) -> Query | QueryError:
    try:
        return read_query(wire)
    except QueryError as error:
        return error


@given(st.binary(max_size=600) | st.binary(max_size=80).map(lambda rest: query(rest=rest)))
def test_answers_any_octets_with_a_query_or_a_reply_of_their_id(wire: bytes) -> None:
    read = read_or_error(wire)
    if isinstance(read, Query):
        assert read.question in wire
    elif read.reply is not None:
        answered = dns.message.from_wire(read.reply)
        assert (answered.id, answered.rcode().value) == (int.from_bytes(wire[:2]), read.rcode)


NAMES = st.lists(
    st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,20}[A-Za-z0-9_])?", fullmatch=True),
    min_size=1,
    max_size=6,
).map(".".join)


@given(NAMES, st.integers(1, 127).filter(lambda rtype: rtype != 41), st.booleans())
def test_reads_what_dnspython_writes(name: str, rtype: int, do: bool) -> None:
    asked = dns.message.make_query(name, rr.mnemonic(rtype), want_dnssec=do)
    read = read_query(asked.to_wire())
    assert (read.name, read.rtype) == (name.lower(), rtype)
    assert read.edns == (Edns(1232, do=True) if do else None)


def plain(edns: Edns | None = None, flags: int = 0x0100) -> Query:
    return Query(7, flags, NAME, EXAMPLE + b"\0\x01\0\x01", 1, edns)


def test_copies_rd_and_cd_and_claims_no_authority() -> None:
    answered = dns.message.from_wire(reply(plain(flags=0x0130), Rcode.NOERROR))
    flags = dns.flags.QR | dns.flags.RD | dns.flags.RA | dns.flags.CD
    assert (answered.id, answered.flags) == (7, flags)
    answered = dns.message.from_wire(reply(plain(flags=0x0020), Rcode.NOERROR))
    assert answered.flags == dns.flags.QR | dns.flags.RA


def test_writes_every_section_as_dnspython_reads_it() -> None:
    chain = (
        Record(NAME, 5, 30, write_name(ALIAS)),
        Record(ALIAS, 5, 30, write_name(parse("a.example.org"))),
        Record(parse("a.example.org"), 1, 60, bytes((198, 18, 0, 1))),
        Record(parse("a.example.org"), 1, 60, bytes((198, 18, 0, 2))),
    )
    wire = reply(plain(), Rcode.NOERROR, chain, (soa(parse("example.org"), 5),))
    answered = dns.message.from_wire(wire)
    assert [rrset.to_text() for rrset in answered.answer] == [
        "www.example.com. 30 IN CNAME edge.cdn.example.net.",
        "edge.cdn.example.net. 30 IN CNAME a.example.org.",
        "a.example.org. 60 IN A 198.18.0.1\na.example.org. 60 IN A 198.18.0.2",
    ]
    assert answered.authority[0].to_text() == (
        "example.org. 5 IN SOA sallyport.internal. nobody.invalid. 1 3600 1200 604800 5"
    )
    # Each owner was named before, by the question or by a CNAME, and so takes two octets.
    assert wire.count(EXAMPLE) == 1
    assert wire.count(write_name(ALIAS)) == 1
    assert wire.count(b"\x01a\x07example\x03org\0") == 1


def test_names_an_owner_that_no_cname_led_to_once() -> None:
    other = parse("other.example")
    wire = reply(plain(), Rcode.NOERROR, [Record(other, 16, 5, b"\x01a")] * 2)
    assert wire.count(write_name(other)) == 1
    assert len(dns.message.from_wire(wire).answer) == 1


def test_names_an_owner_beyond_the_reach_of_pointers_in_full() -> None:
    """RFC 1035, section 4.1.4: a pointer has 14 bits."""
    alias, end = parse("alias.example"), parse("end.example")
    filler = [Record(NAME, 16, 5, bytes((255,)) + bytes(255))] * 70
    late = [Record(alias, 5, 5, write_name(end)), Record(end, 1, 5, bytes(4))] * 2
    wire = reply(plain(), Rcode.NOERROR, [*filler, *late])
    assert wire.count(write_name(alias)) == 2
    assert wire.count(write_name(end)) == 4
    assert len(dns.message.from_wire(wire).answer) == 3


def test_shortens_ttls_by_age_and_never_below_zero() -> None:
    answer = Answer(Rcode.NOERROR, (address(1, 60), address(2, 10)), ttl=10)
    wire = encode_answer(plain(), answer, 20, STREAM_OCTETS)
    read = dns.message.from_wire(wire, one_rr_per_rrset=True)
    assert [rrset.ttl for rrset in read.answer] == [40, 0]


def test_mirrors_opt_with_our_own_payload_size() -> None:
    answered = dns.message.from_wire(reply(plain(Edns(4096, do=True)), 0, limit_octets=UDP_OCTETS))
    assert (answered.edns, answered.payload, answered.ednsflags) == (0, UDP_OCTETS, 0x8000)
    assert answered.options == ()


@pytest.mark.parametrize(
    ("edns", "limit_octets", "room"),
    [
        (None, UDP_OCTETS, 512),
        (Edns(512), UDP_OCTETS, 512),
        (Edns(4096), UDP_OCTETS, UDP_OCTETS),
        (Edns(800), UDP_OCTETS, 800),
        (None, 400, 400),
    ],
)
def test_cuts_a_datagram_that_does_not_fit(edns: Edns | None, limit_octets: int, room: int) -> None:
    """RFC 2181, section 9: TC=1, and nothing that could be taken for an answer."""
    asked = plain(edns)
    overhead = len(reply(asked, 0, limit_octets=limit_octets))
    fitting = (room - overhead) // 16
    whole = reply(asked, 0, [address(1)] * fitting, limit_octets=limit_octets)
    assert room - 16 < len(whole) <= room
    assert not whole[2] & 0x02
    cut = reply(asked, 0, [address(1)] * (fitting + 1), limit_octets=limit_octets)
    assert cut == truncated(asked, 0, limit_octets)
    read = dns.message.from_wire(cut)
    assert read.flags & dns.flags.TC
    assert (read.answer, read.authority, read.edns >= 0) == ([], [], edns is not None)


def test_does_not_cut_what_a_stream_carries() -> None:
    many = [address(last) for last in range(250)]
    wire = reply(plain(Edns(512)), 0, many, limit_octets=STREAM_OCTETS)
    assert len(dns.message.from_wire(wire).answer[0]) == 250
    too_many = [Record(NAME, 16, 5, bytes((255,)) + bytes(255))] * 256
    assert len(reply(plain(), 0, too_many)) < 512


def test_asks_for_tcp_without_a_word_more() -> None:
    read = dns.message.from_wire(truncated(plain()))
    assert (read.rcode(), read.answer, read.edns) == (0, [], -1)
    assert read.flags & dns.flags.TC


def test_adds_an_extended_error_for_whoever_speaks_edns() -> None:
    said = ExtendedError(15, "sallyport host-not-listed")
    answered = dns.message.from_wire(reply(plain(Edns(1232)), Rcode.NXDOMAIN, ede=said))
    option = answered.options[0]
    assert isinstance(option, dns.edns.EDEOption)
    assert (option.code, option.text) == (15, "sallyport host-not-listed")
    assert len(reply(plain(), Rcode.NXDOMAIN, ede=said)) == len(reply(plain(), Rcode.NXDOMAIN))


def test_drops_the_text_of_an_extended_error_before_the_answer() -> None:
    """RFC 8914, section 3."""
    asked = plain(Edns(512))
    room = 512 - len(reply(asked, 0, limit_octets=UDP_OCTETS))
    records = [address(1)] * ((room - 6) // 16)
    said = ExtendedError(15, "x" * 200)
    answered = dns.message.from_wire(reply(asked, 0, records, ede=said, limit_octets=UDP_OCTETS))
    option = answered.options[0]
    assert isinstance(option, dns.edns.EDEOption)
    assert (option.code, option.text) == (15, None)
    assert len(answered.answer) == 1


def test_cuts_text_between_characters() -> None:
    assert cut_text("aü" * 100, 4) == "aüa".encode()
    assert cut_text("aü", 9) == "aü".encode()
    assert cut_text("\ud800", 9) == b"?"
    wire = reply(plain(Edns(1232)), 0, ede=ExtendedError(0, "ü" * 500))
    option = dns.message.from_wire(wire).options[0]
    assert isinstance(option, dns.edns.EDEOption)
    assert option.text == "ü" * (EXTRA_TEXT_OCTETS // 2)


PADDING, COOKIE = 12, 10


@pytest.mark.parametrize(
    ("options", "encrypted", "padded", "others"),
    [
        (option(PADDING, bytes(8)), True, True, False),
        (option(PADDING, bytes(8)), False, False, False),
        (option(PADDING, b"") + option(COOKIE, bytes(8)), True, True, True),
        (option(COOKIE, bytes(8)), True, False, True),
        (b"", True, False, False),
    ],
)
def test_obeys_padding_over_encrypted_transports_alone(
    options: bytes, *, encrypted: bool, padded: bool, others: bool
) -> None:
    wire = query(counts=OPT_COUNT, rest=opt(options))
    read = read_query(wire, encrypted=encrypted)
    assert read.edns == Edns(1232, padded=padded, others=others)


@pytest.mark.parametrize("records", [0, 1, 16, 27, 28, 60])
def test_pads_to_a_multiple_of_the_block(records: int) -> None:
    """RFC 8467, section 4.1."""
    answers = [address(last) for last in range(records)]
    wire = reply(plain(Edns(1232, padded=True)), Rcode.NOERROR, answers)
    assert len(wire) % 468 == 0
    message = dns.message.from_wire(wire)
    assert len(message.answer[0] if records else ()) == records
    assert [option.otype for option in message.options] == [dns.edns.OptionType.PADDING]


def test_pads_behind_an_extended_error() -> None:
    said = ExtendedError(15, "why not")
    wire = reply(plain(Edns(1232, padded=True)), Rcode.NXDOMAIN, ede=said)
    assert len(wire) == 468
    kinds = [option.otype for option in dns.message.from_wire(wire).options]
    assert kinds == [dns.edns.OptionType.EDE, dns.edns.OptionType.PADDING]


def test_leaves_what_no_block_holds_as_it_is() -> None:
    answers = [address(last & 0xFF) for last in range(4093)]
    wire = reply(plain(Edns(1232, padded=True)), Rcode.NOERROR, answers)
    assert 140 * 468 < len(wire) < STREAM_OCTETS
