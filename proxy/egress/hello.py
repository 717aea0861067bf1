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
from proxy.wire.clienthello import Hello, likeness, read_hello
from proxy.wire.hellowatch import HelloWatch, is_hello_retry
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
    """What a tunnel was opened for: the CONNECT authority's host, and how it may be used.

    `as_http` is called with the first octets when they are plain HTTP, which is taken on port 80;
    it is None on any other.
    """

    host: DomainName | Address
    passage: Passage
    as_http: Callable[[bytes], None] | None


class Opening(Side):
    """The client's side until nothing can come unseen any more; it is also the tunnel's gate.

    First the ClientHello is judged.  Then, until the server has answered it, a second one may
    follow (RFC 8446, section 4.1.4): `proxy.wire.hellowatch`.  Bare sides take over with the
    first octets after that: a tunnel that carries no more than one answer never needs them.
    """

    __slots__ = ("_buffer", "_expected", "_hello", "_is_answered", "_watch")

    def __init__(
        self,
        tunnel: Tunnel,
        transport: asyncio.Transport,
        other: asyncio.Transport,
        expected: Expected,
    ) -> None:
        super().__init__(tunnel, transport, other)
        self._expected = expected
        self._buffer = b""
        self._hello: Hello | None = None  # once it was judged
        self._watch: HelloWatch | None = None
        self._is_answered = False  # no second hello will come

    @override
    def data_received(self, data: bytes) -> None:
        if self._is_answered:
            self.tunnel.bare()
            self.tunnel.client.data_received(data)
            return
        if self._hello is not None:
            self._from_client(data)
            return
        self._buffer = buffer = self._buffer + data if self._buffer else data
        as_http = self._expected.as_http
        if as_http is not None:
            verdict = looks_like_http(buffer)
            if verdict is None:
                return
            if verdict:
                as_http(buffer)
                return
        self._judge()

    @override
    def eof_received(self) -> bool:
        if self._hello is not None:
            return super().eof_received()
        passage = self._expected.passage
        if passage.unread and not passage.only_readable:
            self.open()  # the server speaks first, and the client has nothing to say
            return self.tunnel.client.eof_received() is True
        self.tunnel.close()
        return False

    def late(self) -> None:
        """Cut what says nothing; a tunnel that may stay unread is just opened."""
        passage = self._expected.passage
        if passage.unread and not passage.only_readable:
            self.open()
        else:
            reason = Reason.INSPECTION_UNAVAILABLE if passage.only_readable else Reason.NOT_TLS
            self.tunnel.cut(reason, "nothing readable within hello_s")

    def open(self) -> None:
        """Relay from now on, beginning with what was held back."""
        tunnel, waiting = self.tunnel, self.tunnel.origin
        tunnel.bare()
        self._release(self._buffer)
        if isinstance(waiting, Waiting):
            waiting.release()

    def spoken_to(self, waiting: "Waiting", data: bytes) -> None:
        """Take what the origin sends."""
        if self._is_answered:
            self.tunnel.bare()
            self.tunnel.origin.data_received(data)
            return
        if self._hello is not None:
            self._from_origin(waiting, data)
            return
        passage = self._expected.passage
        if passage.unread and not passage.only_readable:
            self.open()
            self.tunnel.origin.data_received(data)
        else:
            waiting.hold(data)  # nothing goes to a client whose tunnel may yet be cut

    def _judge(self) -> None:
        passage = self._expected.passage
        if passage.only_readable:
            self.tunnel.cut(Reason.INSPECTION_UNAVAILABLE, "no HTTP that can be read")
        elif passage.unread:
            self.open()
        else:
            self._judge_hello()

    def _judge_hello(self) -> None:
        tunnel, buffer = self.tunnel, self._buffer
        route = tunnel.route
        known = route.hello if route is not None else None
        hello = known.find(buffer) if known is not None else None
        if hello is None:
            try:
                hello = read_hello(buffer, tunnel.context.limits.hello_octets)
            except PeerError as error:
                tunnel.cut(error.reason, str(error))
                return
            if hello is None:
                return
            if route is not None:
                route.hello = likeness(buffer, hello)
        expected = self._expected
        blame = blame_hello(hello, expected.host, accept_ech=expected.passage.accept_ech)
        if blame is not None:
            tunnel.cut(blame, f"the ClientHello names {hello.server_name}")
            return
        self._hello = hello
        tunnel.gate_passed()
        waiting, octets = tunnel.origin, hello.octets
        self._buffer = b""
        self._release(buffer[:octets] if len(buffer) > octets else buffer)
        if len(buffer) > octets:  # early data, or a lie
            self._from_client(buffer[octets:])
        if isinstance(waiting, Waiting):
            waiting.release()

    def _from_client(self, data: bytes) -> None:
        """Send on what was seen to be harmless."""
        watch = self._watching()
        try:
            released = watch.feed_client(data)
        except ProxyError as error:
            _cut(self.tunnel, error)
            return
        if released:
            self._release(released)
        if watch.done:
            self.tunnel.bare()

    def _from_origin(self, waiting: "Waiting", data: bytes) -> None:
        """Look whether the origin asks for a second ClientHello, and send on what it says."""
        watch, is_done = self._watch, False
        if watch is None:
            is_done = is_hello_retry(data) is False  # the usual first answer needs no memory
        if not is_done:
            watch = self._watching()
            try:
                watch.feed_server(data)
            except ProxyError as error:
                _cut(self.tunnel, error)
                return
            is_done = watch.done
        waiting.octets += len(data)
        waiting.other.write(data)
        self._is_answered = is_done

    def _watching(self) -> HelloWatch:
        if self._watch is None:
            assert self._hello is not None  # noqa: S101 - for the type checker: it was judged
            self._watch = HelloWatch(self._hello, self.tunnel.context.limits.hello_octets)
        return self._watch

    def _release(self, octets: bytes) -> None:
        if octets:
            side = self.tunnel.client  # the count goes on where the tunnel is bare by now
            side.octets += len(octets)
            self.other.write(octets)


class Waiting(Side):
    """The origin's side for as long as the client's is an `Opening`."""

    __slots__ = ("_opening", "held")

    def __init__(
        self,
        tunnel: Tunnel,
        transport: asyncio.Transport,
        other: asyncio.Transport,
        opening: Opening,
    ) -> None:
        super().__init__(tunnel, transport, other)
        self._opening = opening
        self.held = b""

    @override
    def data_received(self, data: bytes) -> None:
        self._opening.spoken_to(self, data)

    def hold(self, data: bytes) -> None:
        """Keep what came too early, and read no more."""
        self.held += data
        self.transport.pause_reading()

    def release(self) -> None:
        """Let what was held be taken, by whichever side is the origin's now."""
        held, self.held = self.held, b""
        if held and not self.transport.is_closing():
            self.transport.resume_reading()
            self.tunnel.origin.data_received(held)


def _cut(tunnel: Tunnel, error: ProxyError) -> None:
    reason = error.reason if isinstance(error, PeerError | UpstreamError) else Reason.NOT_TLS
    tunnel.cut(reason, str(error))
