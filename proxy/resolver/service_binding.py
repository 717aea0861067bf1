"""SVCB and HTTPS records (RFC 9460): read, pruned of what would lead past the appliance, written.

Only parameters that we know and can judge pass.  `ech` would hide the server name of a tunnel,
QUIC would leave by a way that is closed, `dohpath` would name a resolver that is not us; what
this version does not know may do any of it.
"""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from struct import Struct as Layout

from msgspec import Struct

from proxy.resolver.answer import read_name
from proxy.wire.question import write_name
from rules.address import Address
from rules.errors import MalformedNameError
from rules.name import ROOT, DomainName

# RFC 9460, section 14.3.2: the keys that pass
_MANDATORY, _ALPN, _NO_DEFAULT_ALPN, _PORT, _IPV4HINT, _IPV6HINT = 0, 1, 2, 3, 4, 6
_PASSING = frozenset({_ALPN, _NO_DEFAULT_ALPN, _PORT, _IPV4HINT, _IPV6HINT})
_OVER_QUIC = (b"h3", b"hq", b"doq")  # RFC 9114, its drafts (h3-29, hq-29), RFC 9250
_PARAM = Layout("!HH")
_U16 = Layout("!H")

type Admits = Callable[[Address], bool]
"""Whether an address may stand for the asked name."""


class ServiceBinding(Struct, frozen=True):
    """The rdata of one record; `params` are in the order of their keys, values as on the wire."""

    priority: int
    target: DomainName
    params: tuple[tuple[int, bytes], ...] = ()


def read_binding(rdata: bytes) -> ServiceBinding:
    """Return what `rdata` (uncompressed) says.

    Raises:
        MalformedNameError: a target outside the canonical alphabet.
        ValueError: cut short, or keys that do not increase (RFC 9460, section 2.2).
    """
    if len(rdata) < 3:
        raise ValueError("no priority and target")
    target, at = read_name(rdata, 2)
    params: list[tuple[int, bytes]] = []
    while at < len(rdata):
        if at + _PARAM.size > len(rdata):
            raise ValueError("a parameter is cut short")
        key, length = _PARAM.unpack_from(rdata, at)
        at += _PARAM.size + length
        if at > len(rdata) or (params and key <= params[-1][0]):
            raise ValueError("a value is cut short, or keys do not increase")
        params.append((key, rdata[at - length : at]))
    return ServiceBinding(int.from_bytes(rdata[:2]), target, tuple(params))


def prune(rdata: bytes, owner: DomainName, admits: Admits) -> bytes | None:
    """Return the rdata that may be handed out, None when the record must not be.

    A TargetName other than the owner's own name grants nothing, so that such a record would
    only lead to refusals.
    """
    try:
        binding = read_binding(rdata)
    except (MalformedNameError, ValueError):
        return None
    if binding.target not in {ROOT, owner}:
        return None
    # "." stands for the owner (RFC 9460, section 2.5.2), in AliasMode for "not there" (2.5.1).
    head = rdata[:2] + write_name(binding.target)
    if binding.priority == 0:  # RFC 9460, section 2.4.2: AliasMode has no parameters
        return head
    params = _prune_params(dict(binding.params), admits)
    if params is None:
        return None
    return head + b"".join(_PARAM.pack(key, len(value)) + value for key, value in params.items())


def _prune_params(params: dict[int, bytes], admits: Admits) -> dict[int, bytes] | None:
    kept = {key: value for key, value in params.items() if key in _PASSING}
    for key, value in (
        (_ALPN, _over_tcp(kept.get(_ALPN, b""))),
        (_IPV4HINT, _admitted(kept.get(_IPV4HINT, b""), 4, admits)),
        (_IPV6HINT, _admitted(kept.get(_IPV6HINT, b""), 16, admits)),
    ):
        kept.pop(key, None)
        if value:
            kept[key] = value
    if _NO_DEFAULT_ALPN in kept and _ALPN not in kept:
        return None  # RFC 9460, section 7.1.1: a service with no protocol at all
    mandatory = params.get(_MANDATORY, b"")
    needed = {_U16.unpack_from(mandatory, at)[0] for at in range(0, len(mandatory) - 1, 2)}
    if not needed <= kept.keys():
        return None  # RFC 9460, section 8: a client must not use it without them
    if mandatory:
        kept[_MANDATORY] = mandatory
    return dict(sorted(kept.items()))  # RFC 9460, section 2.2: in increasing order of keys


def _over_tcp(alpn: bytes) -> bytes:
    kept = b""
    at = 0
    while at < len(alpn):
        protocol = alpn[at + 1 : at + 1 + alpn[at]]
        if len(protocol) == alpn[at] and not protocol.startswith(_OVER_QUIC):
            kept += bytes((len(protocol),)) + protocol
        at += 1 + alpn[at]
    return kept


def _admitted(hint: bytes, octets: int, admits: Admits) -> bytes:
    addresses = (hint[at : at + octets] for at in range(0, len(hint) - octets + 1, octets))
    kind: type[Address] = IPv4Address if octets == 4 else IPv6Address
    return b"".join(packed for packed in addresses if admits(kind(packed)))
