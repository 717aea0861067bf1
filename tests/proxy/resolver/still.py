"""A resolver whose clock stands still until it is told: answers are put where upstreams would."""

import itertools
import os
from ipaddress import IPv4Address
from pathlib import Path
from typing import cast

import dns.message
import msgspec
from msgspec import Struct

from proxy.audit import Audit, AuditSettings
from proxy.audit_fold import Fold
from proxy.authorize import Authorizer
from proxy.limits import Limits
from proxy.metrics import DnsTransport, Metrics
from proxy.refusals import Refusals
from proxy.resolver.answer import Answer, Record
from proxy.resolver.lookup import Lookup
from proxy.resolver.message import STREAM_OCTETS
from proxy.resolver.query import Asker, Resolver
from proxy.resolver.upstream_query import Forwarder
from proxy.transport.own import OwnSockets
from rules.facts import Principal
from rules.match import index_rules
from rules.name import parse
from rules.rtype import A
from rules.ruleset import Ruleset
from tests.proxy.composed import ME, SUFFIXES

UNIX_TIME = 1_800_000_000.0
ADDRESS = IPv4Address("93.184.215.14")


class Clock:
    """Both clocks of the appliance; the monotonic one began with this."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return UNIX_TIME + self.now


class Still(Struct):
    """The parts, and what is asked of them."""

    resolver: Resolver
    lookup: Lookup
    authorizer: Authorizer
    audit: Audit
    metrics: Metrics
    clock: Clock
    limits: Limits

    def asker(self, principal: Principal = ME, transport: DnsTransport = "udp") -> Asker:
        room = self.limits.dns_udp_octets if transport == "udp" else STREAM_OCTETS
        return Asker(principal, transport, room, ("127.0.0.1", 5353), "127.0.0.1:53")

    def know(self, name: str, ttl: int = 300, principal: Principal = ME) -> None:
        """Put an answer into the cache of the app."""
        record = Record(parse(name), A, ttl, ADDRESS.packed)
        answer = Answer(0, (record,), ttl=ttl, addresses=(ADDRESS,))
        key = (principal.app, parse(name), A)
        generation = self.authorizer.generation
        self.lookup._caches.put(key, answer, self.clock.now, generation, "flow")

    def slow(
        self, wire: bytes, principal: Principal = ME, transport: DnsTransport = "udp"
    ) -> bytes:
        """Return what the whole pipeline says."""
        reply = self.resolver.serve(wire, self.asker(principal, transport))
        assert isinstance(reply, bytes)
        return reply

    def fast(
        self, wire: bytes, principal: Principal = ME, transport: DnsTransport = "udp"
    ) -> bytes | None:
        """Return what the reader says before it."""
        return self.resolver.hits.table(principal, transport).answer(wire, self.clock.now)

    def told(self) -> list[Fold]:
        """End every open audit line and return them all."""
        return self.audit._folds.rest()


def still(rules: Ruleset, folder: Path, limits: Limits | None = None) -> Still:
    """Make one; nothing runs in it."""
    limits, clock, metrics = limits or Limits(), Clock(), Metrics()
    file = AuditSettings(str(folder / "audit.jsonl"))
    audit = Audit(file, limits, metrics, clock.wall, os.urandom)
    refusals = Refusals(limits, metrics)
    authorizer = Authorizer(index_rules(rules), audit, refusals, metrics)
    nobody = cast("Forwarder", None)  # every answer is in the cache
    own = OwnSockets(set(), set())
    lookup = Lookup(authorizer, nobody, own, limits, metrics, clock.monotonic)
    resolver = Resolver(
        authorizer, lookup, refusals, SUFFIXES, limits, metrics,
        wall=clock.wall, entropy=os.urandom,
    )  # fmt: skip
    return Still(resolver, lookup, authorizer, audit, metrics, clock, limits)


_ids = itertools.count(1)


def ask(name: str, rtype: str = "A", *, edns: bool = False, pad: int = 0) -> bytes:
    """Return a query with an id of its own, the case of `name` kept."""
    message = dns.message.make_query(name, rtype, use_edns=0 if edns or pad else False, pad=pad)
    message.id = next(_ids) & 0xFFFF
    return message.to_wire()


def under(generation: int, rules: Ruleset) -> Ruleset:
    """Return the same rules as another generation."""
    return msgspec.structs.replace(rules, generation=generation)
