"""HTTP/1.1 and JSON for the admin, on whatever stream he came by.

Who may ask is looked at before each request, by the `admit` that comes with the stream.
"""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from proxy.agent_api.asked import Answer
from proxy.agent_api.rendering import media_type_of, write_http1
from proxy.control.asked import Asked, Asker, RefusedError
from proxy.control.routes import Routes
from proxy.errors import PeerError
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.transport.seats import Seats
from proxy.wire.head import BodyKind, RequestHead, read_request, write_response
from rules.decision import Reason

logger = logging.getLogger(__name__)

type Admit = Callable[[RequestHead], Asker]
"""Returns who asks; raises RefusedError where he may not, and EndedError where he is cut."""

_JSON, _PROBLEM = b"application/json", b"application/problem+json"
_PHRASES = {
    200: b"OK",
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    409: b"Conflict",
    413: b"Content Too Large",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
}


class EndedError(Exception):
    """Whoever is connected may no longer be: nothing more is said to him."""


class Exchanges:
    """Carries requests to `routes`, from so many connections at once as there are seats."""

    def __init__(self, routes: Routes, limits: Limits, metrics: Metrics) -> None:
        self._routes = routes
        self._limits = limits
        self._metrics = metrics
        self._seats = Seats(limits.control_connections)

    def take(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        admit: Admit,
        after: Callable[[], object] = lambda: None,
    ) -> None:
        """Serve a new connection, then call `after`, in any case.

        Where there is no room, the one that waits longest ends.
        """

        def ended() -> None:
            writer.close()
            after()

        if not self._seats.has_room:
            self._metrics.bounds.add("control_connections")
            if not self._seats.free():
                self._metrics.connections.add("control", "refused")
                writer.transport.abort()
                ended()
                return
        self._metrics.connections.add("control", "accepted")
        # A task that is cancelled before it began has not reached its own `finally`.
        self._seats.take(self._serve(reader, writer, admit), ended)

    async def close(self) -> None:
        """Cut what is open."""
        await self._seats.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, admit: Admit
    ) -> None:
        wait_s = self._limits.head_s
        try:
            while await self._exchange(reader, writer, admit, wait_s):
                wait_s = self._limits.keep_alive_s
                await asyncio.sleep(0)  # requests may be pipelined without end: others go first
        except (EndedError, TimeoutError, OSError, asyncio.IncompleteReadError):
            writer.transport.abort()  # cut, slow, or gone: nobody reads an answer
        finally:
            writer.close()

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        admit: Admit,
        wait_s: float,
    ) -> bool:
        """Answer one request; return whether the connection may carry another."""
        is_kept, is_head, allow = False, False, ""
        self._seats.waits()
        try:
            async with asyncio.timeout(wait_s):
                head = _read_head(await reader.readuntil(b"\r\n\r\n"), self._limits)
            asker = admit(head)
            self._check(head)
            async with asyncio.timeout(self._limits.head_s):
                content = await reader.readexactly(head.body.octets)
            self._seats.works()
            is_kept, is_head = head.persistent, head.method == "HEAD"
            status, answer = 200, await self._routes.answer(_asked(head, content, asker))
        except asyncio.LimitOverrunError:
            self._metrics.bounds.add("admin_head_octets")
            status, answer = _problem(431, "the request head is too long")
        except PeerError as error:
            status, answer = _problem(400, str(error))
        except RefusedError as error:
            allow = error.allow
            status, answer = _problem(error.status, str(error))
        except (EndedError, TimeoutError, OSError, asyncio.IncompleteReadError):
            raise
        except Exception:
            # The request may hold what must not be logged: its text is not in here.
            logger.exception("no answer on the control API")
            status, answer = _problem(500, "a bug of ours; please report it")
        writer.write(_render(status, answer, allow, is_kept=is_kept, is_head=is_head))
        async with asyncio.timeout(self._limits.head_s):
            await writer.drain()
        return is_kept

    def _check(self, head: RequestHead) -> None:
        if any(name in {b"origin", b"sec-fetch-site"} for name, _ in head.fields):
            raise RefusedError(403, "requests of web pages are refused")
        if head.body.octets > self._limits.control_octets:
            self._metrics.bounds.add("control_octets")
            raise RefusedError(413, f"more than {self._limits.control_octets} octets of content")


def _read_head(octets: bytes, limits: Limits) -> RequestHead:
    read = read_request(octets, limits)
    if read is None or read[0].body.kind not in {BodyKind.NONE, BodyKind.LENGTH}:
        text = "send a head, and content only with a Content-Length"
        raise PeerError(Reason.REQUEST_MALFORMED, text)
    return read[0]


def _asked(head: RequestHead, content: bytes, asker: Asker) -> Asked:
    path, _, query = head.target.decode("ascii").partition("?")
    if not path.startswith("/"):
        raise RefusedError(400, "the target of a request here is a path")
    segments = tuple(path[1:].split("/"))
    return Asked(head.method, segments, query, content, asker, media_type_of(head.fields))


def _problem(status: int, text: str) -> tuple[int, object]:
    """Return the problem details of a request that was not met (RFC 9457)."""
    title = _PHRASES[status].decode("ascii")
    return status, {"type": "about:blank", "title": title, "status": status, "detail": text}


def _render(status: int, answer: object, allow: str, *, is_kept: bool, is_head: bool) -> bytes:
    if isinstance(answer, Answer):
        return write_http1(answer, is_head=is_head, close=not is_kept)
    content = msgspec.json.encode(answer) + b"\n"
    fields = [
        (b"content-type", _JSON if status == 200 else _PROBLEM),
        (b"content-length", str(len(content)).encode("ascii")),
        (b"cache-control", b"no-store"),  # an answer may hold a new secret
        (b"connection", b"keep-alive" if is_kept else b"close"),
    ]
    if allow:
        fields.append((b"allow", allow.encode("ascii")))  # RFC 9110, section 15.5.6
    head = write_response(status, _PHRASES[status], fields)
    # RFC 9110, section 9.3.2: the head that GET would get, and no content.
    return head if is_head else head + content
