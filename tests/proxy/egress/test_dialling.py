"""A dial that somebody else ends is told why; one whose client has gone is just gone."""

import asyncio

import pytest

from proxy.egress.context import Context
from proxy.egress.dial import Undialled
from proxy.egress.dialling import refusable
from proxy.egress.origin import OriginConnection
from rules.decision import Decision, Reason, Verdict
from rules.facts import Connect, Principal
from rules.name import parse

CONNECT = Connect(Principal("me"), parse("example.com"), 443)
REVOKED = Decision(Verdict.DENY, Reason.REVOKED)
LATER = Decision(Verdict.DENY, Reason.GENERATION_CHANGED)


class Dials(Context):
    """As much of a context as a dial needs."""

    def __init__(self) -> None:
        self.dials = {}


async def never() -> OriginConnection | Undialled:
    await asyncio.Event().wait()
    raise AssertionError


async def under_way(context: Context) -> asyncio.Task[OriginConnection | Undialled]:
    task = asyncio.create_task(refusable(context, CONNECT, never()))
    await asyncio.sleep(0)
    assert list(context.dials) == [task]
    return task


async def test_who_waits_is_told_the_decision_that_ended_it() -> None:
    context = Dials()
    task = await under_way(context)
    context.dials[task].refuse(REVOKED)
    context.dials[task].refuse(LATER)
    assert await task == Undialled(CONNECT, REVOKED)
    assert (task.cancelling(), context.dials) == (0, {})


async def test_a_client_that_has_gone_ends_it_as_ever() -> None:
    context = Dials()
    task = await under_way(context)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert context.dials == {}


async def test_a_client_that_has_gone_as_well_is_told_nothing() -> None:
    context = Dials()
    task = await under_way(context)
    context.dials[task].refuse(REVOKED)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_a_dial_comes_to_is_returned() -> None:
    context = Dials()

    async def refused() -> OriginConnection | Undialled:
        return Undialled(CONNECT, LATER)

    assert await refusable(context, CONNECT, refused()) == Undialled(CONNECT, LATER)
    assert context.dials == {}
