"""Zones: the longest suffix covers a name, and what that changes for special-use names."""

from ipaddress import ip_address

import pytest

from rules.name import DomainName, parse
from rules.zones import NO_ZONES, ZonedIndex, is_private, make_zones, with_zones, zones_of
from tests.rules.written import allow, index

CORP, LAB = parse("corp.example"), parse("lab.corp.example")
ZONES = make_zones(
    [CORP, LAB, parse("corp.internal"), parse("internal"), parse("2.10.in-addr.arpa")]
)


@pytest.mark.parametrize(
    ("name", "apex"),
    [
        ("corp.example", CORP),
        ("a.b.corp.example", CORP),
        ("lab.corp.example", LAB),
        ("x.lab.corp.example", LAB),
        ("evilcorp.example", None),
        ("corp.example.net", None),
        ("example", None),
        (".", None),
        ("9.8.2.10.in-addr.arpa", "2.10.in-addr.arpa"),
        ("9.8.3.10.in-addr.arpa", None),
    ],
)
def test_the_longest_suffix_by_whole_labels_covers_a_name(name: str, apex: str | None) -> None:
    """Closes "suffix without label boundary (`evilexample.com`)" for zones."""
    assert ZONES.apex(DomainName(name)) == apex


def test_without_zones_no_name_is_in_one() -> None:
    assert NO_ZONES.apex(CORP) is None
    assert not NO_ZONES.has_below(parse("example"))


@pytest.mark.parametrize(
    ("address", "inside", "outside"),
    [
        ("8.8.8.8", True, True),
        ("10.1.2.3", True, False),
        ("127.0.0.1", False, False),
        ("64:ff9b::8.8.8.8", True, True),
        ("64:ff9b::10.1.2.3", False, False),
    ],
)
def test_a_name_may_have_a_private_address_in_a_zone_alone(
    address: str, inside: bool, outside: bool
) -> None:
    of = ip_address(address)
    assert ZONES.may_have(parse("db.corp.example"), of) is inside
    assert ZONES.may_have(parse("example.net"), of) is outside


def test_knows_the_names_above_a_zone() -> None:
    assert ZONES.has_below(parse("example"))
    assert ZONES.has_below(CORP)  # the lab's zone is below it
    assert not ZONES.has_below(LAB)


@pytest.mark.parametrize(
    ("name", "via", "asked"),
    [
        ("db.corp.internal", None, True),
        ("db.corp.internal", "www.corp.internal", True),
        ("db.corp.internal", "www.internal", False),  # another zone's word
        ("db.corp.internal", "www.example.net", False),
        ("printer.local", None, False),
        ("sallyport.internal", None, False),
        ("a._why.sallyport.internal", None, False),
    ],
)
def test_a_special_use_name_is_asked_of_its_own_zone_alone(
    name: str, via: str | None, *, asked: bool
) -> None:
    assert ZONES.asks(parse(name), None if via is None else parse(via)) is asked


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12:3456::1"],
)
def test_private_addresses_are_those_of_rfc_1918_and_4193(address: str) -> None:
    assert is_private(ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "127.0.0.1", "0.0.0.0", "169.254.169.254", "100.100.100.200", "100.64.0.1",
     "172.32.0.1", "168.63.129.16", "192.0.0.192", "224.0.0.1", "::1", "::", "fe80::1",
     "::ffff:10.0.0.1", "::10.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::1", "fec0::1", "ff02::1",
     "fd00:ec2::254", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42", "2606:4700::1"],
)  # fmt: skip
def test_everything_else_is_not_private(address: str) -> None:
    """Closes "metadata: 169.254.169.254 ... fd00:42::42" for zones, and carried addresses."""
    assert not is_private(ip_address(address))


def test_an_index_keeps_its_rules_and_takes_zones() -> None:
    plain = index(allow("a.org"))
    zoned = with_zones(plain, ZONES)
    assert isinstance(zoned, ZonedIndex)
    assert (zoned.generation, zoned.apps) == (plain.generation, plain.apps)
    assert zones_of(zoned) == ZONES
    assert zones_of(plain) == NO_ZONES
    assert with_zones(plain, NO_ZONES) is plain
