"""Special-use names are answered here, as their RFCs say."""

import dns.message
import pytest

from proxy.flow import Plane
from proxy.refusals import Refusal
from proxy.resolver.answer import Rcode
from proxy.resolver.local import local_answer, why_answer
from proxy.resolver.message import STREAM_OCTETS, Query, encode_answer
from proxy.wire.question import write_name
from rules import rtype as rr
from rules.decision import Reason
from rules.name import parse


def answered(name: str, kind: str, *, empty: bool = False) -> tuple[int, list[str], str]:
    """Return the response code, the answer section and the owner of the SOA."""
    rtype = rr.number(kind)
    assert rtype is not None
    canonical = parse(name)
    answer = local_answer(canonical, rtype, empty=empty)
    question = write_name(canonical) + rtype.to_bytes(2) + b"\0\x01"
    wire = encode_answer(Query(1, 0, canonical, question, rtype), answer, 0, STREAM_OCTETS)
    message = dns.message.from_wire(wire)
    owners = [rrset.name.to_text(omit_final_dot=True) for rrset in message.authority]
    records = [f"{rrset.name} {item}" for rrset in message.answer for item in rrset]
    return message.rcode().value, records, owners[0] if owners else ""


@pytest.mark.parametrize("name", ["localhost", "a.b.localhost"])
def test_answers_loopback_names_with_loopback(name: str) -> None:
    """RFC 6761, section 6.3."""
    assert answered(name, "A") == (Rcode.NOERROR, [f"{name}. 127.0.0.1"], "")
    assert answered(name, "AAAA") == (Rcode.NOERROR, [f"{name}. ::1"], "")
    assert answered(name, "MX") == (Rcode.NOERROR, [], "localhost")


@pytest.mark.parametrize("name", ["localhost", "ipv4only.arpa"])
def test_hands_out_local_addresses_without_a_grant_to_dial_them(name: str) -> None:
    answer = local_answer(parse(name), rr.A)
    assert answer.records
    assert answer.addresses == ()


@pytest.mark.parametrize(
    "zone", ["invalid", "test", "local", "onion", "alt", "use-application-dns.net"]
)
def test_denies_names_that_cannot_exist(zone: str) -> None:
    """RFC 6761, 6762, 7686, 9476.  Closes `use-application-dns.net`."""
    for name in (zone, f"printer.{zone}"):
        for kind in ("A", "TXT", "SOA"):
            assert answered(name, kind) == (Rcode.NXDOMAIN, [], zone)


def test_denies_private_names_but_not_our_own() -> None:
    """RFC 8020, section 2: `internal` exists, since sallyport.internal does."""
    assert answered("db.internal", "A") == (Rcode.NXDOMAIN, [], "internal")
    assert answered("internal", "A") == (Rcode.NOERROR, [], "internal")
    for name in ("sallyport.internal", "x._why.sallyport.internal"):
        assert answered(name, "A") == (Rcode.NOERROR, [], "sallyport.internal")


@pytest.mark.parametrize("zone", ["10.in-addr.arpa", "d.f.ip6.arpa", "home.arpa", "service.arpa"])
def test_serves_empty_zones(zone: str) -> None:
    """RFC 6303, section 3; RFC 8375, section 4."""
    assert answered(zone, "NS") == (Rcode.NOERROR, [f"{zone}. {zone}."], "")
    code, records, _ = answered(zone, "SOA")
    assert (code, records) == (
        Rcode.NOERROR,
        [f"{zone}. {zone}. nobody.invalid. 1 3600 1200 604800 10800"],
    )
    assert answered(zone, "A") == (Rcode.NOERROR, [], zone)
    assert answered(f"1.{zone}", "PTR") == (Rcode.NXDOMAIN, [], zone)


@pytest.mark.parametrize("name", ["resolver.arpa", "_dns.resolver.arpa", "a.b.resolver.arpa"])
def test_knows_no_designated_resolver(name: str) -> None:
    """RFC 9462, section 6.4.  Closes `_dns.resolver.arpa`."""
    for kind in ("SVCB", "HTTPS", "A"):
        assert answered(name, kind) == (Rcode.NOERROR, [], "resolver.arpa")
    code, records, _ = answered("resolver.arpa", "SOA")
    assert (code, len(records)) == (Rcode.NOERROR, 1)


def test_answers_ipv4only_with_its_well_known_addresses() -> None:
    """RFC 8880, section 7.1: no NAT64 prefix is to be learnt from us."""
    name = "ipv4only.arpa"
    found = [f"{name}. 192.0.0.170", f"{name}. 192.0.0.171"]
    assert answered(name, "A") == (Rcode.NOERROR, found, "")
    assert answered(name, "AAAA") == (Rcode.NOERROR, [], name)
    assert answered(f"x.{name}", "A") == (Rcode.NXDOMAIN, [], name)
    assert len(answered(name, "SOA")[1]) == 1


def test_claims_nothing_of_a_name_that_is_not_special() -> None:
    assert local_answer(parse("www.example.com"), rr.A).rcode == Rcode.SERVFAIL


def refusal(how: str) -> Refusal:
    return Refusal(
        "0192f3", "coder", Plane.DNS, Reason.HOST_NOT_LISTED, "evil.example", how, None, 0.0
    )


def test_says_why_a_name_was_refused() -> None:
    name = parse("evil.example._why.sallyport.internal")
    answer = why_answer(name, rr.TXT, refusal("ask the admin"))
    (record,) = answer.records
    assert record.rdata[1:] == b"sallyport host-not-listed 0192f3 how: ask the admin"
    assert record.rdata[0] == len(record.rdata) - 1
    assert (record.owner, record.ttl, answer.ttl) == (name, 0, 0)


def test_says_a_long_why_in_several_strings_within_a_datagram() -> None:
    name = parse("evil.example._why.sallyport.internal")
    rdata = why_answer(name, rr.TXT, refusal("x" * 5000)).records[0].rdata
    assert [rdata[at] for at in (0, 256, 512, 768)] == [255] * 4
    assert len(rdata) == 1024


@pytest.mark.parametrize(("rtype", "one"), [(rr.TXT, None), (rr.A, refusal("ask"))])
def test_has_nothing_to_say_otherwise(rtype: int, one: Refusal | None) -> None:
    answer = why_answer(parse("x._why.sallyport.internal"), rtype, one)
    assert (answer.rcode, answer.records, answer.ttl) == (Rcode.NOERROR, (), 5)


@pytest.mark.parametrize(
    ("name", "apex"),
    [("local", "local"), ("2.10.in-addr.arpa", "10.in-addr.arpa"), ("x.home.arpa", "home.arpa")],
)
def test_a_name_above_a_configured_zone_exists(name: str, apex: str) -> None:
    """RFC 8020, section 2: NXDOMAIN would deny the zone to every cache below."""
    assert answered(name, "A", empty=True) == (Rcode.NOERROR, [], apex)
