"""From an allowed origin to a connection: addresses, a decision on each, then that very address.

No name is looked up here a second time: what `create_connection` gets is the literal that was
decided on (threats.md, "Between name and address").
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable, Sequence
from itertools import chain as chained
from itertools import zip_longest

from msgspec import Struct

from proxy.egress.context import Context
from proxy.egress.errand import Errand
from proxy.egress.known import Route, Target
from proxy.egress.origin import OriginConnection, OriginKey
from proxy.egress.parent import through
from proxy.egress.secure import connect_secure, secure, words_of
from proxy.errors import UpstreamError
from proxy.target import authority
from rules.address import Address
from rules.decision import Decision, Reason, Verdict
from rules.facts import Connect, Endpoint, Question
from rules.name import DomainName
from rules.rtype import AAAA, A

_ALLOW = Verdict.ALLOW


class _Way(Struct, frozen=True):
    """How an origin is reached: over TLS where there is a context of it."""

    key: OriginKey
    tls: ssl.SSLContext | None


class Undialled(Struct, frozen=True):
    """Why there is no connection: the fact that was refused, or that failed."""

    facts: Connect | Endpoint
    decision: Decision


def endpoint(
    context: Context, connect: Connect, address: Address, port: int | None = None
) -> Endpoint:
    """Return the fact that asks whether `address` may stand for the host of `connect`.

    `port` is the one that is dialled, if that is another than the one that was asked for.
    """
    host, own = connect.host, context.own
    asked = connect.port if port not in {None, connect.port} else None
    port = port or connect.port
    return Endpoint(
        connect.principal,
        host if isinstance(host, str) else None,  # a literal has no name
        address,
        port,
        own.is_listener(address, port),
        own.is_interface(address),
        asked,
    )


def is_allowed(context: Context, errand: Errand, origin: OriginConnection) -> bool:
    """Return whether the origin's address may (still) stand for the errand's host."""
    if not may_lead(context, errand.connect, origin.chain, origin.address):
        return False
    return not isinstance(_judge(context, errand, origin.key, origin.address), Undialled)


def may_lead(
    context: Context, connect: Connect, chain: Iterable[DomainName], address: Address
) -> bool:
    """Return whether the aliases in `chain` may still lead from the host of `connect`."""
    host, rtype = connect.host, A if address.version == 4 else AAAA
    via = host if isinstance(host, str) else None
    facts = (Question(connect.principal, target, rtype, via=via) for target in chain)
    return all(context.authorizer.still(each).verdict is _ALLOW for each in facts)


def _judge(context: Context, errand: Errand, key: OriginKey, address: Address) -> str | Undialled:
    """Decide on an address: return its text, or why it is refused."""
    text = context.allowed.find(key, address, context.authorizer.generation)
    if text is not None:
        return text
    facts = endpoint(context, errand.connect, address, key.dialled)
    decision = context.authorizer.authorize(errand.flow, facts)
    if decision.verdict is not _ALLOW:
        return Undialled(facts, decision)
    return context.allowed.add(key, address)


async def dial(
    context: Context, errand: Errand, types: frozenset[int], key: OriginKey | None = None
) -> OriginConnection | Undialled:
    """Return a connection to an address that was decided on just now, or why there is none.

    `types` are the record types that the look-up may ask.  `key` is the errand's, or the one of
    its way over TLS: then the connection is verified already.
    """
    host, key = errand.connect.host, key or errand.key
    if not isinstance(host, str):
        return await _dial_addresses(context, errand, key, (host,))
    generation = context.authorizer.generation
    resolution = await context.lookup.resolve(errand.flow, host, types)
    if resolution.flow:
        errand.flow.id = resolution.flow  # answer, pin and connection are one errand
    if resolution.failure is not None or not resolution.addresses:
        failure = resolution.failure or context.authorizer.fails(Reason.NO_ADDRESS)
        return Undialled(errand.connect, failure)
    if errand.route is not None and key.secure is None:  # a route is of plain connections
        is_current = resolution.generation == generation
        until = asyncio.get_running_loop().time() + context.limits.resolution_s
        errand.route.until = until if is_current else 0.0
        errand.route.flow, errand.route.chain = resolution.flow, resolution.chain
    origin = await _dial_addresses(context, errand, key, resolution.addresses)
    if isinstance(origin, OriginConnection):
        origin.chain = resolution.chain
    return origin


def known_target(context: Context, route: Route, now: float) -> Target | None:
    """Return the one address to dial for `route` without asking anybody, if that is known.

    It was looked up less than `resolution_s` ago (a pin lives far longer), and allowed on what
    are still the grounds of now (`proxy.egress.allowed`).
    """
    if now >= route.until or len(route.targets) != 1 or context.parent is not None:
        return None
    grounds = context.allowed.grounds(context.authorizer.generation)
    return route.targets[0] if route.grounds is grounds else None


class KnownDial:
    """A connection to the address of `known_target`, made without a task, a timer or an await.

    `then` is called once, with the connection or why there is none.  There is no limit in time
    here: who began it calls `late` after `connect_s`, or `cancel`.
    """

    __slots__ = ("_connecting", "_context", "_errand", "_origin", "_then")

    def __init__(
        self,
        context: Context,
        errand: Errand,
        target: Target,
        then: "Callable[[OriginConnection | Undialled], None]",
    ) -> None:
        self._context = context
        self._errand = errand
        self._then = then
        self._origin = origin = OriginConnection(
            context.deadlines, context.pool.forget, errand.key, *target, is_brief=True
        )
        if errand.route is not None:
            origin.chain = errand.route.chain
        self._connecting = asyncio.get_running_loop().create_connection(
            lambda: origin, target[1], errand.connect.port
        )

    def begin(self) -> None:
        """Connect; `then` may be called before this returns."""
        self._step()

    def late(self) -> None:
        """Give up: it has taken too long."""
        self._connecting.close()
        self._then(_timed_out(self._context, self._errand))

    def refuse(self, decision: Decision) -> None:
        """Give up: it may not be any more."""
        self._connecting.close()
        self._then(Undialled(self._errand.connect, decision))

    def cancel(self) -> None:
        """Give up: nobody waits for the connection."""
        self._connecting.close()

    def _step(self, _: object = None) -> None:
        # What a task does, less what a task costs: the coroutine goes on when what it waits for
        # is done.  One that was closed ends at once.
        try:
            future = self._connecting.send(None)
        except StopIteration as ended:
            if ended.value is not None:
                self._then(self._origin)
        except OSError as error:
            self._then(_unreachable(self._context, self._errand, error))
        else:
            future.add_done_callback(self._step)


async def _dial_addresses(
    context: Context, errand: Errand, key: OriginKey, addresses: Sequence[Address]
) -> OriginConnection | Undialled:
    allowed: list[tuple[Address, str]] = []
    refused: Undialled | None = None
    for address in addresses:
        judged = _judge(context, errand, key, address)
        if not isinstance(judged, Undialled):
            allowed.append((address, judged))
        elif refused is None:
            refused = judged
    if errand.route is not None and key.secure is None:
        errand.route.targets = tuple(allowed)  # none, too: no older one is dialled in their place
        errand.route.grounds = context.allowed.grounds(context.authorizer.generation)
    if not allowed and refused is not None:
        return refused
    most = context.limits.connect_addresses
    if len(allowed) > most:
        context.metrics.bounds.add("connect_addresses")
    way = _Way(key, None)
    if key.secure is not None:
        app, certificate = key.principal.app, key.secure.certificate
        tls = await context.identities.context_for(app, certificate)
        if isinstance(tls, Decision):
            return Undialled(errand.connect, tls)
        way = _Way(key, tls)
    return await _connect(context, errand, way, interleave(allowed)[:most])


def interleave(targets: list[Target]) -> list[Target]:
    """Return the targets with the families taking turns (RFC 8305, section 4)."""
    if len(targets) < 2:
        return targets
    version = targets[0][0].version
    first = [each for each in targets if each[0].version == version]
    other = [each for each in targets if each[0].version != version]
    pairs = chained.from_iterable(zip_longest(first, other))
    return [each for each in pairs if each is not None]


async def _connect(
    context: Context, errand: Errand, way: _Way, targets: list[Target]
) -> OriginConnection | Undialled:
    limits = context.limits
    try:
        async with asyncio.timeout(limits.connect_s):
            if len(targets) == 1:
                origin = await _attempt(context, way, targets[0])
            else:
                origin = await _race(context, way, targets)
    except TimeoutError:
        return _timed_out(context, errand)
    except OSError as error:
        return _unreachable(context, errand, error)
    except UpstreamError as error:  # of a parent, or of TLS
        failure = context.authorizer.fails(error.reason, str(error))
        return Undialled(errand.connect, failure)
    if origin.transport.is_closing() and not origin.early:  # nobody would be told of it again
        words = words_of(origin.failure)
        reason = Reason.UPSTREAM_TLS if words else Reason.UPSTREAM_UNREACHABLE
        text = words or "the origin closed at once"
        return Undialled(errand.connect, context.authorizer.fails(reason, text))
    return origin


def _timed_out(context: Context, errand: Errand) -> Undialled:
    context.metrics.bounds.add("connect_s")
    way = "" if context.parent is None else f" through the parent proxy {context.parent.where}"
    text = f"no connection within {context.limits.connect_s:g} s{way}"
    return Undialled(errand.connect, context.authorizer.fails(Reason.UPSTREAM_TIMEOUT, text))


def _unreachable(context: Context, errand: Errand, error: OSError) -> Undialled:
    text = error.strerror or type(error).__name__
    return Undialled(errand.connect, context.authorizer.fails(Reason.UPSTREAM_UNREACHABLE, text))


async def _attempt(context: Context, way: _Way, target: Target) -> OriginConnection:
    key, port, tls = way.key, way.key.dialled, way.tls
    origin = OriginConnection(context.deadlines, context.pool.forget, key, *target)
    if context.parent is not None:
        where = authority(target[1], port)
        await through(context.parent, origin, where, context.limits)
        if tls is not None:
            await secure(origin, key.host, tls)
        return origin
    if tls is not None:
        await connect_secure(origin, port, key.host, tls)
        return origin
    await asyncio.get_running_loop().create_connection(lambda: origin, target[1], port)
    return origin


async def _race(context: Context, way: _Way, targets: Sequence[Target]) -> OriginConnection:
    """Begin an attempt every `connect_stagger_s`, or as one fails; the first wins (RFC 8305, 5).

    Raises:
        OSError, UpstreamError: every attempt failed; the last one's error.
    """
    waiting = list(targets)
    attempts: set[asyncio.Task[OriginConnection]] = set()
    error: OSError | UpstreamError = OSError("no address")
    try:
        while waiting or attempts:
            if waiting:
                work = _attempt(context, way, waiting.pop(0))
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
                elif isinstance(failure, OSError | UpstreamError):
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
