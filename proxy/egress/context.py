"""What every connection of the HTTP plane shares."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from proxy.agent_api.api import AgentApi
from proxy.authorize import Authorizer
from proxy.egress.allowed import AllowedAddresses
from proxy.egress.deadlines import Deadlines
from proxy.egress.identity_context import IdentityContexts
from proxy.egress.known import KnownHeads, Routes
from proxy.egress.parent import Parent
from proxy.egress.pool import OriginPool
from proxy.flow import Flow, new_id
from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.refusals import Refusals
from proxy.resolver.resolution import Resolution
from proxy.transport.own import OwnSockets
from rules.decision import Decision
from rules.name import DomainName

_ENTROPY_OCTETS = 10  # of one id
_IDS_A_DRAW = 64  # random octets are drawn for many ids: a system call costs more than an id


class Lookup(Protocol):
    """The resolver, as the proxy needs it: the same code that answers DNS questions."""

    async def resolve(self, flow: Flow, name: DomainName, types: frozenset[int]) -> Resolution:
        """Return the addresses that may be dialled for `name`."""


class Refusable(Protocol):
    """A dial that is under way."""

    def refuse(self, decision: Decision) -> None:
        """End it; whoever waits for it is told `decision`."""


class Context:
    """The parts that the composition root hands in, and what the connections hold in common."""

    def __init__(  # noqa: PLR0913, PLR0917 - the composition root hands every part in
        self,
        authorizer: Authorizer,
        identifier: Identifier,
        lookup: Lookup,
        own: OwnSockets,
        limits: Limits,
        metrics: Metrics,
        refusals: Refusals,
        wall: Callable[[], float],
        entropy: Callable[[int], bytes],
        parent: Parent | None = None,
        identities: IdentityContexts | None = None,
        api: AgentApi | None = None,
    ) -> None:
        self.authorizer = authorizer
        self.identifier = identifier
        self.lookup = lookup
        self.own = own
        self.limits = limits
        self.metrics = metrics
        self.refusals = refusals
        self.wall = wall
        self.entropy = entropy
        self.parent = parent
        if identities is None:
            identities = IdentityContexts(limits, metrics, wall)
        self.identities = identities
        self.api = api
        self.first_look_s = min(limits.hello_s, limits.tunnel_idle_s / 8, limits.tunnel_life_s)
        self.allowed = AllowedAddresses(own)
        self.deadlines = Deadlines(limits.proxy_tick_s)
        self.pool = OriginPool(limits, metrics)
        self.heads = KnownHeads(limits, metrics)
        self.routes = Routes(limits, metrics)
        self._pool = b""
        self._drawn = 0  # octets of the pool that are used up
        self.dials: dict[asyncio.Task[object], Refusable] = {}  # under way, by who waits for them
        self.connections: dict[str, int] = {}  # open ones by app; an app at 0 has no entry

    @property
    def state(self) -> tuple[int, int]:
        """What decisions are made under: it differs once rules or tokens have changed."""
        return self.authorizer.generation, self.identifier.epoch

    def new_id(self) -> str:
        """Return a fresh id."""
        if self._drawn == len(self._pool):
            self._pool, self._drawn = self.entropy(_IDS_A_DRAW * _ENTROPY_OCTETS), 0
        start, self._drawn = self._drawn, self._drawn + _ENTROPY_OCTETS
        return new_id(self.wall(), self._pool[start : self._drawn])
