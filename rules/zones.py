"""Split horizon: suffixes whose names are asked of resolvers of their own.

One value says for deciding and for asking alike which zone a name is in, so that the two cannot
disagree.  What a zone changes: its special-use names are asked and not answered here, and its
names may stand for private addresses.  It allows nothing: that is still the rules' to do.
"""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from rules.address import Address, Network, embedded, parse_network, special_purpose
from rules.match import RuleIndex
from rules.name import DomainName, ancestors, is_below
from rules.special import is_always_local

# RFC 1918, section 3, and RFC 4193, section 3.1: what a private network numbers its hosts from.
_PRIVATE = tuple(
    parse_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
# Metadata services of clouds that live on unique local addresses: they hand out credentials.
_METADATA = tuple(
    parse_network(text)
    for text in ("fd00:ec2::/32", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42")
)


class Zones(Struct, frozen=True):
    """The suffixes, each of which covers its own name and all names below it."""

    suffixes: frozenset[DomainName] = frozenset()

    def apex(self, name: DomainName) -> DomainName | None:
        """Return the longest suffix that covers `name`; None for a name outside every zone."""
        if not self.suffixes:
            return None
        if name in self.suffixes:
            return name
        return next((above for above in ancestors(name) if above in self.suffixes), None)

    def has_below(self, name: DomainName) -> bool:
        """Return whether a zone lies strictly below `name` (RFC 8020: then it exists)."""
        return any(is_below(suffix, name) for suffix in self.suffixes)

    def asks(self, name: DomainName, via: DomainName | None) -> bool:
        """Return whether a special-use name is asked of its zone and not answered here.

        A chain's target is so only in an answer of that same zone: what another resolver says
        of a special-use name is no word on it.
        """
        apex = self.apex(name)
        if apex is None or is_always_local(name):
            return False
        return via is None or self.apex(via) == apex

    def may_have(self, name: DomainName, address: Address) -> bool:
        """Return whether `name` may stand for `address` unlisted: it is public, or a zone's own."""
        if special_purpose(address) is not None:
            return is_private(address) and self.apex(name) is not None
        return all(special_purpose(one) is None for one in embedded(address))


NO_ZONES = Zones()


class ZonedIndex(RuleIndex, frozen=True):
    """The rules of one generation, on a host that has zones."""

    zones: Zones = NO_ZONES


def with_zones(index: RuleIndex, zones: Zones) -> RuleIndex:
    """Return `index` as it decides where `zones` are configured."""
    if not zones.suffixes:
        return index
    fields: dict[str, Any] = {name: getattr(index, name) for name in RuleIndex.__struct_fields__}
    return ZonedIndex(**fields, zones=zones)


def zones_of(index: RuleIndex) -> Zones:
    """Return the zones that `index` decides with."""
    return index.zones if isinstance(index, ZonedIndex) else NO_ZONES


def make_zones(suffixes: Iterable[DomainName]) -> Zones:
    """Return the zones of these suffixes."""
    return Zones(frozenset(suffixes))


def is_private(address: Address) -> bool:
    """Return whether `address` is of a private network: RFC 1918 or unique local.

    Loopback, link-local, shared, and every other special-purpose address are not, nor is an
    IPv6 address that carries an IPv4 one, nor a metadata service on a unique local address.
    """
    return _is_in(address, _PRIVATE) and not _is_in(address, _METADATA)


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
