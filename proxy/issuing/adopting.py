"""The connections that the appliance hands over: adopted, entitled, ended when idle."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable

from proxy.channel import Adopt, Entitle
from proxy.issuing.caller import Caller
from proxy.issuing.connection import AdoptedProtocol, Bound, Services
from proxy.limits import Limits

logger = logging.getLogger(__name__)

SWEEP_S = 30.0  # how late an idle connection may be ended


class Adopted:
    """Every adopted connection, by the appliance's number of it."""

    def __init__(
        self, services: Services, limits: Limits, bound: Bound, gone: Callable[[int], None]
    ) -> None:
        """`gone` is called with the number of each connection that has ended."""
        self._services = services
        self._limits = limits
        self._bound = bound
        self._gone = gone
        self._open: dict[int, AdoptedProtocol] = {}
        self._idle: dict[int, tuple[int, float]] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._open)

    def adopt(self, message: Adopt, fd: int) -> None:
        """Serve the connection `fd`, which is ours from now on; the appliance bounds how many."""
        caller = Caller(message.connection, message.app, message.ids)
        services = self._services(message.kind, caller)
        protocol = AdoptedProtocol(services, caller, self._limits, self._bound, self._ended)
        self._open[message.connection] = protocol
        task = asyncio.get_running_loop().create_task(self._connect(protocol, fd))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def entitle(self, message: Entitle) -> None:
        """Entitle the caller of a connection to what the message says."""
        protocol = self._open.get(message.connection)
        if protocol is not None:
            protocol.caller.entitle(message.app, message.ids)

    def sweep(self, now: float) -> None:
        """End what had no call for too long; `now` is monotonic, in seconds."""
        before, self._idle = self._idle, {}
        for number, protocol in list(self._open.items()):
            if not protocol.is_idle:
                continue
            calls, since = before.get(number, (-1, now))
            if calls != protocol.calls:
                since = now
            self._idle[number] = protocol.calls, since
            if now - since >= self._limits.workload_idle_s:
                protocol.abort()

    def close(self) -> None:
        """End all of them."""
        for protocol in list(self._open.values()):
            protocol.abort()

    async def _connect(self, protocol: AdoptedProtocol, fd: int) -> None:
        sock: socket.socket | None = None
        try:
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(lambda: protocol, sock)
        except (OSError, RuntimeError, ValueError) as error:  # uvloop's are of all three kinds
            logger.info("connection %d cannot be served: %s", protocol.caller.number, error)
            os.close(fd) if sock is None else sock.close()
            self._ended(protocol)

    def _ended(self, protocol: AdoptedProtocol) -> None:
        number = protocol.caller.number
        if self._open.pop(number, None) is not None:
            self._gone(number)
