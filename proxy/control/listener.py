"""The control socket: HTTP/1.1 over a unix stream socket, JSON, for the admin alone.

    $ curl --unix-socket $XDG_RUNTIME_DIR/sallyport/control.sock http://localhost/status

Who may open the socket may ask (`proxy.control.place`); the kernel also says who calls, and
that is checked again and stands in the audit line of each change.
"""

import asyncio
import logging

import msgspec

from proxy.control.place import Caller, ControlSocket, caller_of
from proxy.control.routes import Asked, RefusedError, Routes
from proxy.control.status import LastSeen, Sources
from proxy.errors import BindError, PeerError
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.transport.seats import Seats
from proxy.wire.head import BodyKind, RequestHead, read_request, write_response
from rules.decision import Reason

logger = logging.getLogger(__name__)

_JSON, _PROBLEM = b"application/json", b"application/problem+json"
_TICK_S = 1.0
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


class Control:
    """Serves the admin on one socket."""

    def __init__(self, sources: Sources, limits: Limits, metrics: Metrics) -> None:
        self._seen = LastSeen(metrics)
        self._routes = Routes(sources, self._seen)
        self._wall = sources.wall
        self._limits = limits
        self._metrics = metrics
        self._socket: ControlSocket | None = None
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._returning: asyncio.Task[None] | None = None
        self.problem: str | None = None
        """Why nobody can ask; None while they can."""
        self._seats = Seats(limits.control_connections)

    async def start(self, bound: ControlSocket) -> None:
        """Serve on `bound`, which listens already and is ours to close."""
        self._socket = bound
        self._server = await self._served(bound)
        self._tick()

    async def close(self) -> None:
        """Stop accepting, cut what is open and remove the socket."""
        if self._timer is not None:
            self._timer.cancel()
        if self._returning is not None:
            self._returning.cancel()
        if self._server is not None:
            self._server.close()
        await self._seats.close()
        if self._socket is not None:
            self._socket.close()

    def _tick(self) -> None:
        self._seen.look(self._wall())
        is_idle = self._returning is None or self._returning.done()
        if self._socket is not None and is_idle and not self._socket.is_there():
            self._returning = asyncio.get_running_loop().create_task(self._return(self._socket))
        self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    async def _return(self, lost: ControlSocket) -> None:
        """Listen anew where the socket's file was taken away: nobody could ask any more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        try:
            self._socket = lost.again()
        except (BindError, OSError) as error:
            if self.problem is None:
                logger.warning("the control socket %s is gone: %s", lost.path, error)
            self.problem = f"the socket {lost.path} is gone and cannot be made: {error}"
            return
        logger.warning("the control socket %s was taken away, and is there again", lost.path)
        self.problem = None
        self._server = await self._served(self._socket)

    async def _served(self, bound: ControlSocket) -> asyncio.Server:
        limit = self._limits.admin_head_octets
        return await asyncio.start_unix_server(self._accept, sock=bound.socket, limit=limit)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._seats.has_room:
            self._metrics.bounds.add("control_connections")
            if not self._seats.free():
                self._metrics.connections.add("control", "refused")
                writer.transport.abort()
                return
        self._metrics.connections.add("control", "accepted")
        # A task that is cancelled before it began has not reached its own `finally`.
        self._seats.take(self._serve(reader, writer), writer.close)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wait_s = self._limits.head_s
        try:
            caller = caller_of(writer.get_extra_info("socket"))
            while await self._exchange(reader, writer, caller, wait_s):
                wait_s = self._limits.keep_alive_s
                await asyncio.sleep(0)  # requests may be pipelined without end: others go first
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            writer.transport.abort()  # slow, or gone: nobody reads an answer
        finally:
            writer.close()

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        caller: Caller,
        wait_s: float,
    ) -> bool:
        """Answer one request; return whether the connection may carry another."""
        is_kept, is_head, allow = False, False, ""
        self._seats.waits()
        try:
            async with asyncio.timeout(wait_s):
                head = _read_head(await reader.readuntil(b"\r\n\r\n"), self._limits)
            self._admit(head, caller)
            async with asyncio.timeout(self._limits.head_s):
                content = await reader.readexactly(head.body.octets)
            self._seats.works()
            is_kept, is_head = head.persistent, head.method == "HEAD"
            status, answer = 200, await self._routes.answer(_asked(head, content, caller))
        except asyncio.LimitOverrunError:
            self._metrics.bounds.add("admin_head_octets")
            status, answer = _problem(431, "the request head is too long")
        except PeerError as error:
            status, answer = _problem(400, str(error))
        except RefusedError as error:
            allow = error.allow
            status, answer = _problem(error.status, str(error))
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            raise
        except Exception:
            # The request may hold what must not be logged: its text is not in here.
            logger.exception("no answer on the control socket")
            status, answer = _problem(500, "a bug of ours; please report it")
        writer.write(_render(status, answer, allow, is_kept=is_kept, is_head=is_head))
        async with asyncio.timeout(self._limits.head_s):
            await writer.drain()
        return is_kept

    def _admit(self, head: RequestHead, caller: Caller) -> None:
        group = None if self._socket is None else self._socket.group
        if not caller.may_ask(group):
            raise RefusedError(403, "you are neither this appliance's user, root nor in its group")
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


def _asked(head: RequestHead, content: bytes, caller: Caller) -> Asked:
    path, _, query = head.target.decode("ascii").partition("?")
    if not path.startswith("/"):
        raise RefusedError(400, "the target of a request here is a path")
    return Asked(head.method, tuple(path[1:].split("/")), query, content, caller)


def _problem(status: int, text: str) -> tuple[int, object]:
    """Return the problem details of a request that was not met (RFC 9457)."""
    title = _PHRASES[status].decode("ascii")
    return status, {"type": "about:blank", "title": title, "status": status, "detail": text}


def _render(status: int, answer: object, allow: str, *, is_kept: bool, is_head: bool) -> bytes:
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
