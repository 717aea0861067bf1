import asyncio

import pytest

from proxy.channel import Event
from proxy.issuing import bounds
from proxy.issuing.bounds import Bounds


async def test_what_was_reached_is_told_once_with_how_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "EACH_S", 0.0)
    sent: list[Event] = []
    told = asyncio.Event()

    def send(event: Event) -> None:
        sent.append(event)
        told.set()

    counting = Bounds(send)
    for app in ("a", "a", "b"):
        counting.hit(app, "workload_streams")
    await told.wait()
    assert [(each.change, each.app, each.target, each.detail) for each in sent] == [
        ("bound", "a", "workload_streams", {"count": 2}),
        ("bound", "b", "workload_streams", {"count": 1}),
    ]
    assert {(each.allowed, each.reason) for each in sent} == {(False, "capacity")}
    counting.tell()  # nothing since
    assert len(sent) == 2


async def test_beyond_a_bound_of_apps_they_are_counted_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "_MOST", 2)
    sent: list[Event] = []
    counting = Bounds(sent.append)
    for app in ("a", "b", "c", "d", "a"):
        counting.hit(app, "svids")
    counting.tell()
    assert [(each.app, each.detail["count"]) for each in sent] == [("a", 2), ("b", 1), ("", 2)]
