"""Refusals that are worded by our own address, by silence, or by the records of a deny list."""

import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from proxy.config_sinkhole import SinkholeSettings
from proxy.identify import UNKNOWN, Identifier
from proxy.limits import Limits
from proxy.metrics import DnsTransport
from proxy.resolver.query import Asker, Miss, Resolver
from proxy.sinkhole.listen import Sinkhole
from proxy.sinkhole.visits import Desk
from proxy.transport.peer import PeerTable
from rules import rtype as rr
from rules.decision import LocalRecord, Refuse
from rules.listed import NO_LISTS, Listed, Lists
from rules.name import parse
from rules.ruleset import AllowRule, App, DenyRule, Ruleset
from tests.proxy.composed import ME, SUFFIXES, Composed, allow, below, composed, exact, ruleset
from tests.proxy.resolver.hostile import answer, hostile
from tests.rules.naive_lists import NaiveLists

V4 = IPv4Address("127.53.53.53")
NEAR, FAR = "127.0.0.1:5300", "192.0.2.1:53"
NOWHERE = "udp://127.0.0.1:9"
ALIAS = LocalRecord(rr.CNAME, 60, b"\x05other\x07example\0")


class Sunk:
    """A resolver with a sinkhole, and what is asked of it."""

    def __init__(self, parts: Composed, sinkhole: Sinkhole, limits: Limits) -> None:
        self.parts = parts
        self.sinkhole = sinkhole
        self.resolver = Resolver(
            parts.authorizer, parts.lookup, parts.refusals, SUFFIXES, limits, parts.metrics,
            wall=time.time, entropy=os.urandom, sinkhole=sinkhole,
        )  # fmt: skip

    def serve(
        self, wire: bytes, transport: DnsTransport = "udp", listener: str = NEAR
    ) -> bytes | Miss | None:
        room = 1232 if transport == "udp" else 65535
        asker = Asker(ME, transport, room, ("127.0.0.1", 40000), listener)
        return self.resolver.serve(wire, asker)

    async def ask(
        self,
        name: str,
        rtype: str = "A",
        transport: DnsTransport = "udp",
        listener: str = NEAR,
    ) -> dns.message.Message:
        reply = self.serve(query(name, rtype), transport, listener)
        if isinstance(reply, Miss):
            reply = await self.resolver.finish(reply)
        assert reply is not None
        return dns.message.from_wire(reply)

    def repeat(self, wire: bytes, transport: DnsTransport = "udp") -> bytes | None:
        """Return what is said before the resolver is asked."""
        return self.resolver.hits.table(ME, transport).answer(wire, self.resolver.now())

    def told(self, name: str) -> str | None:
        """Return the id of the refusal that who connects for `name` will be told."""
        found = self.sinkhole._names.find("me", parse(name), time.time())
        return None if found is None else found.id


@asynccontextmanager
async def sunk(
    folder: Path,
    app: App,
    *,
    lists: Lists = NO_LISTS,
    upstream: str = NOWHERE,
    listeners: tuple[str, ...] = (NEAR,),
    settings: SinkholeSettings = SinkholeSettings(str(V4)),  # noqa: B008 - a frozen value
    limits: Limits | None = None,
) -> AsyncIterator[Sunk]:
    limits = limits or Limits()
    async with composed(ruleset(me=app), upstream, folder, limits, lists=lists) as parts:
        peers = PeerTable(limits, time.time, lambda _: None)
        identifier = Identifier(Ruleset(1, {}), peers)
        desk = Desk(identifier, parts.audit, limits, parts.metrics, lambda: 1, time.time)
        sinkhole = Sinkhole(settings, listeners, desk, (0, 0))
        sinkhole.bind()
        try:
            yield Sunk(parts, sinkhole, limits)
        finally:
            await sinkhole.close()
            peers.close()


def query(name: str, rtype: str = "A", unique: int = 7) -> bytes:
    message = dns.message.make_query(name, rtype, use_edns=True)
    message.id = unique
    return message.to_wire()


def said(message: dns.message.Message) -> tuple[str, list[str]]:
    texts = [rrset.to_text() for rrset in message.answer]
    return dns.rcode.to_text(message.rcode()), texts


def app(*rules: AllowRule | DenyRule, refuse: Refuse = Refuse.SINKHOLE) -> App:
    return App(
        "me",
        refuse=refuse,
        allows=tuple(each for each in rules if isinstance(each, AllowRule)),
        denies=tuple(each for each in rules if isinstance(each, DenyRule)),
    )


OURS = "5 IN A 127.53.53.53"
DENY = DenyRule("no", (exact("bad.example"),), text="known bad")


async def test_a_denied_name_is_our_address_and_its_refusal_is_remembered(tmp_path: Path) -> None:
    async with sunk(tmp_path, app(DENY)) as it:
        reply = await it.ask("bad.example")
        (line,) = await it.parts.lines()
    assert said(reply) == ("NOERROR", [f"bad.example. {OURS}"])
    assert (line["verdict"], line["reason"], line["rule"]) == ("deny", "rule", "no")
    assert it.told("bad.example") == line["id"]
    assert not reply.flags & dns.flags.AA
    (option,) = reply.options
    assert isinstance(option, dns.edns.EDEOption)
    assert option.text == (
        f"sallyport rule {line['id']} how: known bad;"
        " a deny rule covers it; do not retry, ask the admin"
    )


@pytest.mark.parametrize("rtype", ["AAAA", "TXT", "HTTPS", "MX", "CNAME"])
async def test_a_type_that_the_sinkhole_has_not_is_nodata(tmp_path: Path, rtype: str) -> None:
    async with sunk(tmp_path, app(DENY)) as it:
        reply = await it.ask("bad.example", rtype)
    assert said(reply) == ("NOERROR", [])
    assert reply.authority[0].rdtype == dns.rdatatype.SOA
    assert it.told("bad.example") is None


@pytest.mark.parametrize("rtype", ["A", "AAAA", "TXT"])
async def test_where_nothing_listens_it_is_nxdomain(tmp_path: Path, rtype: str) -> None:
    async with sunk(tmp_path, app(DENY), settings=SinkholeSettings()) as it:
        assert said(await it.ask("bad.example", rtype)) == ("NXDOMAIN", [])
        assert it.told("bad.example") is None


@pytest.mark.parametrize("listener", [FAR, "lease:box:do53"])
async def test_who_cannot_reach_it_is_told_nxdomain(tmp_path: Path, listener: str) -> None:
    async with sunk(tmp_path, app(DENY), listeners=(NEAR, FAR)) as it:
        assert said(await it.ask("bad.example", listener=listener)) == ("NXDOMAIN", [])
        assert said(await it.ask("bad.example"))[0] == "NOERROR"


async def test_what_is_allowed_below_a_denied_name_stays(tmp_path: Path) -> None:
    """RFC 8020: NXDOMAIN would deny the names below; our address denies none of them."""
    rules = app(DenyRule("no", (exact("example.com"),)), allow(exact("api.example.com")))
    async with sunk(tmp_path, rules) as it:
        assert said(await it.ask("example.com")) == ("NOERROR", [f"example.com. {OURS}"])
        it.sinkhole.stop()
        it.resolver.hits.clear()
        assert said(await it.ask("example.com", "AAAA")) == ("NOERROR", [])


async def test_never_draws_clients_away_from_the_family_that_is_allowed(tmp_path: Path) -> None:
    """RFC 8305, section 4: whichever address connects first is used, and ours always does."""
    only_a = DenyRule("no", (exact("example.com"),), types=frozenset({rr.A}))
    async with sunk(tmp_path, app(only_a, allow(exact("example.com")))) as it:
        assert said(await it.ask("example.com")) == ("NOERROR", [])
        assert it.told("example.com") is None


async def test_an_answer_that_is_denied_leaves_the_other_family_alone(tmp_path: Path) -> None:
    """The name is allowed, and its AAAA may be: an address of ours would stand beside them."""
    async with (
        hostile(lambda asked: (answer(asked, "198.51.100.7"),)) as upstream,
        sunk(
            tmp_path,
            app(allow(exact("a.com"))),
            lists=NaiveLists(addresses=("198.51.100.7",)),
            upstream=upstream.url("udp"),
        ) as it,
    ):
        assert said(await it.ask("a.com")) == ("NOERROR", [])
        assert it.told("a.com") is None


async def test_a_repeat_is_the_same_octets(tmp_path: Path) -> None:
    async with sunk(tmp_path, app(DENY)) as it:
        replies = [it.serve(query("bad.example", unique=each)) for each in range(2)]
        repeated = it.repeat(query("bad.example", unique=9))
        assert repeated is not None
        assert [each[2:] for each in replies if isinstance(each, bytes)] == [repeated[2:]] * 2
        assert it.parts.metrics.dns_queries.value("udp", "refused") == 3


async def test_a_repeat_is_not_said_to_who_cannot_reach_it(tmp_path: Path) -> None:
    async with sunk(tmp_path, app(DENY), listeners=(NEAR, FAR)) as it:
        for each in range(3):
            it.serve(query("bad.example", unique=each))
        assert it.repeat(query("bad.example")) is None


@pytest.mark.parametrize("parent", ["evil.example", "n{}.evil.example"])
async def test_a_flood_is_answered_in_the_same_words(tmp_path: Path, parent: str) -> None:
    limits = Limits(refusals_a_second=2, refusal_samples=2)
    async with sunk(tmp_path, app(), limits=limits) as it:
        for each in range(6):
            it.serve(query(f"u{each}.{parent.format(each)}"))
        wire = query(f"next.{parent.format('ext')}")
        fast = it.repeat(wire)
        assert fast is not None
        assert fast == it.serve(wire)
    assert said(dns.message.from_wire(fast)) == (
        "NOERROR",
        [f"next.{parent.format('ext')}. {OURS}"],
    )


DROPPED = app(DENY, refuse=Refuse.DROP)


@pytest.mark.parametrize("transport", ["udp", "tcp", "dot"])
async def test_a_dropped_name_has_no_reply_and_a_line(
    tmp_path: Path, transport: DnsTransport
) -> None:
    async with sunk(tmp_path, DROPPED) as it:
        replies = [it.serve(query("bad.example", unique=each), transport) for each in range(3)]
        assert replies == [None] * 3
        assert it.repeat(query("bad.example"), transport) is None
        assert it.parts.metrics.dns_queries.value(transport, "dropped") == 3
        assert it.parts.metrics.dns_queries.value(transport, "refused") == 0
        (line,) = await it.parts.lines()
    assert (line["verdict"], line["reason"], line["count"]) == ("deny", "rule", 3)


async def test_over_https_a_dropped_name_is_refused(tmp_path: Path) -> None:
    async with sunk(tmp_path, DROPPED) as it:
        assert said(await it.ask("bad.example", transport="doh")) == ("REFUSED", [])


async def test_a_flood_of_dropped_names_is_silent_too(tmp_path: Path) -> None:
    limits = Limits(refusals_a_second=2, refusal_samples=2)
    async with sunk(tmp_path, app(refuse=Refuse.DROP), limits=limits) as it:
        for each in range(20):
            assert it.serve(query(f"u{each}.evil.example")) is None
        assert it.repeat(query("next.evil.example")) is None
        lines = await it.parts.lines()
    assert sum(int(str(line["count"])) for line in lines) == 20


async def test_what_an_answer_shows_to_be_dropped_is_silence_too(tmp_path: Path) -> None:
    def bad(asked: bytes) -> Iterable[bytes]:
        return (answer(asked, "198.51.100.7"),)

    lists = NaiveLists(
        addresses=("198.51.100.7",), listed=Listed("rpz.txt", 3, "ip", refuse=Refuse.DROP)
    )
    async with (
        hostile(bad) as upstream,
        sunk(tmp_path, app(allow(exact("a.com"))), lists=lists, upstream=upstream.url("udp")) as it,
    ):
        transports: tuple[DnsTransport, ...] = ("udp", "tcp")
        for transport in transports:
            miss = it.serve(query("a.com"), transport)
            assert isinstance(miss, Miss)
            reply = await it.resolver.finish(miss)
            assert reply is None
            assert it.resolver.reconsider(miss, reply, ME) is None
            assert it.resolver.reconsider(miss, reply, UNKNOWN) is None
            metric = it.parts.metrics.dns_queries
            assert metric.value(transport, "dropped") == 1
        assert said(await it.ask("a.com", transport="doh"))[0] == "REFUSED"
        (line,) = await it.parts.lines()
        assert (line["rule"], line["count"]) == ("rpz.txt:3", 3)


@pytest.mark.parametrize(
    ("rules", "name", "word"),
    [
        ((allow(exact("a.com")),), "a.com", "NXDOMAIN"),
        ((allow(exact("a.com")), allow(exact("b.a.com"))), "a.com", "NOERROR"),
        ((allow(below("com")),), "a.com", "NOERROR"),
    ],
)
async def test_an_alias_of_a_listed_name_is_nxdomain_where_nothing_is_below_it(
    tmp_path: Path, rules: tuple[AllowRule, ...], name: str, word: str
) -> None:
    """RFC 8020, section 2: what is allowed below the alias would be denied with it."""

    def bad(asked: bytes) -> Iterable[bytes]:
        response = dns.message.make_response(dns.message.from_wire(asked))
        response.answer += [
            dns.rrset.from_text("a.com.", 60, "IN", "CNAME", "ads.net."),
            dns.rrset.from_text("ads.net.", 60, "IN", "A", "198.51.100.7"),
        ]
        return (response.to_wire(),)

    lists = NaiveLists("ads.net", listed=Listed("rpz.txt", 3, "ads.net", refuse=Refuse.NXDOMAIN))
    async with (
        hostile(bad) as upstream,
        sunk(tmp_path, app(*rules), lists=lists, upstream=upstream.url("udp")) as it,
    ):
        assert said(await it.ask(name)) == (word, [])


@pytest.mark.parametrize(
    ("rtype", "texts"),
    [("A", ["5 IN A 192.0.2.1"]), ("TXT", ['5 IN TXT "gone"']), ("AAAA", []), ("ANY", [])],
)
async def test_a_list_brings_records_of_its_own(
    tmp_path: Path, rtype: str, texts: list[str]
) -> None:
    records = (
        LocalRecord(rr.A, 3600, bytes((192, 0, 2, 1))),
        LocalRecord(rr.TXT, 3600, b"\x04gone"),
    )
    lists = NaiveLists("bad.example", listed=Listed("rpz.txt", 3, "bad.example", local=records))
    async with sunk(tmp_path, app(allow(below("example"))), lists=lists) as it:
        reply = await it.ask("bad.example", rtype)
    assert said(reply) == ("NOERROR", [f"bad.example. {each}" for each in texts])


async def test_an_alias_of_a_list_is_given_and_not_followed(tmp_path: Path) -> None:
    lists = NaiveLists("bad.example", listed=Listed("rpz.txt", 3, "bad.example", local=(ALIAS,)))
    async with sunk(tmp_path, app(), lists=lists) as it:
        reply = await it.ask("bad.example")
        (line,) = await it.parts.lines()
    assert said(reply) == ("NOERROR", ["bad.example. 5 IN CNAME other.example."])
    assert (line["reason"], line["rule"]) == ("list", "rpz.txt:3")


async def test_nothing_of_a_denied_name_is_asked_upstream(tmp_path: Path) -> None:
    """threats.md, The resolver as a channel: forwarding a denied name at all."""
    async with (
        hostile(lambda asked: (answer(asked),)) as upstream,
        sunk(tmp_path, app(DENY), upstream=upstream.url("udp")) as it,
    ):
        for rtype in ("A", "AAAA", "TXT", "HTTPS"):
            await it.ask("bad.example", rtype)
        assert upstream.queries == []
