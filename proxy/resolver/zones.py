"""Split horizon: which upstreams are asked for which name.

A zone's names are asked of its upstreams alone, and its upstreams are asked for no other name:
not by failover, hedging or the trials of a breaker, all of which stay inside one `Upstreams`.
The longest suffix wins.  Targets of aliases are asked of nobody: an answer brings its whole chain.
"""

import os
import ssl
from collections.abc import Callable, Mapping
from typing import override

from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.resolv_conf import HostResolvers, IsOwn
from proxy.resolver.upstream import Upstreams
from proxy.resolver.upstream_member import UpstreamStatus, needs_https
from proxy.resolver.upstream_query import Entropy, Forwarder
from proxy.resolver.upstream_url import Groups, UpstreamAddress
from proxy.transport.tls import DOT_ALPN
from rules.name import DomainName
from rules.zones import Zones, make_zones

DOH_ALPN = ("h2",)  # RFC 9113, section 3.2

type MakeContext = Callable[[tuple[str, ...]], ssl.SSLContext]
"""Returns a client's TLS context for these ALPN ids."""


class ZonedUpstreams(Forwarder):
    """The upstreams of every zone, and those of all other names."""

    def __init__(self, others: Upstreams, by_zone: Mapping[DomainName, Upstreams]) -> None:
        self.zones: Zones = make_zones(by_zone)
        self._others = others
        self._by_zone = dict(by_zone)

    @property
    def addresses(self) -> tuple[UpstreamAddress, ...]:
        """Every upstream that is configured."""
        return tuple(address for each in self._all() for address in each.addresses)

    def status(self) -> list[UpstreamStatus]:
        """Return how each upstream fares, those of zones last."""
        return [status for each in self._all() for status in each.status()]

    @override
    async def ask(self, name: DomainName, rtype: int) -> bytes:
        """Ask the upstreams of the name's zone; raises what `Upstreams.ask` raises."""
        apex = self.zones.apex(name)
        upstreams = self._others if apex is None else self._by_zone[apex]
        return await upstreams.ask(name, rtype)

    @override
    async def close(self) -> None:
        """Close every socket."""
        for each in self._all():
            await each.close()

    def _all(self) -> tuple[Upstreams, ...]:
        return (self._others, *self._by_zone.values())


def zoned_upstreams(  # noqa: PLR0913 - the composition root hands every part in
    groups: Groups,
    zones: Mapping[DomainName, Groups],
    limits: Limits,
    metrics: Metrics,
    *,
    make_context: MakeContext,
    is_own: IsOwn,
    entropy: Entropy = os.urandom,
) -> ZonedUpstreams:
    """Return the upstreams of `groups` for all names but those of `zones`; nothing is opened.

    `is_own` is asked about the servers of `system`.

    Raises:
        ConfigError: as `make_context` does.
    """
    dot = make_context(DOT_ALPN)
    is_https = any(map(needs_https, (groups, *zones.values())))
    https = make_context(DOH_ALPN) if is_https else None
    host = HostResolvers(is_own)

    def made(groups: Groups, zone: str = "") -> Upstreams:
        return Upstreams(
            groups, limits, metrics, dot, entropy, https_context=https, host=host, zone=zone
        )

    return ZonedUpstreams(made(groups), {name: made(each, name) for name, each in zones.items()})
