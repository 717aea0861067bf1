"""Cutting what is open and no longer allowed, after the rules or the tokens have changed.

A flow that is established while this goes on needs no sweep: it is compared with the generation
(and the epoch of identity) of now in the very step in which it is registered
(`proxy.egress.connect`, `proxy.egress.request`).  What was registered before is in the list here.
"""

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter
from typing import Protocol, runtime_checkable

from proxy.egress.context import Context
from proxy.egress.dial import endpoint, may_lead
from proxy.egress.standing import is_revoked
from rules.decision import Decision, Verdict
from rules.facts import Connect

logger = logging.getLogger(__name__)

SLICE_S = 0.002  # of the loop's time: no query waits for longer


@runtime_checkable
class Sweepable(Protocol):
    """An open flow, or a connection that rests."""

    def stale(self) -> Decision | None:
        """Return why it may not go on; None if it may."""

    def disowned(self) -> Decision | None:
        """Return why its asker is not who it was any more; None while it is."""

    def sever(self, decision: Decision) -> None:
        """End it at both sides, and record why."""


async def sweep(context: Context, generation: int) -> int:
    """Decide on everything that is open, by the rules of `generation`; return how many were cut.

    Ends early when a later generation is in force: that has a sweep of its own.
    """
    authorizer = context.authorizer
    cut = await _each(
        context, lambda flow: flow.stale(), lambda: authorizer.generation == generation
    )
    return cut + _sweep_pool(context)


async def sweep_askers(context: Context) -> int:
    """Cut what a credential opened that counts for nobody now; return how many were cut."""
    cut = await _each(context, lambda flow: flow.disowned(), lambda: True)
    for origin in context.pool.resting():
        if is_revoked(context, origin.key):
            origin.end()
            cut += 1
    return cut


def _sweep_pool(context: Context) -> int:
    """End connections that rest and could not be made now; the bound of the pool is small."""
    still = context.authorizer.still
    cut = 0
    for origin in context.pool.resting():
        key = origin.key
        connect = Connect(key.principal, key.host, key.port)
        facts = (connect, endpoint(context, connect, origin.address, key.dialled))
        is_led = may_lead(context, connect, origin.chain, origin.address)
        if not is_led or any(still(each).verdict is not Verdict.ALLOW for each in facts):
            origin.end()
            cut += 1
    return cut


async def _each(
    context: Context,
    judge: Callable[[Sweepable], Decision | None],
    goes_on: Callable[[], bool],
) -> int:
    cut, until = 0, perf_counter() + SLICE_S
    for flow in context.deadlines.present():
        if perf_counter() >= until:
            await asyncio.sleep(0)
            if not goes_on():
                break
            until = perf_counter() + SLICE_S
        if isinstance(flow, Sweepable):
            try:
                decision = judge(flow)
                if decision is not None:
                    flow.sever(decision)
            except Exception:
                logger.exception("a flow that cannot be judged is ended: a bug of ours")
                flow.end()  # and the others are judged all the same
            else:
                cut += decision is not None
    return cut
