"""An API that changes what becomes of who asks, before it answers."""

import asyncio
from collections.abc import Callable

from proxy.agent_api.api import AgentApi, Route
from proxy.agent_api.asked import Answer, Asked, ProblemError
from proxy.limits import Limits
from proxy.metrics import Metrics
from rules.decision import Reason


class Deciding:
    """An API whose only route does something to who asks, then answers or refuses."""

    def __init__(self, status: int = 403, *, stays: bool = True) -> None:
        self.meanwhile: Callable[[], object] = lambda: None
        self._status, self._stays = status, stays
        route = Route("POST", "/decide", "Decide", self._decide)
        self.api = AgentApi((route,), Limits(), Metrics())

    async def _decide(self, asked: Asked) -> Answer:
        if self._stays:
            asked.stay()
        self.meanwhile()
        await asyncio.sleep(0)
        if self._status < 400:
            return Answer(self._status, b"{}")
        raise ProblemError(self._status, Reason.ATTESTATION_REQUIRED, "PCR 16 differs", "attest")
