"""The circuit breaker of one upstream: when it is left alone, and when it is tried again.  Pure.

Closed, it is asked.  After `failures` in a row it opens: it is passed over without waiting.
After a back-off one question is a trial (half-open): an answer closes it, a failure opens it
for twice as long, up to a cap.  A breaker chooses among upstreams and never refuses a question:
where all are open, they are asked all the same.
"""

from collections.abc import Callable
from enum import StrEnum


class BreakerState(StrEnum):
    """Whether an upstream is asked."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Counts failures in a row; `now` is in seconds of whatever clock the caller has."""

    __slots__ = ("_changed", "_failures", "_in_a_row", "_least_s", "_most_s", "_wait_s", "retry_at",
                 "state")  # fmt: skip

    def __init__(
        self,
        failures: int,
        least_s: float,
        most_s: float,
        changed: Callable[[BreakerState, BreakerState], None],
    ) -> None:
        """Begin closed; `changed` is told the old state and the new one."""
        self._failures = failures
        self._least_s = least_s
        self._most_s = most_s
        self._changed = changed
        self._in_a_row = 0
        self._wait_s = least_s
        self.retry_at = 0.0
        self.state = BreakerState.CLOSED

    @property
    def is_closed(self) -> bool:
        """Whether the upstream is asked like any other."""
        return self.state is BreakerState.CLOSED

    def is_due(self, now: float) -> bool:
        """Return whether a question may be its trial."""
        return self.state is BreakerState.OPEN and now >= self.retry_at

    def begin_trial(self) -> None:
        """Note that a question is its trial: until that is settled there is no other."""
        self._become(BreakerState.HALF_OPEN)

    def give_up_trial(self, now: float) -> None:
        """Note that the trial said nothing: it was not waited for."""
        if self.state is BreakerState.HALF_OPEN:
            self.retry_at = now + self._wait_s
            self._become(BreakerState.OPEN)

    def succeed(self) -> None:
        """Note an answer."""
        self._in_a_row = 0
        self._wait_s = self._least_s
        self._become(BreakerState.CLOSED)

    def fail(self, now: float) -> None:
        """Note a failure; one of an upstream that is open already changes nothing."""
        self._in_a_row += 1
        if self.state is BreakerState.HALF_OPEN:
            self._wait_s = min(self._wait_s * 2, self._most_s)
        elif self.state is BreakerState.OPEN or self._in_a_row < self._failures:
            return
        self.retry_at = now + self._wait_s
        self._become(BreakerState.OPEN)

    def _become(self, state: BreakerState) -> None:
        before, self.state = self.state, state
        if before is not state:
            self._changed(before, state)
