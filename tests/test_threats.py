"""Attacks that cross several modules; docs/threats.md has the whole list."""

from asyncio import StreamReader, StreamWriter
from collections.abc import Iterable
from pathlib import Path
from socket import (
    AF_INET,
    SO_REUSEADDR,
    SO_REUSEPORT,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)

import dns.edns
import dns.message
import pytest

from proxy.egress.connect import ESTABLISHED
from proxy.limits import Limits
from proxy.resolver.query import Asker, Miss
from proxy.transport.listen import bind_tcp, bind_udp
from rules.ruleset import App
from tests.proxy.composed import ME, Composed, allow, composed, exact, ruleset
from tests.proxy.egress.hellos import hello, with_extension
from tests.proxy.egress.world import LOOPBACK, Origin, World, connect, get, opened
from tests.proxy.resolver.hostile import answer, hostile
from tests.rules.written import allow as allow_rule

ACCESS_DENIED = b"\x15\x03\x03\x00\x02\x02\x31"  # TLS alert, fatal, access_denied (49)
ECH = 0xFE0D  # RFC 9849, encrypted_client_hello
HELLO = hello("example.com")
PAGES = ("Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site")


def keeping() -> Origin:
    """Return an origin that keeps every octet that it gets."""
    origin = Origin()

    async def script(reader: StreamReader, _writer: StreamWriter) -> None:
        while data := await reader.read(65536):
            origin.heads.append(data)

    origin.script = script
    return origin


async def cut(world: World, origin: Origin, octets: bytes) -> bytes:
    """Open a tunnel, send `octets` and return what comes back before it ends."""
    client = await world.client()
    client.send(connect(f"example.com:{origin.port}"))
    assert await client.head() == ESTABLISHED
    client.send(octets)
    return await client.rest()


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        pytest.param(hello("example.org"), "sni-mismatch", id="another name"),
        pytest.param(hello(None), "sni-missing", id="no name"),
        pytest.param(with_extension(HELLO, ECH, b"\x00" * 40), "ech", id="a hidden name"),
        pytest.param(b"SSH-2.0-x\r\n", "not-tls", id="another protocol"),
    ],
)
async def test_a_tunnel_that_is_not_for_its_name_shows_the_origin_nothing(
    tmp_path: Path, octets: bytes, reason: str
) -> None:
    """threats.md, "HTTP itself": ECH behind an honest SNI; absent SNI; another SNI."""
    async with keeping().running() as origin:
        rule = allow_rule("example.com", ports=[origin.port], addresses=[LOOPBACK])
        async with opened(tmp_path, rule) as world:
            assert await cut(world, origin, octets) == ACCESS_DENIED
            assert origin.heads == []
            reasons = [line["reason"] for line in await world.lines()]
    assert reason in reasons


async def test_a_tunnel_that_says_nothing_is_cut(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": slow loris on the TLS hello."""
    limits = Limits(proxy_tick_s=0.02, hello_s=0.1)
    async with keeping().running() as origin:
        rule = allow_rule("example.com", ports=[origin.port], addresses=[LOOPBACK])
        async with opened(tmp_path, rule, limits=limits) as world:
            assert await cut(world, origin, HELLO[:20]) == ACCESS_DENIED
            assert origin.heads == []


@pytest.mark.parametrize("field", PAGES)
@pytest.mark.parametrize("path", ["/", "/why/0192f3"])
async def test_a_web_page_learns_nothing_from_our_own_host(
    tmp_path: Path, field: str, path: str
) -> None:
    """threats.md, "HTTP itself": a web page reaching the API on loopback."""
    async with opened(tmp_path) as world:
        reply = await world.ask(get("sallyport.internal", path, field))
    assert reply.status == 403
    assert b"evidence" not in reply.body


@pytest.mark.parametrize(
    "authority",
    ["9.9.9.9:443", "9.9.9.9:853", "[2620:fe::fe]:443", "dns.google:443", "dns.quad9.net:853"],
)
async def test_other_resolvers_are_hosts_like_any_other(tmp_path: Path, authority: str) -> None:
    """threats.md, "Between name and address": DoH/DoT to known resolvers by name or by address."""
    async with opened(tmp_path, allow_rule("example.com")) as world:
        reply = await world.ask(connect(authority))
        assert world.names.asked == []
    assert reply.status == 403


async def ask(parts: Composed, wire: bytes) -> None:
    asker = Asker(ME, "udp", 1232, ("127.0.0.1", 40000), "127.0.0.1:5300")
    reply = parts.resolver.serve(wire, asker)
    if isinstance(reply, Miss):
        await parts.resolver.finish(reply)


async def test_spellings_of_a_query_are_one_entry_of_the_cache(tmp_path: Path) -> None:
    """threats.md, "Order of checks": exact-byte cache keys."""

    def public(query: bytes) -> Iterable[bytes]:
        return (answer(query, "93.184.215.14"),)

    options: list[list[dns.edns.Option]] = [
        [dns.edns.GenericOption(dns.edns.OptionType.COOKIE, bytes(range(8)))],  # a cookie
        [dns.edns.GenericOption(dns.edns.OptionType.PADDING, b"\x00" * 31)],  # padding
        [dns.edns.ECSOption("192.0.2.0", 24)],
        [dns.edns.GenericOption(dns.edns.OptionType.make(65001), b"private")],
    ]
    rules = ruleset(me=App("me", allows=(allow(exact("example.com")),)))
    async with hostile(public) as upstream, composed(rules, upstream.url("udp"), tmp_path) as parts:
        for name in ("example.com", "EXAMPLE.com", "eXaMpLe.CoM", "example.com."):
            for each in options:
                await ask(parts, dns.message.make_query(name, "A", options=each).to_wire())
        assert len(upstream.queries) == 1
        assert parts.metrics.cache.value("hit") == len(options) * 4 - 1
        assert parts.metrics.cache.value("miss") == 1


@pytest.mark.parametrize("option", [SO_REUSEPORT, SO_REUSEADDR])
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_nobody_can_listen_beside_us(option: int, address: str) -> None:
    """threats.md, "Identity": never SO_REUSEPORT, nor SO_REUSEADDR on UDP."""
    stream = bind_tcp("127.0.0.1", 0)
    port: int = stream.getsockname()[1]
    with stream, bind_udp("127.0.0.1", port):
        stream.listen()
        for kind in (SOCK_STREAM, SOCK_DGRAM):
            with socket(AF_INET, kind) as other:
                other.setsockopt(SOL_SOCKET, option, 1)
                with pytest.raises(OSError, match="in use"):
                    other.bind((address, port))
