"""From an allowed origin to a connection: addresses, a decision on each, then that very address.

No name is looked up here a second time: what `create_connection` gets is the literal that was
decided on (threats.md, "Between name and address").
"""

import asyncio
from collections.abc import Sequence
from itertools import chain, zip_longest

from msgspec import Struct

from proxy.egress.context import Context
from proxy.egress.errand import Errand
from proxy.egress.origin import OriginConnection
from rules.address import Address
from rules.decision import Decision, Reason, Verdict
from rules.facts import Connect, Endpoint

_ALLOW = Verdict.ALLOW

type Target = tuple[Address, str]
"""An address that was decided on, and its text: that text is what is dialled."""


class Undialled(Struct, frozen=True):
    """Why there is no connection: the fact that was refused, or that failed."""

    facts: Connect | Endpoint
    decision: Decision


def endpoint(context: Context, errand: Errand, address: Address) -> Endpoint:
    """Return the fact that asks whether `address` may stand for the errand's host."""
    host = errand.connect.host
    port = errand.connect.port
    own = context.own
    return Endpoint(
        errand.connect.principal,
        host if isinstance(host, str) else None,  # a literal has no name
        address,
        port,
        own.is_listener(address, port),
        own.is_interface(address),
    )


def is_allowed(context: Context, errand: Errand, origin: OriginConnection) -> bool:
    """Return whether the origin's address may (still) stand for the errand's host."""
    return not isinstance(_judge(context, errand, origin.address), Undialled)


def _judge(context: Context, errand: Errand, address: Address) -> str | Undialled:
    """Decide on an address: return its text, or why it is refused."""
    text = context.allowed.find(errand.key, address, context.authorizer.generation)
    if text is not None:
        return text
    facts = endpoint(context, errand, address)
    decision = context.authorizer.authorize(errand.flow, facts)
    if decision.verdict is not _ALLOW:
        return Undialled(facts, decision)
    return context.allowed.add(errand.key, address)


async def dial(
    context: Context, errand: Errand, types: frozenset[int]
) -> OriginConnection | Undialled:
    """Return a connection to an address that was decided on just now, or why there is none.

    `types` are the record types that the look-up may ask.
    """
    host = errand.connect.host
    if not isinstance(host, str):
        return await _dial_addresses(context, errand, (host,))
    resolution = await context.lookup.resolve(errand.flow, host, types)
    if resolution.flow:
        errand.flow.id = resolution.flow  # answer, pin and connection are one errand
    if resolution.failure is not None or not resolution.addresses:
        failure = resolution.failure or context.authorizer.fails(Reason.NO_ADDRESS)
        return Undialled(errand.connect, failure)
    return await _dial_addresses(context, errand, resolution.addresses)


async def _dial_addresses(
    context: Context, errand: Errand, addresses: Sequence[Address]
) -> OriginConnection | Undialled:
    allowed: list[tuple[Address, str]] = []
    refused: Undialled | None = None
    for address in addresses:
        judged = _judge(context, errand, address)
        if not isinstance(judged, Undialled):
            allowed.append((address, judged))
        elif refused is None:
            refused = judged
    if not allowed and refused is not None:
        return refused
    most = context.limits.connect_addresses
    if len(allowed) > most:
        context.metrics.bounds.add("connect_addresses")
    return await _connect(context, errand, interleave(allowed)[:most])


def interleave(targets: list[Target]) -> list[Target]:
    """Return the targets with the families taking turns (RFC 8305, section 4)."""
    if len(targets) < 2:
        return targets
    version = targets[0][0].version
    first = [each for each in targets if each[0].version == version]
    other = [each for each in targets if each[0].version != version]
    pairs = chain.from_iterable(zip_longest(first, other))
    return [each for each in pairs if each is not None]


async def _connect(
    context: Context, errand: Errand, targets: list[Target]
) -> OriginConnection | Undialled:
    limits = context.limits
    try:
        async with asyncio.timeout(limits.connect_s):
            if len(targets) == 1:
                return await _attempt(context, errand, targets[0])
            return await _race(context, errand, targets)
    except TimeoutError:
        context.metrics.bounds.add("connect_s")
        reason, text = Reason.UPSTREAM_TIMEOUT, f"no connection within {limits.connect_s:g} s"
    except OSError as error:
        reason, text = Reason.UPSTREAM_UNREACHABLE, error.strerror or type(error).__name__
    return Undialled(errand.connect, context.authorizer.fails(reason, text))


async def _attempt(context: Context, errand: Errand, target: Target) -> OriginConnection:
    loop = asyncio.get_running_loop()
    _, origin = await loop.create_connection(
        lambda: OriginConnection(context.deadlines, context.pool.forget, errand.key, *target),
        target[1],
        errand.connect.port,
    )
    return origin


async def _race(context: Context, errand: Errand, targets: Sequence[Target]) -> OriginConnection:
    """Begin an attempt every `connect_stagger_s`, or as one fails; the first wins (RFC 8305, 5).

    Raises:
        OSError: every attempt failed; the last one's error.
    """
    waiting = list(targets)
    attempts: set[asyncio.Task[OriginConnection]] = set()
    error = OSError("no address")
    try:
        while waiting or attempts:
            if waiting:
                work = _attempt(context, errand, waiting.pop(0))
                attempts.add(asyncio.get_running_loop().create_task(work))
            stagger_s = context.limits.connect_stagger_s if waiting else None
            done, attempts = await asyncio.wait(
                attempts, timeout=stagger_s, return_when=asyncio.FIRST_COMPLETED
            )
            won = None
            for task in done:
                failure = task.exception()
                if failure is None and won is None:
                    won = task.result()
                elif failure is None:
                    task.result().transport.abort()
                elif isinstance(failure, OSError):
                    error = failure
                else:
                    raise failure
            if won is not None:
                return won
        raise error
    finally:
        for task in attempts:
            task.cancel()
            task.add_done_callback(_discard)


def _discard(task: asyncio.Task[OriginConnection]) -> None:
    """Close a connection that was made although nobody waits for it any more."""
    if not task.cancelled() and task.exception() is None:
        task.result().transport.abort()
