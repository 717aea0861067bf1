"""What may be asked of capability tokens over the control API."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.capabilities.token import digest
from proxy.control.asked import Asked, Asker, RefusedError
from proxy.control.capabilities import CapabilityRoutes
from proxy.control.place import Caller
from tests.proxy.capabilities.stand import DOCS, Stand, by_certificate, payload, spiffe, standing

CALLER = Caller(4711, 1000, 1000)
CODER, HELPER = by_certificate("coder"), by_certificate("helper")


class Desk:
    """The routes over real tokens."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self.lines: list[tuple[str, str, dict[str, object]]] = []
        self._routes = CapabilityRoutes(lambda: stand.exchange, self._record)

    def _record(self, caller: Asker, target: str, change: str, **said: object) -> None:
        assert caller is CALLER
        self.lines.append((target, change, said))

    async def ask(self, method: str, *path: str, query: str = "") -> Any:
        asked = Asked(method, ("capabilities", *path), query, b"", CALLER)
        return await self._routes.methods(asked)[method]()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with standing(tmp_path) as stand:
        yield Desk(stand)


async def test_tokens_are_listed_with_what_they_are_for(desk: Desk) -> None:
    first = await desk.stand.token(CODER)
    _, answer = await desk.stand.pass_on(HELPER, first)
    one, two = await desk.ask("GET")
    assert (one.id, one.state, one.audience, one.scopes) == (
        payload(first)["jti"], "current", DOCS, ("documents:read",),
    )  # fmt: skip
    assert (one.app, one.subject, one.actors, one.level) == (
        "coder", spiffe("coder"), (), "software",
    )  # fmt: skip
    assert (two.app, two.subject, two.actors, two.parent) == (
        "helper", spiffe("coder"), (spiffe("helper"),), one.id,
    )  # fmt: skip
    assert one.rule == "rules.yaml:7"
    assert first not in str(one)
    assert answer["access_token"] not in str(two)


@pytest.mark.parametrize("name", ["id", "digest"])
async def test_a_token_is_revoked_by_its_id_or_digest_with_all_made_of_it(
    desk: Desk, name: str
) -> None:
    first = await desk.stand.token(CODER)
    await desk.stand.pass_on(HELPER, first)
    which = payload(first)["jti"] if name == "id" else digest(first)
    voided = await desk.ask("DELETE", which, query="why=it%20leaked")
    assert [(each.state, each.why) for each in voided] == [("void", "it leaked")] * 2
    assert not await desk.stand.is_active(first)
    [(target, change, said)] = desk.lines
    assert (target, change, said["why"]) == (payload(first)["jti"], "token-revoked", "it leaked")
    assert said["tokens"] == [each.id for each in voided]
    assert [each.state for each in await desk.ask("GET")] == ["void", "void"]
    assert await desk.ask("DELETE", which) == []
    assert len(desk.lines) == 1


async def test_what_is_no_token_or_has_too_many_words_is_refused(desk: Desk) -> None:
    for which, query, status in (
        ("x", "", 404),
        ("a.b.c", "", 404),
        ("x", "why=" + "x" * 1025, 400),
    ):
        with pytest.raises(RefusedError) as caught:
            await desk.ask("DELETE", which, query=query)
        assert caught.value.status == status


async def test_other_paths_are_not_ours(desk: Desk) -> None:
    routes = CapabilityRoutes(lambda: desk.stand.exchange, lambda *_, **__: None)
    assert routes.methods(Asked("GET", ("tokens",), "", b"", CALLER)) == {}
    assert routes.methods(Asked("GET", ("capabilities", "a", "b"), "", b"", CALLER)) == {}


async def test_an_appliance_without_tokens_says_so() -> None:
    routes = CapabilityRoutes(lambda: None, lambda *_, **__: None)
    with pytest.raises(RefusedError) as caught:
        await routes.methods(Asked("GET", ("capabilities",), "", b"", CALLER))["GET"]()
    assert caught.value.status == 503
