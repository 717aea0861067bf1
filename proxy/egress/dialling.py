"""A dial that can be ended with a decision, by somebody who does not wait for it."""

import asyncio
from collections.abc import Coroutine

from proxy.egress.context import Context
from proxy.egress.dial import Undialled
from proxy.egress.origin import OriginConnection
from rules.decision import Decision
from rules.facts import Connect


class Dialling:
    """The dial that a task waits for; the same trick as `asyncio.timeout`'s."""

    __slots__ = ("_task", "refusal")

    def __init__(self, task: asyncio.Task[object]) -> None:
        self._task = task
        self.refusal: Decision | None = None

    def refuse(self, decision: Decision) -> None:
        """End the dial; whoever waits for it is told `decision`."""
        if self.refusal is None:
            self.refusal = decision
            self._task.cancel()


async def refusable(
    context: Context,
    connect: Connect,
    dial: Coroutine[None, None, OriginConnection | Undialled],
) -> OriginConnection | Undialled:
    """Return what `dial` for `connect` comes to, or the decision that ended it before."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - for the type checker: a coroutine runs in one
    context.dials[task] = dialling = Dialling(task)
    try:
        return await dial
    except asyncio.CancelledError:
        if dialling.refusal is None or task.uncancel():
            raise  # the client has gone as well
        return Undialled(connect, dialling.refusal)
    finally:
        del context.dials[task]
