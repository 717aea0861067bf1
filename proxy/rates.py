"""How fast each app may ask: a burst at once, then one more every few moments.

It is the GCRA of ITU-T I.371.  Of each app one number is kept: when its bucket will be full again.
"""


class Rates:
    """`burst` at once and one more each `every_s` seconds; `most_apps` are remembered."""

    def __init__(self, burst: int, every_s: float, most_apps: int) -> None:
        self._every_s = every_s
        self._burst_s = burst * every_s
        self._most = most_apps
        self._full_at: dict[str, float] = {}  # the app that asked longest ago first

    def __len__(self) -> int:
        """Return how many apps are remembered."""
        return len(self._full_at)

    def take(self, app: str, now: float) -> bool:
        """Take one, if there is one; `now` is monotonic, in seconds."""
        full_at = max(now, self._full_at.pop(app, now))
        taken = full_at + self._every_s <= now + self._burst_s
        self._full_at[app] = full_at + self._every_s if taken else full_at
        if len(self._full_at) > self._most:  # that of the longest ago is the fullest, most likely
            del self._full_at[next(iter(self._full_at))]
        return taken
