"""Ending at once what was revoked: first every octet, then the evidence.

A sweep (`proxy.egress.sweep`) leaves the loop to others every 2 ms.  Among a thousand tunnels that
carry as much as they can, each of those pauses lasts until all of them were served once more.  So
what was revoked is ended in one go, which takes 10 us a connection, before another octet is read;
what there is to say of it is written afterwards, a little at a time.
"""

import asyncio
import logging
from collections.abc import Callable, Container, Sequence
from time import perf_counter
from typing import Final

from proxy.attested.binding import Binding
from proxy.egress.context import Context
from proxy.egress.deadlines import Timed
from proxy.egress.linger import Linger, reset
from proxy.egress.origin import OriginConnection
from proxy.egress.standing import Told, is_revoked
from proxy.egress.sweep import SLICE_S
from proxy.egress.tunnel import Tunnel
from proxy.egress.underway import UnderWay
from rules.decision import Decision, Reason, Verdict

logger = logging.getLogger(__name__)

LAPSE_S: Final = 0.4
"""With the half second in which it is noticed, what has expired is ended within the second."""

type Flow = Tunnel | UnderWay | Linger

_LEASE_ENDED = Decision(Verdict.DENY, Reason.IDENTITY_UNKNOWN, text="its lease has ended")


def cut(context: Context, *, apps_only: bool) -> tuple[int, list[Told]]:
    """End everything that was revoked; return how much that was, and what writes its evidence.

    With `apps_only` nothing but apps was.  Nothing is registered meanwhile, and what is later was
    decided on with the revocation in force.
    """
    return _each(context, lambda each: _cut(context, each, apps_only=apps_only))


def cut_lapsed(context: Context, bindings: Container[Binding]) -> tuple[int, list[Told]]:
    """End what may not go on, now that less is proven at `bindings`; return as `cut` does.

    What is allowed with what is still proven stands.  Each flow takes 80 us to judge.
    """
    return _each(context, lambda each: _halted(each, _of_bindings(bindings)))


async def end_lapsed(context: Context, bindings: Container[Binding]) -> int:
    """End the same and tell of it, while others are served; return how much that was.

    It is for what has expired, and was as good a moment ago.  All of it is ended within `LAPSE_S`:
    what is left then is, in one go.
    """
    judge = _of_bindings(bindings)
    count, evidence = 0, []
    until = perf_counter()
    last, until = until + LAPSE_S, until + SLICE_S
    for each in context.deadlines.present():
        if until <= perf_counter() < last:
            await asyncio.sleep(0)
            until = perf_counter() + SLICE_S
        if each in context.deadlines:  # it did not end meanwhile
            is_cut, told = _acted(each, lambda timed: _halted(timed, judge))
            count += is_cut
            if told is not None:
                evidence.append(told)
    await tell(evidence)
    return count


def _of_bindings(bindings: Container[Binding]) -> Callable[[Flow], Decision | None]:
    def judge(flow: Flow) -> Decision | None:
        is_meant = any(each in bindings for each in flow.asker.bindings)
        return flow.lapsed() if is_meant else None

    return judge


def cut_lent(context: Context, listeners: Container[str]) -> tuple[int, list[Told]]:
    """End everything that came by `listeners`, of a lease that has ended; return as `cut` does."""

    def judge(flow: Flow) -> Decision | None:
        return _LEASE_ENDED if flow.asker.listener in listeners else None

    return _each(context, lambda each: _halted(each, judge))


async def tell(evidence: Sequence[Told]) -> None:
    """Write the evidence of what was cut, while others are served."""
    until = perf_counter() + SLICE_S
    for told in evidence:
        if perf_counter() >= until:
            await asyncio.sleep(0)
            until = perf_counter() + SLICE_S
        try:
            told()
        except Exception:
            logger.exception("no evidence of a flow that was cut: a bug of ours")


def _each(
    context: Context, act: Callable[[Timed], tuple[bool, Told | None]]
) -> tuple[int, list[Told]]:
    count, evidence = 0, []
    for each in context.deadlines.present():
        is_cut, told = _acted(each, act)
        count += is_cut
        if told is not None:
            evidence.append(told)
    return count, evidence


def _acted(
    timed: Timed, act: Callable[[Timed], tuple[bool, Told | None]]
) -> tuple[bool, Told | None]:
    try:
        return act(timed)
    except Exception:
        logger.exception("a flow that cannot be judged is ended: a bug of ours")
        timed.end()  # and the others are judged all the same
        return True, None


def _cut(context: Context, timed: Timed, *, apps_only: bool) -> tuple[bool, Told | None]:
    if isinstance(timed, OriginConnection):
        # One that is in use is ended with the client's connection.
        is_idle = timed.receiver is None
        if is_idle and _presents_revoked(context, timed, apps_only=apps_only):
            reset(timed.transport)
            return True, None
    return _halted(timed, lambda flow: flow.revoked(apps_only=apps_only))


def _halted(timed: Timed, judge: Callable[[Flow], Decision | None]) -> tuple[bool, Told | None]:
    """Halt a client's connection that `judge` has a decision against."""
    if isinstance(timed, Tunnel | UnderWay | Linger):
        decision = judge(timed)
        if decision is not None:
            return True, timed.halt(decision)
    return False, None


def _presents_revoked(context: Context, origin: OriginConnection, *, apps_only: bool) -> bool:
    """Return whether a connection that rests is of a revoked app, or shows what was revoked."""
    if context.authorizer.revocation(origin.key.principal.app) is not None:
        return True
    return not apps_only and is_revoked(context, origin.key)
