"""How fast each app may have certificates: a bucket that fills with time."""


class Rates:
    """A bucket of `burst` for each app, which gains `a_second`; `most_apps` are remembered."""

    def __init__(self, burst: int, a_second: float, most_apps: int) -> None:
        self._burst = float(burst)
        self._a_second = a_second
        self._most = most_apps
        self._left: dict[str, tuple[float, float]] = {}  # with when that was, the oldest use first

    def __len__(self) -> int:
        """Return how many apps are remembered."""
        return len(self._left)

    def take(self, app: str, now: float) -> bool:
        """Take one, if there is one; `now` is monotonic, in seconds."""
        left, at = self._left.pop(app, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._a_second)
        taken = left >= 1
        self._left[app] = (left - 1 if taken else left), now
        if len(self._left) > self._most:  # that of the longest ago is the fullest, most likely
            del self._left[next(iter(self._left))]
        return taken
