"""A resolver made of the real parts, for tests: rules, authorizer, audit, look-up, upstream."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from proxy.audit import Audit, AuditSettings
from proxy.authorize import Authorizer
from proxy.held import Held
from proxy.leak import NO_LEAKS, Leaks
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.refusals import Refusals
from proxy.resolver.lookup import Lookup
from proxy.resolver.query import Resolver
from proxy.resolver.upstream import Upstreams
from proxy.resolver.upstream_url import parse_upstream
from proxy.resolver.watching import UNWATCHED, Watching
from proxy.transport.own import OwnSockets
from proxy.transport.tls import DOT_ALPN, upstream_context
from rules.address import parse_address
from rules.facts import Evidence, Principal
from rules.listed import NO_LISTS, Lists
from rules.match import index_rules
from rules.name import parse
from rules.pattern import HostPattern, PatternKind
from rules.rtype import AAAA, CNAME, HTTPS, A
from rules.ruleset import AllowRule, App, Ruleset
from rules.suffix import read_suffixes

OWN_ADDRESS = "8.8.4.4"  # what the test says an interface of this host holds
ME = Principal("me", (Evidence.LISTENER,))
OTHER = Principal("other", (Evidence.LISTENER,))
SUFFIXES = read_suffixes(["com", "net", "org", "// ===BEGIN PRIVATE DOMAINS==="])
DEFAULT_TYPES = frozenset({A, AAAA, CNAME, HTTPS})


def exact(name: str) -> HostPattern:
    return HostPattern(PatternKind.EXACT, parse(name))


def below(name: str) -> HostPattern:
    return HostPattern(PatternKind.BELOW, parse(name))


def allow(*patterns: HostPattern, ports: frozenset[int] = frozenset({443})) -> AllowRule:
    return AllowRule("allowed", patterns, ports, DEFAULT_TYPES)


def ruleset(generation: int = 1, **apps: App) -> Ruleset:
    return Ruleset(
        generation, {name: msgspec.structs.replace(app, name=name) for name, app in apps.items()}
    )


class Composed(Struct):
    """The parts that tests look into."""

    resolver: Resolver
    lookup: Lookup
    authorizer: Authorizer
    audit: Audit
    audit_file: Path
    refusals: Refusals
    metrics: Metrics

    async def lines(self) -> list[dict[str, object]]:
        """End the audit and return every line of it."""
        await self.audit.close()
        return [msgspec.json.decode(line) for line in self.audit_file.read_bytes().splitlines()]


@asynccontextmanager
async def composed(
    rules: Ruleset,
    upstream: str,
    folder: Path,
    limits: Limits | None = None,
    *,
    lists: Lists = NO_LISTS,
    held: Held | None = None,
    leaks: Leaks = NO_LEAKS,
    watching: Callable[[Authorizer], Watching] = lambda _: UNWATCHED,
) -> AsyncIterator[Composed]:
    limits = limits or Limits()
    metrics = Metrics()
    file = folder / "audit.jsonl"
    audit = Audit(AuditSettings(str(file)), limits, metrics, time.time, os.urandom)
    audit.start()
    refusals = Refusals(limits, metrics)
    authorizer = Authorizer(
        index_rules(rules, lists), audit, refusals, metrics, held=held, leaks=leaks
    )
    upstreams = Upstreams(
        [parse_upstream(upstream)], limits, metrics, upstream_context(None, DOT_ALPN), os.urandom
    )
    own = OwnSockets(set(), {parse_address(OWN_ADDRESS)})
    monotonic = asyncio.get_running_loop().time
    lookup = Lookup(authorizer, upstreams, own, limits, metrics, monotonic, watching(authorizer))
    resolver = Resolver(
        authorizer, lookup, refusals, SUFFIXES, limits, metrics, wall=time.time, entropy=os.urandom
    )
    try:
        yield Composed(resolver, lookup, authorizer, audit, file, refusals, metrics)
    finally:
        await lookup.close()
        await audit.close()
