"""How upstream resolvers are written in the configuration, and what that says.

`udp://A:P`, `tcp://A:P`, `tls://A:P#NAME` and `https://A:P/PATH#NAME`, where A is an address
(never a name: looking that up would need an upstream), P a port with the default of its
transport, and NAME what the certificate must be for.  An IPv6 address stands in brackets
(RFC 3986, section 3.2.2).  `system` is whatever resolv.conf(5) of this host names.

Upstreams that stand in one list are one group of equal policy; a list of lists is groups in the
order in which they are asked.  A zone has a list of its own.
"""

import re
import socket
from collections.abc import Mapping, Sequence
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import override

from msgspec import Struct

from proxy.errors import ConfigError
from rules.address import Address, parse_address
from rules.errors import MalformedAddressError, MalformedNameError
from rules.name import ROOT, DomainName
from rules.name import parse as parse_name
from rules.special import is_always_local

_URL = re.compile(
    r"(?P<scheme>[a-z0-9]+)://"
    r"(?:\[(?P<bracketed>[^\]]*)\]|(?P<plain>[^\[\]:/?#@]*))"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[^?#]*)?(?:#(?P<name>[^#]*))?",
    re.ASCII,
)
# RFC 3986, section 3.3: unreserved, sub-delims, ":", "@" and "%XX"; no template of RFC 6570.
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)+", re.ASCII)
_PATH_CHARACTERS = 1024
_EXAMPLE = (
    "write udp://A:P, tcp://A:P, tls://A:P#NAME or https://A:P/dns-query#NAME with an address,"
    " IPv6 in brackets, or system"
)


class Transport(StrEnum):
    """How a query travels; the values are the schemes of the URLs."""

    UDP = "udp"  # RFC 1035, section 4.2.1; truncated answers are asked for again over TCP
    TCP = "tcp"  # RFC 7766
    DOT = "tls"  # RFC 7858
    DOH = "https"  # RFC 8484, over HTTP/2
    SYSTEM = "system"  # as this host is configured: its addresses, over UDP


_DEFAULT_PORT = {Transport.UDP: 53, Transport.TCP: 53, Transport.DOT: 853, Transport.DOH: 443}
_WITH_CERTIFICATE = (Transport.DOT, Transport.DOH)


class UpstreamAddress(Struct, frozen=True):
    """One upstream resolver.

    `server_name` is what the certificate of a TLS upstream must be for: a canonical name, or the
    address itself where none was given (RFC 8310, section 8.1: a host name or an IP address).
    `path` is that of DoH.  `SYSTEM` stands for addresses that are read while we run.
    """

    transport: Transport
    address: Address
    port: int
    server_name: str = ""
    path: str = ""

    @property
    def sockaddr(self) -> tuple[str, int]:
        """What a socket is connected to."""
        return str(self.address), self.port

    @property
    def family(self) -> socket.AddressFamily:
        """The family of that socket."""
        return socket.AF_INET6 if isinstance(self.address, IPv6Address) else socket.AF_INET

    @property
    def authority(self) -> str:
        """The :authority of DoH (RFC 9113, section 8.3.1): what the certificate is for."""
        name = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return name if self.port == _DEFAULT_PORT[Transport.DOH] else f"{name}:{self.port}"

    @override
    def __str__(self) -> str:
        """Return the URL in full, as messages and logs name the upstream."""
        if self.transport is Transport.SYSTEM:
            return "system"
        host = f"[{self.address}]" if isinstance(self.address, IPv6Address) else f"{self.address}"
        fragment = f"#{self.server_name}" if self.server_name else ""
        return f"{self.transport}://{host}:{self.port}{self.path}{fragment}"


SYSTEM = UpstreamAddress(Transport.SYSTEM, IPv4Address(0), 0)

type Group = tuple[UpstreamAddress, ...]
"""Upstreams of equal policy: any of them may be asked for anything that was allowed."""

type Groups = tuple[Group, ...]
"""Groups in the order in which they are asked."""

type Texts = Sequence[str | Sequence[str]]
"""What the configuration says: one group as a list, or several as a list of lists."""


def parse_upstream(text: str) -> UpstreamAddress:
    """Return the upstream that `text` names.

    Raises:
        ConfigError: not an upstream; the text says what to write.
    """
    if text == "system":
        return SYSTEM
    parts = _URL.fullmatch(text)
    if parts is None or parts["scheme"] not in {*_DEFAULT_PORT}:
        raise ConfigError(f"{text[:300]!r} is no upstream; {_EXAMPLE}")
    transport = Transport(parts["scheme"])
    address = _address(text, parts["bracketed"], parts["plain"])
    port = _port(text, parts["port"], transport)
    path = _path(text, parts["path"], transport)
    name = _server_name(text, parts["name"], transport, address)
    return UpstreamAddress(transport, address, port, name, path)


def parse_groups(texts: Texts) -> Groups:
    """Return the groups that a list of upstreams, or a list of such lists, names.

    Raises:
        ConfigError: an upstream that is none, or named twice; an empty list; a list that holds
            both upstreams and groups.
    """
    lists: list[Sequence[str]] = [each for each in texts if not isinstance(each, str)]
    if lists and len(lists) != len(texts):
        raise ConfigError("upstreams and groups are mixed; write every group as a list of its own")
    groups = lists or [[each for each in texts if isinstance(each, str)]]
    if not all(groups):
        raise ConfigError(f"a list without an upstream asks nobody; {_EXAMPLE}")
    seen: set[UpstreamAddress] = set()
    for text in (text for group in groups for text in group):
        address = parse_upstream(text)
        if address in seen:
            raise ConfigError(f"upstream {text!r} is named twice; drop one")
        seen.add(address)
    return tuple(tuple(map(parse_upstream, group)) for group in groups)


def parse_zones(zones: Mapping[str, Texts]) -> dict[DomainName, Groups]:
    """Return the groups of each zone by its suffix.

    Raises:
        ConfigError: a suffix that is no name, is named twice, or is answered by the appliance
            itself whatever is configured; or what `parse_groups` says of its upstreams.
    """
    found: dict[DomainName, Groups] = {}
    for text, texts in zones.items():
        suffix = _suffix(text)
        if suffix in found:
            raise ConfigError(f"zone {text!r} is named twice; drop one")
        try:
            found[suffix] = parse_groups(texts)
        except ConfigError as error:
            raise ConfigError(f"zone {text!r}: {error}") from None
    return found


def _suffix(text: str) -> DomainName:
    try:
        suffix = parse_name(text)
    except MalformedNameError as error:
        cure = f"; write {text[2:]}, which covers all below" if text.startswith("*.") else ""
        raise ConfigError(f"zone {text[:300]!r}: {error}{cure}") from None
    if suffix == ROOT or is_always_local(suffix):
        raise ConfigError(f"zone {text!r}: the appliance answers it itself; drop the zone")
    return suffix


def _address(text: str, bracketed: str | None, plain: str | None) -> Address:
    try:
        address = parse_address(bracketed if bracketed is not None else plain or "")
    except MalformedAddressError as error:
        raise ConfigError(
            f"upstream {text!r}: {error}; an upstream is an address, never a name"
        ) from None
    if (address.version == 6) != (bracketed is not None):
        raise ConfigError(f"upstream {text!r}: brackets are for IPv6 addresses; {_EXAMPLE}")
    if address.is_unspecified or address.is_multicast:
        raise ConfigError(f"upstream {text!r}: no resolver can be reached at {address}")
    return address


def _port(text: str, digits: str | None, transport: Transport) -> int:
    if digits is None:
        return _DEFAULT_PORT[transport]
    if digits.startswith("0") or int(digits) > 65535:
        raise ConfigError(f"upstream {text!r}: a port is 1 to 65535, without leading zeros")
    return int(digits)


def _path(text: str, path: str | None, transport: Transport) -> str:
    if transport is not Transport.DOH:
        if path is not None:
            raise ConfigError(f"upstream {text!r}: only https:// has a path; {_EXAMPLE}")
        return ""
    if path is None:
        raise ConfigError(f"upstream {text!r}: name the path too, as in https://A/dns-query#NAME")
    if len(path) > _PATH_CHARACTERS or not _PATH.fullmatch(path):
        raise ConfigError(f"upstream {text[:300]!r}: the path is no path of a URL (RFC 3986)")
    return path


def _server_name(text: str, name: str | None, transport: Transport, address: Address) -> str:
    if transport not in _WITH_CERTIFICATE:
        if name is not None:
            raise ConfigError(
                f"upstream {text!r}: only tls:// and https:// have a certificate to name; drop #"
            )
        return ""
    if name is None:
        return str(address)
    try:
        return parse_name(name)
    except MalformedNameError as error:
        raise ConfigError(f"upstream {text!r}: {error}") from None
