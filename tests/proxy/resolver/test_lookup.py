"""Look-ups: per-app caches and coalescing, pins, and a generation that moves under way."""

import asyncio
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

import dns.message
import dns.rrset
import msgspec

from proxy.flow import Flow, Plane
from proxy.limits import Limits
from rules.address import parse_network
from rules.decision import Reason, Verdict
from rules.facts import Evidence, Principal, Question
from rules.match import index_rules
from rules.name import DomainName, parse
from rules.rtype import AAAA, A
from rules.ruleset import App, DenyRule, Requirements
from tests.proxy.composed import ME, OTHER, OWN_ADDRESS, Composed, allow, composed, exact, ruleset
from tests.proxy.resolver.hostile import Conversation, StreamScript, answer, hostile, nothing

PUBLIC, ELSEWHERE = "93.184.215.14", "23.215.0.136"
NAME = parse("example.com")
ALLOWED = App("me", allows=(allow(exact("example.com")),))
RULES = ruleset(me=ALLOWED, other=ALLOWED)
BOTH = frozenset({A, AAAA})


def public(query: bytes) -> Iterable[bytes]:
    return (answer(query, PUBLIC),)


def crafted(query: bytes, *records: str) -> bytes:
    """Return an answer of these records, each at the end of the chain so far."""
    message = dns.message.make_response(dns.message.from_wire(query))
    owner = message.question[0].name.to_text()
    for record in records:
        rtype, _, rdata = record.partition(" ")
        message.answer.append(dns.rrset.from_text(owner, 60, "IN", rtype, rdata))
        owner = rdata if rtype == "CNAME" else owner
    return message.to_wire()


def flow(unique: str = "1", principal: Principal = ME) -> Flow:
    return Flow(unique, principal, Plane.DNS)


def held(release: asyncio.Event) -> StreamScript:
    """Answer one query, and that only once `release` is set."""

    async def slowly(talk: Conversation) -> None:
        query = await talk.query()
        await release.wait()
        await talk.send(answer(query, PUBLIC))

    return slowly


async def find(parts: Composed, errand: Flow, name: DomainName = NAME) -> Reason:
    question = Question(errand.principal, name, A)
    decision = parts.authorizer.authorize(errand, question)
    return (await parts.lookup.find(errand, question, decision)).decision.reason


async def test_the_proxy_dials_what_dns_was_answered_with(tmp_path: Path) -> None:
    """threats.md, Between name and address: first answer public, second private."""
    answers = iter([PUBLIC, "10.0.0.1"])

    def rebinding(query: bytes) -> Iterable[bytes]:
        return (answer(query, next(answers)),)

    async with hostile(rebinding) as peer, composed(RULES, peer.url("udp"), tmp_path) as parts:
        await find(parts, flow("first"))
        resolution = await parts.lookup.resolve(flow("second"), NAME, frozenset({A}))
        asked = len(peer.queries)
    assert asked == 1
    assert resolution.addresses == (ip_address(PUBLIC),)
    assert resolution.flow == "first"  # answer, pin and connection are one errand


async def test_what_another_app_was_answered_is_asked_again(tmp_path: Path) -> None:
    async with hostile(public) as peer, composed(RULES, peer.url("udp"), tmp_path) as parts:
        await find(parts, flow())
        await parts.lookup.resolve(flow("2", OTHER), NAME, frozenset({A}))
        assert len(peer.queries) == 2


async def test_equal_questions_of_an_app_are_asked_once(tmp_path: Path) -> None:
    release = asyncio.Event()
    async with (
        hostile(nothing, held(release)) as peer,
        composed(RULES, peer.url("tcp"), tmp_path) as parts,
    ):
        waiting = [asyncio.create_task(find(parts, flow(str(each)))) for each in range(5)]
        await peer.until(lambda it: len(it.queries) == 1)
        release.set()
        assert await asyncio.gather(*waiting) == [Reason.RULE] * 5
        assert len(peer.queries) == 1


async def test_every_question_that_was_asked_together_stands_in_audit(tmp_path: Path) -> None:
    """design.md, "Evidence": what folds into one line is counted."""
    release = asyncio.Event()
    async with (
        hostile(nothing, held(release)) as peer,
        composed(RULES, peer.url("tcp"), tmp_path) as parts,
    ):
        errands = [flow(str(each)) for each in range(5)]
        waiting = [asyncio.create_task(find(parts, each)) for each in errands]
        await peer.until(lambda it: len(it.queries) == 1)
        release.set()
        await asyncio.gather(*waiting)
        lines = await parts.lines()
    assert [(line["reason"], line["count"], line["flow"]) for line in lines] == [("rule", 5, "0")]
    assert {errand.id for errand in errands} == {"0"}


async def test_a_waiter_that_gives_up_ends_nobody_elses_look_up(tmp_path: Path) -> None:
    release = asyncio.Event()
    async with (
        hostile(nothing, held(release)) as peer,
        composed(RULES, peer.url("tcp"), tmp_path) as parts,
    ):
        first, second = (asyncio.create_task(find(parts, flow(each))) for each in "ab")
        await peer.until(lambda it: len(it.queries) == 1)
        first.cancel()
        release.set()
        assert await second is Reason.RULE


async def test_rules_that_change_while_upstream_thinks_are_asked_again(tmp_path: Path) -> None:
    """threats.md, Order of checks: a flow decided under generation N that registers after N+1."""
    release = asyncio.Event()
    async with (
        hostile(nothing, held(release)) as peer,
        composed(RULES, peer.url("tcp"), tmp_path) as parts,
    ):
        found = asyncio.create_task(find(parts, flow()))
        await peer.until(lambda it: len(it.queries) == 1)
        parts.authorizer.use(index_rules(ruleset(2, me=App("me"))))
        release.set()
        assert await found is Reason.HOST_NOT_LISTED
        assert [line["count"] for line in await parts.lines()] == [1]


async def test_the_proxy_dials_by_one_generation_alone(tmp_path: Path) -> None:
    release = asyncio.Event()
    async with (
        hostile(nothing, held(release)) as peer,
        composed(RULES, peer.url("tcp"), tmp_path) as parts,
    ):
        resolving = asyncio.create_task(parts.lookup.resolve(flow(), NAME, frozenset({A})))
        await peer.until(lambda it: len(it.queries) == 1)
        parts.authorizer.use(index_rules(ruleset(2, me=ALLOWED)))
        release.set()
        resolution = await resolving
        assert len(peer.queries) == 1
    assert (resolution.generation, resolution.addresses) == (2, (ip_address(PUBLIC),))


async def test_a_pin_that_new_rules_decide_alike_stays(tmp_path: Path) -> None:
    """threats.md, Order of checks: a cache flush per file touch as a herd."""
    async with hostile(public) as peer, composed(RULES, peer.url("udp"), tmp_path) as parts:
        await find(parts, flow("first"))
        parts.authorizer.use(index_rules(ruleset(2, me=ALLOWED)))
        resolution = await parts.lookup.resolve(flow(), NAME, frozenset({A}))
        assert len(peer.queries) == 1
    assert (resolution.generation, resolution.flow) == (2, "first")
    assert resolution.addresses == (ip_address(PUBLIC),)
    assert parts.metrics.pins.value("renewed") == 1


async def test_a_pin_to_an_address_that_new_rules_deny_is_not_dialled(tmp_path: Path) -> None:
    """threats.md, Order of checks: reload half applied."""
    denied = (DenyRule("denied", None, addresses=(parse_network(f"{PUBLIC}/32"),)),)
    async with hostile(public) as peer, composed(RULES, peer.url("udp"), tmp_path) as parts:
        await find(parts, flow())
        harder = App("me", allows=ALLOWED.allows, denies=denied)
        parts.authorizer.use(index_rules(ruleset(2, me=harder)))
        resolution = await parts.lookup.resolve(flow(), NAME, frozenset({A}))
    assert resolution.addresses == ()
    assert resolution.failure is not None
    assert resolution.failure.reason is Reason.ADDRESS_NOT_ALLOWED


async def test_an_answer_that_new_rules_decide_alike_is_not_asked_for_again(
    tmp_path: Path,
) -> None:
    async with hostile(public) as peer, composed(RULES, peer.url("udp"), tmp_path) as parts:
        await find(parts, flow("first"))
        parts.authorizer.use(index_rules(ruleset(2, me=ALLOWED)))
        question = Question(ME, NAME, A)
        decision = parts.authorizer.authorize(flow(), question)
        found = parts.lookup.cached(flow(), question, decision)
        again = parts.lookup.cached(flow(), question, decision)
        assert len(peer.queries) == 1
    assert found is not None
    assert again is not None
    assert parts.metrics.cache.value("renewed") == 1


async def test_an_answer_through_a_name_that_new_rules_deny_is_forgotten(tmp_path: Path) -> None:
    def chained(query: bytes) -> Iterable[bytes]:
        return (crafted(query, "CNAME cdn.example.net.", f"A {PUBLIC}"),)

    denied = (DenyRule("denied", (exact("cdn.example.net"),)),)
    async with hostile(chained) as peer, composed(RULES, peer.url("udp"), tmp_path) as parts:
        assert await find(parts, flow()) is Reason.RULE
        for _ in ("cached", "pinned"):
            resolution = await parts.lookup.resolve(flow(), NAME, frozenset({A}))
            assert resolution.chain == (parse("cdn.example.net"),)
        harder = App("me", allows=ALLOWED.allows, denies=denied)
        parts.authorizer.use(index_rules(ruleset(2, me=harder)))
        question = Question(ME, NAME, A)
        decision = parts.authorizer.authorize(flow(), question)
        assert decision.verdict is Verdict.ALLOW
        assert parts.lookup.cached(flow(), question, decision) is None
        assert await find(parts, flow()) is Reason.RULE


async def test_an_answer_that_something_was_taken_out_of_is_asked_for_again(
    tmp_path: Path,
) -> None:
    """New rules may allow what was taken out."""

    def mixed(query: bytes) -> Iterable[bytes]:
        return (crafted(query, f"A {PUBLIC}", "A 10.0.0.1"),)

    async with hostile(mixed) as peer, composed(RULES, peer.url("udp"), tmp_path) as parts:
        await find(parts, flow())
        inner = allow(exact("example.com"))
        inner = msgspec.structs.replace(inner, addresses=(parse_network("10.0.0.0/8"),))
        parts.authorizer.use(index_rules(ruleset(2, me=App("me", allows=(inner,)))))
        resolution = await parts.lookup.resolve(flow(), NAME, frozenset({A}))
        assert len(peer.queries) == 2
    assert {str(each) for each in resolution.addresses} == {PUBLIC, "10.0.0.1"}


async def test_every_waiter_is_answered_by_the_rules_of_its_reply(tmp_path: Path) -> None:
    """threats.md, Order of checks: a flow decided under generation N that registers after N+1.

    One of two waiters proves what the new rules require; it was the one that asked upstream.
    """
    release = asyncio.Event()
    proven = Principal("me", (Evidence.CERTIFICATE,))
    strict = App("me", allows=ALLOWED.allows, require=Requirements(mtls=True))
    async with (
        hostile(nothing, held(release)) as peer,
        composed(RULES, peer.url("tcp"), tmp_path) as parts,
    ):
        waiting = [
            asyncio.create_task(find(parts, flow("1", proven))),
            asyncio.create_task(find(parts, flow("2", ME))),
        ]
        await peer.until(lambda it: len(it.queries) == 1)
        parts.authorizer.use(index_rules(ruleset(2, me=strict)))
        release.set()
        assert await asyncio.gather(*waiting) == [Reason.RULE, Reason.MTLS_REQUIRED]
        assert len(peer.queries) == 1


async def test_no_address_of_either_family_is_said_so(tmp_path: Path) -> None:
    def empty(query: bytes) -> Iterable[bytes]:
        return (answer(query, rcode=3),)

    async with hostile(empty) as peer, composed(RULES, peer.url("udp"), tmp_path) as parts:
        resolution = await parts.lookup.resolve(flow(), NAME, BOTH)
    assert resolution.addresses == ()
    assert resolution.failure is not None
    assert resolution.failure.reason is Reason.NO_ADDRESS
    assert resolution.failure.verdict is Verdict.FAIL


async def test_an_address_that_is_refused_outweighs_one_that_failed(tmp_path: Path) -> None:
    def inward(query: bytes) -> Iterable[bytes]:
        return (answer(query, "127.0.0.1"),)

    async with hostile(inward) as peer, composed(RULES, peer.url("udp"), tmp_path) as parts:
        resolution = await parts.lookup.resolve(flow(), NAME, frozenset({A}))
    assert resolution.failure is not None
    assert resolution.failure.reason is Reason.ADDRESS_NOT_ALLOWED


async def test_an_address_of_this_hosts_own_interfaces_is_refused(tmp_path: Path) -> None:
    """threats.md, Between name and address: own listeners and own interface addresses."""

    def homeward(query: bytes) -> Iterable[bytes]:
        return (answer(query, OWN_ADDRESS),)

    async with hostile(homeward) as peer, composed(RULES, peer.url("udp"), tmp_path) as parts:
        resolution = await parts.lookup.resolve(flow(), NAME, frozenset({A}))
    assert resolution.failure is not None
    assert resolution.failure.reason is Reason.ADDRESS_NOT_ALLOWED


async def test_the_proxys_own_look_up_obeys_deny_rules(tmp_path: Path) -> None:
    rules = ruleset(me=App("me"))
    async with hostile(public) as peer, composed(rules, peer.url("udp"), tmp_path) as parts:
        resolution = await parts.lookup.resolve(flow(), parse("localhost"), frozenset({A}))
        assert peer.queries == []
    assert resolution.failure is not None
    assert resolution.failure.reason is Reason.SPECIAL_USE


async def test_a_dead_upstream_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    limits = Limits(upstream_timeout_s=0.2, upstream_try_s=0.2)
    async with hostile() as peer, composed(RULES, peer.url("udp"), tmp_path, limits) as parts:
        resolution = await parts.lookup.resolve(flow(), NAME, frozenset({A}))
    assert resolution.failure is not None
    assert resolution.failure.reason is Reason.UPSTREAM_TIMEOUT


async def test_slow_names_of_one_app_leave_room_for_the_look_ups_of_another(
    tmp_path: Path,
) -> None:
    """threats.md, Parser, transport, cache: exhaustion by one asker."""
    hosts = [parse(f"slow{number}.example") for number in range(4)]
    greedy = App("me", allows=(allow(*(exact(host) for host in hosts)),))
    rules, limits = ruleset(me=greedy, other=ALLOWED), Limits(upstream_in_flight=6)

    def slow(query: bytes) -> Iterable[bytes]:
        return () if b"slow" in query.lower() else (answer(query, PUBLIC),)

    async with hostile(slow) as peer, composed(rules, peer.url("udp"), tmp_path, limits) as parts:
        silent = [asyncio.create_task(find(parts, flow(), host)) for host in hosts[:3]]
        await asyncio.sleep(0)  # they are under way now
        beyond = await find(parts, flow(), hosts[3])
        others = await find(parts, flow("2", OTHER))
        for task in silent:
            task.cancel()
    assert (beyond, others) == (Reason.CAPACITY, Reason.RULE)
    assert parts.metrics.bounds.value("upstream_in_flight") == 1
