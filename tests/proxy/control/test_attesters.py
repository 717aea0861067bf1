"""Attesters are shown to admins, and removed with all that they have proven."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.attested.attester import Attester
from proxy.attested.live import FILE_NAME, LiveAttested
from proxy.control.asked import Asked, Asker, RefusedError
from proxy.control.attesters import AttesterRoutes, AttesterView, Attesting
from proxy.control.place import Caller
from proxy.limits import Limits
from proxy.verifier.parts import Changed
from rules.facts import Level
from tests.proxy.attested.making import NOW, OTHER, Clock, result

CALLER = Caller(4711, 1000, 1000)
NAME = "000b" + "ab" * 32


class Desk:
    """The routes over a real file, and what they did."""

    def __init__(self, folder: Path) -> None:
        self.live = LiveAttested(folder / FILE_NAME, Limits(), Clock(), lambda _: None)
        self.lines: list[tuple[str, str, dict[str, object]]] = []
        self.voided: list[tuple[str, tuple[str, ...]]] = []
        self.attesting: Attesting | None = Attesting(self.live, self._void)
        self.routes = AttesterRoutes(lambda: self.attesting, self._record)

    async def _void(self, changed: Changed) -> None:
        assert "admin" in changed.why
        assert changed.serial == ""
        self.voided.append((changed.app, tuple(each.id for each in changed.results)))

    def _record(self, caller: Asker, target: str, change: str, **said: object) -> None:
        assert caller is CALLER
        self.lines.append((target, change, said))

    async def ask(self, method: str, *path: str) -> list[AttesterView]:
        methods = self.routes.methods(Asked(method, path, "", b"", CALLER))
        found: Any = await methods[method]()
        return [each for each in found if isinstance(each, AttesterView)]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    await made.live.ready()
    for app in ("coder", "other"):
        made.live.enrol(Attester(NAME, app, "spiffe://a/b", "ee" * 32, b"\1", NOW))
    quoted = Attester("n", "coder", "", "ff" * 32, b"\1", NOW, 5, 6, 7, 0x1122, NOW)
    made.live.enrol(quoted)
    made.live.keep(result("a", attester=NAME, level=Level.TPM))
    made.live.keep(result("b", attester="n", level=Level.TPM, binding=OTHER))
    yield made
    await made.live.close()


async def test_attesters_are_listed_with_what_they_have_proven(desk: Desk) -> None:
    by_name = {(each.attester, each.app): each for each in await desk.ask("GET", "attesters")}
    fresh, quoted = by_name[NAME, "coder"], by_name["n", "coder"]
    assert (fresh.quoted_at, fresh.reset_count, fresh.results) == (None, None, 1)
    assert by_name[NAME, "other"].results == 0
    assert (quoted.reset_count, quoted.restart_count, quoted.clock_ms) == (5, 6, 7)
    assert (quoted.firmware, quoted.quoted_at is None) == ("0000000000001122", False)


async def test_one_is_removed_with_all_that_it_has_proven(desk: Desk) -> None:
    removed = await desk.ask("DELETE", "attesters", NAME)
    assert {each.app for each in removed} == {"coder", "other"}
    assert desk.voided == [("coder", ("a",)), ("other", ())]
    assert [each.id for each in desk.live.attestations.all()] == ["b"]
    assert desk.live.attester(NAME, "coder") is None
    assert {(target, change) for target, change, _ in desk.lines} == {
        ("coder", "attester-removed"), ("other", "attester-removed"),
    }  # fmt: skip
    assert [each.attester for each in await desk.ask("GET", "attesters")] == ["n"]
    with pytest.raises(RefusedError, match="no such attester"):
        await desk.ask("DELETE", "attesters", NAME)


async def test_tokens_outlive_results_so_that_one_that_has_none_is_told_of_too(desk: Desk) -> None:
    desk.live.attestations.void(lambda _: True)
    await desk.ask("DELETE", "attesters", "n")
    assert desk.voided == [("coder", ())]


async def test_where_attesters_cannot_be_known_that_is_said(desk: Desk, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    live = LiveAttested(broken, Limits(), Clock(), lambda _: None)
    await live.open()
    desk.attesting = Attesting(live, desk._void)
    for method, *path in (("GET", "attesters"), ("DELETE", "attesters", "n")):
        with pytest.raises(RefusedError, match="no regular file"):
            await desk.ask(method, *path)
    await live.close()
    desk.attesting = None
    with pytest.raises(RefusedError, match="attests nobody"):
        await desk.ask("GET", "attesters")


def test_other_paths_are_others(desk: Desk) -> None:
    assert desk.routes.methods(Asked("GET", ("tokens",), "", b"", CALLER)) == {}
