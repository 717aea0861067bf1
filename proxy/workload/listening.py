"""Accepting on a unix socket of ours: the connections themselves, unread, for somebody else.

No transport is made of them: what a workload sends is the issuer's to read.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from time import perf_counter

from proxy.control.place import ControlSocket
from proxy.errors import BindError

logger = logging.getLogger(__name__)

_AT_ONCE = 16  # accepted in a wake-up, so that other sockets of the loop get their turn
_A_TURN_S = 0.005  # nor are more accepted: who calls may take long to look up
_REST_S = 1.0  # without a descriptor for the next one; asyncio's ACCEPT_RETRY_DELAY


class Listening:
    """Accepts on `bound`, which is ours to close; `take` is given each connection, to close."""

    def __init__(self, bound: ControlSocket, take: Callable[[socket.socket], None]) -> None:
        self._bound = bound
        self._take = take
        self._resting: asyncio.TimerHandle | None = None
        self.problem: str | None = None
        """Why nobody can connect; None while they can."""

    @property
    def group(self) -> int | None:
        """The group whose members may connect."""
        return self._bound.group

    def start(self) -> None:
        """Accept from now on, in the running loop."""
        asyncio.get_running_loop().add_reader(self._bound.socket.fileno(), self._readable)

    def look(self) -> None:
        """Listen anew where the socket's file was taken away: nobody could connect any more."""
        if self._bound.is_there():
            return
        try:
            found = self._bound.again()
        except (BindError, OSError) as error:
            text = f"the socket {self._bound.path} is gone and cannot be made: {error}"
            if self.problem is None:
                logger.warning("%s", text)
            self.problem = text
            return
        self._stop()
        self._bound.socket.close()
        self._bound = found
        self.problem = None
        logger.warning("the socket %s was taken away, and is there again", found.path)
        self.start()

    def close(self) -> None:
        """Accept no more, and remove the socket."""
        self._stop()
        self._bound.close()

    def _stop(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        asyncio.get_running_loop().remove_reader(self._bound.socket.fileno())

    def _readable(self) -> None:
        until = perf_counter() + _A_TURN_S
        for _ in range(_AT_ONCE):
            if perf_counter() > until:
                return  # it stays readable
            try:
                connection, _ = self._bound.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._rest(error)
                return
            connection.setblocking(False)
            try:
                self._take(connection)
            except Exception:
                logger.exception("a bug of ours at %s", self._bound.path)
                connection.close()

    def _rest(self, error: OSError) -> None:
        """Wait: what cannot be accepted stays readable, and would be tried without end."""
        self._stop()
        logger.warning("%s: nobody is accepted for a second: %s", self._bound.path, error)
        self._resting = asyncio.get_running_loop().call_later(_REST_S, self.start)
