"""Split horizon: a zone's names go to its upstreams alone, and nothing else goes there."""

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from proxy.audit import Audit, AuditSettings
from proxy.authorize import Authorizer
from proxy.errors import UpstreamError
from proxy.flow import Flow, Plane
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.refusals import Refusals
from proxy.resolver.breaker import BreakerState
from proxy.resolver.lookup import Found, Lookup
from proxy.resolver.upstream_url import parse_groups, parse_zones
from proxy.resolver.zones import DOH_ALPN, ZonedUpstreams, zoned_upstreams
from proxy.transport.own import OwnSockets
from proxy.transport.tls import DOT_ALPN, upstream_context
from proxy.wire.question import read_question
from rules.address import Address, parse_address
from rules.decision import Reason, Verdict
from rules.facts import Question
from rules.match import index_rules
from rules.name import from_labels, parse
from rules.rtype import PTR, A
from rules.ruleset import AllowRule, App
from rules.zones import with_zones
from tests.proxy.composed import ME, OWN_ADDRESS, allow, below, exact, ruleset
from tests.proxy.resolver.asking import address_in
from tests.proxy.resolver.hostile import DatagramScript, Hostile, answer, hostile, nothing, right

PATIENT = Limits(upstream_timeout_s=20.0, upstream_try_s=20.0, upstream_hedge_s=20.0)
HASTY = Limits(
    upstream_timeout_s=0.4,
    upstream_try_s=0.05,
    upstream_hedge_s=0.01,
    upstream_failures=1,
    upstream_open_s=0.001,
    upstream_open_most_s=0.001,
)
CORP, LAB, REVERSE = "corp.example", "lab.corp.example", "2.10.in-addr.arpa"


def names(peer: Hostile) -> set[str]:
    """Return the names that a peer was asked for."""
    return {from_labels(read_question(query).labels) for query in peer.queries}


def nobody(_address: Address, _port: int) -> bool:
    return False


@asynccontextmanager
async def zoned(
    others: Hostile, limits: Limits = PATIENT, **by_zone: list[str] | list[list[str]]
) -> AsyncIterator[ZonedUpstreams]:
    """Ask `others` for all names but those of zones, written with _ for a dot."""
    zones = {zone.replace("_", "."): texts for zone, texts in by_zone.items()}
    upstreams = zoned_upstreams(
        parse_groups([others.url("udp")]),
        parse_zones(zones),
        limits,
        Metrics(),
        make_context=lambda alpn: upstream_context(None, alpn),
        is_own=nobody,
    )
    try:
        yield upstreams
    finally:
        await upstreams.close()


async def test_the_longest_suffix_says_who_is_asked() -> None:
    async with (
        hostile(right) as others,
        hostile(right) as corp,
        hostile(right) as lab,
        zoned(
            others, corp_example=[corp.url("udp")], lab_corp_example=[lab.url("udp")]
        ) as upstreams,
    ):
        for name in ("corp.example", "db.corp.example", "x.lab.corp.example", "evilcorp.example"):
            await upstreams.ask(parse(name), A)
        assert [(each.zone, each.state) for each in upstreams.status()] == [
            ("", BreakerState.CLOSED),
            (CORP, BreakerState.CLOSED),
            (LAB, BreakerState.CLOSED),
        ]
        assert len(upstreams.addresses) == 3
    assert names(corp) == {CORP, "db.corp.example"}
    assert names(lab) == {"x.lab.corp.example"}
    assert names(others) == {"evilcorp.example"}


@pytest.mark.parametrize("rcode", [None, 2, 3, 5])
async def test_no_name_changes_sides_by_failover_hedging_retry_or_trial(rcode: int | None) -> None:
    """Closes "Forwarding a denied name at all" for names of another horizon.

    The zone's upstreams are silent, or refuse; hedges, tries and trials come every few
    milliseconds, and names of both sides are asked at once.
    """

    def script(query: bytes) -> Iterable[bytes]:
        return () if rcode is None else (answer(query, rcode=rcode),)

    inner = [parse(f"n{number}.corp.example") for number in range(20)]
    outer = [parse(f"n{number}.example.net") for number in range(20)]
    async with hostile(script) as corp, hostile(script) as spare, hostile(script) as others:
        groups = [[corp.url("udp"), corp.url("tcp")], [spare.url("udp")]]
        async with zoned(others, HASTY, corp_example=groups) as upstreams:
            for _ in range(3):
                asked = (
                    upstreams.ask(name, A)
                    for pair in zip(inner, outer, strict=True)
                    for name in pair
                )
                await asyncio.gather(*asked, return_exceptions=True)
    assert names(others) == set(outer)
    assert names(corp) | names(spare) == set(inner)


async def test_a_dead_zone_is_unreachable_though_others_answer() -> None:
    async with hostile(nothing) as closed:
        dead = closed.url("tcp")
    async with hostile(right) as others, zoned(others, HASTY, corp_example=[dead]) as upstreams:
        with pytest.raises(UpstreamError) as caught:
            await upstreams.ask(parse("db.corp.example"), A)
        assert address_in(await upstreams.ask(parse("example.net"), A))
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
    assert names(others) == {"example.net"}


def test_a_context_for_https_is_made_only_where_it_is_wanted() -> None:
    made: list[tuple[str, ...]] = []

    def make(alpn: tuple[str, ...]) -> ssl.SSLContext:
        made.append(alpn)
        return upstream_context(None, alpn)

    for zones in ({}, {CORP: ["https://192.0.2.1/dns-query"]}):
        zoned_upstreams(
            parse_groups(["udp://192.0.2.1"]), parse_zones(zones), PATIENT, Metrics(),
            make_context=make, is_own=nobody,
        )  # fmt: skip
    assert made == [DOT_ALPN, DOT_ALPN, DOH_ALPN]


# With rules, from the question to addresses that may be dialled


RULES = ruleset(
    me=App(
        "me",
        allows=(
            allow(below(CORP), below("example.net"), exact("db.corp.internal")),
            AllowRule("ptr", (below(REVERSE),), frozenset(), frozenset({PTR})),
        ),
    )
)


def at(address: str) -> DatagramScript:
    return lambda query: (answer(query, address),)


@asynccontextmanager
async def looking_up(upstreams: ZonedUpstreams, folder: Path) -> AsyncIterator[Lookup]:
    metrics = Metrics()
    audit = Audit(
        AuditSettings(str(folder / "audit.jsonl")), PATIENT, metrics, time.time, os.urandom
    )
    audit.start()
    index = with_zones(index_rules(RULES), upstreams.zones)
    authorizer = Authorizer(index, audit, Refusals(PATIENT, metrics), metrics)
    own = OwnSockets(set(), {parse_address(OWN_ADDRESS), parse_address("10.0.0.99")})
    clock = asyncio.get_running_loop().time
    try:
        yield Lookup(authorizer, upstreams, own, PATIENT, metrics, clock)
    finally:
        await audit.close()


async def found(lookup: Lookup, name: str, rtype: int = A) -> Found:
    flow = Flow("1", ME, Plane.DNS)
    question = Question(ME, parse(name), rtype)
    decision = lookup._authorizer.authorize(flow, question)
    if decision.verdict is not Verdict.ALLOW or decision.reason is Reason.LOCAL:
        return Found(decision, "")
    return await lookup.find(flow, question, decision)


async def test_private_answers_come_through_for_a_zone_on_both_planes(tmp_path: Path) -> None:
    async with (
        hostile(at("10.0.0.7")) as others,
        hostile(at("10.0.0.7")) as corp,
        zoned(others, corp_example=[corp.url("udp")], corp_internal=[corp.url("udp")]) as upstreams,
        looking_up(upstreams, tmp_path) as lookup,
    ):
        for name in ("db.corp.example", "db.corp.internal"):
            dns = await found(lookup, name)
            assert dns.answer is not None
            dialled = await lookup.resolve(Flow("2", ME, Plane.HTTP), parse(name), frozenset({A}))
            assert dns.answer.addresses == dialled.addresses == (ip_address("10.0.0.7"),)
        outside = await found(lookup, "www.example.net")
    assert outside.decision.reason is Reason.ADDRESS_NOT_ALLOWED
    assert names(others) == {"www.example.net"}


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "100.100.100.200", "10.0.0.99", "0.0.0.0"]
)
async def test_a_zone_hands_out_neither_loopback_nor_metadata_nor_this_host(
    tmp_path: Path, address: str
) -> None:
    """Closes "metadata" and "own interface addresses" for zones."""
    async with (
        hostile(right) as others,
        hostile(at(address)) as corp,
        zoned(others, corp_example=[corp.url("udp")]) as upstreams,
        looking_up(upstreams, tmp_path) as lookup,
    ):
        refused = await found(lookup, "db.corp.example")
    assert refused.decision.reason is Reason.ADDRESS_NOT_ALLOWED


async def test_what_is_not_allowed_leaves_for_no_horizon(tmp_path: Path) -> None:
    """Closes "Forwarding a denied name at all (OpenShell #1169)" for zones."""
    async with (
        hostile(right) as others,
        hostile(right) as corp,
        zoned(others, corp_internal=[corp.url("udp")], internal=[corp.url("udp")]) as upstreams,
        looking_up(upstreams, tmp_path) as lookup,
    ):
        denied = await found(lookup, "secret.corp.internal")
        ours = await found(lookup, "x._why.sallyport.internal")
        localhost = await found(lookup, "localhost")
    assert denied.decision.reason is Reason.HOST_NOT_LISTED
    assert {ours.decision.reason, localhost.decision.reason} == {Reason.LOCAL}
    assert others.queries == corp.queries == []


async def test_reverse_zones_are_asked_of_their_upstreams(tmp_path: Path) -> None:
    """Closes "PTR and ip6.arpa nibbles": only what an allow names, and only of its zone."""
    zone = "2.10.in-addr.arpa"
    async with hostile(right) as others, hostile(right) as corp:
        upstreams = zoned_upstreams(
            parse_groups([others.url("udp")]),
            parse_zones({zone: [corp.url("udp")]}),
            PATIENT,
            Metrics(),
            make_context=lambda alpn: upstream_context(None, alpn),
            is_own=nobody,
        )
        async with looking_up(upstreams, tmp_path) as lookup:
            await found(lookup, f"9.8.{zone}", PTR)
            local = await found(lookup, "9.8.3.10.in-addr.arpa", PTR)
        await upstreams.close()
    assert names(corp) == {f"9.8.{zone}"}
    assert local.decision.reason is Reason.LOCAL
    assert others.queries == []


async def test_the_target_of_an_alias_is_asked_of_nobody(tmp_path: Path) -> None:
    """An answer brings its chain: a name of the zone in it goes to no one, nor the other way."""

    def alias(query: bytes) -> Iterable[bytes]:
        inner, outer = b"\x02db\x04corp\x07example\0", b"\x03www\x07example\x03net\0"
        target = outer if b"corp" in query.lower() else inner
        record = b"\xc0\x0c\0\5\0\1\0\0\0\x3c" + len(target).to_bytes(2) + target
        whole = answer(query, rcode=0)
        end = read_question(query).end
        return (whole[:6] + b"\0\1" + bytes(4) + whole[12:end] + record,)

    async with (
        hostile(alias) as others,
        hostile(alias) as corp,
        zoned(others, corp_example=[corp.url("udp")]) as upstreams,
        looking_up(upstreams, tmp_path) as lookup,
    ):
        for name in ("a.corp.example", "a.example.net"):
            assert (await found(lookup, name)).answer is not None
    assert names(corp) == {"a.corp.example"}
    assert names(others) == {"a.example.net"}
