"""Request targets and the authority that a request is for (RFC 9112, section 3.2).

A proxy is asked in absolute-form, or by CONNECT in authority-form; nothing else is taken.
"""

import re

from proxy.errors import PeerError
from proxy.wire.fields import request_malformed, show
from proxy.wire.head import RequestHead
from proxy.wire.host import format_authority, format_host, parse_authority
from rules.address import Address
from rules.decision import Reason
from rules.name import DomainName

HTTP_PORT = 80  # RFC 9110, section 4.2.1

# Visible ASCII without `#`: a fragment is never sent (RFC 9112, section 3.2; RFC 3986, 3.5).
_ABSOLUTE = re.compile(rb"(?i:http)://([^/?#]+)(/?[\x21\x22\x24-\x7e]*)")
_SCHEME = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://")


def absolute_form(target: bytes, method: str = "") -> tuple[DomainName | Address, int, bytes]:
    """Return host, port, and path with query, of an `http://` target.

    An empty path is `/`, and `*` for OPTIONS (RFC 9112, sections 3.2.1 and 3.2.4).

    Raises:
        PeerError: REQUEST_MALFORMED, another scheme or form, a fragment, control or non-ASCII
            octets; NAME_MALFORMED, an authority that is none.
    """
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise request_malformed(_blame(target))
    authority, rest = match.groups()
    host, port = parse_authority(authority, HTTP_PORT)
    if not rest and method == "OPTIONS":
        return host, port, b"*"
    return host, port, rest if rest.startswith(b"/") else b"/" + rest


def authority_form(target: bytes) -> tuple[DomainName | Address, int]:
    """Return host and port of the target of CONNECT; the port must be written.

    Raises:
        PeerError: NAME_MALFORMED, anything else.
    """
    return parse_authority(target, None)


def check_host(
    head: RequestHead, host: DomainName | Address, port: int, default_port: int = HTTP_PORT
) -> None:
    """Refuse a request whose Host field names another authority than its target.

    RFC 9112, section 3.2.2 has a proxy ignore the field; an origin that does not would then
    serve what was not decided about.  `default_port` is the scheme's.  Clients send the Host of
    CONNECT with the port and without it.

    Raises:
        PeerError: AUTHORITY_MISMATCH, another authority; NAME_MALFORMED, none.
    """
    if head.host is None:  # HTTP/1.0: there is nothing that could disagree
        return
    implied = port if head.method == "CONNECT" else default_port
    if port == implied and head.host == format_host(host).encode("ascii"):
        return  # what nearly all clients write, without parsing it
    said = parse_authority(head.host, implied)
    if said != (host, port):
        raise PeerError(
            Reason.AUTHORITY_MISMATCH,
            f"Host says {format_authority(*said)}, the target {format_authority(host, port)}",
        )


def _blame(target: bytes) -> str:
    shown = show(target)
    scheme = _SCHEME.match(target)
    if scheme is None:
        return f"{shown}: a proxy is asked in absolute-form (http://host/path), or by CONNECT"
    if scheme[1].lower() == b"https":
        return f"{shown}: use CONNECT for https"
    if scheme[1].lower() != b"http":
        return f"{shown}: http only, or CONNECT"
    return f"{shown}: no host, or a fragment, control or non-ASCII octets"
