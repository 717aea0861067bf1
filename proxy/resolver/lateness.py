"""Whether what waits to be read has waited too long, for too long (after CoDel, RFC 8289).

A queue that is long for a moment is a burst, and is worked off.  One whose head has been late
for a whole interval is an overload: answering it in order would make every answer late.  From
then on what is late is given up, until nothing was late for a while.
"""

_CALM_S = 0.1  # without anything late ends an overload; CoDel's interval (RFC 8289, section 4.3)


class Lateness:
    """`most_s` may be waited; being late for `interval_s` makes an overload of it."""

    def __init__(self, most_s: float, interval_s: float) -> None:
        self._most_s = most_s
        self._interval_s = interval_s
        self._since: float | None = None  # when what is read began to be late, or to be in time
        self._was_late = False
        self._is_overload = False

    def rest(self, now: float) -> None:
        """Note that at `now` nothing waits any more."""
        self._see(now, is_late=False)

    def is_lost(self, waited_s: float, now: float) -> bool:
        """Return whether what waited for `waited_s` at `now` is to be given up.

        A negative wait is of a clock that was set, and is no wait.
        """
        is_late = waited_s > self._most_s
        self._see(now, is_late=is_late)
        return is_late and self._is_overload

    def _see(self, now: float, *, is_late: bool) -> None:
        if self._since is None or is_late != self._was_late:
            self._since, self._was_late = now, is_late
        elif now - self._since >= (self._interval_s if is_late else _CALM_S):
            self._is_overload = is_late
