"""A group of upstreams as the tests ask it, and limits that let only one thing happen."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from ipaddress import IPv4Address

from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.resolv_conf import HostResolvers
from proxy.resolver.upstream import Upstreams
from proxy.resolver.upstream_url import parse_groups
from proxy.transport.tls import DOT_ALPN, UpstreamTlsContext, upstream_context
from rules.name import parse

NAME = parse("www.example.com")
PATIENT = Limits(upstream_timeout_s=20.0, upstream_try_s=20.0, upstream_hedge_s=20.0)
"""Whatever happens does so for another reason than time."""

BRIEF = Limits(upstream_timeout_s=0.15, upstream_try_s=0.15, upstream_hedge_s=20.0)
"""One try, which ends soon."""


@cache
def system_context() -> UpstreamTlsContext:
    return upstream_context(alpn=DOT_ALPN)


@asynccontextmanager
async def asking(
    *urls: str | list[str],
    limits: Limits = PATIENT,
    context: ssl.SSLContext | None = None,
    https: ssl.SSLContext | None = None,
    host: HostResolvers | None = None,
) -> AsyncIterator[Upstreams]:
    """Make a group of these upstreams, or groups of these lists, and close it."""
    upstreams = Upstreams(
        parse_groups(urls),
        limits,
        Metrics(),
        context or system_context(),
        https_context=https,
        host=host,
    )
    try:
        yield upstreams
    finally:
        await upstreams.close()


def address_in(message: bytes) -> str:
    """Return the address in the last record of an answer."""
    return str(IPv4Address(message[-4:]))
