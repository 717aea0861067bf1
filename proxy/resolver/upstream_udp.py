"""Do53 over UDP: a socket, a port, an id and a pattern of case of its own for each query.

The socket is connected, so that the kernel drops what comes from elsewhere and tells of ICMP
errors.  A datagram that is no answer to the query is dropped and the wait goes on: one bad packet
must not end it (TuDoor, CVE-2023-29483).  After `limits.upstream_mismatches` of them somebody is
guessing, and the question is asked over TCP, as it is when the answer was truncated.
"""

import asyncio
import socket

from proxy.errors import UpstreamError
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.upstream_query import (
    ID_OCTETS,
    Attempt,
    Entropy,
    Settle,
    Upstream,
    is_truncated,
    make_query,
)
from proxy.resolver.upstream_url import UpstreamAddress
from rules.decision import Reason

_DATAGRAM_OCTETS = 65535  # RFC 768: a datagram is never cut by us, whatever its sender ignores


class UdpUpstream:
    """An upstream that is asked over UDP, and over TCP where UDP does not do."""

    def __init__(
        self,
        address: UpstreamAddress,
        stream: Upstream,
        limits: Limits,
        metrics: Metrics,
        entropy: Entropy,
    ) -> None:
        """`stream` is the same upstream over TCP."""
        self.address = address
        self.stream = stream
        self.limits = limits
        self.metrics = metrics
        self.entropy = entropy
        self.buffer = memoryview(bytearray(_DATAGRAM_OCTETS))
        self.sockaddr = address.sockaddr
        self.family = address.family

    def start(self, lowered: bytes, settle: Settle) -> Attempt:
        """Send a query from a fresh socket.

        Raises:
            UpstreamError: UPSTREAM_UNREACHABLE, no route or no socket.
        """
        return UdpAttempt(self, lowered, settle)

    async def close(self) -> None:
        """Close the connection that truncated answers made."""
        await self.stream.close()


class UdpAttempt:
    """One query; its socket lives until it is settled or given up."""

    __slots__ = (
        "_id",
        "_loop",
        "_mismatched",
        "_over_tcp",
        "_query",
        "_settle",
        "_socket",
        "_upstream",
    )

    def __init__(self, upstream: UdpUpstream, lowered: bytes, settle: Settle) -> None:
        self._upstream = upstream
        self._settle = settle
        self._query = make_query(lowered, upstream.entropy, padded=False)
        self._id = upstream.entropy(ID_OCTETS)  # RFC 5452, section 9.2: unpredictable
        self._mismatched = 0
        self._over_tcp: Attempt | None = None
        self._loop = asyncio.get_running_loop()
        # Unbound before connect(): the kernel draws the port at random (RFC 5452, section 9.2).
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        try:
            self._socket = socket.socket(upstream.family, kind)
        except OSError as error:
            raise _unreachable(error) from None
        try:
            self._socket.connect(upstream.sockaddr)
            self._socket.send(self._query.message(self._id))
        except OSError as error:
            self._socket.close()
            raise _unreachable(error) from None
        self._loop.add_reader(self._socket.fileno(), self.receive)

    def cancel(self) -> None:
        """Close the socket, and give up what is under way over TCP."""
        self._close()
        if self._over_tcp is not None:
            self._over_tcp.cancel()

    def expire(self) -> UpstreamError:
        """Close the socket; return whether nothing came or nothing that answers."""
        self._close()
        if self._over_tcp is not None:
            return self._over_tcp.expire()
        if self._mismatched:
            text = f"{self._mismatched} datagrams came, none of which answers the query"
            return UpstreamError(Reason.UPSTREAM_MALFORMED, text)
        return UpstreamError(Reason.UPSTREAM_TIMEOUT, "no answer in time")

    def receive(self) -> None:
        """Take one datagram a wake-up: a flood at one socket does not starve the others."""
        upstream = self._upstream
        try:
            octets = self._socket.recv_into(upstream.buffer)
        except BlockingIOError:  # a datagram with a bad checksum woke us
            return
        except OSError as error:  # ICMP: port unreachable and the like
            self._close()
            self._settle(_unreachable(error))
            return
        message = bytes(upstream.buffer[:octets])
        if message[:ID_OCTETS] != self._id or not self._query.is_answered_by(message):
            self._drop()
        elif is_truncated(message):  # RFC 7766, section 5: ask again over TCP
            self._ask_over_tcp()
        else:
            self._close()
            self._settle(self._query.restored(message))

    def _drop(self) -> None:
        self._mismatched += 1
        self._upstream.metrics.upstream.add("udp", "mismatched")
        if self._mismatched >= self._upstream.limits.upstream_mismatches:
            self._upstream.metrics.bounds.add("upstream_mismatches")
            self._ask_over_tcp()

    def _ask_over_tcp(self) -> None:
        self._close()
        self._over_tcp = self._upstream.stream.start(self._query.lowered, self._settle)

    def _close(self) -> None:
        descriptor = self._socket.fileno()
        if descriptor >= 0:
            self._loop.remove_reader(descriptor)
            self._socket.close()


def _unreachable(error: OSError) -> UpstreamError:
    return UpstreamError(Reason.UPSTREAM_UNREACHABLE, error.strerror or str(error))
