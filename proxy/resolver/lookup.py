"""From an allowed question to addresses that were decided on: cache, upstream, walk, pin.

Caches and coalescing are per app, so that no app learns from timing what another one asked.
Between the last await and the pin there is no other, so that answer, pin and cache entry are
all of one generation.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable

from msgspec import Struct, structs

from proxy.audit_fold import Repeats
from proxy.authorize import Authorizer
from proxy.errors import UpstreamError
from proxy.flow import Flow
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.answer import Answer
from proxy.resolver.cache import CachedAnswer, Caches, Key
from proxy.resolver.message import Sections
from proxy.resolver.pins import Pin, Pins
from proxy.resolver.resolution import Resolution
from proxy.resolver.response import Response, read_response
from proxy.resolver.upstream_query import Forwarder
from proxy.resolver.walk import Walked, walk
from proxy.resolver.watching import UNWATCHED, Watching
from proxy.transport.own import OwnSockets
from rules.address import Address
from rules.decision import Decision, Reason, Verdict
from rules.facts import Endpoint, Facts, Question
from rules.name import ROOT, DomainName

_TYPE_AND_CLASS_OCTETS = 4


class Found(Struct, frozen=True):
    """The outcome of a look-up: an answer under an ALLOW, or why there is none.

    `id` is that of the audit line; `sections` the answer's octets where the cache has them, which
    keeps it until `expires`; the asker may keep it for `ttl_s` seconds.  What was asked upstream
    was decided under `generation`.
    """

    decision: Decision
    id: str
    answer: Answer | None = None
    sections: Sections | None = None
    expires: float = 0.0
    ttl_s: int = 0
    generation: int = 0


class Lookup:
    """Finds answers for both planes, one app at a time; `watching` is shown all that goes out."""

    def __init__(  # noqa: PLR0913, PLR0917 - the composition root hands every part in
        self,
        authorizer: Authorizer,
        upstreams: Forwarder,
        own: OwnSockets,
        limits: Limits,
        metrics: Metrics,
        monotonic: Callable[[], float],
        watching: Watching = UNWATCHED,
    ) -> None:
        self._authorizer = authorizer
        self._upstreams = upstreams
        self._own = own
        self._limits = limits
        self._metrics = metrics
        self._watching = watching
        self._now = self.now = monotonic
        self._caches = Caches(limits, metrics)
        self._pins = Pins(limits, metrics)
        # By app; the flow is of who asked first.
        self._under_way: dict[str, dict[Key, tuple[Flow, asyncio.Task[Found]]]] = {}

    def cached(
        self, flow: Flow, question: Question, decision: Decision, repeats: Repeats | None = None
    ) -> Found | None:
        """Return the cached answer to an allowed question; `repeats` counts the same question."""
        now = self._now()
        entry = self._caches.get(_key(question), now, self._authorizer.generation)
        entry = entry or self._renewed(flow, question, now)
        if entry is None:
            return None
        flow.id = entry.flow  # answer, pin, connection and request are one errand
        recorded = self._authorizer.record(flow, question, decision, repeats=repeats, cached=True)
        sections = entry.sections(question.name, _question_octets(question.name), now)
        age_s = entry.age_s(now)
        left_s = max(entry.answer.ttl - age_s, 0)
        return Found(decision, recorded, entry.answer, sections, entry.expires, left_s)

    async def find(
        self, flow: Flow, question: Question, decision: Decision, under: int | None = None
    ) -> Found:
        """Ask upstream for an allowed question; the same question of an app is asked once.

        An app has at most half of `limits.upstream_in_flight`, so that its names that are slow
        to answer leave room for the others': beyond that the outcome is `capacity`.  What was
        decided, or found, `under` the rules of another generation is decided again.
        """
        authorizer = self._authorizer
        generation = authorizer.generation if under is None else under
        while True:
            if generation != authorizer.generation:
                decision = authorizer.authorize(flow, question)
                if decision.verdict is not Verdict.ALLOW:
                    return Found(decision, authorizer.record(flow, question, decision))
                kept = self.cached(flow, question, decision)
                if kept is not None:
                    return kept
            found = await self._found(flow, question, decision)
            generation = found.generation
            if generation == authorizer.generation:
                return found

    async def _found(self, flow: Flow, question: Question, decision: Decision) -> Found:
        key = _key(question)
        own = self._under_way.setdefault(key[0], {})
        under_way = own.get(key)
        if under_way is not None:
            return await self._join(flow, question, *under_way)
        if len(own) >= max(self._limits.upstream_in_flight // 2, 1):
            return self._shed(flow, question)
        work = self._find(flow, question, decision, self._authorizer.generation)
        task = asyncio.get_running_loop().create_task(work)
        own[key] = flow, task
        task.add_done_callback(lambda _: self._ended(key))
        return await asyncio.shield(task)  # one waiter that gives up ends nobody else's look-up

    async def _join(
        self, flow: Flow, question: Question, first: Flow, task: asyncio.Task[Found]
    ) -> Found:
        """Wait for what is asked already: one errand, of which each question is told."""
        generation = self._authorizer.generation
        found = await asyncio.shield(task)
        if generation != self._authorizer.generation:  # what was decided is the other's question
            return structs.replace(found, generation=generation)
        flow.id = first.id
        recorded = self._authorizer.record(flow, question, found.decision)
        return structs.replace(found, id=recorded)

    async def resolve(self, flow: Flow, name: DomainName, types: frozenset[int]) -> Resolution:
        """Return the addresses that the proxy may dial for `name`: pinned, else looked up now."""
        order = sorted(types, reverse=True)  # AAAA before A (RFC 8305, section 3)
        while True:
            generation = self._authorizer.generation
            founds = await asyncio.gather(*(self._addresses(flow, name, rtype) for rtype in order))
            if self._authorizer.generation == generation:  # both types by the same rules
                break
        answers = [answer for answer, _ in founds if answer is not None]
        addresses = tuple(address for answer in answers for address in answer.addresses)
        if addresses:
            self._watching.connected(flow.principal.app, name)
            chain = tuple(dict.fromkeys(target for answer in answers for target in answer.chain))
            return Resolution(addresses, generation, flow=flow.id, chain=chain)
        failures = [failure for _, failure in founds if failure is not None]
        denied = [failure for failure in failures if failure.verdict is Verdict.DENY]
        nothing = self._authorizer.fails(Reason.NO_ADDRESS)
        return Resolution((), generation, next(iter(denied + failures), nothing), flow.id)

    async def close(self) -> None:
        """End what is under way."""
        tasks = [task for own in self._under_way.values() for _, task in own.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._upstreams.close()

    def _ended(self, key: Key) -> None:
        own = self._under_way[key[0]]
        del own[key]
        if not own:
            del self._under_way[key[0]]

    def _shed(self, flow: Flow, question: Question) -> Found:
        self._metrics.bounds.add("upstream_in_flight")
        failure = self._authorizer.fails(Reason.CAPACITY, "too many look-ups are under way")
        recorded = self._authorizer.record(flow, question, failure)
        return Found(failure, recorded, generation=self._authorizer.generation)

    async def _addresses(
        self, flow: Flow, name: DomainName, rtype: int
    ) -> tuple[Pin | Answer | None, Decision | None]:
        key = (flow.principal.app, name, rtype)
        now, generation = self._now(), self._authorizer.generation
        pin = self._pins.get(key, now, generation)
        if pin is not None:
            flow.id = pin.flow
            return pin, None
        # The look-up inherits the allow of the Connect as a chain's target does.
        question = Question(flow.principal, name, rtype, via=name)
        decision = self._authorizer.authorize(flow, question)
        if decision.verdict is not Verdict.ALLOW:
            return None, decision
        pin = self._pins.take(key, now)  # of older rules
        if pin is not None and self._holds(flow, question, pin.chain, pin.addresses):
            flow.id = pin.flow
            return self._pins.renew(key, pin, generation), None
        found = self.cached(flow, question, decision) or await self.find(flow, question, decision)
        return found.answer, None if found.answer else found.decision

    async def _find(
        self, flow: Flow, question: Question, decision: Decision, generation: int
    ) -> Found:
        # A task begins a turn of the loop after it was made: nothing leaves that is not allowed.
        if generation != self._authorizer.generation:
            return Found(decision, "", generation=generation)
        refusal = await self._watching.admit(flow, question, decision)
        if refusal is not None:
            recorded = self._authorizer.record(flow, question, refusal)
            return Found(refusal, recorded, generation=self._authorizer.generation)
        if generation != self._authorizer.generation:  # a block was written meanwhile
            return Found(decision, "", generation=generation)
        found = await self._ask(flow, question, decision)
        if found.decision.reason is Reason.TUNNEL_DETECTED:  # in the answer: on the disk first, too
            await self._watching.admit(flow, question, decision)
        return structs.replace(found, generation=self._authorizer.generation)

    async def _ask(self, flow: Flow, question: Question, decision: Decision) -> Found:
        generation = self._authorizer.generation
        try:
            wire = await self._upstreams.ask(question.name, question.rtype)
            response = read_response(wire, question.name, question.rtype, self._limits)
        except UpstreamError as error:
            failure = self._authorizer.fails(error.reason, str(error))
            recorded = self._authorizer.record(flow, question, failure, text=str(error))
            return Found(failure, recorded)
        if self._authorizer.generation != generation:
            decision = self._authorizer.authorize(flow, question)
            if decision.verdict is not Verdict.ALLOW:
                return Found(decision, self._authorizer.record(flow, question, decision))
        return self._conclude(flow, question, decision, response)

    def _conclude(
        self, flow: Flow, question: Question, decision: Decision, response: Response
    ) -> Found:
        judged: list[Address] = []
        walked = walk(
            question, response, self._judge(flow, judged), self._limits,
            judge_server=self._authorizer.server,
        )  # fmt: skip
        detail = _detail(walked)
        if walked.answer is None:
            refusal = walked.refusal or Decision(Verdict.DENY, Reason.ADDRESS_NOT_ALLOWED)
            return Found(refusal, self._authorizer.record(flow, question, refusal, walk=detail))
        found = self._watching.answered(flow, question, decision, response, walked)
        if found is not None:
            return Found(found, self._authorizer.record(flow, question, found, walk=detail))
        recorded = self._authorizer.record(flow, question, decision, walk=detail)
        is_whole = not (walked.dropped or walked.servers)  # servers are not kept to be judged again
        self._keep(flow, question, walked.answer, tuple(judged) if is_whole else None)
        return Found(decision, recorded, walked.answer)

    def _judge(self, flow: Flow, judged: list[Address]) -> Callable[[Facts], Decision]:
        """Return what decides on facts, and adds the addresses among them to `judged`."""

        def judge(facts: Facts) -> Decision:
            if isinstance(facts, Endpoint):
                judged.append(facts.address)
                held = self._own.is_interface(facts.address)
                facts = structs.replace(facts, own_interface=held)
            return self._authorizer.authorize(flow, facts)

        return judge

    def _renewed(self, flow: Flow, question: Question, now: float) -> CachedAnswer | None:
        """Return what older rules left in the cache, where those in force decide it alike."""
        key = _key(question)
        entry = self._caches.take(key, now)
        if entry is None or not self._holds(flow, question, entry.answer.chain, entry.judged or ()):
            return None
        self._caches.renew(key, entry, self._authorizer.generation)
        return entry

    def _holds(
        self,
        flow: Flow,
        question: Question,
        chain: Iterable[DomainName],
        addresses: Iterable[Address],
    ) -> bool:
        """Return whether all that the walker asked of an allowed answer is allowed now."""
        judge, principal, name = self._judge(flow, []), question.principal, question.name
        targets = (Question(principal, target, question.rtype, via=name) for target in chain)
        endpoints = (Endpoint(principal, name, address, None) for address in addresses)
        facts: Iterable[Facts] = itertools.chain(targets, endpoints)
        decisions = map(judge, facts)
        return all(
            each.verdict is Verdict.ALLOW and each.reason is not Reason.LOCAL for each in decisions
        )

    def _keep(
        self,
        flow: Flow,
        question: Question,
        answer: Answer,
        judged: tuple[Address, ...] | None,
    ) -> None:
        now, generation = self._now(), self._authorizer.generation
        key, is_whole = _key(question), judged is not None
        if judged == answer.addresses:
            judged = answer.addresses  # kept once
        self._pins.pin(key, answer, now, generation, flow.id, is_whole=is_whole)
        self._caches.put(key, answer, now, generation, flow.id, judged)


def _question_octets(name: DomainName) -> int:
    # RFC 1035, section 4.1.2: a length for each dot, one for the first label, and the root's.
    return (1 if name == ROOT else len(name) + 2) + _TYPE_AND_CLASS_OCTETS


def _key(question: Question) -> Key:
    return question.principal.app, question.name, question.rtype


def _detail(walked: Walked) -> dict[str, object]:
    detail: dict[str, object] = {}
    if walked.chain:
        detail["chain"] = walked.chain
    if walked.answer is not None and walked.answer.addresses:
        detail["addresses"] = [str(address) for address in walked.answer.addresses]
    if walked.dropped:
        detail["dropped"] = [f"{what} {reason}" for what, reason in walked.dropped]
    return detail
