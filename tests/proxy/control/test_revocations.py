"""What may be asked of revocations over the control socket, and that each change leaves a line."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from proxy.certificates.live import LiveRevocations
from proxy.certificates.revoked import Kind
from proxy.control.asked import Asked, RefusedError
from proxy.control.place import Caller
from proxy.control.revocations import Cut, Revoking
from proxy.control.routes import Routes
from proxy.control.status import LastSeen
from proxy.limits import Limits
from tests.proxy.control_stand import STARTED, Stand, standing

CALLER = Caller(4711, 1000, 1000)
type Ask = Callable[..., Awaitable[Any]]


class Desk:
    """The routes over real revocations, and what tests look into."""

    def __init__(self, stand: Stand, live: LiveRevocations) -> None:
        self.stand = stand
        self.live = live
        revoking = Revoking(live, self._cut, lambda: stand.ruleset.apps)
        sources = structs.replace(stand.sources, revoking=lambda: revoking)
        self._routes = Routes(sources, LastSeen(stand.metrics))

    async def _cut(self) -> Cut:
        return Cut(3, 0.25)

    async def ask(self, method: str, content: str = "", query: str = "") -> Any:
        asked = Asked(method, ("revocations",), query, content.encode(), CALLER)
        return await self._routes.answer(asked)


@asynccontextmanager
async def desk_in(folder: Path, most: int = 4096) -> AsyncIterator[Desk]:
    async with standing(folder) as stand:
        limits = Limits(revocations=most)
        yield Desk(stand, LiveRevocations(folder / "revoked.sqlite", limits, stand.wall))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk_in(tmp_path) as made:
        yield made


async def refused(desk: Desk, *arguments: str) -> tuple[int, str]:
    with pytest.raises(RefusedError) as caught:
        await desk.ask(*arguments)
    return caught.value.status, str(caught.value)


async def test_an_app_is_revoked_listed_and_restored(desk: Desk) -> None:
    [made] = await desk.ask("POST", '{"what": "coder", "why": "a leaked key"}')
    assert (made.kind, made.value, made.why, made.by_uid) == ("app", "coder", "a leaked key", 1000)
    assert (made.cut, made.cut_s) == (3, 0.25)
    assert desk.live.revocations.app("coder") is not None
    [listed] = await desk.ask("GET")
    assert listed == structs.replace(made, cut=None, cut_s=None)
    [restored] = await desk.ask("DELETE", "", "what=coder")
    assert restored.value == "coder"
    assert await desk.ask("GET") == []


async def test_each_change_leaves_a_line_with_the_caller_and_the_time(desk: Desk) -> None:
    await desk.ask("POST", '{"what": "spiffe://example.org/a", "why": "why"}')
    await desk.ask("DELETE", "", "what=spiffe%3A%2F%2Fexample.org%2Fa&kind=spiffe-id")
    made, restored = await desk.stand.lines()
    assert (made["target"], made["change"], made["kind"]) == (
        "spiffe://example.org/a", "revoked", "spiffe-id",
    )  # fmt: skip
    assert (made["by_uid"], made["by_pid"], made["why"]) == (1000, 4711, "why")
    assert (made["cut"], made["cut_s"]) == (3, 0.25)
    assert made["revoked_at"].startswith("2026-")
    assert (restored["target"], restored["change"]) == ("spiffe://example.org/a", "restored")


async def test_what_is_revoked_already_is_told_as_it_is_and_leaves_no_second_line(
    desk: Desk,
) -> None:
    [first] = await desk.ask("POST", '{"what": "12:ab"}')
    desk.stand.now += 60
    [second] = await desk.ask("POST", '{"what": "0x12AB", "kind": "serial"}')
    assert (second.value, second.at, second.cut) == ("12ab", first.at, None)
    assert len(await desk.stand.lines()) == 1


async def test_a_token_is_revoked_by_the_same_command(desk: Desk) -> None:
    await desk.stand.ask("POST", "/tokens", {"name": "coder"})
    [made] = await desk.ask("POST", '{"what": "coder.1", "why": "old"}')
    assert (made.kind, made.value, made.cut) == ("token", "coder.1", 3)
    (token,) = desk.stand.tokens.list()
    assert token.revoked == STARTED + 90.0
    assert (await refused(desk, "DELETE", "", "what=coder.1"))[0] == 409
    assert [line["target"] for line in await desk.stand.lines()][-1] == "coder.1"


async def test_what_is_not_clear_is_asked_back(desk: Desk) -> None:
    status, text = await refused(desk, "POST", '{"what": "codr"}')
    assert (status, "--kind app" in text) == (409, True)
    assert (await refused(desk, "POST", '{"what": "coder", "kind": "person"}'))[0] == 409
    assert desk.live.list() == ()


async def test_of_two_that_are_revoked_one_has_to_be_named(desk: Desk) -> None:
    await desk.live.revoke(Kind.APP, "cafe")
    [one] = await desk.ask("DELETE", "", "what=cafe")  # no rule speaks of it any more
    assert one.kind == "app"
    await desk.live.revoke(Kind.APP, "cafe")
    await desk.live.revoke(Kind.SERIAL, "cafe")
    desk.stand.ruleset = structs.replace(
        desk.stand.ruleset, apps={"cafe": desk.stand.ruleset.apps["coder"]}
    )
    assert (await refused(desk, "DELETE", "", "what=cafe"))[0] == 409
    [one] = await desk.ask("DELETE", "", "what=cafe&kind=serial")
    assert one.kind == "serial"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("POST", "{"), 400),
        (("POST", '{"what": "coder", "who": "me"}'), 400),
        (("POST", '{"what": "coder", "why": "' + "x" * 1025 + '"}'), 400),
        (("POST", '{"what": "coder.9"}'), 404),
        (("DELETE", "", "what=coder"), 409),
        (("DELETE", "", ""), 409),
        (("PUT", ""), 405),
    ],
)
async def test_what_cannot_be_is_refused(
    desk: Desk, arguments: tuple[str, ...], status: int
) -> None:
    assert (await refused(desk, *arguments))[0] == status


async def test_at_the_bound_the_cure_is_told(tmp_path: Path) -> None:
    async with desk_in(tmp_path, 1) as desk:
        await desk.ask("POST", '{"what": "coder"}')
        status, text = await refused(desk, "POST", '{"what": "box"}')
    assert (status, "limits.revocations" in text) == (409, True)


async def test_what_cannot_be_written_is_in_force_and_said_so(tmp_path: Path) -> None:
    async with desk_in(tmp_path) as desk:
        (tmp_path / "revoked.sqlite").mkdir()
        status, text = await refused(desk, "POST", '{"what": "coder"}')
        assert (status, "only until we end" in text) == (503, True)
        assert desk.live.revocations.app("coder") is not None
        assert [line["change"] for line in await desk.stand.lines()] == ["revoked"]


async def test_an_appliance_without_revocations_says_so(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        routes = Routes(stand.sources, LastSeen(stand.metrics))
        with pytest.raises(RefusedError) as caught:
            await routes.answer(Asked("GET", ("revocations",), "", b"", CALLER))
    assert caught.value.status == 503
