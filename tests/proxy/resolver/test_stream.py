"""DNS over a stream, whatever carries it: turns of hits beside misses."""

import asyncio
from pathlib import Path

import dns.rcode
from msgspec import structs

from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.resolver import stream
from proxy.resolver.do53 import Do53Tcp
from proxy.transport.peer import PeerTable
from rules.match import index_rules
from rules.ruleset import App, IdentityLine
from tests.proxy.composed import ruleset
from tests.proxy.resolver.hostile import hostile
from tests.proxy.resolver.test_do53 import (
    ALLOWED,
    BY_LISTENER,
    LABEL,
    PUBLIC,
    framed,
    public,
    read_message,
    served,
    wire,
)

MANY = 3 * 1024  # more than the hits of one turn


async def test_hits_of_one_read_are_answered_in_order_and_in_turns(tmp_path: Path) -> None:
    """threats.md, Parser, transport, cache: TCP pipelining without a cap starves the others."""
    async with hostile(public) as peer, served(BY_LISTENER, peer.url("udp"), tmp_path) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        for _ in range(2):  # the miss, and what the cache has
            writer.write(framed(wire("example.com")))
            await read_message(reader)
        writer.write(framed(*(wire("example.com", unique) for unique in range(MANY))))
        writer.write_eof()
        replies = [await read_message(reader) for _ in range(MANY)]
        assert await reader.read() == b""
        writer.close()
        answered = it.parts.metrics.dns_queries.value("tcp", "answered")
    assert [reply.id for reply in replies] == list(range(MANY))
    assert {str(reply.answer[0][0]) for reply in replies} == {PUBLIC}
    assert answered == MANY + 2


async def test_a_listener_that_changes_hands_does_so_on_open_connections(tmp_path: Path) -> None:
    """threats.md, Order of checks: a reload half applied."""
    other = App("other", identity=(IdentityLine("f:2", listener=LABEL),))
    async with hostile(public) as peer, served(BY_LISTENER, peer.url("udp"), tmp_path) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(framed(wire("example.com")))
        before = await read_message(reader)
        rules = ruleset(me=App("me", allows=ALLOWED), other=other)
        it.parts.authorizer.use(index_rules(structs.replace(rules, generation=2)))
        it.identifier.use(rules)
        writer.write(framed(wire("example.com")))
        after = await read_message(reader)
        writer.close()
    assert (before.rcode(), after.rcode()) == (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)


async def test_a_turn_is_over_after_so_many_hits(tmp_path: Path) -> None:
    async with hostile(public) as peer, served(BY_LISTENER, peer.url("udp"), tmp_path) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        for _ in range(2):
            writer.write(framed(wire("example.com")))
            await read_message(reader)
        writer.close()
        peers = PeerTable(Limits(), lambda: 4e9, lambda _: None)
        identifier = Identifier(BY_LISTENER, peers)
        made = Do53Tcp(it.listener, it.parts.resolver, identifier, Limits())
        made._ends = ("127.0.0.1", 1), ("127.0.0.1", 2)
        made._identify()
        made._waiting += [wire("example.com")] * MANY
        replies: list[bytes] = []
        made._take_turn(replies)
        peers.close()
    assert len(replies) == 2 * stream._HITS
    assert len(made._waiting) == MANY - stream._HITS
