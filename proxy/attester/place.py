"""Where the agent-facing API is: at a listener itself, or behind the proxy at our own name."""

from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from proxy.attester.errors import UnusableError
from proxy.errors import PeerError
from proxy.wire.host import format_host, parse_authority

OURS: Final = "http://sallyport.internal"
"""What the proxy answers itself."""
_PORTS: Final = {"https": 443, "http": 80}


class Place(Struct, frozen=True):
    """A listener; `prefix` stands before each path (RFC 9112, section 3.2.2, for a proxy)."""

    host: str
    port: int
    is_tls: bool
    prefix: str = ""


def api_place(url: str) -> Place:
    """Return the DNS-over-HTTPS listener at `url`.

    Raises:
        UnusableError: it is not https://HOST:PORT.
    """
    return _place(url, ("https",), "")


def proxy_place(url: str, *, is_plain: bool) -> Place:
    """Return the proxy at `url`; only in a lease, `is_plain`, does a port without TLS tell who.

    Raises:
        UnusableError: it is not the URL of such a proxy.
    """
    return _place(url, ("http", "https") if is_plain else ("https",), OURS)


def _place(url: str, schemes: tuple[str, ...], prefix: str) -> Place:
    cure = f"{url!r} is no address to attest at: write {' or '.join(schemes)}://HOST:PORT"
    try:
        parts = urlsplit(url)
        is_plain = parts.path in {"", "/"} and not (parts.query or parts.fragment)
        if parts.scheme not in schemes or not is_plain:
            raise UnusableError(cure)
        host, port = parse_authority(parts.netloc.encode("ascii"), _PORTS[parts.scheme])
    except (PeerError, ValueError):  # UnicodeEncodeError is one
        raise UnusableError(cure) from None
    return Place(format_host(host).strip("[]"), port, parts.scheme == "https", prefix)
