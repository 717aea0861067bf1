"""Reading on after a last response, so that the peer gets to read it.

Closing a socket with unread octets resets the connection, and a reset throws away what the
peer has not read yet (RFC 9112, section 9.6).
"""

import asyncio
import ctypes
import socket
import struct
from typing import override

from proxy.egress.admission import Admission
from proxy.egress.asker import Asker
from proxy.egress.context import Context
from proxy.egress.standing import Told, revoked
from rules.decision import Decision

_RESET = struct.pack("ii", 1, 0)  # struct linger: on, for no time
_NOBODY = struct.pack("H14x", socket.AF_UNSPEC)  # struct sockaddr
_connect = ctypes.PyDLL(None).connect  # it never waits: the interpreter need not be let go


def reset(transport: asyncio.Transport) -> None:
    """End a connection so that its peer sees it at once: with a reset, and nothing before it.

    What was written and is not on the wire yet is thrown away, in the kernel too.  The connection
    may be closing, but must not be lost: its descriptor may be another's by then.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        # The loop closes it in its next turn, after it has written what it holds: 250 KiB of each
        # tunnel.  Linux resets a connection at once that is "connected" to nobody (connect(2)).
        _connect(sock.fileno(), _NOBODY, len(_NOBODY))
    transport.abort()


class Linger(asyncio.Protocol):
    """Throws away what still comes, until the peer ends or `linger_s` is over.

    A peer that reads slowly has `requests_in_body_s` to take what was written.
    """

    __slots__ = ("_admission", "_context", "_end", "_transport", "asker", "deadline")

    is_busy = False

    def __init__(
        self,
        context: Context,
        admission: Admission,
        transport: asyncio.Transport,
        asker: Asker,
    ) -> None:
        self._context = context
        self.asker = asker
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
        transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()
        else:  # TLS is closed whole, and reads on by itself until the peer has closed it too
            transport.close()

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

    def revoked(self, *, apps_only: bool) -> Decision | None:
        """Return the decision that ends it; None: what was written may be sent."""
        asker = self.asker
        shown = asker.principal if isinstance(asker.shown, Decision) else asker.shown
        return revoked(self._context, asker, asker.value, shown, apps_only=apps_only)

    def lapsed(self) -> Decision | None:
        """Let a last response be read: it was whole before less was proven of its asker."""
        return None

    def halt(self, decision: Decision) -> Told | None:  # noqa: ARG002 - its line is written already
        """End at once, with a reset."""
        reset(self._transport)
        return None

    def end(self) -> None:
        """End at once."""
        self._transport.abort()
