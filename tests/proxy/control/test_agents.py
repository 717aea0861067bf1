"""`GET /agents` of the control API."""

import msgspec
import pytest

from proxy.agents.state import AgentView, Claimed, State
from proxy.control.agents import AgentRoutes, nobody
from proxy.control.asked import Asked
from proxy.control.place import Caller

VIEW = AgentView(
    agent="spiffe://desk.example/coder",
    app="coder",
    state=State.VALID,
    level="tpm",
    attested_s=1.5,
    expires_s=298.5,
    heartbeat_s=0.5,
    claimed=Claimed("ok", "1.2", ""),
)


def asked(*path: str) -> Asked:
    return Asked("GET", path, "", b"", Caller(4711, 1000, 1000))


async def test_agents_are_listed_as_they_are_now() -> None:
    known: list[AgentView] = []

    async def agents() -> tuple[AgentView, ...]:
        return tuple(known)

    routes = AgentRoutes(agents)
    get = routes.methods(asked("agents"))["GET"]
    assert await get() == ()
    known.append(VIEW)
    (shown,) = msgspec.json.decode(msgspec.json.encode(await get()))
    assert (shown["state"], shown["claimed"]["health"]) == ("valid", "ok")
    assert msgspec.convert(shown, AgentView) == VIEW


async def test_where_nobody_is_known_the_list_is_empty() -> None:
    assert await AgentRoutes(nobody).methods(asked("agents"))["GET"]() == ()


@pytest.mark.parametrize("path", [(), ("agent",), ("agents", "x")])
def test_nothing_else_is_answered(path: tuple[str, ...]) -> None:
    assert AgentRoutes(nobody).methods(asked(*path)) == {}
