"""DoT: DNS over TLS (RFC 7858; RFC 8310).

The loop speaks TLS: a connection is made here once its handshake is over, and its bounds are the
listener's.  Who asks is told by the client's certificate, or by the TCP connection below.  What is
answered is padded where the query is (RFC 8467), so that lengths tell little of the name.
"""

from typing import override

from proxy.resolver.asker import Asker
from proxy.resolver.message import STREAM_OCTETS
from proxy.resolver.stream import DnsStream
from proxy.transport.peer import SocketAddress
from rules.facts import Principal

ALPN = ("dot",)
"""RFC 7858, section 3.1, by way of the IANA registry of RFC 7301; clients need not offer it."""


class Dot(DnsStream):
    """One TLS connection."""

    @override
    def asker(self, principal: Principal, peer: SocketAddress) -> Asker:
        return Asker(principal, "dot", STREAM_OCTETS, peer, self._listener.name)

    @override
    def eof_received(self) -> bool:
        """End: TLS is closed whole whatever this returns, and each True would be logged."""
        super().eof_received()
        return False
