"""Reading on after a last response, so that the peer gets to read it.

Closing a socket with unread octets resets the connection, and a reset throws away what the
peer has not read yet (RFC 9112, section 9.6).
"""

import asyncio
import socket
import struct
from typing import override

from proxy.egress.admission import Admission
from proxy.egress.context import Context

_RESET = struct.pack("ii", 1, 0)


def reset(transport: asyncio.Transport) -> None:
    """End a connection so that its peer sees it at once: with a reset, and nothing before it."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


class Linger(asyncio.Protocol):
    """Throws away what still comes, until the peer ends or `linger_s` is over.

    A peer that reads slowly has `requests_in_body_s` to take what was written.
    """

    __slots__ = ("_admission", "_context", "_end", "_transport", "deadline")

    is_busy = False

    def __init__(
        self, context: Context, admission: Admission, transport: asyncio.Transport
    ) -> None:
        self._context = context
        self._admission = admission
        self._transport = transport
        now = asyncio.get_running_loop().time()
        self.deadline = now + context.limits.linger_s
        self._end = now + context.limits.requests_in_body_s

    def begin(self) -> None:
        """Take the transport over; what was written to it is still sent."""
        transport = self._transport
        if transport.is_closing():
            self._admission.release()
            return
        transport.set_protocol(self)
        self._context.deadlines.add(self)
        transport.write_eof()
        transport.resume_reading()

    @override
    def data_received(self, data: bytes) -> None:
        """Throw `data` away."""

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._context.deadlines.discard(self)
        self._admission.release()

    def expired(self, now: float) -> None:
        """End: the peer had its time."""
        if self._transport.get_write_buffer_size() and now < self._end:
            self.deadline = now + self._context.limits.linger_s
            return
        self.deadline = float("inf")
        self._context.metrics.bounds.add("linger_s")
        self._transport.abort()

    def end(self) -> None:
        """End at once."""
        self._transport.abort()
