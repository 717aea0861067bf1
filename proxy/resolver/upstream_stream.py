"""Upstreams over TCP and DoT: one connection each, kept alive, pipelined, answered in any order.

RFC 7766, section 6.2, and RFC 7858, section 3: queries go out as they come, answers are matched by
id and question, an idle connection is closed after `limits.upstream_tcp_idle_s`, and a query whose
connection died under it is sent again on a fresh one.  The rules for that:

* A connection that was opened for the query and closed without an answer has failed.
* One that was in use before, and closed without an answer since the query was sent, was perhaps
  closed for being idle: the query is sent again, once (RFC 7766, section 6.2.4).
* One that answered others since made progress: the query is sent again; its deadline ends this.

A query waits while the connection is being made, or has `limits.upstream_tcp_pipeline` queries
under way; how many wait is bounded by `limits.upstream_in_flight`, how long by the deadline.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

from proxy.errors import UpstreamError
from proxy.limits import Limits
from proxy.metrics import Metrics, UpstreamTransport
from proxy.resolver.upstream_connection import Connection, Owner, StreamAttempt, explain
from proxy.resolver.upstream_query import Entropy, Settle, make_query
from proxy.resolver.upstream_url import UpstreamAddress
from proxy.transport.tls import UpstreamTlsContext
from rules.decision import Reason

_SHUTDOWN_S = 1.0  # for the peer's close_notify when an idle connection is closed


class StreamUpstream:
    """An upstream that is asked over TCP, or over TLS where a context is given."""

    def __init__(
        self,
        address: UpstreamAddress,
        limits: Limits,
        metrics: Metrics,
        entropy: Entropy,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`ssl_context` verifies the upstream; it is None for Do53 over TCP."""
        self.address = address
        self.limits = limits
        self.metrics = metrics
        self.entropy = entropy
        self.ssl_context = ssl_context
        self.label: UpstreamTransport = "tcp" if ssl_context is None else "dot"
        self.make_connection: Callable[[Owner], Connection] = Connection
        self._connection: Connection | None = None  # the one that takes new queries
        self._connections: set[Connection] = set()  # with those that only finish what they have
        self._waiting: dict[StreamAttempt, None] = {}  # in order; a set that is ordered
        self._dialling: asyncio.Task[None] | None = None
        self._dials: set[asyncio.Task[None]] = set()  # with those that were cancelled

    def start(self, lowered: bytes, settle: Settle) -> StreamAttempt:
        """Send a query on the connection, or let it wait for one."""
        query = make_query(lowered, self.entropy, padded=self.ssl_context is not None)
        attempt = StreamAttempt(self, query, settle)
        self._submit(attempt)
        return attempt

    async def close(self) -> None:
        """Close every connection and wait until they are; attempts were given up before."""
        self._connection = None
        ends = [connection.ended for connection in self._connections]
        for connection in self._connections:
            connection.abandon()
        await asyncio.gather(*ends, *self._dials, return_exceptions=True)

    def withdraw(self, attempt: StreamAttempt) -> None:
        """Take an attempt back that still waits; without any, nothing is dialled."""
        self._waiting.pop(attempt, None)
        if not self._waiting and self._dialling is not None:
            self._dialling.cancel()
            self._dialling = None

    def retire(self, connection: Connection) -> None:
        """Send nothing more on a connection; it ends with the last query that it has."""
        if self._connection is connection:
            self._connection = None
            self._dial_if_wanted()
        connection.finish()

    def first_answer(self, transport: asyncio.Transport) -> None:
        """Keep the TLS session of a connection for the next one."""
        if isinstance(self.ssl_context, UpstreamTlsContext):
            self.ssl_context.keep_session(transport.get_extra_info("ssl_object"))

    def pour(self, *, is_fresh: bool = False) -> None:
        """Send what waits, as far as the pipeline has room."""
        connection = self._connection
        while connection is not None and connection.has_room and self._waiting:
            attempt = next(iter(self._waiting))
            del self._waiting[attempt]
            connection.send(attempt, is_fresh=is_fresh)

    def lost(
        self, connection: Connection, attempts: list[StreamAttempt], error: UpstreamError
    ) -> None:
        """Send again what a lost connection left without an answer, or settle it."""
        self._connections.discard(connection)
        if self._connection is connection:
            self._connection = None
        for attempt in attempts:
            self.returned(attempt, connection.answered, error)
        self._dial_if_wanted()

    def returned(self, attempt: StreamAttempt, answered: int, error: UpstreamError) -> None:
        """Send an attempt again that a connection with so many answers gave back, or settle it."""
        # RFC 7766, section 6.2.4; what was malformed would be so again.
        is_closed = error.reason is Reason.UPSTREAM_UNREACHABLE
        if is_closed and attempt.may_be_sent_again(answered):
            self.metrics.upstream.add(self.label, "retried")
            self._submit(attempt)
        else:
            attempt.settle(error)

    def _submit(self, attempt: StreamAttempt) -> None:
        connection = self._connection
        if connection is not None and connection.has_room and not self._waiting:
            connection.send(attempt, is_fresh=False)
            return
        if connection is not None:
            self.metrics.bounds.add("upstream_tcp_pipeline")
        self._waiting[attempt] = None
        self._dial_if_wanted()

    def _dial_if_wanted(self) -> None:
        if self._waiting and self._connection is None and self._dialling is None:
            self._dialling = asyncio.get_running_loop().create_task(self._dial())
            self._dials.add(self._dialling)
            self._dialling.add_done_callback(self._dials.discard)

    async def _dial(self) -> None:
        try:
            async with asyncio.timeout(self.limits.upstream_try_s):
                made = await self._connect()
        except OSError as problem:  # TimeoutError and ssl.SSLError are among them
            made = explain(problem)
        finally:
            if self._dialling is asyncio.current_task():
                self._dialling = None
        if isinstance(made, Connection):
            self._connection = made
            self._connections.add(made)
            self.pour(is_fresh=True)
        else:
            failed, self._waiting = self._waiting, {}
            for attempt in failed:
                attempt.settle(made)

    async def _connect(self) -> Connection | UpstreamError:
        loop = asyncio.get_running_loop()
        kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        with contextlib.ExitStack() as undo:
            dialled = undo.enter_context(socket.socket(self.address.family, kind))
            await loop.sock_connect(dialled, self.address.sockaddr)
            _, connection = await loop.create_connection(
                lambda: self.make_connection(self),
                sock=dialled,
                ssl=self.ssl_context,
                server_hostname=self.address.server_name or None,
                ssl_shutdown_timeout=_SHUTDOWN_S if self.ssl_context else None,
            )
            undo.pop_all()  # the transport owns it now
        return connection
