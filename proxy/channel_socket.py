"""Either end of the channel between the appliance and its issuer.

A SOCK_SEQPACKET socketpair carries one JSON message a packet, with descriptors beside it
(SCM_RIGHTS).  Both ends trust each other: what breaks the contract is a bug, and ends the channel,
upon which the issuer ends and the appliance starts another.  So does an end that stopped reading.
"""

import array
import asyncio
import contextlib
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

logger = logging.getLogger(__name__)

MOST_OCTETS = 196608  # of a message: what unix(7) takes with Linux's wmem_default of 212992
MOST_DESCRIPTORS = 8  # that come with one; the kernel's SCM_MAX_FD is 253
QUEUE = 4096  # messages not yet taken by the other end; net.unix.max_dgram_qlen 10 to 512 more
_AT_ONCE = 64  # messages read in a wake-up, so that connections of the loop get their turn
_SPACE = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)

type Receive = Callable[[Any, tuple[int, ...]], None]
"""Takes a message and the descriptors that came with it, which are the callee's to close."""


class ChannelSocket:
    """Sends and receives messages over `sock`, in order."""

    def __init__(
        self, sock: socket.socket, kind: Any, receive: Receive, ended: Callable[[], None]
    ) -> None:
        """`kind` is the union of what may come; `ended` is called once, unless we close."""
        sock.setblocking(False)
        self._socket = sock
        self._decoder = msgspec.json.Decoder(kind)
        self._encoder = msgspec.json.Encoder()
        self._receive = receive
        self._ended = ended
        self._queue: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def start(self) -> None:
        """Receive from now on, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._readable)

    @property
    def closed(self) -> bool:
        """Whether nothing is sent any more."""
        return self._closed

    def send(self, message: Struct, fds: Sequence[int] = ()) -> None:
        """Send `message` with copies of the descriptors `fds`, which stay the caller's.

        A message that the other end does not take at once waits; `QUEUE` of them end the channel.
        After the end nothing is sent.

        Raises:
            ValueError: it is longer than `MOST_OCTETS`.
        """
        octets = self._encoder.encode(message)
        if len(octets) > MOST_OCTETS:
            raise ValueError(f"a message of {len(octets)} octets; {MOST_OCTETS} fit the channel")
        if self._closed:
            return
        if not self._queue and self._sent(octets, fds):
            return
        if len(self._queue) >= QUEUE:
            self._end(f"{QUEUE} messages were not taken")
        elif not self._closed:
            self._wait(octets, fds)

    def close(self) -> None:
        """End the channel; what waits to be sent is dropped."""
        if self._closed:
            return
        self._closed = True
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for _, fds in self._queue:
            _close_all(fds)
        self._queue.clear()

    def _wait(self, octets: bytes, fds: Sequence[int]) -> None:
        self._queue.append((octets, tuple(os.dup(fd) for fd in fds)))
        if len(self._queue) == 1:
            loop = self._loop or asyncio.get_running_loop()
            self._loop = loop
            loop.add_writer(self._socket.fileno(), self._writable)

    def _sent(self, octets: bytes, fds: Sequence[int]) -> bool:
        """Send now, if the other end has room; a channel that is broken ends."""
        try:
            if fds:
                socket.send_fds(self._socket, [octets], list(fds))
            else:
                self._socket.send(octets)
        except (BlockingIOError, InterruptedError):
            return False
        except (BrokenPipeError, ConnectionResetError):  # the other end has closed
            self._end("")
            return False
        except OSError as error:
            self._end(str(error))
            return False
        return True

    def _writable(self) -> None:
        while self._queue:
            octets, fds = self._queue[0]
            if not self._sent(octets, fds):
                return
            self._queue.popleft()
            _close_all(fds)
        if self._loop is not None and not self._closed:
            self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        for _ in range(_AT_ONCE):
            if self._closed or not self._read_one():
                return

    def _read_one(self) -> bool:
        try:
            octets, fds, whole = self._packet()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._end(str(error))
            return False
        if not octets:  # unix(7): the other end has closed; no message of ours is empty
            self._end("")
            return False
        try:
            message = self._decoder.decode(octets) if whole else None
        except msgspec.MsgspecError as error:
            message, octets = None, str(error).encode()
        if message is None:
            _close_all(fds)
            why = f"not a message of the contract: {octets[:80]!r}; restart sallyport, if it was"
            self._end(f"{why} upgraded while it ran")
            return False
        self._receive(message, fds)
        return True

    def _packet(self) -> tuple[bytes, tuple[int, ...], bool]:
        """Return what came, the descriptors, and whether nothing of it was cut off."""
        flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
        octets, control, cut, _ = self._socket.recvmsg(MOST_OCTETS, _SPACE, flags)
        fds = array.array("i")
        for level, kind, data in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        return octets, tuple(fds), not cut & (socket.MSG_TRUNC | socket.MSG_CTRUNC)

    def _end(self, why: str) -> None:
        if self._closed:
            return
        if why:
            logger.warning("the channel between appliance and issuer ends: %s", why)
        self.close()
        self._ended()


def tell_once(sock: socket.socket, message: Struct) -> None:
    """Send a message where no loop runs any more; nothing happens where nobody receives it."""
    with contextlib.suppress(OSError):
        sock.send(msgspec.json.encode(message), socket.MSG_DONTWAIT)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
