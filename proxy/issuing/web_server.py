"""An HTTP server of aiohttp on a listening socket that was handed over, with bounds of ours.

So many connections at once, each of a minute at most; where every seat is taken, a further one
gets that of the connection which has waited longest for its peer.  Web pages are refused: they can
send requests to loopback, and by DNS rebinding read the answers (Fetch Metadata, section 2.4).
"""

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv6Address
from typing import cast, override

from aiohttp import HttpVersion11, web

from proxy.errors import PeerError
from proxy.issuing.enrolment import RefusedError
from proxy.transport.handshake import Handshakes, ListenerTls
from proxy.transport.listen import BACKLOG
from proxy.wire.host import parse_authority
from rules.address import Address, parse_address
from rules.name import DomainName

type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

TEXT = "text/plain"
_OURS = (DomainName("localhost"), DomainName("sallyport.internal"))
_TICK_S = 1.0
_HEAD_OCTETS = 8192  # of a line or field; aiohttp's own 8190
# aiohttp tells of each request that cannot be read, and quotes it: a token may stand there.
_QUIET = logging.getLogger("proxy.issuing.aiohttp")
_QUIET.setLevel(logging.CRITICAL + 1)


class WebServer:
    """Serves `routes` on `sock`; `most` connections at once, each of `life_s` at most.

    With `tls` it is HTTPS, and who was reached is proven; without, Host has to say so.
    `limit` names the bound of connections; `bounds` counts what was hit, by its name in `Limits`.
    """

    def __init__(
        self,
        routes: Iterable[web.RouteDef],
        log: logging.Logger,
        *,
        octets: int,
        most: int,
        life_s: float,
        limit: str,
    ) -> None:
        self.bounds: Counter[str] = Counter()
        self._log = log
        self._most = most
        self._limit = limit
        self._life_s = life_s
        self._app = web.Application(middlewares=[self._guard], client_max_size=octets)
        self._app.add_routes(routes)
        self._runner = web.AppRunner(
            self._app,
            handle_signals=False,
            access_log=None,
            logger=_QUIET,
            keepalive_timeout=life_s,
            auto_decompress=False,
            max_line_size=_HEAD_OCTETS,
            max_field_size=_HEAD_OCTETS,
        )
        self._seen: dict[web.RequestHandler, float] = {}  # when a look saw it first
        self._busy: set[object] = set()
        self._coming = 0
        self._needs_host = True
        self._handshakes: Handshakes | None = None
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, sock: socket.socket, tls: ListenerTls | None) -> None:
        """Accept on `sock`, which listens already and is ours to close."""
        await self._runner.setup()
        self._needs_host = tls is None
        if tls is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._seat, sock=sock, backlog=BACKLOG)
        else:
            self._handshakes = Handshakes(sock, self._seat, tls)
            self._handshakes.start()
        self._tick()

    async def close(self) -> None:
        """Stop accepting, and end what is open."""
        if self._timer is not None:
            self._timer.cancel()
        if self._handshakes is not None:
            self._handshakes.stop()
        if self._server is not None:
            self._server.close()
        for each in self._connections():
            _end(each)
        await self._runner.cleanup()

    def _connections(self) -> list[web.RequestHandler]:
        """Return what is open and not ending, the oldest first."""
        server = self._runner.server
        found = [] if server is None else server.connections
        return [each for each in found if each.transport and not each.transport.is_closing()]

    def _seat(self) -> asyncio.Protocol:
        """Return what speaks on a connection that was accepted."""
        open_ones = self._connections()
        self._coming += 1  # of a burst, none is among those that are open yet
        asyncio.get_running_loop().call_soon(self._came)
        if len(open_ones) + self._coming > self._most:
            self.bounds[self._limit] += 1
            oldest = next((each for each in open_ones if each not in self._busy), None)
            if oldest is None:
                return _Turned()
            _end(oldest)
        server = self._runner.server
        return _Turned() if server is None else server()

    def _came(self) -> None:
        self._coming -= 1

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._seen = {each: self._seen.get(each, now) for each in self._connections()}
        for each, seen in self._seen.items():
            if now - seen > self._life_s:
                self.bounds["enroll_connection_s"] += 1
                _end(each)
        self._timer = loop.call_later(_TICK_S, self._tick)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse web pages and other hosts, and word what handlers raise."""
        try:
            await request.read()  # it is kept; who sends it slowly keeps no seat from others
            self._busy.add(request.protocol)
            response = await self._admitted(request, handler)
        except RefusedError as error:
            response = refusal(error)
        except web.HTTPRequestEntityTooLarge:
            self.bounds["enroll_octets"] += 1
            response = refusal(RefusedError(413, "the content is too long"))
        except web.HTTPException as error:
            response = refusal(RefusedError(error.status, f"{error.reason}"))
            if "Allow" in error.headers:  # RFC 9110, section 15.5.6
                response.headers["Allow"] = error.headers["Allow"]
        except (ConnectionError, asyncio.CancelledError, TimeoutError):
            raise
        except Exception as error:  # noqa: BLE001 - its text could show what was being read
            self._log.error("a bug of ours in an answer: %s", type(error).__name__)
            response = refusal(RefusedError(500, "a bug of ours; please report it"))
        finally:
            self._busy.discard(request.protocol)
        response.headers["Server"] = "sallyport"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    async def _admitted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if is_from_a_page(request):
            raise RefusedError(403, "requests of web pages are refused")
        if self._needs_host and not names_us(request):
            text = "Host must be the address of this listener, localhost or sallyport.internal"
            raise RefusedError(421, text)
        return await handler(request)


class _Turned(asyncio.Protocol):
    """Ends a connection for which there is no seat."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.WriteTransport", transport).abort()  # uvloop's is none by its class


def refusal(error: RefusedError) -> web.Response:
    """Return the answer that a refusal is: one line of text."""
    response = web.Response(status=error.status, text=f"{error}\n", content_type=TEXT)
    if error.status == 401:
        # RFC 7030, section 3.2.3: Basic over TLS; RFC 6750, section 3
        response.headers["WWW-Authenticate"] = 'Basic realm="sallyport enrolment", charset="UTF-8"'
    if error.status == 429:
        response.headers["Retry-After"] = "10"
    return response


def is_from_a_page(request: web.Request) -> bool:
    """Return whether a browser sends this for a page."""
    fetched = request.headers.getall("Sec-Fetch-Site", [])
    return "Origin" in request.headers or any(value != "none" for value in fetched)


def names_us(request: web.Request) -> bool:
    """Return whether Host is where the connection came to: its address, or a name of ours."""
    shown = request.headers.getall("Host", [])
    transport = request.transport
    if not shown and request.version < HttpVersion11:
        return True  # old clients; a browser sends one (RFC 9112, section 3.2)
    if len(shown) != 1 or transport is None:
        return False
    sockname = transport.get_extra_info("sockname")
    with contextlib.suppress(PeerError, UnicodeError):
        # `openssl ocsp` leaves the port out; rebinding is told by the name.
        name, port = parse_authority(shown[0].encode("ascii"), sockname[1])
        local: Address = parse_address(str(sockname[0]).partition("%")[0])
        if isinstance(local, IPv6Address) and local.ipv4_mapped is not None:
            local = local.ipv4_mapped  # an IPv4 client on a socket that takes both
        return port == sockname[1] and name in {local, *_OURS}
    return False


def _end(connection: web.RequestHandler) -> None:
    connection.force_close()
    if connection.transport is not None:
        connection.transport.abort()
