"""Addresses: one spelling, and what the special-purpose registries say of them.

The table is the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890 and its
updates) with multicast and the metadata services of clouds that live on global addresses.
`ipaddress.is_global` is never asked: its answer changes with the Python version.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from rules.errors import MalformedAddressError

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network

_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}", re.ASCII)

_SPECIAL_IPV4 = {
    "0.0.0.0/8": "this network (RFC 791, section 3.2)",
    "10.0.0.0/8": "private use (RFC 1918)",
    "100.64.0.0/10": "shared address space (RFC 6598)",
    "127.0.0.0/8": "loopback (RFC 1122, section 3.2.1.3)",
    "169.254.0.0/16": "link local, cloud metadata (RFC 3927)",
    "172.16.0.0/12": "private use (RFC 1918)",
    "192.0.0.0/24": "IETF protocol assignments (RFC 6890, section 2.1)",
    "192.0.2.0/24": "documentation (RFC 5737)",
    "192.31.196.0/24": "AS112 (RFC 7535)",
    "192.52.193.0/24": "AMT (RFC 7450)",
    "192.88.99.0/24": "6to4 relay anycast (RFC 7526)",
    "192.168.0.0/16": "private use (RFC 1918)",
    "192.175.48.0/24": "AS112 (RFC 7534)",
    "198.18.0.0/15": "benchmarking (RFC 2544)",
    "198.51.100.0/24": "documentation (RFC 5737)",
    "203.0.113.0/24": "documentation (RFC 5737)",
    "224.0.0.0/4": "multicast (RFC 5771)",
    "240.0.0.0/4": "reserved and limited broadcast (RFC 1112, RFC 919)",
    "168.63.129.16/32": "cloud metadata on a global address",
}
_SPECIAL_IPV6 = {
    "::/96": "unspecified, loopback, IPv4-compatible (RFC 4291, sections 2.5.2, 2.5.3, 2.5.5.1)",
    "::ffff:0:0/96": "IPv4-mapped (RFC 4291, section 2.5.5.2)",
    "64:ff9b:1::/48": "local-use IPv4/IPv6 translation (RFC 8215)",
    "100::/64": "discard only (RFC 6666)",
    "100:0:0:1::/64": "dummy prefix (RFC 9780)",
    "2001::/23": "IETF protocol assignments (RFC 2928)",
    "2001:db8::/32": "documentation (RFC 3849)",
    "2620:4f:8000::/48": "AS112 (RFC 7534)",
    "3fff::/20": "documentation (RFC 9637)",
    "5f00::/16": "segment routing SIDs (RFC 9602)",
    "fc00::/7": "unique local, cloud metadata (RFC 4193)",
    "fe80::/10": "link local (RFC 4291, section 2.5.6)",
    "fec0::/10": "site local, deprecated (RFC 3879)",
    "ff00::/8": "multicast (RFC 4291, section 2.7)",
}
_GLOBAL_IPV6 = IPv6Network("2000::/3")  # RFC 3513, section 2.4: all that is assigned as global
_WELL_KNOWN_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052, section 2.1
_MAPPED = IPv6Network("::ffff:0:0/96")
_COMPATIBLE = IPv6Network("::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")  # RFC 3056, section 2
_TEREDO = IPv6Network("2001::/32")  # RFC 4380, section 4
_MASK32 = 0xFFFFFFFF


def parse_address(text: str) -> Address:
    """Return the address that `text` spells in canonical form.

    Four decimal parts without leading zeros (CVE-2021-29921), or RFC 4291 text without a zone.

    Raises:
        MalformedAddressError: any other spelling.
    """
    if _IPV4.fullmatch(text):
        return IPv4Address(text)
    if ":" not in text or "%" in text or not text.isascii():
        raise MalformedAddressError(f"{text[:64]!r} is not an address in canonical spelling")
    try:
        return IPv6Address(text)
    except ValueError:
        raise MalformedAddressError(f"{text[:64]!r} is not an IPv6 address") from None


def parse_network(text: str) -> Network:
    """Return the network `ADDRESS/LENGTH`; a bare address is its own network.

    Raises:
        MalformedAddressError: not an address, a bad length, or host bits that are set.
    """
    head, slash, length = text.partition("/")
    address = parse_address(head)
    bits = address.max_prefixlen
    if slash and not re.fullmatch(r"0|[1-9]\d{0,2}", length, re.ASCII):
        raise MalformedAddressError(f"{length[:8]!r} is not a prefix length")
    try:
        pair = (int(address), int(length) if slash else bits)
        return IPv4Network(pair) if isinstance(address, IPv4Address) else IPv6Network(pair)
    except ValueError as error:
        raise MalformedAddressError(f"{text[:64]!r}: {error}") from None


def _blocks(table: dict[str, str]) -> tuple[tuple[int, int, str], ...]:
    """Return (host bits, prefix, block): integers are compared, no objects are made."""
    networks = ((parse_network(text), block) for text, block in table.items())
    hosts = ((net.max_prefixlen - net.prefixlen, net, block) for net, block in networks)
    return tuple((bits, int(net.network_address) >> bits, block) for bits, net, block in hosts)


_IPV4_BLOCKS, _IPV6_BLOCKS = _blocks(_SPECIAL_IPV4), _blocks(_SPECIAL_IPV6)


def special_purpose(address: Address) -> str | None:
    """Return the registry's word for the block that holds `address`; None for global unicast."""
    value = int(address)
    if isinstance(address, IPv4Address):
        return _block(value, _IPV4_BLOCKS)
    if address in _TEREDO:
        return None  # it is judged by the addresses that it carries (RFC 4380, section 4)
    block = _block(value, _IPV6_BLOCKS)
    if block is not None or address in _GLOBAL_IPV6 or address in _WELL_KNOWN_NAT64:
        return block
    return "not assigned as global unicast (RFC 3513, section 2.4)"


def _block(value: int, blocks: tuple[tuple[int, int, str], ...]) -> str | None:
    for bits, prefix, block in blocks:
        if value >> bits == prefix:
            return block
    return None


def is_this_host(address: Address) -> bool:
    """Return whether `address`, or one that it carries, is loopback or unspecified."""
    carried = (address, *embedded(address))  # :: and ::1 carry 0.0.0.0 and 0.0.0.1
    return any(int(one) >> 24 in {0, 127} for one in carried if isinstance(one, IPv4Address))


def embedded(address: Address, nat64: tuple[IPv6Network, ...] = ()) -> tuple[IPv4Address, ...]:
    """Return the IPv4 addresses that an IPv6 address carries, where traffic may end up.

    IPv4-mapped and -compatible, NAT64 (the well-known prefix and `nat64`, RFC 6052 section
    2.2), 6to4 (RFC 3056) and Teredo (server and obscured client, RFC 4380 section 4).
    """
    if isinstance(address, IPv4Address):
        return ()
    value = int(address)
    if address in _TEREDO:
        return IPv4Address(value >> 64 & _MASK32), IPv4Address(~value & _MASK32)
    if address in _SIX_TO_FOUR:
        return (IPv4Address(value >> 80 & _MASK32),)
    if address in _MAPPED or address in _COMPATIBLE or address in _WELL_KNOWN_NAT64:
        return (IPv4Address(value & _MASK32),)
    return tuple(_from_nat64(value, prefix) for prefix in nat64 if address in prefix)


def _from_nat64(value: int, prefix: IPv6Network) -> IPv4Address:
    # RFC 6052, section 2.2: octet 8 (bits 64 to 71) is zero and no part of the IPv4 address.
    octets = value.to_bytes(16)
    start = prefix.prefixlen // 8
    rest = octets[start:8] + octets[9:] if start <= 8 else octets[start:]
    return IPv4Address(rest[:4])
