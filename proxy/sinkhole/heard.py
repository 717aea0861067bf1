"""What a visitor of the sinkhole says first: one HTTP request head, or one TLS ClientHello.

Nothing more is read than that, and nothing of it is obeyed: it says which name was meant.
"""

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct

from proxy.errors import PeerError
from proxy.limits import Limits
from proxy.metrics import SinkholeOutcome
from proxy.wire.clienthello import read_hello
from proxy.wire.head import RequestHead, read_request
from proxy.wire.host import parse_authority
from rules.address import Address
from rules.name import DomainName

HTTP_PORT, HTTPS_PORT = 80, 443  # RFC 9110, sections 4.2.1 and 4.2.2
_READ_OCTETS = 4096
_HTML = b"text/html"


class Heard(Struct, frozen=True):
    """What was said; `host` is the name that was meant, None where none was told.

    `wants_html`: a person reads the answer.  `is_head`: it has no content.  `is_long`: the bound
    was reached before it was whole.
    """

    outcome: SinkholeOutcome
    host: DomainName | Address | None = None
    wants_html: bool = False
    is_head: bool = False
    is_long: bool = False


SILENT = Heard("silent")
MALFORMED = Heard("malformed")
TOO_LONG = Heard("malformed", is_long=True)

type Hear = Callable[[asyncio.StreamReader, Limits], Awaitable[Heard]]


async def hear_http(reader: asyncio.StreamReader, limits: Limits) -> Heard:
    """Return what the head of a request says; `limits.head_octets` of it are read.

    Raises:
        OSError: the peer has gone.
    """
    return await _hear(reader, lambda octets: _of_request(octets, limits), limits.head_octets)


async def hear_tls(reader: asyncio.StreamReader, limits: Limits) -> Heard:
    """Return what a ClientHello says; `limits.hello_octets` of it are read.

    Raises:
        OSError: the peer has gone.
    """
    return await _hear(reader, lambda octets: _of_hello(octets, limits), limits.hello_octets)


async def _hear(
    reader: asyncio.StreamReader, read: Callable[[bytes], Heard | None], most: int
) -> Heard:
    octets = b""
    while data := await reader.read(_READ_OCTETS):
        octets += data
        try:
            heard = read(octets)
        except PeerError:
            return TOO_LONG if len(octets) >= most else MALFORMED
        if heard is not None:
            return heard
    return SILENT


def _of_request(octets: bytes, limits: Limits) -> Heard | None:
    read = read_request(octets, limits)
    if read is None:
        return None
    head = read[0]
    # RFC 9112, section 3.2: every request of HTTP/1.1 has a Host; one of HTTP/1.0 may have none.
    host = None if head.host is None else parse_authority(head.host, HTTP_PORT)[0]
    return Heard("http", host, _wants_html(head), head.method == "HEAD")


def _of_hello(octets: bytes, limits: Limits) -> Heard | None:
    hello = read_hello(octets, limits.hello_octets)
    return None if hello is None else Heard("tls", hello.server_name)


def _wants_html(head: RequestHead) -> bool:
    """Return whether Accept names HTML (RFC 9110, section 12.5.1), as browsers do."""
    ranges = [
        each.partition(b";")[0].strip().lower()
        for name, value in head.fields
        if name == b"accept"
        for each in value.split(b",")
    ]
    return _HTML in ranges
