"""One connection to an upstream: what is under way on it, and which message answers what.

A message that answers nothing under way is dropped.  An id stays taken until its answer came,
though nobody wants it any more, so that a late answer is never mistaken (RFC 7766, section 7).
"""

import asyncio
import os
import ssl
from typing import Protocol, cast, override

from proxy.errors import PeerError, UpstreamError
from proxy.limits import Limits
from proxy.metrics import Metrics, UpstreamTransport
from proxy.resolver.upstream_query import (
    ID_OCTETS,
    Entropy,
    Settle,
    UpstreamQuery,
    is_truncated,
)
from proxy.wire.framing import Deframer, frame
from rules.decision import Reason


class Owner(Protocol):
    """Whom a connection tells what becomes of it: the upstream that it leads to."""

    limits: Limits
    metrics: Metrics
    entropy: Entropy
    label: UpstreamTransport

    def withdraw(self, attempt: "StreamAttempt") -> None:
        """Take back an attempt that waits for a connection."""

    def retire(self, connection: "Connection") -> None:
        """Send nothing more on a connection."""

    def pour(self) -> None:
        """Use the room that an answer made."""

    def returned(self, attempt: "StreamAttempt", answered: int, error: UpstreamError) -> None:
        """Take back one attempt that the other side did not process."""

    def first_answer(self, transport: asyncio.Transport) -> None:
        """Note that a connection has proved itself."""

    def lost(
        self, connection: "Connection", attempts: list["StreamAttempt"], error: UpstreamError
    ) -> None:
        """Take what a connection left without an answer."""


class StreamAttempt:
    """One query to one upstream; on a connection, or waiting for one."""

    __slots__ = (
        "_answered_before",
        "_is_fresh",
        "_owner",
        "_was_repeated",
        "connection",
        "query",
        "query_id",
        "settle",
    )

    def __init__(self, owner: Owner, query: UpstreamQuery, settle: Settle) -> None:
        self._owner = owner
        self.query = query
        self.settle = settle
        self.connection: Connection | None = None
        self.query_id = b""
        self._is_fresh = True
        self._was_repeated = False
        self._answered_before = 0

    def sent(self, connection: "Connection", query_id: bytes, *, is_fresh: bool) -> None:
        """Note where it went; `is_fresh`: on a connection that was made for it."""
        self.connection = connection
        self.query_id = query_id
        self._is_fresh = is_fresh
        self._answered_before = connection.answered

    def may_be_sent_again(self, answered: int) -> bool:
        """Return whether a lost connection, with so many answers in all, excuses a repetition."""
        if answered > self._answered_before:
            return True
        if self._is_fresh or self._was_repeated:
            return False
        self._was_repeated = True
        return True

    def cancel(self) -> None:
        """Give up; the connection stays for others."""
        if self.connection is None:
            self._owner.withdraw(self)
        else:
            self.connection.give_up(self)

    def expire(self) -> UpstreamError:
        """Give up; a connection on which nothing was answered meanwhile gets no more queries."""
        connection = self.connection
        self.cancel()
        if connection is None:
            return UpstreamError(Reason.UPSTREAM_TIMEOUT, "no connection in time")
        if connection.answered == self._answered_before:
            self._owner.retire(connection)
        if connection.mismatched:
            text = f"{connection.mismatched} messages came, none of which answers the query"
            return UpstreamError(Reason.UPSTREAM_MALFORMED, text)
        return UpstreamError(Reason.UPSTREAM_TIMEOUT, "no answer in time")


class Connection(asyncio.Protocol):
    """Queries out in one write per turn of the loop, answers in as they come."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[bytes, StreamAttempt | None] = {}  # None: given up
        self._wanted = 0  # of those, not given up
        self._out: list[bytes] = []
        self._deframer = Deframer()
        self._failure: UpstreamError | None = None
        self._is_finishing = False
        self._used = self._loop.time()
        self._idle_s = owner.limits.upstream_tcp_idle_s
        self.answered = 0
        self.mismatched = 0  # since the last answer
        self.ended: asyncio.Future[None] = self._loop.create_future()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; over TLS the peer is verified by now."""
        self._transport = cast("asyncio.Transport", transport)
        self._idle = self._loop.call_later(self._idle_s, self._check_idle)

    @property
    def has_room(self) -> bool:
        """Whether another query may go out before an answer came."""
        return len(self._under_way) < self._owner.limits.upstream_tcp_pipeline

    def send(self, attempt: StreamAttempt, *, is_fresh: bool) -> None:
        """Send a query under an id that nothing under way has (RFC 7766, section 7)."""
        query_id = self._owner.entropy(ID_OCTETS)
        while query_id in self._under_way:
            query_id = self._owner.entropy(ID_OCTETS)
        self._under_way[query_id] = attempt
        self._wanted += 1
        attempt.sent(self, query_id, is_fresh=is_fresh)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame(attempt.query.message(query_id)))

    def give_up(self, attempt: StreamAttempt) -> None:
        """Forget who asked; its id and its place in the pipeline stay taken."""
        self._under_way[attempt.query_id] = None
        self._wanted -= 1
        if len(self._under_way) - self._wanted > self._owner.limits.upstream_tcp_pipeline // 2:
            self._owner.retire(self)  # it owes too many answers
        elif self._is_finishing:
            self.finish()

    def finish(self) -> None:
        """Close as soon as nothing is wanted any more."""
        self._is_finishing = True
        if not self._wanted:
            self.abandon()

    def abandon(self) -> None:
        """Close at once."""
        if not self._transport.is_closing():
            self._transport.abort()

    @override
    def data_received(self, data: bytes) -> None:
        """Match every message that `data` completes."""
        try:
            messages = self._deframer.feed(data)
        except PeerError as error:
            self._fail(str(error))
            return
        for message in messages:
            if self._transport.is_closing():
                return
            self._take(message)
        if self._is_finishing:
            self.finish()
        elif messages:
            self._owner.pour()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Hand back what has no answer."""
        self._idle.cancel()
        attempts = [attempt for attempt in self._under_way.values() if attempt is not None]
        for attempt in attempts:
            attempt.connection = None
        self._owner.lost(self, attempts, self._failure or self._why_lost(exc))
        self.ended.set_result(None)

    def _take(self, message: bytes) -> None:
        query_id = message[:ID_OCTETS]
        attempt = self._under_way.get(query_id)
        if attempt is not None and attempt.query.is_answered_by(message):
            del self._under_way[query_id]
            self._wanted -= 1
            self._answer(attempt, message)
        elif attempt is None and query_id in self._under_way:
            del self._under_way[query_id]  # late: nobody wants it any more
        else:
            self._drop()

    def _answer(self, attempt: StreamAttempt, message: bytes) -> None:
        self.answered += 1
        self.mismatched = 0
        self._used = self._loop.time()
        if self.answered == 1:
            self._owner.first_answer(self._transport)
        if is_truncated(message):
            text = "a truncated answer over a stream"
            attempt.settle(UpstreamError(Reason.UPSTREAM_MALFORMED, text))
        else:
            attempt.settle(attempt.query.restored(message))

    def _drop(self) -> None:
        self.mismatched += 1
        self._owner.metrics.upstream.add(self._owner.label, "mismatched")
        if self.mismatched >= self._owner.limits.upstream_mismatches:
            self._owner.metrics.bounds.add("upstream_mismatches")
            self._fail(f"{self.mismatched} messages in a row that answer nothing")

    def _fail(self, text: str) -> None:
        self._failure = UpstreamError(Reason.UPSTREAM_MALFORMED, text)
        self._transport.abort()
        self._owner.retire(self)

    def _flush(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"".join(self._out))  # RFC 7766, section 8: length and message
        self._out.clear()

    def _check_idle(self) -> None:
        quiet_s = self._loop.time() - self._used
        if self._wanted or quiet_s < self._idle_s:
            wait_s = self._idle_s if self._wanted else self._idle_s - quiet_s
            self._idle = self._loop.call_later(wait_s, self._check_idle)
        else:
            self._transport.close()  # with close_notify (RFC 8446, section 6.1)
            self._owner.retire(self)

    def _why_lost(self, error: Exception | None) -> UpstreamError:
        if isinstance(error, OSError):
            return explain(error)
        if self._deframer.is_empty:
            return UpstreamError(Reason.UPSTREAM_UNREACHABLE, "closed before it answered")
        return UpstreamError(Reason.UPSTREAM_MALFORMED, "closed in the middle of a message")


def explain(error: OSError) -> UpstreamError:
    """Return what an error of a socket or of TLS says about an upstream."""
    if isinstance(error, TimeoutError):
        return UpstreamError(Reason.UPSTREAM_TIMEOUT, "no connection in time")
    if isinstance(error, ssl.SSLCertVerificationError):
        return UpstreamError(Reason.UPSTREAM_TLS, f"its certificate: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return UpstreamError(Reason.UPSTREAM_TLS, getattr(error, "reason", None) or str(error))
    text = os.strerror(error.errno) if error.errno else str(error)
    return UpstreamError(Reason.UPSTREAM_UNREACHABLE, text)
