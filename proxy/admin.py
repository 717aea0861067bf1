"""/metrics, /healthz and /readyz, on a listener of their own.

A page in the user's browser can send requests to loopback, and by DNS rebinding read the
answers.  So Host must name the socket that was reached, and what a page sends is refused by its
Origin and Sec-Fetch-Site (Fetch Metadata, section 2.4).  Nothing here can be changed.

/metrics names no app, unless the scraper shows a token that was made for it (RFC 6750).
"""

import asyncio
from collections.abc import Callable
from ipaddress import IPv6Address
from socket import socket
from time import perf_counter
from typing import Any

import msgspec

from proxy.errors import PeerError
from proxy.limits import Limits
from proxy.metrics import CONTENT_TYPE, Metrics
from proxy.transport.listen import BACKLOG
from proxy.transport.seats import Seats
from proxy.wire.credential import read_credential
from proxy.wire.head import BodyKind, RequestHead, read_request, write_response
from proxy.wire.host import parse_authority
from rules.address import Address, parse_address
from rules.decision import Reason
from rules.name import DomainName

_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"
_LOCALHOST = DomainName("localhost")
_HTTP_PORT = 80
# After each answer, as multiples of the time that it took: scrapers get a fifth of the loop's
# time.  A page takes milliseconds, and requests may be pipelined without end.
_RESTS = 4
_PHRASES = {
    200: b"OK",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    421: b"Misdirected Request",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}

type Ready = Callable[[], dict[str, str]]
"""What is not ready yet, by name, and why; empty when everything is."""

type MayScrape = Callable[[str], bool]
"""Whether a secret is a valid token for scraping."""

type _Answer = tuple[int, str, bytes]
"""Status, media type, content."""


class Admin:
    """Serves operators and scrapers on any number of listeners; `ready` is asked per request."""

    def __init__(
        self,
        metrics: Metrics,
        ready: Ready,
        limits: Limits,
        may_scrape: MayScrape = lambda _: False,
    ) -> None:
        self._metrics = metrics
        self._ready = ready
        self._may_scrape = may_scrape
        self._limits = limits
        self._servers: list[asyncio.Server] = []
        self._seats = Seats(limits.admin_connections)
        self._turns = asyncio.Lock()

    async def start(self, sock: socket) -> None:
        """Serve on `sock`, which listens already."""
        limit = self._limits.admin_head_octets
        # It listens anew, with a queue of 100 where none is named: a flood would hold scrapers up.
        self._servers.append(
            await asyncio.start_server(self._accept, sock=sock, limit=limit, backlog=BACKLOG)
        )

    async def close(self) -> None:
        """Stop accepting and cut what is open."""
        for server in self._servers:
            server.close()
        await self._seats.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._seats.has_room:
            self._metrics.bounds.add("admin_connections")
            if not self._seats.free():
                self._metrics.connections.add("metrics", "refused")
                writer.transport.abort()
                return
        self._metrics.connections.add("metrics", "accepted")
        # A task that is cancelled before it began has not reached its own `finally`.
        self._seats.take(self._serve(reader, writer), writer.close)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wait_s = self._limits.head_s
        try:
            while await self._exchange(reader, writer, wait_s):
                wait_s = self._limits.keep_alive_s
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            writer.transport.abort()  # slow, or gone: nobody reads an answer
        finally:
            writer.close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait_s: float
    ) -> bool:
        """Answer one request; return whether the connection may carry another."""
        is_kept, is_head = False, False
        self._seats.waits()
        try:
            async with asyncio.timeout(wait_s):
                head = _read_head(await reader.readuntil(b"\r\n\r\n"), self._limits)
            self._seats.works()
            is_kept, is_head = head.persistent, head.method == "HEAD"
            answer = await self._take_turn(head, writer.get_extra_info("sockname"))
        except asyncio.LimitOverrunError:
            self._metrics.bounds.add("admin_head_octets")
            answer = (431, _TEXT, b"the request head is too long\n")
        except PeerError as error:
            answer = (400, _TEXT, f"{error}\n".encode())
        writer.write(_render(answer, is_kept=is_kept, is_head=is_head))
        async with asyncio.timeout(self._limits.head_s):
            await writer.drain()
        return is_kept

    async def _take_turn(self, head: RequestHead, sockname: tuple[Any, ...]) -> _Answer:
        """Return the answer, when the others had theirs; who asks without end waits longest."""
        async with self._turns:
            began = perf_counter()
            answer = self._answer(head, sockname)
            await asyncio.sleep((perf_counter() - began) * _RESTS)
        return answer

    def _answer(self, head: RequestHead, sockname: tuple[Any, ...]) -> _Answer:
        if not _names(head.host, sockname):
            return 421, _TEXT, b"Host must be the address of this listener, or localhost\n"
        if _is_from_a_page(head):
            return 403, _TEXT, b"requests of web pages are refused\n"
        if head.method not in {"GET", "HEAD"}:
            return 405, _TEXT, b"only GET and HEAD\n"
        match head.target.partition(b"?")[0]:
            case b"/metrics":
                return self._page(head)
            case b"/healthz":
                return 200, _TEXT, b"ok\n"
            case b"/readyz":
                problems = self._ready()
                content = {"ready": not problems, "problems": problems}
                return 503 if problems else 200, _JSON, msgspec.json.encode(content) + b"\n"
            case _:
                return 404, _TEXT, b"/metrics, /healthz, /readyz\n"

    def _page(self, head: RequestHead) -> _Answer:
        shown = [value for name, value in head.fields if name == b"authorization"]
        if not shown:
            return 200, CONTENT_TYPE, self._metrics.render()
        credential = read_credential(shown[0]) if len(shown) == 1 else None
        is_bearer = credential is not None and credential.scheme == "bearer"
        if credential is None or not is_bearer or not self._may_scrape(credential.secret):
            return 401, _TEXT, b"no such token; make one with `sallyport metrics token`\n"
        return 200, CONTENT_TYPE, self._metrics.render(apps=True)


def _read_head(octets: bytes, limits: Limits) -> RequestHead:
    read = read_request(octets, limits)
    if read is None or read[0].body.kind is not BodyKind.NONE:
        raise PeerError(Reason.REQUEST_MALFORMED, "a request here is a head without content")
    return read[0]


def _names(host: bytes | None, sockname: tuple[Any, ...]) -> bool:
    """Return whether Host is the address and port that the connection came to, or localhost."""
    if host is None:
        return False
    try:
        name, port = parse_authority(host, _HTTP_PORT)
    except PeerError:
        return False
    local: Address = parse_address(str(sockname[0]).partition("%")[0])
    if isinstance(local, IPv6Address) and local.ipv4_mapped is not None:
        local = local.ipv4_mapped  # an IPv4 client on a socket that takes both
    return port == sockname[1] and name in {local, _LOCALHOST}


def _is_from_a_page(head: RequestHead) -> bool:
    return any(
        name == b"origin" or (name == b"sec-fetch-site" and value != b"none")
        for name, value in head.fields
    )


def _render(answer: _Answer, *, is_kept: bool, is_head: bool) -> bytes:
    status, media_type, content = answer
    fields = [
        (b"content-type", media_type.encode("ascii")),
        (b"content-length", str(len(content)).encode("ascii")),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"connection", b"keep-alive" if is_kept else b"close"),
    ]
    if status == 405:
        fields.append((b"allow", b"GET, HEAD"))  # RFC 9110, section 15.5.6
    if status == 401:  # RFC 6750, section 3
        fields.append((b"www-authenticate", b'Bearer realm="sallyport", error="invalid_token"'))
    head = write_response(status, _PHRASES[status], fields)
    # RFC 9110, section 9.3.2: the head that GET would get, and no content.
    return head if is_head else head + content
