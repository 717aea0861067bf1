"""What may be asked of agents over the control API: `GET /agents`."""

from collections.abc import Awaitable, Callable

from proxy.agents.state import AgentView
from proxy.control.asked import Asked

type Shown = Callable[[], Awaitable[tuple[AgentView, ...]]]


async def nobody() -> tuple[AgentView, ...]:
    """Return the agents of an appliance that knows of none."""
    return ()


class AgentRoutes:
    """Answers for agents; `agents` returns how each of them is now."""

    def __init__(self, agents: Shown) -> None:
        self._agents = agents

    def methods(self, asked: Asked) -> dict[str, Callable[[], Awaitable[object]]]:
        """Return what may be done to the path of `asked`, by method."""
        return {"GET": self._list} if asked.path == ("agents",) else {}

    async def _list(self) -> object:
        return await self._agents()
