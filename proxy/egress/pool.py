"""Idle connections to origins, kept for the next request of the same app to the same host.

At a bound the connection that would exceed it is closed, and the bound counted.
"""

import asyncio

from proxy.egress.origin import OriginConnection, OriginKey
from proxy.limits import Limits
from proxy.metrics import Metrics


class OriginPool:
    """Keeps connections by (app, host, port); each knows the address that was decided on."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._idle: dict[OriginKey, list[OriginConnection]] = {}
        self._count = 0

    def __len__(self) -> int:
        """Return how many connections rest."""
        return self._count

    def take(self, key: OriginKey) -> OriginConnection | None:
        """Return the connection that rested last; None if there is none.

        Whoever takes it decides again whether its address may stand for the host.
        """
        resting = self._idle.get(key)
        while resting:
            origin = resting.pop()
            self._count -= 1
            if not resting:
                del self._idle[key]
            if not origin.transport.is_closing():
                return origin
        return None

    def forget(self, origin: OriginConnection) -> None:
        """Keep `origin` no longer, if it was kept."""
        resting = self._idle.get(origin.key)
        if resting is None or origin not in resting:
            return
        resting.remove(origin)
        self._count -= 1
        if not resting:
            del self._idle[origin.key]

    def put(self, origin: OriginConnection) -> None:
        """Let `origin` rest, or close it where there is no room or its life is over."""
        now = asyncio.get_running_loop().time()
        limits = self._limits
        origin.receiver = None
        if origin.transport.is_closing() or now - origin.born >= limits.origin_life_s:
            origin.transport.close()
            return
        resting = self._idle.get(origin.key)
        if self._count >= limits.origin_pool:
            self._refuse(origin, "origin_pool")
        elif resting is None:
            self._idle[origin.key] = [origin]
            self._rest(origin, now)
        elif len(resting) >= limits.origin_pool_per_origin:
            self._refuse(origin, "origin_pool_per_origin")
        else:
            resting.append(origin)
            self._rest(origin, now)

    def resting(self) -> list[OriginConnection]:
        """Return every connection that rests just now."""
        return [origin for resting in self._idle.values() for origin in resting]

    def close(self) -> None:
        """End every connection that rests."""
        for resting in list(self._idle.values()):
            for origin in resting:
                origin.transport.abort()
        self._idle.clear()
        self._count = 0

    def _rest(self, origin: OriginConnection, now: float) -> None:
        self._count += 1
        origin.rested = True
        origin.deadline = now + self._limits.origin_idle_s

    def _refuse(self, origin: OriginConnection, bound: str) -> None:
        self._metrics.bounds.add(bound)
        origin.transport.close()
