"""`GET /lists` of the control API."""

import msgspec
import pytest

from proxy.control.asked import Asked
from proxy.control.lists import ListRoutes, ListView
from proxy.control.place import Caller
from proxy.reload.table import NOTHING_LISTED, ListsInForce, ReadList, ReadLists
from rules.decision import Refuse
from rules.name import parse
from rules.ruleset import ListSource

PLAIN = ListSource("rules/a.yaml:2", "/etc/lists/bad.txt", "lists/bad.txt")
ZONE = ListSource(
    "rules/a.yaml:3", "/etc/bad.rpz", "bad.rpz", "rpz", Refuse.SINKHOLE,
    frozenset({parse("a.org")}), frozenset({"you", "me"}),
)  # fmt: skip
READ = ReadLists(
    "digest",
    (PLAIN, ZONE),
    files=(ReadList("plain", 1_000_000, {}), ReadList("rpz", 7, {"too long": 2})),
    at=1795362429.0,
)


def asked(*path: str) -> Asked:
    return Asked("GET", path, "", b"", Caller(4711, 1000, 1000))


async def test_lists_are_shown_as_they_are_in_force() -> None:
    in_force = [NOTHING_LISTED]
    get = ListRoutes(lambda: in_force[-1]).methods(asked("lists"))["GET"]
    assert await get() == []
    in_force.append(ListsInForce(READ))
    answer = msgspec.json.decode(msgspec.json.encode(await get()))
    first, second = msgspec.convert(answer, list[ListView])
    assert (first.place, first.file, first.path) == (
        "rules/a.yaml:2", "lists/bad.txt", "/etc/lists/bad.txt",
    )  # fmt: skip
    assert (first.names, first.apps, first.refuse, first.excepts) == (1_000_000, None, None, 0)
    assert (second.format, second.skipped, second.apps) == ("rpz", {"too long": 2}, ("me", "you"))
    assert (second.refuse, second.excepts) == ("sinkhole", 1)
    assert second.loaded.startswith("2026-11-22T")


@pytest.mark.parametrize("path", [(), ("list",), ("lists", "x")])
def test_nothing_else_is_answered(path: tuple[str, ...]) -> None:
    assert ListRoutes(lambda: NOTHING_LISTED).methods(asked(*path)) == {}
