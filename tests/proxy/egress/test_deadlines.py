"""Time limits of many connections with one timer."""

import asyncio

from proxy.egress.deadlines import Deadlines
from tests.proxy.egress.world import settled


class Lasting:
    def __init__(self, deadline: float, *, is_busy: bool = False) -> None:
        self.deadline = deadline
        self.is_busy = is_busy
        self.late = 0
        self.ended = 0

    def expired(self, now: float) -> None:
        assert now >= self.deadline
        self.late += 1
        self.deadline = float("inf")

    def end(self) -> None:
        self.ended += 1


async def test_tells_what_is_late_once() -> None:
    deadlines = Deadlines(0.01)
    late, early = Lasting(0.0), Lasting(float("inf"))
    deadlines.add(late)
    deadlines.add(early)
    await settled(lambda: late.late == 1)
    assert early.late == 0
    await deadlines.drain(0.1)


async def test_looks_no_longer_at_what_is_gone() -> None:
    deadlines = Deadlines(0.01)
    gone, stays = Lasting(0.0), Lasting(0.0)
    deadlines.add(gone)
    deadlines.add(stays)
    deadlines.discard(gone)
    assert len(deadlines) == 1
    await settled(lambda: stays.late == 1)
    assert gone.late == 0
    await deadlines.drain(0.1)


async def test_begins_again_after_a_pause() -> None:
    deadlines = Deadlines(0.01)
    first = Lasting(0.0)
    deadlines.add(first)
    await settled(lambda: first.late == 1)
    deadlines.discard(first)
    await settled(lambda: deadlines._timer is None)
    second = Lasting(0.0)
    deadlines.add(second)
    await settled(lambda: second.late == 1)
    await deadlines.drain(0.1)


async def test_draining_ends_what_is_idle_and_waits_for_what_is_busy() -> None:
    deadlines = Deadlines(60.0)
    idle, busy = Lasting(float("inf")), Lasting(float("inf"), is_busy=True)
    deadlines.add(idle)
    deadlines.add(busy)
    draining = asyncio.ensure_future(deadlines.drain(10.0))
    await settled(lambda: idle.ended == 1)
    assert busy.ended == 0
    busy.is_busy = False
    await draining
    assert (busy.ended, len(deadlines)) == (1, 0)


async def test_draining_ends_all_after_the_grace() -> None:
    deadlines = Deadlines(60.0)
    busy = Lasting(float("inf"), is_busy=True)
    deadlines.add(busy)
    await deadlines.drain(0.05)
    assert (busy.ended, len(deadlines)) == (1, 0)
