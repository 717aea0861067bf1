"""Whom we ask and dial through, made from the settings; and that none of them is ourselves."""

from pathlib import Path

from proxy.config import Settings
from proxy.egress.parent import Parent, parse_parent
from proxy.errors import ConfigError
from proxy.metrics import Metrics
from proxy.resolver.upstream_url import parse_groups, parse_zones
from proxy.resolver.zones import ZonedUpstreams, zoned_upstreams
from proxy.transport.own import OwnSockets
from proxy.transport.tls import upstream_context


def upstreams_of(settings: Settings, metrics: Metrics, own: OwnSockets) -> ZonedUpstreams:
    """Return the upstream resolvers, for every name and for zones of their own.

    Raises:
        ConfigError: one of them is not written as an upstream is.
    """
    anchors = None if settings.upstream_ca is None else Path(settings.upstream_ca)
    return zoned_upstreams(
        parse_groups(settings.upstreams),
        parse_zones(settings.zones),
        settings.limits,
        metrics,
        make_context=lambda alpn: upstream_context(anchors, alpn),
        is_own=own.is_listener,
    )


def parent_of(settings: Settings) -> Parent | None:
    """Return the proxy that every connection is made through; None where we dial ourselves.

    Raises:
        ConfigError: it is not written as a parent is.
    """
    if settings.upstream_proxy is None:
        return None
    return parse_parent(settings.upstream_proxy, settings.egress_anchors)


def refuse_circles(own: OwnSockets, upstreams: ZonedUpstreams, parent: Parent | None) -> None:
    """See that nobody whom we ask is a listener of ours.

    Raises:
        ConfigError: one of them is.
    """
    for upstream in upstreams.addresses:
        if own.is_listener(upstream.address, upstream.port):
            raise ConfigError(f"upstream {upstream} is our own listener; name another resolver")
    if parent is not None and own.is_listener(parent.address, parent.port):
        raise ConfigError(f"upstream_proxy {parent.where} is our own listener; name another")
