"""One question, asked of the upstreams of one group until the first has answered it.

The first is asked; another as well when `limits.upstream_hedge_s` passed without an answer (once
for a question), and instead when one failed, said SERVFAIL or REFUSED, or was silent for
`limits.upstream_try_s`.  Where nobody else is left to ask, a silent one gets another turn after
the others, until the time is over.
Whatever is settled tells the upstream's breaker.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter

from proxy.errors import UpstreamError
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.upstream_member import Member
from proxy.resolver.upstream_query import Attempt, Outcome, is_conclusive
from rules.decision import Reason

_CLOCK_S = 0.001  # uvloop's clock has milliseconds: a timer may come that much early


class _Turn:
    """One upstream being asked in a race."""

    __slots__ = ("attempt", "began", "deadline", "member", "race")

    attempt: Attempt

    def __init__(self, race: "Race", member: Member, deadline: float) -> None:
        self.race = race
        self.member = member
        self.deadline = deadline
        self.began = perf_counter()

    def settle(self, outcome: Outcome) -> None:
        self.race.settled(self, outcome)


class Race:
    """One question, until the first upstream answered it or all have failed."""

    __slots__ = (
        "_answer",
        "_candidates",
        "_hedge_at",
        "_is_last",
        "_limits",
        "_loop",
        "_lowered",
        "_metrics",
        "_running",
        "_timer",
        "_until",
        "errors",
        "result",
        "winner",
    )

    def __init__(
        self,
        lowered: bytes,
        members: Sequence[Member],
        within_s: float,
        limits: Limits,
        metrics: Metrics,
        *,
        is_last: bool,
    ) -> None:
        """Ask nobody yet; `members` stand in the order in which they are asked.

        `is_last`: when these have failed there is nobody else to ask.
        """
        self._limits = limits
        self._metrics = metrics
        self._lowered = lowered
        self._is_last = is_last
        self._loop = asyncio.get_running_loop()
        self.result: asyncio.Future[bytes] = self._loop.create_future()
        self.winner: Member | None = None
        self.errors: dict[Member, UpstreamError] = {}  # the last one is of the last that failed
        self._candidates = deque(members)
        self._running: list[_Turn] = []
        self._answer: bytes | None = None  # inconclusive: SERVFAIL, REFUSED and the like
        self._timer: asyncio.TimerHandle | None = None
        now = self._loop.time()
        self._until = now + within_s
        self._hedge_at: float | None = now + limits.upstream_hedge_s

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
            turn.member.breaker.give_up_trial(self._loop.time())
        self._running.clear()

    def fail(self, error: UpstreamError) -> None:
        """Let the asker have `error`."""
        if not self.result.done():
            self.result.set_exception(error)
        self.end()

    def settled(self, turn: _Turn, outcome: Outcome) -> None:
        """Take the answer, or ask the next upstream."""
        self._running.remove(turn)
        if isinstance(outcome, UpstreamError):
            self._note(turn.member, outcome)
            self._go_on()
            return
        is_final = is_conclusive(outcome)
        took_s = perf_counter() - turn.began
        turn.member.answered(took_s, "answered" if is_final else "servfail")
        if is_final:
            self.winner = turn.member
            self._finish(outcome)
        else:
            self._answer = outcome
            self._go_on()

    def _go_on(self) -> None:
        self._start_next()
        if self._running:
            return
        if self._answer is not None:
            self._finish(self._answer)
        elif not self.result.done():
            self.result.set_exception(explain(self.errors))

    def _start_next(self) -> None:
        now = self._loop.time()
        while self._candidates and now + _CLOCK_S < self._until:
            member = self._candidates.popleft()
            if member.breaker.is_due(now):
                member.breaker.begin_trial()
            turn = _Turn(self, member, min(now + self._limits.upstream_try_s, self._until))
            try:
                turn.attempt = member.upstream.start(self._lowered, turn.settle)
            except UpstreamError as error:
                self._note(member, error)
            else:
                self._running.append(turn)
                return

    def _hedge(self) -> None:
        self._hedge_at = None
        member = self._running[0].member
        if not self._candidates and member.label == "udp":
            self._candidates.append(member)  # a datagram may be lost: send another
        if self._candidates:
            self._metrics.upstream.add(self._candidates[0].label, "hedged")
            self._start_next()

    def _tick(self) -> None:
        now = self._loop.time() + _CLOCK_S
        for turn in [turn for turn in self._running if turn.deadline <= now]:
            self._running.remove(turn)
            self._note(turn.member, turn.attempt.expire())
            if self._is_last:
                self._candidates.append(turn.member)
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

    def _note(self, member: Member, error: UpstreamError) -> None:
        member.failed(error, self._loop.time())
        self.errors.pop(member, None)
        self.errors[member] = error

    def _finish(self, answer: bytes) -> None:
        if not self.result.done():  # cancelled by its asker in this turn of the loop
            self.result.set_result(answer)
        self.end()


class Trial:
    """A question that was asked of an open upstream beside those that answer it.

    Nobody waits for it: its outcome goes to the breaker alone.
    """

    __slots__ = ("_attempt", "_began", "_ended", "_loop", "_member", "_timer")

    def __init__(self, member: Member, ended: Callable[["Trial"], None]) -> None:
        self._member = member
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._began = perf_counter()

    def begin(self, lowered: bytes, within_s: float) -> None:
        """Ask.

        Raises:
            UpstreamError: it could not even be sent; the breaker was told.
        """
        self._member.breaker.begin_trial()
        try:
            self._attempt = self._member.upstream.start(lowered, self._settle)
        except UpstreamError as error:
            self._member.failed(error, self._loop.time())
            raise
        self._timer = self._loop.call_later(within_s, self._expire)

    def give_up(self) -> None:
        """End it without an outcome."""
        self._timer.cancel()
        self._attempt.cancel()
        self._member.breaker.give_up_trial(self._loop.time())

    def _settle(self, outcome: Outcome) -> None:
        self._timer.cancel()
        self._ended(self)
        if isinstance(outcome, UpstreamError):
            self._member.failed(outcome, self._loop.time())
        else:
            is_final = is_conclusive(outcome)
            took_s = perf_counter() - self._began
            self._member.answered(took_s, "answered" if is_final else "servfail")

    def _expire(self) -> None:
        self._ended(self)
        self._member.failed(self._attempt.expire(), self._loop.time())


def explain(errors: dict[Member, UpstreamError]) -> UpstreamError:
    """Return one error for all: the reason of the last, and how each of them failed."""
    if not errors:
        return UpstreamError(Reason.UPSTREAM_TIMEOUT, "no time was left to ask")
    text = "; ".join(f"{member.address}: {error}" for member, error in errors.items())
    return UpstreamError(next(reversed(errors.values())).reason, text)
