"""What may be asked of the tunnel detector over the control API."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.control.asked import Asked, Asker, RefusedError
from proxy.control.place import Caller
from proxy.control.tunnels import TunnelRoutes, name_of
from rules.name import ROOT
from tests.proxy.detection.stand import SUFFIX, Stand, standing

CALLER = Caller(4711, 1000, 1000)


class Desk:
    """The routes over a real detector."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self.lines: list[tuple[str, str, dict[str, object]]] = []
        self.routes = TunnelRoutes(lambda: stand.live, self._record)

    def _record(self, caller: Asker, target: str, change: str, **said: object) -> None:
        assert caller is CALLER
        self.lines.append((target, change, said))

    async def ask(self, method: str, *path: str, query: str = "") -> Any:
        asked = Asked(method, ("tunnels", *path), query, b"", CALLER)
        return await self.routes.methods(asked)[method]()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with standing(tmp_path) as stand:
        yield Desk(stand)


async def test_what_is_held_is_listed_with_its_numbers(desk: Desk) -> None:
    assert await desk.ask("GET") == []
    await desk.stand.ask("www.example.com")
    await desk.stand.leak()
    [view] = [each for each in await desk.ask("GET") if each.suffix == SUFFIX]
    assert (view.app, view.state, view.rule) == ("me", "held", "tunnel:names:2m")
    assert view.reached > view.limit == 512
    assert 0 < view.octets["2m"] <= 512
    assert view.since == "2026-09-21T14:13:20.000000Z"
    assert view.samples
    assert view == await desk.ask("GET", "me", SUFFIX)


async def test_everything_that_is_counted_is_listed_when_asked_for(desk: Desk) -> None:
    await desk.stand.ask("www.example.com")
    found = {each.suffix: each for each in await desk.ask("GET", query="all=1")}
    assert found["example.com"].state == "watched"
    assert found["example.com"].names == 1
    assert (await desk.ask("GET", "me", "EXAMPLE.com.")).queries == 1


async def test_a_suffix_is_cleared_and_told_of(desk: Desk) -> None:
    await desk.stand.leak()
    unique = desk.stand.held.of("me")[SUFFIX].id
    view = await desk.ask("DELETE", "me", "leaky%2Ecom")
    assert view.state == "held"
    assert not desk.stand.held
    [(target, change, said)] = desk.lines
    assert (target, change) == (f"me {SUFFIX}", "tunnel-cleared")
    assert (said["rule"], said["cleared"]) == ("tunnel:names:2m", unique)
    again = await desk.ask("GET", "me", SUFFIX)
    assert (again.state, again.octets["24h"], again.names > 0) == ("watched", 0, True)
    with pytest.raises(RefusedError, match="nothing is known"):
        await desk.ask("DELETE", "you", SUFFIX)
    assert len(desk.lines) == 1


@pytest.mark.parametrize(
    ("path", "status"), [(("me", "un known"), 400), (("me", "a..b"), 400), (("you", SUFFIX), 404)]
)
async def test_what_is_no_name_or_unknown_is_refused(
    desk: Desk, path: tuple[str, str], status: int
) -> None:
    for method in ("GET", "DELETE"):
        with pytest.raises(RefusedError) as caught:
            await desk.ask(method, *path)
        assert caught.value.status == status


def test_a_dot_is_the_app_as_a_whole() -> None:
    assert name_of(".") == ROOT


async def test_other_paths_are_not_ours(desk: Desk) -> None:
    for path in (("tokens",), ("tunnels", "a"), ("tunnels", "a", "b", "c")):
        assert desk.routes.methods(Asked("GET", path, "", b"", CALLER)) == {}


async def test_an_appliance_without_a_detector_says_so() -> None:
    routes = TunnelRoutes(lambda: None, lambda *_, **__: None)
    with pytest.raises(RefusedError) as caught:
        await routes.methods(Asked("GET", ("tunnels",), "", b"", CALLER))["GET"]()
    assert caught.value.status == 503
