"""The first octets of a tunnel: a ClientHello for the right name, or plain HTTP on port 80.

Nothing of the client goes to the origin before the verdict.  A tunnel that must not be is cut
(reference.md, "Reasons"): the origin has then seen a connection and no octet.
"""

import asyncio
import re
from collections.abc import Callable
from typing import override

from msgspec import Struct

from proxy.egress.obligations import Passage
from proxy.egress.tunnel import Side, Tunnel
from proxy.errors import PeerError, ProxyError, UpstreamError
from proxy.wire.clienthello import Hello, read_hello
from proxy.wire.hellowatch import HelloWatch
from rules.address import Address
from rules.decision import Reason
from rules.name import DomainName

HTTP_PORT = 80
_METHOD = re.compile(rb"[A-Z]{1,24} .*", re.DOTALL)  # the longest registered one has 17 letters
_METHOD_BEGINNING = re.compile(rb"[A-Z]{1,24}")


def looks_like_http(octets: bytes) -> bool | None:
    """Return whether `octets` begin an HTTP request; None while they may still.

    A guess: what is taken for HTTP is then read as strictly as any other request.
    """
    if _METHOD.fullmatch(octets):
        return True
    return None if not octets or _METHOD_BEGINNING.fullmatch(octets) else False


def blame_hello(hello: Hello, host: DomainName | Address, *, accept_ech: bool) -> Reason | None:
    """Return why `hello` is not one for `host`; None if it is (RFC 6066, section 3)."""
    if hello.server_name is None and isinstance(host, str):
        return Reason.SNI_MISSING
    if hello.server_name is not None and hello.server_name != host:
        return Reason.SNI_MISMATCH
    return Reason.ECH if hello.has_ech and not accept_ech else None


class Expected(Struct, frozen=True):
    """What a tunnel was opened for: the CONNECT authority and how it may be used."""

    host: DomainName | Address
    port: int
    passage: Passage


class Opening(Side):
    """The client's side until its first octets were judged; it is also the tunnel's gate.

    `as_http` is called with those octets when they are plain HTTP, which is taken on port 80.
    """

    __slots__ = ("_as_http", "_buffer", "_expected", "_passage")

    def __init__(
        self,
        tunnel: Tunnel,
        transport: asyncio.Transport,
        other: asyncio.Transport,
        expected: Expected,
        as_http: Callable[[bytes], None],
    ) -> None:
        super().__init__(tunnel, transport, other)
        self._expected = expected
        self._passage = expected.passage
        self._as_http = as_http
        self._buffer = b""

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._expected.port == HTTP_PORT:
            verdict = looks_like_http(self._buffer)
            if verdict is None:
                return
            if verdict:
                self._as_http(self._buffer)
                return
        self._judge()

    @override
    def eof_received(self) -> bool:
        if self._passage.unread and not self._passage.only_readable:
            self.open()  # the server speaks first, and the client has nothing to say
            return self.tunnel.client.eof_received() is True
        self.tunnel.close()
        return False

    def late(self) -> None:
        """Cut what says nothing; a tunnel that may stay unread is just opened."""
        if self._passage.unread and not self._passage.only_readable:
            self.open()
        else:
            reason = (
                Reason.INSPECTION_UNAVAILABLE if self._passage.only_readable else Reason.NOT_TLS
            )
            self.tunnel.cut(reason, "nothing readable within hello_s")

    def open(self) -> None:
        """Relay from now on, beginning with what was held back."""
        client, origin = self.transport, self.other
        self.tunnel.become(Side(self.tunnel, client, origin), Side(self.tunnel, origin, client))
        self._release()

    def _judge(self) -> None:
        if self._passage.only_readable:
            self.tunnel.cut(Reason.INSPECTION_UNAVAILABLE, "no HTTP that can be read")
        elif self._passage.unread:
            self.open()
        else:
            self._judge_hello()

    def _judge_hello(self) -> None:
        limit = self.tunnel.context.limits.hello_octets
        try:
            hello = read_hello(self._buffer, limit)
        except PeerError as error:
            self.tunnel.cut(error.reason, str(error))
            return
        if hello is None:
            return
        blame = blame_hello(hello, self._expected.host, accept_ech=self._passage.accept_ech)
        if blame is not None:
            self.tunnel.cut(blame, f"the ClientHello names {hello.server_name}")
            return
        self._watch(HelloWatch(hello, limit), hello.octets)

    def _watch(self, watch: HelloWatch, octets: int) -> None:
        client, origin = self.transport, self.other
        watched = WatchedClient(self.tunnel, client, origin, watch)
        self.tunnel.become(watched, WatchedOrigin(self.tunnel, origin, client, watch))
        held, self._buffer = self._buffer, self._buffer[:octets]
        self._release()
        if len(held) > octets:  # early data, or a lie
            watched.data_received(held[octets:])

    def _release(self) -> None:
        if self._buffer:
            self.tunnel.client.octets += len(self._buffer)
            self.other.write(self._buffer)
            self._buffer = b""
        self.other.resume_reading()


class SpeakingFirst(Side):
    """The origin's side of a tunnel that may stay unread, until either end speaks."""

    @override
    def data_received(self, data: bytes) -> None:
        opening = self.tunnel.client
        if isinstance(opening, Opening):
            opening.open()
        self.tunnel.origin.data_received(data)


class Watched(Side):
    """A side while it is not known yet whether a second ClientHello will come."""

    __slots__ = ("_watch",)

    def __init__(
        self,
        tunnel: Tunnel,
        transport: asyncio.Transport,
        other: asyncio.Transport,
        watch: HelloWatch,
    ) -> None:
        super().__init__(tunnel, transport, other)
        self._watch = watch

    def _pass_on(self, data: bytes) -> None:
        if data:
            super().data_received(data)
        if self._watch.done:
            _unwatch(self.tunnel)


class WatchedClient(Watched):
    """The client's side: only what was seen to be harmless goes on."""

    @override
    def data_received(self, data: bytes) -> None:
        try:
            released = self._watch.feed_client(data)
        except ProxyError as error:
            _cut(self.tunnel, error)
            return
        self._pass_on(released)


class WatchedOrigin(Watched):
    """The origin's side: it tells whether it asks for a second ClientHello."""

    @override
    def data_received(self, data: bytes) -> None:
        try:
            self._watch.feed_server(data)
        except ProxyError as error:
            _cut(self.tunnel, error)
            return
        self._pass_on(data)


def _cut(tunnel: Tunnel, error: ProxyError) -> None:
    reason = error.reason if isinstance(error, PeerError | UpstreamError) else Reason.NOT_TLS
    tunnel.cut(reason, str(error))


def _unwatch(tunnel: Tunnel) -> None:
    client, origin = tunnel.client.transport, tunnel.origin.transport
    tunnel.become(Side(tunnel, client, origin), Side(tunnel, origin, client))
