"""The control socket: HTTP/1.1 over a unix stream socket, JSON, for the admin alone.

    $ curl --unix-socket $XDG_RUNTIME_DIR/sallyport/control.sock http://localhost/status

Who may open the socket may ask (`proxy.control.place`); the kernel also says who calls, and
that is checked again and stands in the audit line of each change.
"""

import asyncio
import logging

from proxy.control.asked import RefusedError
from proxy.control.exchange import Exchanges
from proxy.control.place import Caller, ControlSocket, caller_of
from proxy.control.routes import Routes
from proxy.control.status import LastSeen, Sources
from proxy.errors import BindError
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.wire.head import RequestHead

logger = logging.getLogger(__name__)

_TICK_S = 1.0


class Control:
    """Serves the admin on one socket."""

    def __init__(self, sources: Sources, limits: Limits, metrics: Metrics) -> None:
        self._seen = LastSeen(metrics)
        self.routes = Routes(sources, self._seen)
        """What may be asked, here and by admins elsewhere (`proxy.control.remote`)."""
        self._exchanges = Exchanges(self.routes, limits, metrics)
        self._wall = sources.wall
        self._limits = limits
        self._socket: ControlSocket | None = None
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._returning: asyncio.Task[None] | None = None
        self.problem: str | None = None
        """Why nobody can ask; None while they can."""

    async def start(self, bound: ControlSocket | None) -> None:
        """Serve on `bound`, which listens already and is ours to close; None: on no socket."""
        self._socket = bound
        if bound is not None:
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
        await self._exchanges.close()
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
        try:
            caller = caller_of(writer.get_extra_info("socket"))
        except OSError:
            writer.transport.abort()
            return

        def admit(_: RequestHead) -> Caller:
            group = None if self._socket is None else self._socket.group
            if not caller.may_ask(group):
                text = "you are neither this appliance's user, root nor in its group"
                raise RefusedError(403, text)
            return caller

        self._exchanges.take(reader, writer, admit)
