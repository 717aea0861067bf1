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
from typing import Literal

from msgspec import Struct

from proxy.transport.peer import SocketAddress
from proxy.transport.server_tls import LAST, Last, ServerTls

_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_REST_S = 1.0  # asyncio's ACCEPT_RETRY_DELAY: what is out of reach now may be there then
_LINGER_S = 1.0  # for what was said last to be read; nginx lingering_timeout 5
_ACCEPTS = 64  # connections a wake-up, so that a flood does not hold the loop


type Outcome = Literal["done", "certificate", "failed", "timeout"]


class Unverified(Struct, frozen=True):
    """A client whose certificate did not hold; `text` is what OpenSSL says of it."""

    peer: SocketAddress
    local: SocketAddress
    text: str


class ListenerTls(Struct, frozen=True):
    """TLS of a listener: so many handshakes at once, each of so many seconds at most.

    `at_bound` is called with "tls_handshakes" or "tls_handshake_s" when either was hit, `counted`
    with what became of each handshake, `unverified` with each that a certificate ended.
    """

    tls: ServerTls
    handshakes: int
    handshake_s: float
    at_bound: Callable[[str], None]
    counted: Callable[[Outcome], None] = lambda _: None
    unverified: Callable[[Unverified], None] = lambda _: None


class Handshakes:
    """Accepts from `sock` and makes a protocol by `factory` for each handshake that succeeds."""

    def __init__(
        self, sock: socket.socket, factory: Callable[[], asyncio.BaseProtocol], tls: ListenerTls
    ) -> None:
        self._socket = sock
        self._factory = factory
        self._tls = tls
        self._under_way: dict[asyncio.Task[None], socket.socket] = {}  # the oldest first
        self._lingering: dict[socket.socket, asyncio.TimerHandle] = {}  # the oldest first
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
        for spare in tuple(self._lingering):
            self._let_go(spare)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            try:
                connection, peer = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._rest()
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if len(self._under_way) >= self._tls.handshakes:
                self._tls.at_bound("tls_handshakes")
                self._end(next(iter(self._under_way)))
            # Begun here and not in the next turn of the loop: 5 % of a handshake.
            work = self._handshake(connection, peer)
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

    async def _handshake(self, connection: socket.socket, peer: SocketAddress) -> None:
        tls = self._tls
        outcome: Outcome = "failed"
        last = Last(connection)
        LAST.set(last)
        local = connection.getsockname()  # while it is open
        try:
            await self._loop.connect_accepted_socket(
                self._factory,
                connection,
                ssl=tls.tls.current,
                ssl_handshake_timeout=tls.handshake_s,
            )
            outcome = "done"
        except ConnectionAbortedError:  # what the loop raises after `ssl_handshake_timeout`
            outcome = "timeout"
            tls.at_bound("tls_handshake_s")
            connection.close()
        except ssl.SSLCertVerificationError as error:
            outcome = "certificate"
            connection.close()
            tls.unverified(Unverified(peer, local, error.verify_message))
        except OSError:  # ssl.SSLError is one: no TLS, no common version, or the peer has gone
            connection.close()
        finally:
            tls.counted(outcome)
            if last.spare is not None:
                self._linger(last.spare)

    def _linger(self, spare: socket.socket) -> None:
        """Close a connection whose handshake failed, a moment later: not with a reset."""
        if not self._is_open:
            spare.close()
            return
        if len(self._lingering) >= self._tls.handshakes:
            self._let_go(next(iter(self._lingering)))
        self._lingering[spare] = self._loop.call_later(_LINGER_S, self._let_go, spare)

    def _let_go(self, spare: socket.socket) -> None:
        timer = self._lingering.pop(spare, None)
        if timer is not None:
            timer.cancel()
        spare.close()

    def _end(self, task: asyncio.Task[None]) -> None:
        connection = self._under_way.pop(task)
        task.cancel()
        task.add_done_callback(lambda _: connection.close())  # it may not even have begun

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)
        if not task.cancelled():
            task.result()  # what is no OSError is a bug of ours, and the loop reports it
