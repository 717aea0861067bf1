"""Signatures that the appliance itself waits for: to present them, or for the admin."""

import asyncio
from collections.abc import Callable
from itertools import count

from proxy.channel import Sign, Signed
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.workload.issuer import Issuer


class Signatures:
    """Asks `issuer` for them, each within its time; call it from the loop's thread only."""

    def __init__(self, issuer: Issuer, limits: Limits, metrics: Metrics) -> None:
        self._issuer = issuer
        self._limits = limits
        self._hit_bound: Callable[[str], None] = metrics.bounds.add
        self._calls = count(1)
        self._waiting: dict[int, tuple[Sign, asyncio.Future[Signed]]] = {}

    async def sign(self, spiffe_id: str, profile: str, ttl_s: int) -> Signed:
        """Return what the issuer made, or a `problem`; never raises."""
        sign = Sign(next(self._calls), spiffe_id, profile, ttl_s)
        if len(self._waiting) >= self._limits.issuer_signatures:
            self._hit_bound("issuer_signatures")
            return _failed(sign, "too many wait for a signature; try again")
        if self._issuer.is_resting:
            return _failed(sign, self._issuer.problem or "the issuer has ended; try again")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Signed] = loop.create_future()
        self._waiting[sign.call] = sign, future
        self._issuer.wake()
        self._issuer.send(sign)
        try:
            return await asyncio.wait_for(future, self._time_s())
        except TimeoutError:
            self._hit_bound("issuer_answer_s")
            return _failed(sign, "the issuer did not answer in time; see its log")
        finally:
            self._waiting.pop(sign.call, None)

    def ready(self) -> None:
        """Ask for what waited until the issuer serves."""
        for sign, _ in self._waiting.values():
            self._issuer.send(sign)

    def ended(self) -> None:
        """Fail what the issuer did not live to answer."""
        for sign, future in self._waiting.values():
            if not future.done():
                future.set_result(_failed(sign, "the issuer ended; try again"))

    def signed(self, answer: Signed) -> None:
        """Give an answer to whoever waits for it still."""
        _, future = self._waiting.get(answer.call, (None, None))
        if future is not None and not future.done():
            future.set_result(answer)

    def _time_s(self) -> float:
        limits = self._limits
        return limits.issuer_answer_s + (0 if self._issuer.is_ready else limits.issuer_start_s)


def _failed(sign: Sign, problem: str) -> Signed:
    return Signed(sign.call, problem=problem)
