"""Time limits of many connections with one timer: no timer is set or cancelled per request."""

import asyncio
import contextlib
from typing import Protocol

_DRAIN_LOOK_S = 0.02  # how often what is busy is looked at while we end


class Timed(Protocol):
    """Something that must not last: `expired` is called once `deadline` has passed."""

    deadline: float

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way, which may end well within a short while."""

    def expired(self, now: float) -> None:
        """Act on the limit that was passed, or move `deadline`; `now` is the loop's time."""

    def end(self) -> None:
        """End at once."""


class Deadlines:
    """Looks at every connection once a tick, so a limit is kept to within `tick_s` seconds."""

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self._timed: set[Timed] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._draining = False
        self._empty = asyncio.Event()

    def __len__(self) -> int:
        """Return how many connections are looked at."""
        return len(self._timed)

    def __contains__(self, timed: Timed) -> bool:
        """Return whether `timed` is looked at: it has not ended."""
        return timed in self._timed

    def add(self, timed: Timed) -> None:
        """Look at `timed` from now on; the timer runs while there is something to look at."""
        self._timed.add(timed)
        if self._timer is None:
            self._schedule()

    def discard(self, timed: Timed) -> None:
        """Look at `timed` no longer."""
        self._timed.discard(timed)

    def present(self) -> list[Timed]:
        """Return everything that is looked at just now."""
        return list(self._timed)

    async def drain(self, grace_s: float) -> None:
        """End what is idle at once, what is busy as it gets idle, and all after `grace_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                self._draining = True
                self._tick()
                await self._empty.wait()
        for timed in list(self._timed):
            timed.end()
        self._timed.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        pause_s = _DRAIN_LOOK_S if self._draining else self._tick_s
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._tick)

    def _tick(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = asyncio.get_running_loop().time()
        for timed in [each for each in self._timed if each.deadline <= now]:
            timed.expired(now)
        if self._draining:
            for timed in [each for each in self._timed if not each.is_busy]:
                timed.end()
                self._timed.discard(timed)
        if self._timed:
            self._schedule()
        elif self._draining:
            self._empty.set()
