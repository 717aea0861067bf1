"""Bounds that were reached, told to the appliance once a second each, with how often."""

import asyncio
from collections.abc import Callable

from proxy.channel import Event

EACH_S = 1.0
_MOST = 1024  # of app and limit, of one second; as apps_remembered


class Bounds:
    """Counts what came to a bound of a limit, and sends `Event`s that say so."""

    def __init__(self, send: Callable[[Event], None]) -> None:
        self._send = send
        self._counts: dict[tuple[str, str], int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def hit(self, app: str, limit: str) -> None:
        """Count that `app` came to the bound of `limit`."""
        key = app, limit
        if key not in self._counts and len(self._counts) >= _MOST:
            key = "", limit
        self._counts[key] = self._counts.get(key, 0) + 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EACH_S, self.tell)

    def tell(self) -> None:
        """Send what was counted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        counts, self._counts = self._counts, {}
        for (app, limit), count in counts.items():
            detail: dict[str, str | int] = {"count": count}
            self._send(Event("bound", app, limit, allowed=False, reason="capacity", detail=detail))
