"""How each reason is worded on the DNS plane (reference.md, Reasons)."""

import dns.edns
import dns.message
import dns.rdatatype
import pytest

from proxy.resolver.answer import Rcode
from proxy.resolver.message import STREAM_OCTETS, UDP_OCTETS, Edns, Query
from proxy.resolver.refusal import (
    REFUSAL,
    any_reply,
    is_silent,
    is_sunk,
    rcode_of,
    refusal,
)
from rules import rtype as rr
from rules.decision import Decision, LocalRecord, Reason, Refuse, Verdict
from rules.name import DomainName, parse
from tests.proxy.resolver.wires import EXAMPLE

NAME = parse("www.example.com")
APEX = parse("example.com")
ID = "0192f3a1" * 4


def asked(edns: Edns | None = Edns(1232)) -> Query:  # noqa: B008 - a frozen value
    return Query(7, 0x0100, NAME, EXAMPLE + b"\0\x01\0\x01", 1, edns)


def deny(reason: Reason, refuse: Refuse = Refuse.NXDOMAIN, *, empty: bool = False) -> Decision:
    return Decision(Verdict.DENY, reason, refuse=refuse, empty=empty)


def refused(
    decision: Decision, apex: DomainName | None = APEX, how: str = "ask the admin"
) -> dns.message.Message:
    return dns.message.from_wire(refusal(asked(), decision, ID, how, apex, UDP_OCTETS))


def extended(message: dns.message.Message) -> dns.edns.EDEOption:
    (option,) = message.options
    assert isinstance(option, dns.edns.EDEOption)
    return option


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_row(reason: Reason) -> None:
    message = refused(deny(reason))
    assert REFUSAL[reason].ede == extended(message).code
    assert message.rcode().value == rcode_of(deny(reason))


NODATA = Rcode.NOERROR
WORDED = {
    Reason.HOST_NOT_LISTED: (Rcode.NXDOMAIN, 15),
    Reason.RULE: (Rcode.NXDOMAIN, 15),
    Reason.LIST: (Rcode.NXDOMAIN, 15),
    Reason.TYPE_NOT_ALLOWED: (NODATA, 15),
    Reason.ADDRESS_NOT_ALLOWED: (NODATA, 15),
    Reason.TUNNEL_DETECTED: (Rcode.NXDOMAIN, 17),
    Reason.BUDGET: (Rcode.NXDOMAIN, 17),
    Reason.QUARANTINED: (Rcode.NXDOMAIN, 17),
    Reason.RATE: (Rcode.REFUSED, 17),
    Reason.IDENTITY_UNKNOWN: (Rcode.REFUSED, 18),
    Reason.IDENTITY_CONFLICT: (Rcode.REFUSED, 18),
    Reason.MTLS_REQUIRED: (Rcode.REFUSED, 18),
    Reason.ATTESTATION_REQUIRED: (Rcode.REFUSED, 18),
    Reason.REVOKED: (Rcode.REFUSED, 18),
    Reason.NAME_MALFORMED: (Rcode.FORMERR, 0),
    Reason.REQUEST_MALFORMED: (Rcode.FORMERR, 0),
    Reason.CAPACITY: (Rcode.SERVFAIL, 0),
    Reason.AUDIT_QUOTA: (Rcode.SERVFAIL, 0),
    Reason.AUDIT_UNAVAILABLE: (Rcode.SERVFAIL, 0),
    Reason.INTERNAL_ERROR: (Rcode.SERVFAIL, 0),
    Reason.UPSTREAM_UNREACHABLE: (Rcode.SERVFAIL, 22),
    Reason.UPSTREAM_TIMEOUT: (Rcode.SERVFAIL, 22),
    Reason.UPSTREAM_TLS: (Rcode.SERVFAIL, 23),
    Reason.UPSTREAM_MALFORMED: (Rcode.SERVFAIL, 23),
    Reason.NO_ADDRESS: (NODATA, 0),
}


@pytest.mark.parametrize(("reason", "worded"), WORDED.items())
def test_words_a_reason_as_the_reference_says(reason: Reason, worded: tuple[Rcode, int]) -> None:
    assert (rcode_of(deny(reason)), REFUSAL[reason].ede) == worded


@pytest.mark.parametrize(
    ("refuse", "rcode"),
    [
        (Refuse.NXDOMAIN, Rcode.NXDOMAIN),
        (Refuse.NODATA, NODATA),
        (Refuse.REFUSED, Rcode.REFUSED),
        (Refuse.SINKHOLE, Rcode.NXDOMAIN),
        (Refuse.DROP, Rcode.REFUSED),
    ],
)
def test_words_an_unlisted_name_as_the_app_has_it(refuse: Refuse, rcode: Rcode) -> None:
    assert rcode_of(deny(Reason.HOST_NOT_LISTED, refuse)) == rcode


@pytest.mark.parametrize("reason", [Reason.HOST_NOT_LISTED, Reason.RULE, Reason.SPECIAL_USE])
def test_does_not_deny_what_is_allowed_below_or_beside_it(reason: Reason) -> None:
    """Closes `Refused TXT answered with NXDOMAIN kills the allowed A` (RFC 8020: NODATA)."""
    message = refused(deny(reason, empty=True))
    assert (message.rcode().value, message.answer) == (NODATA, [])
    assert message.authority[0].rdtype == dns.rdatatype.SOA
    assert rcode_of(deny(reason, Refuse.SINKHOLE, empty=True)) == NODATA


def test_keeps_refused_where_the_app_wants_it() -> None:
    decision = deny(Reason.HOST_NOT_LISTED, Refuse.REFUSED, empty=True)
    assert rcode_of(decision) == Rcode.REFUSED


OURS = bytes((127, 53, 53, 53))
ALIAS = b"\x05other\x07example\0"


def worded(
    decision: Decision, rtype: int = rr.A, sunk: tuple[bytes, ...] | None = None
) -> dns.message.Message:
    question = EXAMPLE + rtype.to_bytes(2) + b"\0\x01"
    query = Query(7, 0x0100, NAME, question, rtype, Edns(1232))
    wire = refusal(query, decision, ID, "ask the admin", APEX, UDP_OCTETS, sunk=sunk)
    return dns.message.from_wire(wire)


def answers(message: dns.message.Message) -> list[str]:
    return [rrset.to_text() for rrset in message.answer]


@pytest.mark.parametrize("empty", [False, True])
def test_points_a_name_at_the_sinkhole_for_five_seconds(*, empty: bool) -> None:
    message = worded(deny(Reason.LIST, Refuse.SINKHOLE, empty=empty), sunk=(OURS,))
    assert answers(message) == ["www.example.com. 5 IN A 127.53.53.53"]
    assert (message.rcode().value, message.authority) == (Rcode.NOERROR, [])
    assert (extended(message).code, ID in (extended(message).text or "")) == (15, True)


def test_a_name_at_the_sinkhole_exists_so_that_other_types_are_nodata() -> None:
    message = worded(deny(Reason.LIST, Refuse.SINKHOLE), rr.TXT, sunk=())
    assert (message.rcode().value, message.answer) == (NODATA, [])
    assert message.authority[0].rdtype == dns.rdatatype.SOA


@pytest.mark.parametrize("sunk", [None, (), (OURS,)])
@pytest.mark.parametrize("refuse", [Refuse.NXDOMAIN, Refuse.REFUSED, Refuse.DROP])
def test_only_who_asks_for_the_sinkhole_has_it(
    refuse: Refuse, sunk: tuple[bytes, ...] | None
) -> None:
    decision = deny(Reason.LIST, refuse)
    assert not is_sunk(decision)
    assert rcode_of(decision, has_sinkhole=sunk is not None) == rcode_of(decision)


@pytest.mark.parametrize("reason", [Reason.TUNNEL_DETECTED, Reason.RATE, Reason.TYPE_NOT_ALLOWED])
@pytest.mark.parametrize("refuse", [Refuse.SINKHOLE, Refuse.DROP])
def test_what_has_a_wording_of_its_own_is_neither_sunk_nor_silent(
    reason: Reason, refuse: Refuse
) -> None:
    decision = deny(reason, refuse)
    assert not is_sunk(decision)
    assert not is_silent(decision)
    assert worded(decision, sunk=(OURS,)).answer == []


def test_silence_is_what_a_list_asks_for() -> None:
    assert is_silent(deny(Reason.LIST, Refuse.DROP))
    assert not is_silent(deny(Reason.LIST))


def local(*records: LocalRecord, refuse: Refuse = Refuse.NXDOMAIN) -> Decision:
    return Decision(Verdict.DENY, Reason.LIST, refuse=refuse, local=records)


RECORDS = (
    LocalRecord(rr.A, 3600, bytes((192, 0, 2, 1))),
    LocalRecord(rr.A, 3600, bytes((192, 0, 2, 2))),
    LocalRecord(rr.TXT, 60, b"\x04gone"),
)


@pytest.mark.parametrize("refuse", Refuse)
def test_gives_the_records_of_a_list_whatever_the_app_has(refuse: Refuse) -> None:
    decision = local(*RECORDS, refuse=refuse)
    (rrset,) = worded(decision).answer
    assert (rrset.ttl, sorted(item.to_text() for item in rrset)) == (5, ["192.0.2.1", "192.0.2.2"])
    assert answers(worded(decision, rr.TXT)) == ['www.example.com. 5 IN TXT "gone"']
    assert not is_silent(decision)
    assert not is_sunk(decision)


def test_a_type_that_a_list_has_no_record_of_is_nodata() -> None:
    message = worded(local(*RECORDS), rr.AAAA)
    assert (message.rcode().value, message.answer) == (NODATA, [])
    assert message.authority[0].rdtype == dns.rdatatype.SOA


@pytest.mark.parametrize("rtype", [rr.A, rr.AAAA, rr.TXT, rr.CNAME])
def test_an_alias_of_a_list_stands_for_every_type(rtype: int) -> None:
    alias = local(LocalRecord(rr.CNAME, 3600, ALIAS))
    assert answers(worded(alias, rtype)) == ["www.example.com. 5 IN CNAME other.example."]


def test_another_reason_never_brings_records_of_a_list() -> None:
    decision = Decision(Verdict.DENY, Reason.TUNNEL_DETECTED, local=RECORDS)
    assert worded(decision).answer == []


def test_brings_our_soa_of_five_seconds_with_a_negative_answer() -> None:
    soa = refused(deny(Reason.HOST_NOT_LISTED)).authority[0]
    assert soa.to_text() == (
        "example.com. 5 IN SOA sallyport.internal. nobody.invalid. 1 3600 1200 604800 5"
    )
    alone = refused(deny(Reason.HOST_NOT_LISTED), apex=None).authority[0]
    assert alone.name.to_text() == "www.example.com."


@pytest.mark.parametrize("reason", [Reason.RATE, Reason.CAPACITY, Reason.NAME_MALFORMED])
def test_brings_no_soa_with_an_error(reason: Reason) -> None:
    assert refused(deny(reason)).authority == []


def test_says_why_in_the_text() -> None:
    message = refused(deny(Reason.HOST_NOT_LISTED))
    assert extended(message).text == f"sallyport host-not-listed {ID} how: ask the admin"


def test_cuts_the_text_to_200_octets() -> None:
    text = extended(refused(deny(Reason.RULE), how="ü" * 300)).text
    assert text is not None
    assert len(text.encode()) in {199, 200}
    assert text.startswith(f"sallyport rule {ID} how: ü")


def test_says_nothing_in_opt_to_who_sent_none() -> None:
    wire = refusal(asked(None), deny(Reason.RULE), ID, "ask", APEX, UDP_OCTETS)
    message = dns.message.from_wire(wire)
    assert (message.edns, message.rcode().value) == (-1, Rcode.NXDOMAIN)


def test_answers_any_with_hinfo() -> None:
    """RFC 8482, section 4.2.  Closes the `ANY` of `Parser, transport, cache`."""
    message = dns.message.from_wire(any_reply(asked(), STREAM_OCTETS))
    assert [rrset.to_text() for rrset in message.answer] == [
        'www.example.com. 3600 IN HINFO "RFC8482" ""'
    ]
