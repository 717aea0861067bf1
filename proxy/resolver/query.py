"""One query, from its octets to its reply: parse, policy, cache, upstream, walk, pin, reply.

The order is the security property: nothing leaves the host, and no cache is read, before the
question is allowed to this very app; and no answer is handed out before every address in it
was decided on and pinned.  `serve` answers what it can at once; a `Miss` is finished as a task.
What `hits` answers in front of it was answered here within the same second.
"""

import logging
from collections.abc import Callable

from msgspec import Struct, structs

from proxy.advice import advise
from proxy.authorize import Authorizer
from proxy.flow import Flow, Plane, new_id
from proxy.identify import UNKNOWN
from proxy.limits import Limits
from proxy.metrics import DnsOutcome, Metrics
from proxy.proven import is_same
from proxy.refusals import Refusals
from proxy.resolver.answer import Answer
from proxy.resolver.asker import Asker
from proxy.resolver.hits import Asked, Hit, Hits
from proxy.resolver.local import local_answer, why_answer
from proxy.resolver.lookup import Found, Lookup
from proxy.resolver.message import (
    Query,
    QueryError,
    assemble,
    encode_answer,
    read_query,
    truncated,
)
from proxy.resolver.refusal import Sinking, any_reply, is_silent, is_sunk, refusal
from proxy.resolver.tally import OUTCOME
from proxy.target import authority
from rules.decision import Decision, Reason, Verdict
from rules.facts import Principal, Question
from rules.name import ROOT, DomainName
from rules.rtype import AAAA, ANY, A
from rules.special import OUR_ZONE
from rules.suffix import PublicSuffixes

__all__ = ["CHANGED", "Asker", "Miss", "Resolver"]

logger = logging.getLogger(__name__)

_WHY = f"._why.{OUR_ZONE}"
CHANGED = Decision(
    Verdict.DENY, Reason.IDENTITY_UNKNOWN, text="who asked is not that app any more; ask again"
)
"""Of an answer whose asker became somebody else while it was looked up."""


class Miss(Struct, frozen=True):
    """A question that was allowed under `generation` and has to be asked upstream."""

    query: Query
    flow: Flow
    question: Question
    decision: Decision
    asker: Asker
    generation: int


class Resolver:
    """Answers queries of agents."""

    def __init__(  # noqa: PLR0913 - the composition root hands every part in
        self,
        authorizer: Authorizer,
        lookup: Lookup,
        refusals: Refusals,
        suffixes: PublicSuffixes,
        limits: Limits,
        metrics: Metrics,
        *,
        wall: Callable[[], float],
        entropy: Callable[[int], bytes],
        sinkhole: Sinking | None = None,
    ) -> None:
        self._authorizer = authorizer
        self._lookup = lookup
        self._refusals = refusals
        self._suffixes = suffixes
        self._limits = limits
        self._metrics = metrics
        self.wall = self._wall = wall
        self._entropy = entropy
        self._sinkhole = sinkhole
        self.hits = Hits(authorizer, suffixes, limits, metrics)
        self.now = lookup.now

    def serve(self, wire: bytes, asker: Asker) -> bytes | Miss | None:
        """Return the reply, or the miss to finish; None for what deserves no reply."""
        principal = asker.principal
        try:
            query, hit = self._read(wire, asker)
        except QueryError as error:
            return self._malformed(error, asker)
        if principal is None:
            self._metrics.dns_queries.add(asker.transport, "truncated")
            return truncated(query)
        try:
            question = Question(principal, query.name, query.rtype)
            return self._decide(Asked(wire, query, question, asker, hit))
        except Exception as error:  # noqa: BLE001 - a bug of ours ends one query, not the plane
            return self._broken(query, asker, error)

    def _read(self, wire: bytes, asker: Asker) -> tuple[Query, Hit]:
        """Return the query, read anew or as the same octets were read before."""
        table = asker.principal and self.hits.kept(asker.principal, asker.transport)
        hit = table.known(wire) if table else None
        if hit is None or hit.query is None:
            return read_query(wire, encrypted=asker.is_encrypted), Hit()
        read = hit.query
        unique = int.from_bytes(wire[:2])
        return Query(unique, read.flags, read.name, read.question, read.rtype, read.edns), hit

    def _decide(self, asked: Asked) -> bytes | Miss | None:
        query, question, asker = asked.query, asked.question, asked.asker
        # A hit has the id of the errand that it was looked up for: none is drawn before a miss.
        flow = Flow("", question.principal, Plane.DNS, "", asker.listener)
        decision = self._authorizer.authorize(flow, question)
        is_ours = decision.reason is Reason.LOCAL or query.rtype == ANY
        is_asked = decision.verdict is Verdict.ALLOW and not is_ours
        found = self._lookup.cached(flow, question, decision, asked.hit) if is_asked else None
        if found is not None:
            self._metrics.cache.add("hit")
            reply = self._reply(query, found, asker)
            self.hits.keep_answer(asked, found, reply, self.now())
            return reply
        flow = self._flow(question.principal, asker)
        if decision.verdict is not Verdict.ALLOW:
            return self._denied(asked, flow, decision)
        if decision.reason is Reason.LOCAL:
            return self._local(query, flow, question, decision, asker)
        if query.rtype == ANY:  # RFC 8482, section 4.2: answered with HINFO, asked of nobody
            self._authorizer.record(flow, question, decision)
            return self._sent(any_reply(query, asker.limit_octets), Verdict.ALLOW, asker)
        self._metrics.cache.add("miss")
        return Miss(query, flow, question, decision, asker, self._authorizer.generation)

    def _denied(self, asked: Asked, flow: Flow, decision: Decision) -> bytes | None:
        """Return the reply to a question that is refused; it answers what repeats the question."""
        query, asker, hit = asked.query, asked.asker, asked.hit
        recorded = self._authorizer.record(flow, asked.question, decision, repeats=hit)
        if self._is_dropped(decision, asker):
            hit.end()
            return None
        reply = self._worded(query, decision, recorded, asker)
        if is_sunk(decision) and self._sinkhole is not None and not self._sinkhole.is_same_for_all:
            hit.end()  # what repeats it may come from where our address is another's
        else:
            self.hits.keep_refusal(asked, decision, reply, self.now())
        return reply

    def _is_dropped(self, decision: Decision, asker: Asker) -> bool:
        """Return, and count, whether a refusal is silence where it is asked for."""
        # RFC 8484, section 4.2.1: a request over HTTP has a response, so that DoH gets REFUSED.
        is_dropped = is_silent(decision) and asker.transport != "doh"
        if is_dropped:
            self._metrics.dns_queries.add(asker.transport, "dropped")
        return is_dropped

    async def finish(self, miss: Miss) -> bytes | None:
        """Return the reply to a miss; None where what was found is refused by silence."""
        try:
            flow, question = miss.flow, miss.question
            found = await self._lookup.find(flow, question, miss.decision, miss.generation)
            if found.answer is None and self._is_dropped(found.decision, miss.asker):
                return None
            return self._reply(miss.query, found, miss.asker)
        except Exception as error:  # noqa: BLE001 - as in `serve`
            return self._broken(miss.query, miss.asker, error)

    def shed(self, miss: Miss, bound: str) -> bytes:
        """Return the reply to a miss for which there is no room: `capacity`."""
        self.hit_bound(bound)
        decision = self._authorizer.fails(Reason.CAPACITY)
        return self._refuse(miss.query, miss.flow, miss.question, decision, miss.asker)

    def turn_away(self, wire: bytes, asker: Asker, decision: Decision) -> str:
        """Record that `asker` was refused before any rule was asked; return the refusal's id.

        Raises:
            QueryError: `wire` is no query, so that there is nothing to be recorded of.
        """
        query = read_query(wire, encrypted=asker.is_encrypted)
        principal = asker.principal or UNKNOWN
        question = Question(principal, query.name, query.rtype)
        return self._authorizer.record(self._flow(principal, asker), question, decision)

    def refuse(self, wire: bytes, asker: Asker, decision: Decision) -> bytes | None:
        """Return the reply where `asker` is refused before any rule is asked; None: no reply."""
        principal = asker.principal or UNKNOWN
        try:
            query = read_query(wire, encrypted=asker.is_encrypted)
        except QueryError as error:
            return self._malformed(error, asker)
        question = Question(principal, query.name, query.rtype)
        return self._refuse(query, self._flow(principal, asker), question, decision, asker)

    def reconsider(
        self, miss: Miss, reply: bytes | None, found: Principal | Decision
    ) -> bytes | None:
        """Return `reply`, to a miss whose asker is `found` by now, or what is told it instead.

        Who is the same app by the same evidence may have it, if what is proven of it now is enough.
        Silence stays silence, whoever it is.
        """
        if reply is None or found == miss.question.principal:
            return reply
        if isinstance(found, Decision):
            return self.withdraw(miss, found)
        if not is_same(found, miss.question.principal):
            return self.withdraw(miss, CHANGED)
        decision = self._authorizer.still(structs.replace(miss.question, principal=found))
        return reply if decision.verdict is Verdict.ALLOW else self.withdraw(miss, decision)

    def withdraw(self, miss: Miss, decision: Decision) -> bytes:
        """Return the reply to a miss whose asker is not who it was any more."""
        return self._refuse(miss.query, miss.flow, miss.question, decision, miss.asker)

    def hit_bound(self, bound: str, times: int = 1) -> None:
        """Count that a named limit was met."""
        self._metrics.bounds.add(bound, n=times)

    def _broken(self, query: Query, asker: Asker, error: Exception) -> bytes:
        """Return the reply to a query that met a bug of ours; its id is that of the log's line."""
        unique = new_id(self._wall(), self._entropy(10))
        logger.error("%s: no answer to %s", unique, query.name, exc_info=error)
        decision = Decision(Verdict.FAIL, Reason.INTERNAL_ERROR)
        how = advise(decision, "")
        reply = refusal(query, decision, unique, how, None, asker.limit_octets)
        return self._sent(reply, Verdict.FAIL, asker)

    def _flow(self, principal: Principal, asker: Asker) -> Flow:
        unique = new_id(self._wall(), self._entropy(10))
        peer = authority(asker.peer[0], asker.peer[1])
        return Flow(unique, principal, Plane.DNS, peer, asker.listener)

    def _malformed(self, error: QueryError, asker: Asker) -> bytes | None:
        outcome: DnsOutcome = "dropped" if error.reply is None else "malformed"
        self._metrics.dns_queries.add(asker.transport, outcome)
        if error.reply is None:
            return None
        principal = asker.principal or UNKNOWN
        decision = Decision(Verdict.DENY, error.reason, text=str(error))
        name, rtype = (error.query.name, error.query.rtype) if error.query else (ROOT, ANY)
        question = Question(principal, name, rtype)
        recorded = self._authorizer.record(self._flow(principal, asker), question, decision)
        if error.query is None or error.reason is not Reason.NAME_MALFORMED:
            return error.reply  # NOTIMP, BADVERS and the like say enough
        how = advise(decision, principal.app)
        return refusal(error.query, decision, recorded, how, None, asker.limit_octets)

    def _refuse(
        self, query: Query, flow: Flow, question: Question, decision: Decision, asker: Asker
    ) -> bytes:
        recorded = self._authorizer.record(flow, question, decision)
        return self._worded(query, decision, recorded, asker)

    def _worded(self, query: Query, decision: Decision, recorded: str, asker: Asker) -> bytes:
        how = advise(decision, asker.principal.app if asker.principal else "")
        apex = self._suffixes.registrable(query.name)
        sunk = self._sunk(query, decision, recorded, asker)
        reply = refusal(query, decision, recorded, how, apex, asker.limit_octets, sunk=sunk)
        return self._sent(reply, decision.verdict, asker)

    def _sunk(
        self, query: Query, decision: Decision, recorded: str, asker: Asker
    ) -> tuple[bytes, ...] | None:
        """Return what the sinkhole has for a refused name; None where there is none for it."""
        principal = asker.principal
        if self._sinkhole is None or principal is None or not is_sunk(decision):
            return None
        found = self._sinkhole.records(query.rtype, asker.listener)
        if not found:
            return found
        if decision.empty:
            # Where the other family's addresses are allowed, ours would draw clients away from
            # them (RFC 8305, section 4: whichever connects first).
            other = Question(principal, query.name, AAAA if query.rtype == A else A)
            if self._authorizer.still(other).verdict is Verdict.ALLOW:
                return ()
        self._sinkhole.told(principal.app, query.name, recorded, decision)
        return found

    def _local(
        self, query: Query, flow: Flow, question: Question, decision: Decision, asker: Asker
    ) -> bytes:
        self._authorizer.record(flow, question, decision)
        answer = self._why(question) or local_answer(query.name, query.rtype, empty=decision.empty)
        reply = encode_answer(query, answer, 0, asker.limit_octets)
        return self._sent(reply, Verdict.ALLOW, asker)

    def _why(self, question: Question) -> Answer | None:
        """Answer `NAME._why.sallyport.internal` with the asker's own last refusal of NAME."""
        if not question.name.endswith(_WHY):
            return None
        name = DomainName(question.name.removesuffix(_WHY))
        return why_answer(
            question.name, question.rtype, self._refusals.last(question.principal.app, name)
        )

    def _reply(self, query: Query, found: Found, asker: Asker) -> bytes:
        if found.answer is None:
            return self._worded(query, found.decision, found.id, asker)
        if found.sections is None:
            reply = encode_answer(query, found.answer, 0, asker.limit_octets)
        else:
            limit_octets = asker.limit_octets
            rcode = found.answer.rcode
            reply = assemble(query, rcode, found.sections, limit_octets=limit_octets)
        return self._sent(reply, Verdict.ALLOW, asker)

    def _sent(self, reply: bytes, verdict: Verdict, asker: Asker) -> bytes:
        self._metrics.dns_queries.add(asker.transport, OUTCOME[verdict])
        return reply
