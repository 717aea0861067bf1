"""DoT over real sockets: what kdig shows, one write for a read, padding, slow peers."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import dns.message
import dns.rcode
import pytest
from msgspec import Struct

from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.resolver.dot import ALPN, Dot
from proxy.transport.handshake import ListenerTls
from proxy.transport.listen import Listener, bind_tcp
from proxy.transport.peer import PeerTable
from proxy.transport.server_tls import ServerTls
from rules.ruleset import App, IdentityLine
from tests.authority import PrivateAuthority
from tests.proxy.composed import Composed, allow, below, composed, exact, ruleset
from tests.proxy.resolver.hostile import hostile
from tests.proxy.resolver.test_do53 import PUBLIC, framed, public, read_message, run

LABEL = "127.0.0.1:853"
ALLOWED = (allow(exact("example.com"), below("example.net")),)
RULES = ruleset(me=App("me", identity=(IdentityLine("f:1", listener=LABEL),), allows=ALLOWED))
BLOCK_OCTETS = 468


class Served(Struct):
    parts: Composed
    port: int
    authority: PrivateAuthority

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = ssl.create_default_context(cafile=self.authority.certificate)
        context.set_alpn_protocols(["dot"])
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname="localhost"
        )


@asynccontextmanager
async def served(
    upstream: str, folder: Path, limits: Limits | None = None
) -> AsyncIterator[Served]:
    limits = limits or Limits()
    authority = PrivateAuthority(folder)
    context = ServerTls(*authority.issue(["localhost", "127.0.0.1"]), ALPN)
    async with composed(RULES, upstream, folder, limits) as parts:
        peers = PeerTable(limits, lambda: 4e9, lambda _: None)
        identifier = Identifier(RULES, peers)
        tls = ListenerTls(
            context, limits.tls_handshakes, limits.tls_handshake_s, parts.metrics.bounds.add
        )
        listener = Listener(
            bind_tcp("127.0.0.1", 0),
            lambda it: Dot(it, parts.resolver, identifier, limits),
            limits.dns_tcp_connections,
            lambda: parts.metrics.bounds.add("dns_tcp_connections"),
            LABEL,
            tls,
        )
        port = listener.socket.getsockname()[1]
        await listener.start()
        try:
            yield Served(parts, port, authority)
        finally:
            await listener.close()
            peers.close()


def query(name: str, unique: int = 1, *, pad: int = 0) -> bytes:
    message = dns.message.make_query(name, "A", use_edns=0, pad=pad)
    message.id = unique
    return message.to_wire()


async def test_kdig_is_answered_over_tls_with_a_verified_name(tmp_path: Path) -> None:
    async with hostile(public) as peer, served(peer.url("udp"), tmp_path) as it:
        said = await run(
            *("kdig", "@127.0.0.1", "-p", str(it.port), "example.com", "+tls"),
            *(f"+tls-ca={it.authority.certificate}", "+tls-hostname=localhost"),
        )
        answered = it.parts.metrics.dns_queries.value("dot", "answered")
    assert "TLS1.3" in said
    assert PUBLIC in said
    assert answered == 1


async def test_the_session_is_of_the_protocol_dot(tmp_path: Path) -> None:
    async with served("udp://127.0.0.1:9", tmp_path) as it:
        _, writer = await it.connect()
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "dot"
        writer.close()


async def test_hits_and_misses_of_one_read_are_all_answered(tmp_path: Path) -> None:
    async with hostile(public) as peer, served(peer.url("udp"), tmp_path) as it:
        reader, writer = await it.connect()
        writer.write(framed(query("a.example.net", 0)))
        await read_message(reader)
        names = ["a.example.net", "b.example.net", "no.example.org"] * 40
        writer.write(framed(*(query(name, each) for each, name in enumerate(names))))
        replies = [await read_message(reader) for _ in names]
        writer.close()
        metrics = it.parts.metrics.dns_queries
        assert metrics.value("dot", "answered") == 81
        assert metrics.value("dot", "refused") == 40
    assert {reply.id for reply in replies} == set(range(120))
    for reply in replies:
        assert str(reply.question[0].name).startswith(names[reply.id])


@pytest.mark.parametrize("name", ["example.com", "no.example.org", "localhost"])
async def test_a_padded_query_has_a_padded_reply(tmp_path: Path, name: str) -> None:
    """RFC 8467, section 4.1: lengths tell little of the name."""
    async with hostile(public) as peer, served(peer.url("udp"), tmp_path) as it:
        reader, writer = await it.connect()
        for unique in range(3):  # a miss, what the cache has, and a hit
            writer.write(framed(query(name, unique, pad=128)))
            assert int.from_bytes(await reader.readexactly(2)) == BLOCK_OCTETS
            reply = dns.message.from_wire(await reader.readexactly(BLOCK_OCTETS))
            assert reply.id == unique
            assert [option.otype for option in reply.options][-1] == dns.edns.OptionType.PADDING
        writer.close()


async def test_a_query_without_padding_has_a_short_reply(tmp_path: Path) -> None:
    async with served("udp://127.0.0.1:9", tmp_path) as it:
        reader, writer = await it.connect()
        writer.write(framed(query("no.example.org")))
        assert int.from_bytes(await reader.readexactly(2)) < BLOCK_OCTETS
        writer.close()


async def test_a_slow_length_prefix_meets_the_idle_limit(tmp_path: Path) -> None:
    """threats.md, Parser, transport, cache: slow length prefix."""
    limits = Limits(dns_tcp_idle_s=0.1)
    async with served("udp://127.0.0.1:9", tmp_path, limits) as it:
        reader, writer = await it.connect()
        writer.write(b"\0")
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        assert it.parts.metrics.bounds.value("dns_tcp_idle_s") == 1


async def test_misses_of_a_connection_are_capped(tmp_path: Path) -> None:
    """threats.md, Parser, transport, cache: TCP pipelining without a cap."""
    limits = Limits(dns_tcp_in_flight=2)
    async with hostile(public) as peer, served(peer.url("udp"), tmp_path, limits) as it:
        reader, writer = await it.connect()
        writer.write(framed(*(query(f"n{each}.example.net", each) for each in range(20))))
        replies = {(await read_message(reader)).id for _ in range(20)}
        writer.close()
        assert it.parts.metrics.bounds.value("dns_tcp_in_flight") >= 1
    assert replies == set(range(20))


async def test_a_session_that_ends_before_its_answers_fills_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """threats.md, Evidence as a weapon: a peer that writes lines as fast as it can connect."""
    async with hostile(lambda _: ()) as peer, served(peer.url("udp"), tmp_path) as it:
        _, writer = await it.connect()
        writer.write(framed(query("example.com")))
        writer.close()
        await writer.wait_closed()
    assert caplog.messages == []


async def test_octets_that_are_no_message_end_the_session(tmp_path: Path) -> None:
    async with served("udp://127.0.0.1:9", tmp_path) as it:
        reader, writer = await it.connect()
        writer.write(b"\0\x01x")
        assert await reader.read() == b""
        writer.close()


async def test_plain_dns_on_the_port_is_not_answered(tmp_path: Path) -> None:
    """RFC 8310, section 3: there is no falling back to clear text here."""
    async with served("udp://127.0.0.1:9", tmp_path) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(framed(query("example.com")))
        with suppress(ConnectionResetError):
            said = await reader.read()
            assert said[:1] in {b"", b"\x15"}  # nothing, or a TLS alert
        writer.close()
        assert it.parts.metrics.dns_queries.value("dot", "answered") == 0
