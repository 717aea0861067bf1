"""What every connection of the HTTP plane shares."""

from collections.abc import Callable
from typing import Protocol

from proxy.authorize import Authorizer
from proxy.egress.allowed import AllowedAddresses
from proxy.egress.deadlines import Deadlines
from proxy.egress.pool import OriginPool
from proxy.flow import Flow
from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.refusals import Refusals
from proxy.resolver.resolution import Resolution
from proxy.transport.own import OwnSockets
from rules.name import DomainName


class Lookup(Protocol):
    """The resolver, as the proxy needs it: the same code that answers DNS questions."""

    async def resolve(self, flow: Flow, name: DomainName, types: frozenset[int]) -> Resolution:
        """Return the addresses that may be dialled for `name`."""


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
        self.allowed = AllowedAddresses(own)
        self.deadlines = Deadlines(limits.proxy_tick_s)
        self.pool = OriginPool(limits, metrics)
        self.connections: dict[str, int] = {}  # open ones by app; an app at 0 has no entry
