"""Look-ups under the eyes of the tunnel detector: what leaves, what is refused, what costs nothing.

Real queries go to a resolver that records what arrives.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import override

import dns.message
import dns.rrset
import msgspec
from msgspec import Struct

from proxy.authorize import Authorizer
from proxy.detection.live import FILE_NAME, Ground, LiveDetection
from proxy.egress.refusal import Answer as Refused
from proxy.egress.refusal import refuse
from proxy.flow import Flow, Plane
from proxy.held import Held
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.watching import Unwatched
from rules.decision import Reason, Verdict
from rules.facts import Connect, Question
from rules.match import index_rules
from rules.name import DomainName, parse
from rules.rtype import AAAA, TXT, A
from rules.ruleset import App, Ruleset
from rules.watch import Detect, Mode
from tests.proxy.composed import ME, Composed, allow, below, composed, exact, ruleset
from tests.proxy.detection.stand import SUFFIX, payload, suffixes
from tests.proxy.resolver.hostile import DatagramScript, Hostile, answer, hostile

PUBLIC = "93.184.215.14"
LIMIT = 512


def public(query: bytes) -> Iterable[bytes]:
    return (answer(query, PUBLIC),)


def text(query: bytes) -> Iterable[bytes]:
    """Answer 200 octets that nobody has sent before."""
    message = dns.message.make_response(dns.message.from_wire(query))
    record = f'"{os.urandom(100).hex()}"'
    message.answer.append(dns.rrset.from_text(message.question[0].name, 60, "IN", "TXT", record))
    return (message.to_wire(),)


def aliased(query: bytes) -> Iterable[bytes]:
    message = dns.message.make_response(dns.message.from_wire(query))
    owner = message.question[0].name
    message.answer.append(dns.rrset.from_text(owner, 60, "IN", "CNAME", "t.tracker-x.com."))
    message.answer.append(dns.rrset.from_text("t.tracker-x.com.", 60, "IN", "A", PUBLIC))
    return (message.to_wire(),)


class Scene(Struct):
    parts: Composed
    peer: Hostile
    detection: LiveDetection
    held: Held

    async def ask(self, name: DomainName, rtype: int = A) -> Reason:
        flow, question = Flow("1", ME, Plane.DNS), Question(ME, name, rtype)
        decision = self.parts.authorizer.authorize(flow, question)
        if decision.verdict is not Verdict.ALLOW:
            return decision.reason
        lookup = self.parts.lookup
        found = lookup.cached(flow, question, decision)
        found = found or await lookup.find(flow, question, decision)
        return found.decision.reason

    def left(self) -> list[str]:
        """Return the names that left, without their suffix."""
        names = (dns.message.from_wire(each).question[0].name for each in self.peer.queries)
        texts = (each.to_text(omit_final_dot=True).lower() for each in names)
        return [each.removesuffix(f".{SUFFIX}") for each in texts]


@asynccontextmanager
async def scene(
    folder: Path, script: DatagramScript = public, *, detect: Detect | None = None
) -> AsyncIterator[Scene]:
    rule = msgspec.structs.replace(
        allow(below("leaky.com"), below("spread.com"), exact("named.com")),
        types=frozenset({A, AAAA, TXT}),
    )
    app = App("me", allows=(rule,), detect=detect or Detect())
    held, made = Held(), []

    def watching(authorizer: Authorizer) -> LiveDetection:
        ground = Ground(
            limits=Limits(), metrics=Metrics(), suffixes=suffixes(), held=held,
            still=authorizer.still, tell=lambda _: "0" * 32,
        )  # fmt: skip
        made.append(LiveDetection(folder / FILE_NAME, ground, time.time))

        def restate() -> None:
            authorizer.use(index_rules(ruleset(authorizer.generation + 1, me=app)))

        made[0].on_held(restate)
        return made[0]

    async with (
        hostile(script) as peer,
        composed(ruleset(me=app), peer.url("udp"), folder, held=held, watching=watching) as parts,
    ):
        await made[0].open()
        try:
            yield Scene(parts, peer, made[0], held)
        finally:
            await made[0].close()


async def test_a_tunnel_is_shut_before_the_octets_over_the_limit_leave(tmp_path: Path) -> None:
    """threats.md, DNS tunnels: what leaked is counted before a query is forwarded."""
    async with scene(tmp_path) as world:
        reasons = [await world.ask(name) for name in islice(payload(), 40)]
        first = reasons.index(Reason.TUNNEL_DETECTED)
        assert {*reasons[:first]} == {Reason.RULE}
        assert {*reasons[first:]} == {Reason.TUNNEL_DETECTED}
        assert len(world.peer.queries) == first
        assert sum(map(len, world.left())) <= LIMIT
        lines = await world.parts.lines()
    refusal = next(each for each in lines if each["verdict"] == "deny")
    assert (refusal["reason"], refusal["rule"]) == ("tunnel-detected", "tunnel:names:2m")


async def test_the_proxys_own_look_ups_are_counted_as_well(tmp_path: Path) -> None:
    """threats.md, DNS tunnels: both planes pass one count."""
    async with scene(tmp_path) as world:
        flow, failures = Flow("1", ME, Plane.HTTP), []
        for name in islice(payload(), 40):
            found = await world.parts.lookup.resolve(flow, name, frozenset({A}))
            failures.append(found.failure)
        assert failures[0] is None
        assert failures[-1] is not None
        assert failures[-1].reason is Reason.TUNNEL_DETECTED
        assert sum(map(len, world.left())) <= LIMIT
        connect = Connect(ME, parse("x.leaky.com"), 443)
        assert world.parts.authorizer.still(connect).reason is Reason.TUNNEL_DETECTED


async def test_a_budget_that_is_used_up_says_when_to_come_back(tmp_path: Path) -> None:
    async with scene(tmp_path) as world:
        for name in islice(payload(), 40):
            await world.ask(name)
        asked = len(world.peer.queries)
        name = next(payload("spread.com"))
        found = await world.parts.lookup.resolve(Flow("1", ME, Plane.HTTP), name, frozenset({A}))
        assert found.failure is not None
        assert found.failure.reason is Reason.BUDGET
        assert len(world.peer.queries) == asked
        assert [*world.held.of("me")] == [SUFFIX]  # a budget holds nothing: it comes back
    said = refuse(found.failure, "0" * 32, "me", f"{name}:443", Refused())
    assert said.startswith(b"HTTP/1.1 429 sallyport budget ")
    assert b"\r\nRetry-After: 60\r\n" in said


async def test_what_the_cache_answers_costs_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as world:
        for _ in range(50):
            assert await world.ask(parse("www.leaky.com")) is Reason.RULE
        view = await world.detection.show("me", SUFFIX)
        assert view is not None
        assert (view.queries, view.names, len(world.peer.queries)) == (1, 1, 1)


async def test_a_question_that_is_asked_twice_at_once_is_counted_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as world:
        name = parse("www.leaky.com")
        assert await asyncio.gather(*(world.ask(name) for _ in range(5))) == [Reason.RULE] * 5
        view = await world.detection.show("me", SUFFIX)
        assert view is not None
        assert view.queries == 1


async def test_a_name_that_the_rules_name_costs_no_octets(tmp_path: Path) -> None:
    async with scene(tmp_path) as world:
        assert await world.ask(parse("named.com")) is Reason.RULE
        view = await world.detection.show("me", parse("named.com"))
        assert view is None or not any(view.octets.values())


async def test_whoever_asks_at_once_gets_the_same_refusal_after_the_write(tmp_path: Path) -> None:
    async with scene(tmp_path) as world:
        reasons = await asyncio.gather(*(world.ask(name) for name in islice(payload(), 40)))
        assert {*reasons} == {Reason.RULE, Reason.TUNNEL_DETECTED}
        assert sum(map(len, world.left())) <= LIMIT
        assert [*world.held.of("me")] == [SUFFIX]


async def test_what_comes_back_in_answers_is_counted_too(tmp_path: Path) -> None:
    """threats.md, DNS tunnels: the answer direction has a budget of its own."""
    async with scene(tmp_path, text) as world:
        names = [parse(f"{each}.leaky.com") for each in "abcdefghijklmnopqrstuvwxyz"]
        reasons = [await world.ask(name, TXT) for name in (*names, *names, *names)]
        # The same names again are answered by the cache; other types' names are few.
        assert reasons[0] is Reason.RULE
        reasons += [await world.ask(parse(f"{at}.leaky.com"), TXT) for at in range(30)]
        assert reasons[-1] is Reason.TUNNEL_DETECTED
        view = await world.detection.show("me", SUFFIX)
        assert view is not None
        assert (view.state, view.rule) == ("held", "tunnel:answers:2m")


async def test_an_alias_into_another_domain_is_refused_where_the_app_says_so(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, aliased, detect=Detect(cloaking=Mode.BLOCK)) as world:
        assert await world.ask(parse("m.leaky.com")) is Reason.TUNNEL_DETECTED
        assert not world.held
    async with scene(tmp_path / "b", aliased) as world:
        assert await world.ask(parse("m.leaky.com")) is Reason.RULE


async def test_where_detection_is_off_everything_goes(tmp_path: Path) -> None:
    async with scene(tmp_path, detect=Detect(mode=Mode.OFF)) as world:
        reasons = {await world.ask(name) for name in islice(payload(), 60)}
        assert reasons == {Reason.RULE}
    assert not (tmp_path / FILE_NAME).exists()


class Restating(Unwatched):
    """Lets everything go, and has the rules put into force anew once while it looks."""

    def __init__(self, authorizer: Authorizer, rules: Ruleset) -> None:
        self._authorizer = authorizer
        self._rules: Ruleset | None = rules

    @override
    async def admit(self, *_: object) -> None:
        if self._rules is not None:
            rules, self._rules = self._rules, None
            self._authorizer.use(index_rules(rules))


async def test_what_is_forbidden_while_the_detector_looks_never_leaves(tmp_path: Path) -> None:
    """threats.md, Order of checks: a flow decided under generation N that registers after N+1."""
    before = ruleset(me=App("me", allows=(allow(below("leaky.com")),)))
    after = ruleset(2, me=App("me"))

    def watching(authorizer: Authorizer) -> Restating:
        return Restating(authorizer, after)

    async with (
        hostile(public) as peer,
        composed(before, peer.url("udp"), tmp_path, watching=watching) as parts,
    ):
        flow, question = Flow("1", ME, Plane.DNS), Question(ME, parse("www.leaky.com"), A)
        decision = parts.authorizer.authorize(flow, question)
        found = await parts.lookup.find(flow, question, decision)
        assert found.decision.reason is Reason.HOST_NOT_LISTED
        assert peer.queries == []
