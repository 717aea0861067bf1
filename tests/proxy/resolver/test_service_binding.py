"""HTTPS and SVCB records without what would lead past the appliance (RFC 9460)."""

import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.resolver.service_binding import ServiceBinding, prune, read_binding
from rules.address import Address, special_purpose
from rules.errors import MalformedNameError
from rules.name import parse

OWNER = parse("www.example.com")


def rdata(text: str) -> bytes:
    wire = dns.rdata.from_text("IN", "HTTPS", text).to_wire()
    assert wire is not None
    return wire


def admits(address: Address) -> bool:
    return special_purpose(address) is None


def pruned(text: str) -> str | None:
    octets = prune(rdata(text), OWNER, admits)
    if octets is None:
        return None
    return dns.rdata.from_wire("IN", "HTTPS", octets, 0, len(octets)).to_text()


def param(key: int, value: bytes = b"") -> bytes:
    return key.to_bytes(2) + len(value).to_bytes(2) + value


KEPT = {
    "nothing to prune": ("1 . alpn=h2 port=8443", '1 . alpn="h2" port="8443"'),
    "ech": ("1 . alpn=h2 ech=AAT+DQAA", '1 . alpn="h2"'),
    "h3": ('1 . alpn="h3,h2,h3-29,http/1.1,doq,hq-29"', '1 . alpn="h2,http/1.1"'),
    "h3 alone": ("1 . alpn=h3 port=8443", '1 . port="8443"'),
    "h3 beside no default": ("1 . alpn=h3,h2 no-default-alpn", '1 . alpn="h2" no-default-alpn'),
    "dohpath and unknown keys": ("1 . port=1 dohpath=/q{?dns} ohttp key65000=x", '1 . port="1"'),
    "a private hint": ("1 . ipv4hint=10.0.0.1,1.1.1.1", '1 . ipv4hint="1.1.1.1"'),
    "private hints only": ("1 . alpn=h2 ipv4hint=10.0.0.1 ipv6hint=::1", '1 . alpn="h2"'),
    "both families": (
        "1 . ipv4hint=1.1.1.1 ipv6hint=fd00:ec2::254,2606:4700::1111",
        '1 . ipv4hint="1.1.1.1" ipv6hint="2606:4700::1111"',
    ),
    "the owner by name": ("1 WWW.example.com. alpn=h2", '1 www.example.com. alpn="h2"'),
    "not there": ("0 .", "0 ."),
    "an alias of itself": ("0 www.example.com.", "0 www.example.com."),
    "mandatory that stays": ("1 . mandatory=alpn alpn=h2", '1 . mandatory="alpn" alpn="h2"'),
}


@pytest.mark.parametrize(("text", "kept"), KEPT.values(), ids=KEPT)
def test_keeps_what_may_be_handed_out(text: str, kept: str) -> None:
    """Closes `ECH hides the SNI (strip); h3 by ALPN (strip)`."""
    assert pruned(text) == kept


DROPPED = {
    "another service name": "1 other.example.net. alpn=h2",
    "an alias": "0 other.example.net.",
    "the owner's parent": "1 example.com. alpn=h2",
    "no protocol left": "1 . alpn=h3 no-default-alpn",
    "mandatory ech": "1 . mandatory=ech alpn=h2 ech=AAT+DQAA",
    "mandatory hints that are refused": "1 . mandatory=ipv4hint ipv4hint=10.0.0.1",
    "mandatory alpn that is h3": "1 . mandatory=alpn alpn=h3",
    "mandatory and unknown": "1 . mandatory=key65000 key65000=x",
}


@pytest.mark.parametrize("text", DROPPED.values(), ids=DROPPED)
def test_drops_a_record_that_grants_nothing_or_cannot_be_used(text: str) -> None:
    """Closes `ServiceMode target`: `via` grants nothing to the queries that would follow."""
    assert pruned(text) is None


def test_ignores_parameters_of_an_alias() -> None:
    """RFC 9460, section 2.4.2."""
    assert prune(b"\0\0\0" + param(5, b"x"), OWNER, admits) == b"\0\0\0"


BROKEN = {
    "nothing": b"",
    "a priority alone": b"\0\1",
    "a target cut short": b"\0\1\3ww",
    "half a parameter": b"\0\1\0\0\1\0",
    "a value cut short": b"\0\1\0\0\1\0\3ab",
    "a key twice": b"\0\1\0" + param(2) + param(2),
    "keys that fall": b"\0\1\0" + param(3, b"\0\1") + param(2),
    "an odd target": b"\0\1\3a b\0",
}


@pytest.mark.parametrize("octets", BROKEN.values(), ids=BROKEN)
def test_drops_what_cannot_be_read(octets: bytes) -> None:
    assert prune(octets, OWNER, admits) is None
    with pytest.raises((ValueError, MalformedNameError)):
        read_binding(octets)


def test_does_not_hand_out_half_a_hint_or_half_a_protocol() -> None:
    octets = b"\0\1\0" + param(1, b"\2h2\x09h") + param(4, b"\1\1\1\1\x0a") + param(6, bytes(15))
    kept = prune(octets, OWNER, admits)
    assert kept == b"\0\1\0" + param(1, b"\2h2") + param(4, b"\1\1\1\1")


def test_reads_priority_target_and_parameters() -> None:
    assert read_binding(rdata("7 a.example. port=443 key65000=x")) == ServiceBinding(
        7, parse("a.example"), ((3, b"\1\xbb"), (65000, b"x"))
    )


@given(
    st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=40)), max_size=6),
    st.integers(0, 2),
)
def test_never_hands_out_an_address_that_is_not_admitted(
    params: list[tuple[int, bytes]], priority: int
) -> None:
    ordered = sorted(dict(params).items())
    octets = priority.to_bytes(2) + b"\0" + b"".join(param(key, value) for key, value in ordered)
    seen: list[Address] = []

    def refuses(address: Address) -> bool:
        seen.append(address)
        return False

    kept = prune(octets, OWNER, refuses)
    if kept is not None:
        keys = {key for key, _ in read_binding(kept).params}
        assert keys <= {0, 1, 2, 3}
