"""Names that never leave the host: the IANA Special-Use Domain Names registry (RFC 6761).

Most of them may be covered by a zone of the configuration (`rules.zones`): those are asked there.

`example.com` and its kin are in the registry too, but resolvers treat them as any other name
(RFC 6761, section 6.5), so they are not here.
"""

from enum import Enum

from rules.name import DomainName, ancestors


class SpecialUse(Enum):
    """How a special-use name is answered here, without asking anyone."""

    LOOPBACK = "loopback"  # RFC 6761, section 6.3: 127.0.0.1 and ::1
    NONEXISTENT = "nonexistent"  # NXDOMAIN
    EMPTY_ZONE = "empty-zone"  # the apex has SOA and NS only, below it NXDOMAIN (RFC 6303)
    EMPTY_TREE = "empty-tree"  # NODATA for the name and all below it
    IPV4ONLY = "ipv4only"  # RFC 8880: 192.0.0.170 and 192.0.0.171
    OURS = "ours"  # sallyport.internal: the appliance itself


OUR_ZONE = DomainName("sallyport.internal")

_REVERSE_IPV4 = (
    *(f"{n}.in-addr.arpa" for n in (0, 10, 127)),
    *(f"{n}.172.in-addr.arpa" for n in range(16, 32)),
    *(f"{n}.100.in-addr.arpa" for n in range(64, 128)),  # RFC 7793
    "168.192.in-addr.arpa", "254.169.in-addr.arpa", "2.0.192.in-addr.arpa",
    "100.51.198.in-addr.arpa", "113.0.203.in-addr.arpa", "255.255.255.255.in-addr.arpa",
)  # fmt: skip
_REVERSE_IPV6 = (
    "0." * 32 + "ip6.arpa",  # RFC 6303, section 4.4
    "1." + "0." * 31 + "ip6.arpa",
    "d.f.ip6.arpa",  # RFC 6303, section 4.4: FD00::/8
    "8.e.f.ip6.arpa", "9.e.f.ip6.arpa", "a.e.f.ip6.arpa", "b.e.f.ip6.arpa",  # section 4.5
    "8.b.d.0.1.0.0.2.ip6.arpa",  # section 4.6
)  # fmt: skip
_TABLE: dict[str, SpecialUse] = {
    "localhost": SpecialUse.LOOPBACK,
    "invalid": SpecialUse.NONEXISTENT,  # RFC 6761, section 6.4
    "test": SpecialUse.NONEXISTENT,  # RFC 6761, section 6.2
    "local": SpecialUse.NONEXISTENT,  # RFC 6762, section 22.1
    "onion": SpecialUse.NONEXISTENT,  # RFC 7686, section 2
    "alt": SpecialUse.NONEXISTENT,  # RFC 9476, section 2
    "internal": SpecialUse.NONEXISTENT,  # ICANN board resolution 2024.07.29.06: private use
    "home.arpa": SpecialUse.EMPTY_ZONE,  # RFC 8375, section 4
    "service.arpa": SpecialUse.EMPTY_ZONE,  # RFC 9665, section 10
    "resolver.arpa": SpecialUse.EMPTY_TREE,  # RFC 9462, section 6.4
    "ipv4only.arpa": SpecialUse.IPV4ONLY,  # RFC 8880, section 7.1
    "use-application-dns.net": SpecialUse.NONEXISTENT,  # the browsers' canary: DoH stays off
    "sallyport.internal": SpecialUse.OURS,
    **dict.fromkeys((*_REVERSE_IPV4, *_REVERSE_IPV6), SpecialUse.EMPTY_ZONE),
}
_TOPS = frozenset(name.rpartition(".")[2] for name in _TABLE)
SPECIAL_NAMES = frozenset(_TABLE)
"""The names that `special_use` knows by themselves; it speaks of what lies below them as well."""

# What these say is about this host and this resolver: no zone of anybody's speaks for them.
_ALWAYS_LOCAL = frozenset(
    {"localhost", "sallyport.internal", "resolver.arpa", "use-application-dns.net"}
)


def special_use(name: DomainName) -> tuple[SpecialUse, DomainName] | None:
    """Return how `name` is answered locally, and the apex that says so; None for other names."""
    if name.rpartition(".")[2] not in _TOPS:
        return None
    for candidate in (name, *ancestors(name)):
        special = _TABLE.get(candidate)
        if special is not None:
            return special, candidate
    return None


def is_always_local(name: DomainName) -> bool:
    """Return whether `name` is answered here even where a zone covers it."""
    special = special_use(name)
    return special is not None and special[1] in _ALWAYS_LOCAL
