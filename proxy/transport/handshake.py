"""TLS on a listening socket: connections are accepted by us, so that handshakes are bounded.

The loop's own TLS server shows a connection only once its handshake is over; ten thousand peers
that never finish theirs would hold ten thousand TLS states.  Here `most` handshakes are under
way at once.  A further one ends the oldest, as a SYN cache does (RFC 4987, section 3.4): an
honest peer needs milliseconds, so that the oldest is the one that stalls.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable

_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_REST_S = 1.0  # asyncio's ACCEPT_RETRY_DELAY: what is out of reach now may be there then
_ACCEPTS = 64  # connections a wake-up, so that a flood does not hold the loop


class Handshakes:
    """Accepts from `sock` and makes a protocol by `factory` for each handshake that succeeds.

    `most` handshakes may be under way, each for `wait_s` seconds; `at_most` is called with
    "tls_handshakes" or "tls_handshake_s" when either bound was hit.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        factory: Callable[[], asyncio.BaseProtocol],
        *,
        most: int,
        wait_s: float,
        at_bound: Callable[[str], None],
    ) -> None:
        self._socket = sock
        self._context = context
        self._factory = factory
        self._most = most
        self._wait_s = wait_s
        self._at_bound = at_bound
        self._under_way: dict[asyncio.Task[None], socket.socket] = {}  # the oldest first
        self._loop = asyncio.get_running_loop()
        self._is_open = False

    @property
    def under_way(self) -> int:
        """How many handshakes are not over."""
        return len(self._under_way)

    def start(self) -> None:
        """Begin to accept."""
        self._is_open = True
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def stop(self) -> None:
        """Stop accepting, close the listening socket, and end what is under way."""
        if not self._is_open:
            return
        self._is_open = False
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        for task in tuple(self._under_way):
            self._end(task)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            try:
                connection, _peer = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._rest()
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if len(self._under_way) >= self._most:
                self._at_bound("tls_handshakes")
                self._end(next(iter(self._under_way)))
            # Begun here and not in the next turn of the loop: 5 % of a handshake.
            work = self._handshake(connection)
            task = asyncio.Task(work, loop=self._loop, eager_start=True)
            self._under_way[task] = connection
            task.add_done_callback(self._ended)

    def _rest(self) -> None:
        """Accept nothing for a while: the socket stays readable, and the loop would spin."""
        self._loop.remove_reader(self._socket.fileno())
        self._loop.call_later(_REST_S, self._go_on)

    def _go_on(self) -> None:
        if self._is_open:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    async def _handshake(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._factory,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=self._wait_s,
            )
        except ConnectionAbortedError:  # what the loop raises after `ssl_handshake_timeout`
            self._at_bound("tls_handshake_s")
            connection.close()
        except OSError:  # ssl.SSLError is one: no TLS, no common version, or the peer has gone
            connection.close()

    def _end(self, task: asyncio.Task[None]) -> None:
        connection = self._under_way.pop(task)
        task.cancel()
        task.add_done_callback(lambda _: connection.close())  # it may not even have begun

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)
        if not task.cancelled():
            task.result()  # what is no OSError is a bug of ours, and the loop reports it
