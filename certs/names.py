"""Which names the server's certificate has, and which ones the root is held to.

A name is a text: a DNS name or an address, in canonical spelling.  RFC 5280, section 4.2.1.10: a
DNS name in a constraint stands for itself and everything below it.
"""

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network

DNS_NAMES = ("localhost", "sallyport.internal")  # RFC 6761, section 6.3; ICANN: .internal
LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


def server_names(listeners: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the certificate of a server that listens on these addresses.

    A wildcard gives the loopback address of its family: which addresses it stands for is the
    host's affair, and changes.  Who dials another one of them verifies `sallyport.internal`.

    Raises:
        ValueError: one of them is no address.
    """
    addresses = {_reached(ip_address(text)) for text in listeners}
    ordered = sorted(addresses, key=lambda each: (each.version, int(each)))
    return (*DNS_NAMES, *map(str, ordered))


def _reached(address: Address) -> Address:
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped  # what listens there is reached over IPv4
        if mapped is not None:
            return _reached(mapped)
        return IPv6Address("::1") if address.is_unspecified else address
    return IPv4Address("127.0.0.1") if address.is_unspecified else address


def split(names: Iterable[str]) -> tuple[tuple[str, ...], tuple[Address, ...]]:
    """Return the DNS names and the addresses among `names`."""
    dns: list[str] = []
    addresses: list[Address] = []
    for name in names:
        try:
            addresses.append(ip_address(name))
        except ValueError:
            dns.append(name)
    return tuple(dns), tuple(addresses)


def permitted(names: Iterable[str]) -> tuple[tuple[str, ...], tuple[Network, ...]]:
    """Return the DNS subtrees and networks to hold a root to that is made for `names`.

    Our two names and loopback are always among them, so that a listener that moves within
    loopback needs no new root; every other address is there alone.
    """
    dns, addresses = split(names)
    others = [each for each in addresses if not any(each in network for network in LOOPBACK)]
    subtrees = (*DNS_NAMES, *(name for name in dns if name not in DNS_NAMES))
    return subtrees, (*LOOPBACK, *map(ip_network, others))


def outside(
    names: Iterable[str], subtrees: Iterable[str], networks: Iterable[Network]
) -> tuple[str, ...]:
    """Return those of `names` that neither the DNS subtrees nor the networks permit."""
    dns, addresses = split(names)
    kept, within = tuple(subtrees), tuple(networks)
    bad_names = [
        name for name in dns if not any(name == tree or name.endswith(f".{tree}") for tree in kept)
    ]
    bad_addresses = [each for each in addresses if not any(each in one for one in within)]
    return (*bad_names, *map(str, bad_addresses))
