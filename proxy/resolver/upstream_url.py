"""How an upstream resolver is written in the configuration, and what that says.

`udp://A:P`, `tcp://A:P` and `tls://A:P#NAME`, where A is an address (never a name: looking that
up would need an upstream), P a port with the default of its transport, and NAME what the
certificate must be for.  An IPv6 address stands in brackets (RFC 3986, section 3.2.2).
"""

import re
import socket
from enum import StrEnum
from ipaddress import IPv6Address
from typing import override

from msgspec import Struct

from proxy.errors import ConfigError
from rules.address import Address, parse_address
from rules.errors import MalformedAddressError, MalformedNameError
from rules.name import parse as parse_name

_URL = re.compile(
    r"(?P<scheme>[a-z0-9]+)://"
    r"(?:\[(?P<bracketed>[^\]]*)\]|(?P<plain>[^\[\]:/?#@]*))"
    r"(?::(?P<port>[0-9]{1,5}))?(?:#(?P<name>[^#]*))?",
    re.ASCII,
)
_EXAMPLE = "write udp://A:P, tcp://A:P or tls://A:P#NAME with an address, IPv6 in brackets"


class Transport(StrEnum):
    """How a query travels; the values are the schemes of the URLs."""

    UDP = "udp"  # RFC 1035, section 4.2.1; truncated answers are asked for again over TCP
    TCP = "tcp"  # RFC 7766
    DOT = "tls"  # RFC 7858


_DEFAULT_PORT = {Transport.UDP: 53, Transport.TCP: 53, Transport.DOT: 853}


class UpstreamAddress(Struct, frozen=True):
    """One upstream resolver.

    `server_name` is what the certificate of a TLS upstream must be for: a canonical name, or the
    address itself where none was given (RFC 8310, section 8.1: a host name or an IP address).
    """

    transport: Transport
    address: Address
    port: int
    server_name: str = ""

    @property
    def sockaddr(self) -> tuple[str, int]:
        """What a socket is connected to."""
        return str(self.address), self.port

    @property
    def family(self) -> socket.AddressFamily:
        """The family of that socket."""
        return socket.AF_INET6 if isinstance(self.address, IPv6Address) else socket.AF_INET

    @override
    def __str__(self) -> str:
        """Return the URL in full, as messages and logs name the upstream."""
        host = f"[{self.address}]" if isinstance(self.address, IPv6Address) else f"{self.address}"
        fragment = f"#{self.server_name}" if self.server_name else ""
        return f"{self.transport}://{host}:{self.port}{fragment}"


def parse_upstream(text: str) -> UpstreamAddress:
    """Return the upstream that `text` names.

    Raises:
        ConfigError: not in this version (`system`, `https://`), or not an upstream; the text
            says what to write.
    """
    if text == "system" or text.startswith("https://"):
        raise ConfigError(f"upstream {text!r} is not in this version; {_EXAMPLE}")
    parts = _URL.fullmatch(text)
    if parts is None or parts["scheme"] not in set(Transport):
        raise ConfigError(f"{text[:300]!r} is no upstream; {_EXAMPLE}")
    transport = Transport(parts["scheme"])
    address = _address(text, parts["bracketed"], parts["plain"])
    port = _port(text, parts["port"], transport)
    return UpstreamAddress(
        transport, address, port, _server_name(text, parts["name"], transport, address)
    )


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


def _server_name(text: str, name: str | None, transport: Transport, address: Address) -> str:
    if transport is not Transport.DOT:
        if name is not None:
            raise ConfigError(f"upstream {text!r}: only tls:// has a certificate to name; drop #")
        return ""
    if name is None:
        return str(address)
    try:
        return parse_name(name)
    except MalformedNameError as error:
        raise ConfigError(f"upstream {text!r}: {error}") from None
