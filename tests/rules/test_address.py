"""Addresses have one spelling, and the special-purpose registries are ours to read."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.address import (
    embedded,
    is_this_host,
    parse_address,
    parse_network,
    special_purpose,
)
from rules.errors import MalformedAddressError


@pytest.mark.parametrize(
    "written",
    ["0.0.0.0", "255.255.255.255", "192.0.2.1", "::", "::1", "2001:DB8::1", "::ffff:192.0.2.1",
     "2001:db8:0:0:0:0:0:1"],
)  # fmt: skip
def test_reads_canonical_spellings(written: str) -> None:
    assert parse_address(written) == ip_address(written)


@pytest.mark.parametrize(
    "written",
    ["", "127.1", "127.0.1", "2130706433", "0x7f.0.0.1", "0x7f000001", "0177.0.0.1", "127.0.0.01",
     "00.0.0.0", "256.0.0.1", "1.2.3.4.", "1.2.3.4.5", ".1.2.3", "1..2.3", "1.2.3.4\n", " 1.2.3.4",
     "+1.2.3.4", "\u0661.2.3.4", "fe80::1%eth0", "::1%0", "[::1]", ":::", "1:2:3", "::g", "::1\n",
     "::1.2.3.04", "::\uff11", "example.com"],
)  # fmt: skip
def test_refuses_every_other_spelling(written: str) -> None:
    """Closes "IPv4 as octal, hex, decimal, two or three parts, with leading zeros; zone ids"."""
    with pytest.raises(MalformedAddressError):
        parse_address(written)


@given(st.one_of(st.text(max_size=50), st.ip_addresses().map(str)))
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    try:
        address = parse_address(text)
    except MalformedAddressError:
        return
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("written", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
    ],
)
def test_reads_networks_and_bare_addresses(written: str, network: str) -> None:
    assert parse_network(written) == ip_network(network)


@pytest.mark.parametrize(
    "written",
    ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/255.0.0.0",
     "10.0.0.0/8/8", "10/8", "::/129", "2001:db8::1/32", "/8", "10.0.0.0/\u0668", "10.0.0.0/8\n"],
)  # fmt: skip
def test_refuses_networks_with_host_bits_or_odd_lengths(written: str) -> None:
    with pytest.raises(MalformedAddressError):
        parse_network(written)


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("0.0.0.0", "this network"),
        ("10.255.255.255", "private use"),
        ("100.64.0.1", "shared"),
        ("100.100.100.200", "shared"),
        ("127.255.0.1", "loopback"),
        ("169.254.169.254", "link local"),
        ("168.63.129.16", "cloud metadata"),
        ("172.16.0.0", "private use"),
        ("172.31.255.255", "private use"),
        ("192.0.0.192", "protocol assignments"),
        ("192.0.2.1", "documentation"),
        ("192.168.1.1", "private use"),
        ("198.19.255.255", "benchmarking"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::8.8.8.8", "IPv4-compatible"),
        ("::ffff:8.8.8.8", "IPv4-mapped"),
        ("64:ff9b:1::1", "local-use"),
        ("100::1", "discard"),
        ("100:0:0:1::1", "dummy"),
        ("2001:1ff::1", "protocol assignments"),
        ("2001:db8::1", "documentation"),
        ("3fff::1", "documentation"),
        ("5f00::1", "segment routing"),
        ("fc00::1", "unique local"),
        ("fd00:ec2::254", "unique local"),
        ("fe80::1", "link local"),
        ("fec0::1", "site local"),
        ("ff02::1", "multicast"),
        ("4000::1", "not assigned"),
        ("::ffff:0:8.8.8.8", "not assigned"),
    ],
)
def test_names_the_block_of_a_special_purpose_address(address: str, word: str) -> None:
    """Closes "metadata" addresses and "0.0.0.0 and ::"."""
    assert word in (special_purpose(ip_address(address)) or "")


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.0", "100.128.0.0", "11.0.0.0", "223.0.0.1",
     "2606:4700::1", "2001:200::1", "64:ff9b::8.8.8.8", "2001::1", "2002::1"],
)  # fmt: skip
def test_global_addresses_are_in_no_block(address: str) -> None:
    assert special_purpose(ip_address(address)) is None


@given(st.ip_addresses())
def test_every_address_that_is_not_global_is_special(address: IPv4Address | IPv6Address) -> None:
    """The standard library's table may know fewer blocks than ours, never more."""
    carried = embedded(address)
    if address.is_private or address.is_multicast or address.is_reserved:
        assert special_purpose(address) is not None or carried


@pytest.mark.parametrize(
    ("address", "carried"),
    [
        ("192.0.2.1", []),
        ("2606::1", []),
        ("::ffff:10.0.0.1", ["10.0.0.1"]),
        ("::10.0.0.1", ["10.0.0.1"]),
        ("64:ff9b::10.0.0.1", ["10.0.0.1"]),
        ("2002:a00:1:5::9", ["10.0.0.1"]),
        ("2001:0:0a00:1:0:0:f5ff:fffd", ["10.0.0.1", "10.0.0.2"]),
    ],
)
def test_unwraps_the_ipv4_addresses_that_ipv6_carries(address: str, carried: list[str]) -> None:
    """Closes "IPv6-mapped, -compatible, NAT64, 6to4, Teredo"."""
    assert list(map(str, embedded(ip_address(address)))) == carried


@pytest.mark.parametrize(
    ("prefix", "address"),
    [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ],
)
def test_unwraps_configured_nat64_prefixes_as_rfc_6052_draws_them(
    prefix: str, address: str
) -> None:
    """The examples of RFC 6052, section 2.4."""
    assert embedded(ip_address(address), (IPv6Network(prefix),)) == (IPv4Address("192.0.2.33"),)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.255.255.255", True),
        ("0.0.0.0", True),
        ("0.0.0.1", True),
        ("::", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("64:ff9b::127.0.0.1", True),
        ("2002:7f00:1::", True),
        ("10.0.0.1", False),
        ("128.0.0.1", False),
        ("::2:0:0", False),
        ("2606::1", False),
    ],
)
def test_knows_this_host_in_every_spelling(address: str, expected: bool) -> None:
    assert is_this_host(ip_address(address)) is expected
