"""What was answered within this second is answered again: the reader asks here first.

A reply is kept under the exact octets of its query after the id, for one principal on one
transport, for a second at the longest: until its audit line closes, the answer expires, the
generation moves or audit has no room.  So whatever is answered here was decided, recorded and
encoded by `proxy.resolver.query` within that second; after it the query goes that way again.

Repeats are counted on the entries, and added to metrics and audit before anybody reads those.
"""

from typing import override

from msgspec import Struct

from proxy.audit_fold import Repeats, Width
from proxy.authorize import Authorizer
from proxy.limits import Limits
from proxy.metrics import DnsTransport, Metrics
from proxy.resolver.answer import REFUSAL_TTL_S
from proxy.resolver.asker import Asker
from proxy.resolver.lookup import Found
from proxy.resolver.message import Query
from proxy.resolver.refused import Flood
from proxy.resolver.tally import Tally
from proxy.resolver.trees import Tree, find
from rules.decision import Decision, Reason, Verdict
from rules.facts import Principal, Question
from rules.suffix import PublicSuffixes

KNOWN_OCTETS = 320  # a longer query is mostly padding or options: not kept
_ID_OCTETS = 2
_HEAD_OCTETS = 12
# These end when there is room again, or say nothing of the question.
_PASSING = frozenset({Reason.AUDIT_QUOTA, Reason.AUDIT_UNAVAILABLE, Reason.INTERNAL_ERROR})


class Hit(Repeats):
    """A reply that holds until `until`, in seconds of the resolver's clock.

    `reply` is its octets after the id; `ttl_s` is for how long it may be kept by who asked, and
    `query` what the octets of its key say.
    """

    __slots__ = ("query", "reply", "tally", "ttl_s", "until")

    def __init__(self) -> None:
        super().__init__()
        self.query: Query | None = None
        self.reply = b""
        self.until = 0.0
        self.ttl_s = 0
        self.tally: Tally | None = None

    @override
    def settle(self) -> int:
        counted = super().settle()
        if counted and self.tally is not None:
            self.tally.add(counted)
        return counted

    @override
    def end(self) -> None:
        super().end()
        self.until = 0.0


class Asked(Struct, frozen=True):
    """A query on its way to a reply, and the entry that will answer the same octets."""

    wire: bytes
    query: Query
    question: Question
    asker: Asker
    hit: Hit


type Floods = tuple[dict[bytes, Flood], dict[bytes, Tree]]


class Table:
    """The replies of one principal on one transport: `limits.known_queries` of them.

    At the bound the one that was renewed longest ago makes room, which is counted: exact octets
    are 2^n keys of one name (case), and what is never asked again goes.

    `refusals` answers by the floods of this one alone: a refusal needs no room in audit.
    """

    def __init__(self, limits: Limits, metrics: Metrics, floods: Floods | None = None) -> None:
        self._limits = limits
        self._metrics = metrics
        self._hits: dict[bytes, Hit] = {}
        self._floods, self._trees = both = ({}, {}) if floods is None else floods
        self.refusals = Table(limits, metrics, both) if floods is None else self

    def answer(self, wire: bytes, now: float) -> bytes | None:
        """Return the reply to the query `wire`, counted; None where it has to be served."""
        hit = self._hits.get(wire[2:])
        if hit is not None and now < hit.until:
            hit.count += 1
            return wire[:2] + hit.reply
        if self._floods and len(wire) > _HEAD_OCTETS:
            # RFC 1035, section 4.1.2: the octet is the length of the first label.
            flood = self._floods.get(wire[2:12] + wire[13 + wire[12] :])
            if flood is not None and now < flood.until:
                return flood.answer(wire)
        return find(self._trees, wire, now) if self._trees else None

    def find(self, wire: bytes, now: float) -> Hit | None:
        """Return what answers the query `wire`, counted; None where it has to be served."""
        hit = self._hits.get(wire[_ID_OCTETS:])
        if hit is None or now >= hit.until:
            return None
        hit.count += 1
        return hit

    def known(self, wire: bytes) -> Hit | None:
        """Return what answered the query `wire` the last time, whether it still holds or not."""
        return self._hits.get(wire[_ID_OCTETS:])

    def keep(self, wire: bytes, hit: Hit) -> None:
        """Answer the query `wire` by `hit` from now on."""
        rest = wire[_ID_OCTETS:]
        if len(rest) > KNOWN_OCTETS:
            hit.end()
            return
        before = self._hits.pop(rest, None)
        if before is not None and before is not hit:
            before.end()
        self._hits[rest] = hit  # the end of a dict is the latest renewed
        self._bound(self._hits)

    def keep_flood(self, wire: bytes, flood: Flood) -> None:
        """Answer queries for the siblings of the name in `wire` by `flood` from now on."""
        before = self._floods.pop(flood.key(wire), None)
        if before is not None:
            before.end()
        self._floods[flood.key(wire)] = flood
        self._bound(self._floods)

    def keep_tree(self, key: bytes, tree: Tree) -> None:
        """Answer queries for the names of `tree` by it from now on."""
        before = self._trees.pop(key, None)
        if before is not None:
            before.end()
        self._trees[key] = tree
        self._bound(self._trees)

    def settle(self) -> None:
        """Add every repeat to the metrics and to audit."""
        for each in self._all():
            each.settle()

    def clear(self) -> None:
        """Settle and forget everything."""
        for each in self._all():
            each.end()
        self._hits.clear()
        self._floods.clear()
        self._trees.clear()

    def _all(self) -> tuple[Repeats, ...]:
        return (*self._hits.values(), *self._floods.values(), *self._trees.values())

    def _bound[T: Repeats](self, kept: dict[bytes, T]) -> None:
        if len(kept) > self._limits.known_queries:
            kept.pop(next(iter(kept))).end()
            self._metrics.bounds.add("known_queries")


class Hits:
    """The tables of every principal: `limits.apps_remembered` of them, the oldest makes room."""

    def __init__(
        self, authorizer: Authorizer, suffixes: PublicSuffixes, limits: Limits, metrics: Metrics
    ) -> None:
        self._authorizer = authorizer
        self._suffixes = suffixes
        self._limits = limits
        self._metrics = metrics
        self._generation = authorizer.generation
        self._tables: dict[tuple[Principal, DnsTransport], Table] = {}
        self._nothing = Table(limits, metrics)
        # The last one: who asks is often who asked, and to look a principal up costs a hash of it.
        self._last: tuple[Principal | None, DnsTransport, Table] = (None, "udp", self._nothing)
        metrics.settle_by(self.settle)

    def table(self, principal: Principal | None, transport: DnsTransport) -> Table:
        """Return where to look for what `principal` asks now: for this turn of the loop only.

        It is empty where nobody is known to ask or the rules changed, and allows nothing while
        audit has no room.
        """
        if principal is None:
            return self._nothing
        table = self.kept(principal, transport)
        return table if self._authorizer.has_room(principal.app) else table.refusals

    def find(
        self, principal: Principal, transport: DnsTransport, wire: bytes, now: float
    ) -> Hit | None:
        """Return what answers the query `wire` of `principal` at `now` (the resolver's clock).

        The repeat is counted.  None: let `Resolver.serve` see it.
        """
        return self.table(principal, transport).find(wire, now)

    def kept(self, principal: Principal, transport: DnsTransport) -> Table:
        """Return the table of `principal`, for what is decided under the present generation."""
        if self._generation != self._authorizer.generation:
            self._generation = self._authorizer.generation
            self.clear()
        last, over, table = self._last
        if last is principal and over == transport:
            return table
        found = self._table_of(principal, transport)
        self._last = principal, transport, found
        return found

    def _table_of(self, principal: Principal, transport: DnsTransport) -> Table:
        table = self._tables.get((principal, transport))
        if table is None:
            table = self._tables[principal, transport] = Table(self._limits, self._metrics)
            if len(self._tables) > self._limits.apps_remembered:
                self._tables.pop(next(iter(self._tables))).clear()
                self._metrics.bounds.add("apps_remembered")
        return table

    def keep_answer(self, asked: Asked, found: Found, reply: bytes, now: float) -> None:
        """Answer the same query by `reply` for up to a second; its TTLs are rewritten after it."""
        hit, edns = asked.hit, asked.query.edns
        if edns is not None and edns.others:  # cookies: no two clients send the same
            hit.end()
            return
        hit.ttl_s = found.ttl_s
        tally = self._tally(asked, found.decision, is_cached=True)
        self._keep(asked, reply, tally, min(found.expires, now + hit.left_s))

    def keep_refusal(self, asked: Asked, decision: Decision, reply: bytes, now: float) -> None:
        """Answer a query that repeats by `reply`; in a flood, those for its siblings too."""
        hit, fold, edns = asked.hit, asked.hit.fold, asked.query.edns
        is_kept = decision.verdict is Verdict.DENY and decision.reason not in _PASSING
        if fold is None or not is_kept or (edns is not None and edns.others):
            hit.end()
        elif fold.width is not Width.PLAIN:
            if len(fold.samples or ()) >= self._limits.refusal_samples:
                self._begin_flood(asked, decision, reply, now)
                self._begin_tree(asked, decision, reply, now)
            hit.end()
        elif fold.count == 1:
            hit.end()  # seen once: a flood of names must not drive out what is asked again
        else:
            hit.ttl_s = REFUSAL_TTL_S
            self._keep(asked, reply, self._tally(asked, decision), now + hit.left_s)

    def _tally(self, asked: Asked, decision: Decision, *, is_cached: bool = False) -> Tally:
        fold = asked.hit.fold
        return Tally(
            self._authorizer,
            self._metrics,
            asked.question.principal.app,
            asked.asker.transport,
            decision,
            is_cached=is_cached,
            is_flood=fold is not None and fold.width is Width.FLOODING,
        )

    def _begin_flood(self, asked: Asked, decision: Decision, reply: bytes, now: float) -> None:
        siblings = self._authorizer.siblings(self._suffixes, asked.question, decision)
        fold, asker = asked.hit.fold, asked.asker
        if siblings is None or fold is None:
            return
        flood = Flood(self._tally(asked, decision), siblings)
        flood.begin(fold, asked.hit.left_s)
        flood.until = now + flood.left_s
        if flood.copy(asked.wire, asked.query, reply, asker.limit_octets):
            self.kept(asked.question.principal, asker.transport).keep_flood(asked.wire, flood)
        else:
            flood.end()

    def _begin_tree(self, asked: Asked, decision: Decision, reply: bytes, now: float) -> None:
        beneath = self._authorizer.beneath(self._suffixes, asked.question, decision)
        fold, asker = asked.hit.fold, asked.asker
        if beneath is None or fold is None:
            return
        tree = Tree(self._tally(asked, decision), beneath)
        tree.begin(fold, asked.hit.left_s)
        tree.until = now + tree.left_s
        key = tree.copy(asked.wire, asked.query, reply, asker.limit_octets)
        if key is None:
            tree.end()
        else:
            self.kept(asked.question.principal, asker.transport).keep_tree(key, tree)

    def _keep(self, asked: Asked, reply: bytes, tally: Tally, until: float) -> None:
        hit = asked.hit
        hit.query, hit.reply, hit.tally, hit.until = asked.query, reply[_ID_OCTETS:], tally, until
        self.kept(asked.question.principal, asked.asker.transport).keep(asked.wire, hit)

    def settle(self) -> None:
        """Add every repeat to the metrics and to audit."""
        for table in self._tables.values():
            table.settle()

    def clear(self) -> None:
        """Settle and forget everything."""
        for table in self._tables.values():
            table.clear()
        self._tables.clear()
        self._last = None, "udp", self._nothing
