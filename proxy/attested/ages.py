"""How old results are, by two clocks: one that is set back makes nothing younger.

Wall time is what a result, its token and other hosts go by.  Monotonic time is from when the
result came; it goes on when the wall clock is set back.  The older of both counts.
"""

from collections.abc import Callable, Iterable
from math import inf
from typing import Final

from proxy.attested.result import Result

SKEW_S: Final = 60.0
"""A result from further in the future than this does not count: the clock was set back."""

_STEP_S: Final = 0.05  # a clock that is slewed takes both along; one that is set moves by more


class Ages:
    """Knows since when each result counts, until `forget`.

    `wall` returns Unix time, `clock` monotonic time, in seconds.
    """

    def __init__(self, wall: Callable[[], float], clock: Callable[[], float]) -> None:
        self._wall = wall
        self._clock = clock
        self._since: dict[str, float] = {}  # monotonic, by the digest of the token
        self._ahead = -inf

    def __len__(self) -> int:
        """Return of how many results it knows."""
        return len(self._since)

    def begin(self, result: Result) -> None:
        """Count the age of `result` from now on: what it is by the wall clock, and what goes by."""
        self._since[result.token_sha256] = self._clock() - max(0.0, self._wall() - result.at)

    def forget(self, result: Result) -> None:
        """Know no more of `result`."""
        self._since.pop(result.token_sha256, None)

    def age_s(self, result: Result, now: float) -> float:
        """Return how old `result` is, when the wall clock says `now`; less than 0: of the future.

        It is of the future only while no more time than that has gone by.
        """
        since = self._since.get(result.token_sha256)
        wall_s = now - result.at
        return wall_s if since is None else max(wall_s, self._clock() - since)

    def counts(self, result: Result, now: float) -> bool:
        """Return whether `result` has neither expired nor is of the future."""
        return now - result.at >= -SKEW_S and not self.has_expired(result, now)

    def has_expired(self, result: Result, now: float) -> bool:
        """Return whether the life of `result` is over, by one clock or the other."""
        return self.age_s(result, now) >= result.expires - result.at

    def changes(self, result: Result, ages_s: Iterable[int], now: float) -> float:
        """Return when `result` next outlives one of `ages_s`, expires, or is of the future no more.

        By the wall clock, which says `now`.
        """
        age_s, until_s = self.age_s(result, now), result.at - SKEW_S - now
        lives_s = (*ages_s, result.expires - result.at)
        left_s = (until_s, *(each - age_s for each in lives_s))
        return now + min((each for each in left_s if each >= 0), default=0.0)

    def is_fresher(self, result: Result, other: Result) -> bool:
        """Return whether the evidence of `result` is younger than that of `other`."""
        return self._since[result.token_sha256] > self._since[other.token_sha256]

    def was_set_back(self, now: float) -> bool:
        """Return whether the wall clock, which says `now`, was set back since this last was so."""
        ahead = now - self._clock()
        if ahead < self._ahead - _STEP_S:
            self._ahead = ahead
            return True
        self._ahead = max(self._ahead, ahead)
        return False
