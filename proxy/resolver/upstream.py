"""Which upstream is asked, and when the next one is.

All upstreams of a group have equal policy, so that any of them may be asked for anything that was
allowed.  The one that answered last is asked first.  Another is asked as well when
`limits.upstream_hedge_s` passed without an answer (once for a question), and instead when one
failed, said SERVFAIL or REFUSED, or was silent for `limits.upstream_try_s`; a silent one gets
another turn after the others, all within `limits.upstream_timeout_s`.

Nothing here knows who asks.  Equal questions of one app are asked once by `resolver.query`.
No resolv.conf is read and no environment variable: upstreams are addresses that were configured.
"""

import asyncio
import os
import ssl
from collections import deque
from collections.abc import Sequence
from time import perf_counter

from proxy.errors import UpstreamError
from proxy.limits import Limits
from proxy.metrics import Metrics, UpstreamOutcome, UpstreamTransport
from proxy.resolver.upstream_query import (
    Attempt,
    Entropy,
    Outcome,
    Upstream,
    is_conclusive,
    write_question,
)
from proxy.resolver.upstream_stream import StreamUpstream
from proxy.resolver.upstream_udp import UdpUpstream
from proxy.resolver.upstream_url import Transport, UpstreamAddress
from rules.decision import Reason
from rules.name import DomainName

_LABEL: dict[Transport, UpstreamTransport] = {
    Transport.UDP: "udp",
    Transport.TCP: "tcp",
    Transport.DOT: "dot",
}
_OUTCOME: dict[Reason, UpstreamOutcome] = {
    Reason.UPSTREAM_TIMEOUT: "timeout",
    Reason.UPSTREAM_UNREACHABLE: "unreachable",
    Reason.UPSTREAM_TLS: "tls",
    Reason.UPSTREAM_MALFORMED: "malformed",
}
_CLOCK_S = 0.001  # uvloop's clock has milliseconds: a timer may come that much early


class Upstreams:
    """One group of upstream resolvers."""

    def __init__(
        self,
        addresses: Sequence[UpstreamAddress],
        limits: Limits,
        metrics: Metrics,
        ssl_context: ssl.SSLContext,
        entropy: Entropy = os.urandom,
    ) -> None:
        """Open nothing yet; `ssl_context` is that of `transport.tls.upstream_context`."""
        self.limits = limits
        self.metrics = metrics
        self.best = 0  # index of the upstream that answered last
        self.labels = [_LABEL[address.transport] for address in addresses]
        self.addresses = tuple(addresses)
        self.upstreams: list[Upstream] = []
        for address in addresses:
            is_dot = address.transport is Transport.DOT
            context = ssl_context if is_dot else None
            stream = StreamUpstream(address, limits, metrics, entropy, context)
            is_udp = address.transport is Transport.UDP
            udp = UdpUpstream(address, stream, limits, metrics, entropy) if is_udp else None
            self.upstreams.append(udp or stream)
        self._races: set[_Race] = set()
        self._is_closed = False

    @property
    def in_flight(self) -> int:
        """How many questions are under way."""
        return len(self._races)

    async def ask(self, name: DomainName, rtype: int) -> bytes:
        """Return a response to the question, in class IN.

        Its id, question (with the random case that was sent) and source were checked, and its
        question is in lower case again; everything behind the question is as it came.  Its rcode
        is NOERROR or NXDOMAIN, or else what the last upstream said when all say otherwise.

        Raises:
            UpstreamError: CAPACITY, `limits.upstream_in_flight` questions are under way;
                UPSTREAM_TIMEOUT, UPSTREAM_UNREACHABLE, UPSTREAM_TLS or UPSTREAM_MALFORMED, as
                the last upstream failed; the text says how each of them did.
        """
        if self.in_flight >= self.limits.upstream_in_flight:
            self.metrics.bounds.add("upstream_in_flight")
            raise UpstreamError(Reason.CAPACITY, "too many questions to upstreams are under way")
        if self._is_closed:
            raise UpstreamError(Reason.UPSTREAM_UNREACHABLE, "the resolver is closed")
        began = perf_counter()
        race = _Race(self, write_question(name, rtype))
        self._races.add(race)
        try:
            race.begin()
            return await race.result
        finally:
            self._races.discard(race)
            race.end()
            self.metrics.upstream_s.observe(perf_counter() - began)

    async def close(self) -> None:
        """Fail what is under way and all that is asked later, and close every socket."""
        self._is_closed = True
        for race in tuple(self._races):
            race.fail(UpstreamError(Reason.UPSTREAM_UNREACHABLE, "the resolver is closed"))
        for upstream in self.upstreams:
            await upstream.close()


class _Turn:
    """One upstream being asked in a race."""

    __slots__ = ("attempt", "deadline", "index", "race")

    attempt: Attempt

    def __init__(self, race: "_Race", index: int, deadline: float) -> None:
        self.race = race
        self.index = index
        self.deadline = deadline

    def settle(self, outcome: Outcome) -> None:
        self.race.settled(self, outcome)


class _Race:
    """One question, until the first upstream answered it or all have failed."""

    __slots__ = (
        "_answer",
        "_candidates",
        "_errors",
        "_group",
        "_hedge_at",
        "_loop",
        "_lowered",
        "_running",
        "_timer",
        "_until",
        "result",
    )

    def __init__(self, group: Upstreams, lowered: bytes) -> None:
        self._group = group
        self._lowered = lowered
        self._loop = asyncio.get_running_loop()
        self.result: asyncio.Future[bytes] = self._loop.create_future()
        self._candidates = deque(range(len(group.upstreams)))
        self._candidates.rotate(-group.best)
        self._running: list[_Turn] = []
        self._answer: bytes | None = None  # inconclusive: SERVFAIL, REFUSED and the like
        self._errors: dict[int, UpstreamError] = {}  # the last one is of the last that failed
        self._timer: asyncio.TimerHandle | None = None
        now = self._loop.time()
        self._until = now + group.limits.upstream_timeout_s
        self._hedge_at: float | None = now + group.limits.upstream_hedge_s

    def begin(self) -> None:
        """Ask the first."""
        self._go_on()
        self._set_timer()

    def end(self) -> None:
        """Give up whatever is under way."""
        if self._timer is not None:
            self._timer.cancel()
        for turn in self._running:
            turn.attempt.cancel()
        self._running.clear()

    def fail(self, error: UpstreamError) -> None:
        """Let the asker have `error`."""
        if not self.result.done():
            self.result.set_exception(error)
        self.end()

    def settled(self, turn: _Turn, outcome: Outcome) -> None:
        """Take the answer, or ask the next upstream."""
        self._running.remove(turn)
        label = self._group.labels[turn.index]
        if isinstance(outcome, UpstreamError):
            self._note(turn.index, outcome)
        elif is_conclusive(outcome):
            self._group.metrics.upstream.add(label, "answered")
            self._group.best = turn.index
            self._finish(outcome)
            return
        else:
            self._group.metrics.upstream.add(label, "servfail")
            self._answer = outcome
        self._go_on()

    def _go_on(self) -> None:
        self._start_next()
        if self._running:
            return
        if self._answer is not None:
            self._finish(self._answer)
        elif not self.result.done():
            self.result.set_exception(self._summary())

    def _start_next(self) -> None:
        now = self._loop.time()
        while self._candidates and now + _CLOCK_S < self._until:
            index = self._candidates.popleft()
            deadline = min(now + self._group.limits.upstream_try_s, self._until)
            turn = _Turn(self, index, deadline)
            try:
                turn.attempt = self._group.upstreams[index].start(self._lowered, turn.settle)
            except UpstreamError as error:
                self._note(index, error)
            else:
                self._running.append(turn)
                return

    def _hedge(self) -> None:
        self._hedge_at = None
        turn = self._running[0]
        if not self._candidates and self._group.labels[turn.index] == "udp":
            self._candidates.append(turn.index)  # a datagram may be lost: send another
        if self._candidates:
            self._group.metrics.upstream.add(self._group.labels[self._candidates[0]], "hedged")
            self._start_next()

    def _tick(self) -> None:
        now = self._loop.time() + _CLOCK_S
        for turn in [turn for turn in self._running if turn.deadline <= now]:
            self._running.remove(turn)
            self._note(turn.index, turn.attempt.expire())
            self._candidates.append(turn.index)
            self._go_on()
        if self._running and self._hedge_at is not None and self._hedge_at <= now:
            self._hedge()
        self._set_timer()

    def _set_timer(self) -> None:
        times = [turn.deadline for turn in self._running]
        if not times:
            return
        if self._hedge_at is not None:
            times.append(self._hedge_at)
        self._timer = self._loop.call_at(min(times), self._tick)

    def _note(self, index: int, error: UpstreamError) -> None:
        self._group.metrics.upstream.add(self._group.labels[index], _OUTCOME[error.reason])
        self._errors.pop(index, None)
        self._errors[index] = error

    def _finish(self, answer: bytes) -> None:
        if not self.result.done():  # cancelled by its asker in this turn of the loop
            self.result.set_result(answer)
        self.end()

    def _summary(self) -> UpstreamError:
        texts = [f"{self._group.addresses[index]}: {e}" for index, e in self._errors.items()]
        last = next(reversed(self._errors.values()))
        return UpstreamError(last.reason, "; ".join(texts))
