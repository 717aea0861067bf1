"""The one parser of hosts and authorities, for every plane and every protocol.

A host is a domain name in its canonical form, or an address in canonical spelling.  What
some parser somewhere would read as another host is an error here, never repaired: octal,
hexadecimal, decimal and short IPv4, zone ids, percent-encoding, userinfo, brackets around
names, non-ASCII dots and letters.  `urllib.parse` is never asked.
"""

import re
from ipaddress import IPv6Address

from proxy.errors import PeerError
from rules.address import Address, parse_address
from rules.decision import Reason
from rules.errors import MalformedAddressError, RuleError
from rules.name import DomainName
from rules.name import parse as parse_name

# URL Standard, section 3.5, "ends in a number": browsers and libc read such a host as IPv4.
_NUMBER = re.compile(r"\d+|0[xX][0-9a-fA-F]*", re.ASCII)
_PORT = re.compile(rb"[1-9][0-9]{0,4}")
_SHOWN_OCTETS = 80  # of what the peer wrote, in the text of an error


def parse_host(text: bytes) -> DomainName | Address:
    """Return the host that stands in an authority (RFC 3986, section 3.2.2).

    An IPv6 address stands in brackets, and nothing else does.  One trailing dot of a name is
    dropped.  A host whose last label is a number is an IPv4 address of four decimal parts.

    Raises:
        PeerError: NAME_MALFORMED, any other spelling.
    """
    if b"@" in text:  # what stands before it may be a password, so that it is not shown
        raise PeerError(Reason.NAME_MALFORMED, "userinfo in an authority")
    try:
        host = text.decode("ascii")
        if host.startswith("["):
            return _parse_bracketed(host)
        last_label = host.removesuffix(".").rpartition(".")[2]
        return parse_address(host) if _NUMBER.fullmatch(last_label) else parse_name(host)
    except RuleError as error:
        raise PeerError(Reason.NAME_MALFORMED, f"{error}") from None
    except UnicodeDecodeError:
        raise _malformed(text, "write international names as A-labels (xn--...)") from None


def parse_authority(text: bytes, default_port: int | None) -> tuple[DomainName | Address, int]:
    """Return host and port of `host[:port]`; with `default_port` None a port must be written.

    The port is decimal, 1 to 65535, without sign, space or leading zero; `host:` is an error
    although RFC 3986, section 3.2.3 knows it.

    Raises:
        PeerError: NAME_MALFORMED, any other spelling, userinfo among them.
    """
    host, colon, port = text.rpartition(b":")
    if text.endswith(b"]") or not colon:  # the last colon of all is inside an IPv6 address
        if default_port is None:
            raise _malformed(text, "write the port: host:port")
        return parse_host(text), default_port
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise _malformed(text, "a port is a decimal number from 1 to 65535")
    return parse_host(host), int(port)


def format_host(host: DomainName | Address) -> str:
    """Return `host` as it stands in an authority."""
    return f"[{host}]" if isinstance(host, IPv6Address) else str(host)


def format_authority(host: DomainName | Address, port: int) -> str:
    """Return `host:port`, an IPv6 address in brackets (RFC 3986, section 3.2)."""
    return f"{format_host(host)}:{port}"


def _parse_bracketed(host: str) -> IPv6Address:
    address = parse_address(host[1:-1]) if host.endswith("]") else None
    if not isinstance(address, IPv6Address):  # CVE-2022-29188, CVE-2025-0938: [example.com]
        raise MalformedAddressError(f"{host[:_SHOWN_OCTETS]!a}: only an IPv6 address is bracketed")
    return address


def _malformed(text: bytes, why: str) -> PeerError:
    shown = ascii(text[:_SHOWN_OCTETS].decode("latin-1"))
    return PeerError(Reason.NAME_MALFORMED, f"{shown} is no host or authority: {why}")
