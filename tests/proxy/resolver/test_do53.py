"""Do53 over real sockets: batches, pipelining, caps, idle connections, real clients."""

import asyncio
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import dns.message
import dns.rcode
import pytest
from msgspec import Struct

from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.resolver.do53 import Do53Tcp, Do53Udp
from proxy.transport.listen import Listener, bind_tcp, bind_udp
from proxy.transport.peer import PeerTable
from rules.ruleset import App, IdentityLine, Ruleset
from tests.proxy.composed import Composed, allow, below, composed, exact, ruleset
from tests.proxy.resolver.hostile import Conversation, answer, hostile, nothing

PUBLIC = "93.184.215.14"
LABEL = "127.0.0.1:0"
LISTENER = (IdentityLine("f:1", listener=LABEL),)
ALLOWED = (allow(exact("example.com"), below("example.net")),)
BY_LISTENER = ruleset(me=App("me", identity=LISTENER, allows=ALLOWED))


def public(query: bytes) -> Iterable[bytes]:
    return (answer(query, PUBLIC),)


class Served(Struct):
    parts: Composed
    port: int
    udp: Do53Udp
    listener: Listener
    identifier: Identifier


@asynccontextmanager
async def served(
    rules: Ruleset, upstream: str, folder: Path, limits: Limits | None = None
) -> AsyncIterator[Served]:
    limits = limits or Limits()
    async with composed(rules, upstream, folder, limits) as parts:
        peers = PeerTable(limits, lambda: 4e9, lambda _: None)
        identifier = Identifier(rules, peers)
        stream = bind_tcp("127.0.0.1", 0)
        port = stream.getsockname()[1]
        udp = Do53Udp(bind_udp("127.0.0.1", port), LABEL, parts.resolver, identifier, limits)
        listener = Listener(
            stream,
            lambda it: Do53Tcp(it, parts.resolver, identifier, limits),
            limits.dns_tcp_connections,
            lambda: parts.metrics.bounds.add("dns_tcp_connections"),
            LABEL,
        )
        udp.start()
        await listener.start()
        try:
            yield Served(parts, port, udp, listener, identifier)
        finally:
            udp.close()
            await listener.close()
            peers.close()


def wire(name: str, unique: int = 1) -> bytes:
    message = dns.message.make_query(name, "A", use_edns=0)
    message.id = unique
    return message.to_wire()


def framed(*messages: bytes) -> bytes:
    return b"".join(len(each).to_bytes(2) + each for each in messages)


async def read_message(reader: asyncio.StreamReader) -> dns.message.Message:
    length = int.from_bytes(await reader.readexactly(2))
    return dns.message.from_wire(await reader.readexactly(length))


async def run(*command: str) -> str:
    child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    output, _ = await child.communicate()
    return output.decode()


async def test_kdig_is_answered_over_udp_and_tcp(tmp_path: Path) -> None:
    async with hostile(public) as peer, served(BY_LISTENER, peer.url("udp"), tmp_path) as it:
        over_udp = await run("kdig", "@127.0.0.1", "-p", str(it.port), "example.com", "+short")
        over_tcp = await run("kdig", "@127.0.0.1", "-p", str(it.port), "example.com", "+tcp")
    assert over_udp.strip() == PUBLIC
    assert PUBLIC in over_tcp


async def test_with_process_evidence_dig_comes_again_over_tcp(tmp_path: Path) -> None:
    """threats.md, Identity: UDP between local users, TC=1 for process evidence."""
    rules = ruleset(me=App("me", identity=(IdentityLine("f:1", uid=0),), allows=ALLOWED))
    async with hostile(public) as peer, served(rules, peer.url("udp"), tmp_path) as it:
        said = await run("dig", "@127.0.0.1", "-p", str(it.port), "example.com")
        truncated = it.parts.metrics.dns_queries.value("udp", "truncated")
    assert truncated == 1
    assert "Truncated, retrying in TCP mode" in said
    assert PUBLIC in said or "identity" in said or "NXDOMAIN" in said


async def test_pipelined_queries_are_answered_out_of_order(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def first_last(talk: Conversation) -> None:
        first = await talk.query()
        second = await talk.query()
        await talk.send(answer(second, PUBLIC))
        await release.wait()
        await talk.send(answer(first, PUBLIC))
        await talk.until_closed()

    async with (
        hostile(nothing, first_last) as peer,
        served(BY_LISTENER, peer.url("tcp"), tmp_path) as it,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(framed(wire("a.example.net", 1), wire("b.example.net", 2)))
        early = await read_message(reader)
        release.set()
        late = await read_message(reader)
        writer.close()
    assert [early.id, late.id] == [2, 1]


async def test_refusals_of_one_read_come_in_one_write(tmp_path: Path) -> None:
    async with served(BY_LISTENER, "udp://127.0.0.1:9", tmp_path) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(framed(*(wire("example.org", unique) for unique in range(20))))
        replies = [await read_message(reader) for _ in range(20)]
        writer.close()
    assert [reply.id for reply in replies] == list(range(20))
    assert {reply.rcode() for reply in replies} == {dns.rcode.NXDOMAIN}


async def test_queries_in_flight_on_a_connection_are_capped(tmp_path: Path) -> None:
    """threats.md, Parser, transport, cache: TCP pipelining without a cap."""
    release = asyncio.Event()

    async def hold(talk: Conversation) -> None:
        queries = [await talk.query() for _ in range(2)]
        await release.wait()
        await talk.send(*(answer(query, PUBLIC) for query in queries))
        await talk.send(answer(await talk.query(), PUBLIC))
        await talk.until_closed()

    limits = Limits(dns_tcp_in_flight=2)
    async with (
        hostile(nothing, hold) as peer,
        served(BY_LISTENER, peer.url("tcp"), tmp_path, limits) as it,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(framed(*(wire(f"{each}.example.net", each) for each in range(3))))
        await peer.until(lambda that: len(that.queries) == 2)
        release.set()
        replies = {(await read_message(reader)).id for _ in range(3)}
        writer.close()
        bounds = it.parts.metrics.bounds.value("dns_tcp_in_flight")
    assert replies == {0, 1, 2}
    assert bounds >= 1


async def test_a_half_sent_query_meets_the_idle_limit(tmp_path: Path) -> None:
    """threats.md, Parser, transport, cache: slow length prefix."""
    limits = Limits(dns_tcp_idle_s=0.1)
    async with served(BY_LISTENER, "udp://127.0.0.1:9", tmp_path, limits) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(b"\0")
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        assert it.parts.metrics.bounds.value("dns_tcp_idle_s") == 1


async def test_what_was_asked_before_the_peer_closed_its_half_is_answered(tmp_path: Path) -> None:
    async with hostile(public) as peer, served(BY_LISTENER, peer.url("udp"), tmp_path) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(framed(wire("example.com")))
        writer.write_eof()
        reply = await read_message(reader)
        assert await reader.read() == b""
        writer.close()
    assert str(reply.answer[0][0]) == PUBLIC


async def test_a_frame_that_is_no_message_ends_the_connection(tmp_path: Path) -> None:
    async with served(BY_LISTENER, "udp://127.0.0.1:9", tmp_path) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(b"\0\x01x")
        assert await reader.read() == b""
        writer.close()


async def test_connections_are_capped_and_counted(tmp_path: Path) -> None:
    limits = Limits(dns_tcp_connections=1)
    async with served(BY_LISTENER, "udp://127.0.0.1:9", tmp_path, limits) as it:
        first = await asyncio.open_connection("127.0.0.1", it.port)
        first[1].write(framed(wire("example.org")))
        await read_message(first[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        first[1].close()
        assert it.parts.metrics.bounds.value("dns_tcp_connections") == 1


async def test_connections_that_are_reset_at_once_hold_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    by_uid = ruleset(me=App("me", identity=(IdentityLine("f:1", uid=0),), allows=ALLOWED))
    async with served(by_uid, "udp://127.0.0.1:9", tmp_path) as it:
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", it.port)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.send(framed(wire("example.org")))
        # One that stays is accepted after them: then all of them were.
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(framed(wire("example.org")))
        await read_message(reader)
        writer.close()
        async with asyncio.timeout(10):
            while it.listener.connections:  # noqa: ASYNC110 - no event tells of their end
                await asyncio.sleep(0.005)
    assert caplog.records == []


async def test_an_app_cannot_hold_all_connections(tmp_path: Path) -> None:
    limits = Limits(dns_tcp_connections_per_app=1)
    async with served(BY_LISTENER, "udp://127.0.0.1:9", tmp_path, limits) as it:
        for _ in range(2):  # what is given back can be had again
            first = await asyncio.open_connection("127.0.0.1", it.port)
            first[1].write(framed(wire("example.org")))
            await read_message(first[0])
            reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
            first[1].close()
            async with asyncio.timeout(10):
                while it.listener.connections:  # noqa: ASYNC110 - no event tells of their end
                    await asyncio.sleep(0.005)
        assert it.parts.metrics.bounds.value("dns_tcp_connections_per_app") == 2


async def test_datagrams_beyond_the_cap_are_shed(tmp_path: Path) -> None:
    limits = Limits(dns_udp_in_flight=1)
    loop = asyncio.get_running_loop()
    async with hostile(nothing) as peer, served(
        BY_LISTENER, peer.url("udp"), tmp_path, limits
    ) as it:  # fmt: skip
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(("127.0.0.1", it.port))
            client.send(wire("a.example.net", 1))
            client.send(wire("b.example.net", 2))
            reply = dns.message.from_wire(await loop.sock_recv(client, 4096))
    assert (reply.id, reply.rcode()) == (2, dns.rcode.SERVFAIL)


async def test_garbage_over_udp_gets_no_reply_and_harms_nobody(tmp_path: Path) -> None:
    async with hostile(public) as peer, served(BY_LISTENER, peer.url("udp"), tmp_path) as it:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(("127.0.0.1", it.port))
            for size in range(12):
                client.send(bytes(size))
            client.send(wire("example.com", 77))
            reply = await asyncio.get_running_loop().sock_recv(client, 4096)
    assert reply[:2] == b"\0\x4d"


async def test_many_queries_of_one_read_are_served_in_turns(tmp_path: Path) -> None:
    """threats.md, Parser, transport, cache: TCP pipelining without a cap starves the others."""
    many = framed(*(wire(f"denied{unique}.example", unique) for unique in range(500)))
    async with hostile(nothing) as peer, served(BY_LISTENER, peer.url("udp"), tmp_path) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(many)
        writer.write_eof()
        first = await read_message(reader)
        refused = it.parts.metrics.dns_queries.value("tcp", "refused")
        rest = [await read_message(reader) for _ in range(499)]
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    assert refused < 500
    assert [each.id for each in (first, *rest)] == list(range(500))


async def test_a_client_that_does_not_read_is_not_served_on(tmp_path: Path) -> None:
    """threats.md, Parser, transport, cache: answers to nobody would fill the memory."""
    loop = asyncio.get_running_loop()
    many = framed(*(wire("denied.example", unique) for unique in range(3000)))
    limits = Limits(dns_tcp_idle_s=0.2)
    async with (
        hostile(nothing) as peer,
        served(BY_LISTENER, peer.url("udp"), tmp_path, limits) as it,
    ):
        it.listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least there is
        with socket.socket() as client:
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            await loop.sock_connect(client, ("127.0.0.1", it.port))
            await loop.sock_sendall(client, framed(wire("denied.example")))
            await loop.sock_recv(client, 1)  # it is accepted
            with suppress(ConnectionError):
                await loop.sock_sendall(client, many)
            await it.listener.close(grace_s=5)  # until it is cut for reading nothing
            refused = it.parts.metrics.dns_queries.value("tcp", "refused")
    assert 1 < refused < 3001
    assert it.parts.metrics.bounds.value("dns_tcp_idle_s") == 1
