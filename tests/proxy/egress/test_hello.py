"""The first octets of a tunnel."""

import asyncio
import os
from asyncio import StreamReader, StreamWriter
from functools import partial
from pathlib import Path

import msgspec
import pytest

from proxy.egress.connect import ESTABLISHED
from proxy.egress.hello import blame_hello, looks_like_http
from proxy.wire.clienthello import read_hello
from rules.address import parse_address
from rules.decision import Reason
from rules.name import parse
from rules.ruleset import AllowRule
from tests.proxy.egress.hellos import hello, retry, split, with_extension
from tests.proxy.egress.world import (
    LOOPBACK,
    QUICK,
    Origin,
    Peer,
    Script,
    World,
    connect,
    opened,
    settled,
)
from tests.rules.written import allow

DENIED = b"\x15\x03\x03\x00\x02\x02\x31"
ECH = 0xFE0D


def tls(origin: Origin, *, accept_ech: bool = False) -> AllowRule:
    return allow("example.com", ports=[origin.port], addresses=[LOOPBACK], accept_ech=accept_ech)


def keeping() -> Origin:
    """Return an origin that keeps what it gets, in one piece."""
    origin = Origin()
    origin.heads = [b""]

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        del writer
        while data := await reader.read(65536):
            origin.heads[0] += data

    origin.script = script
    return origin


async def established(world: World, origin: Origin, host: str = "example.com") -> Peer:
    client = await world.client()
    client.send(connect(f"{host}:{origin.port}"))
    assert await client.head() == ESTABLISHED
    return client


@pytest.mark.parametrize("octets", [16384, 100, 7])
async def test_the_hello_goes_on_as_it_came(tmp_path: Path, octets: int) -> None:
    """threats.md, "HTTP itself": "hellos over several records"."""
    async with keeping().running() as origin, opened(tmp_path, tls(origin)) as world:
        client = await established(world, origin)
        said = split(hello("example.com"), octets) if octets > 7 else hello("EXAMPLE.com")
        for at in range(0, len(said), 50):
            client.send(said[at : at + 50])
        await settled(lambda: origin.heads[0] == said)


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        pytest.param(hello("example.org"), "sni-mismatch", id="another name"),
        pytest.param(hello("www.example.com"), "sni-mismatch", id="a name below"),
        pytest.param(split(hello("example.org"), 20), "sni-mismatch", id="over several records"),
        pytest.param(hello(None), "sni-missing", id="absent"),
        pytest.param(with_extension(hello("example.com"), ECH, b"\0" * 40), "ech", id="ECH"),
        pytest.param(b"SSH-2.0-OpenSSH_9.9\r\n", "not-tls", id="SSH"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", "not-tls", id="HTTP"),
        pytest.param(b"\x80\x2e\x01\x00\x02", "not-tls", id="SSLv2"),
    ],
)
async def test_a_tunnel_for_another_name_is_cut(tmp_path: Path, octets: bytes, reason: str) -> None:
    """threats.md, "Between name and address" and "HTTP itself".

    "SNI, Host/:authority and CONNECT target must agree (421); ECH hides the SNI (strip)" and
    "Absent SNI".
    """
    async with keeping().running() as origin, opened(tmp_path, tls(origin)) as world:
        client = await established(world, origin)
        client.send(octets)
        assert await client.rest() == DENIED
        assert origin.heads == [b""]
        assert world.metrics.tunnel_cuts.value(reason) == 1
        assert world.metrics.tunnels.value == 0
        lines = await world.lines()
        assert [line["reason"] for line in lines if line["verdict"] == "deny"] == [reason]


async def test_a_rule_may_accept_a_hidden_name(tmp_path: Path) -> None:
    """threats.md, "HTTP itself".

    "ECH with a configured key hides the inner name behind an honest SNI": only where a rule says
    so.
    """
    async with (
        keeping().running() as origin,
        opened(tmp_path, tls(origin, accept_ech=True)) as world,
    ):
        client = await established(world, origin)
        said = with_extension(hello("example.com"), ECH, b"\0" * 40)
        client.send(said)
        await settled(lambda: origin.heads[0] == said)
        client = await established(world, origin)
        client.send(with_extension(hello("example.org"), ECH, b"\0" * 40))
        assert await client.rest() == DENIED


async def test_a_slow_hello_is_cut(tmp_path: Path) -> None:
    """threats.md, "HTTP itself": "Slow loris on head, body, TLS hello"."""
    limits = msgspec.structs.replace(QUICK, hello_s=0.05)
    async with (
        keeping().running() as origin,
        opened(tmp_path, tls(origin), limits=limits) as world,
    ):
        client = await established(world, origin)
        client.send(hello("example.com")[:20])
        assert await client.rest() == DENIED
        assert world.metrics.bounds.value("hello_s") == 1
        assert world.metrics.tunnel_cuts.value("not-tls") == 1


async def test_a_hello_that_never_ends_is_cut(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, hello_octets=1000)
    async with (
        keeping().running() as origin,
        opened(tmp_path, tls(origin), limits=limits) as world,
    ):
        client = await established(world, origin)
        client.send(b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc" + bytes(2000))
        assert await client.rest() == DENIED


async def test_a_client_that_leaves_before_its_hello(tmp_path: Path) -> None:
    async with keeping().running() as origin, opened(tmp_path, tls(origin)) as world:
        client = await established(world, origin)
        client.end()
        assert await client.rest() == b""
        assert world.metrics.tunnels.value == 0


async def test_an_origin_that_speaks_first_is_not_heard_before_the_hello(tmp_path: Path) -> None:
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"220 hello")
        await reader.read()

    origin.script = script
    async with origin.running(), opened(tmp_path, tls(origin)) as world:
        client = await established(world, origin)
        client.send(b"EHLO")
        assert await client.rest() == DENIED


async def test_a_literal_needs_no_name(tmp_path: Path) -> None:
    async with keeping().running() as origin:
        rule = allow(ports=[origin.port], addresses=[LOOPBACK])
        async with opened(tmp_path, rule) as world:
            client = await established(world, origin, "127.0.0.1")
            client.send(hello(None))
            await settled(lambda: bool(origin.heads[0]))
            client = await established(world, origin, "127.0.0.1")
            client.send(hello("example.com"))
            assert await client.rest() == DENIED


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (hello("example.com"), None),
        (hello("example.org"), "sni-mismatch"),
        (hello(None), "sni-missing"),
        (with_extension(hello("example.com"), ECH, b"\0" * 40), "ech"),
    ],
)
async def test_a_second_hello_is_judged_as_the_first(
    tmp_path: Path, second: bytes, reason: str | None
) -> None:
    """threats.md, "HTTP itself".

    "a second ClientHello after HelloRetryRequest with another SNI".
    """
    origin = keeping()
    first = hello("example.com")

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readexactly(len(first))
        writer.write(retry())
        while data := await reader.read(65536):
            origin.heads[0] += data

    origin.script = script
    async with origin.running(), opened(tmp_path, tls(origin)) as world:
        client = await established(world, origin)
        client.send(first)
        assert await client.exactly(len(retry())) == retry()
        client.send(second[:100])
        client.send(second[100:])
        if reason is None:
            await settled(lambda: origin.heads[0] == second)
        else:
            assert await client.rest() == DENIED
            assert origin.heads[0] == b""
            assert world.metrics.tunnel_cuts.value(reason) == 1


async def test_handshake_octets_behind_the_hello_are_cut(tmp_path: Path) -> None:
    async with keeping().running() as origin, opened(tmp_path, tls(origin)) as world:
        client = await established(world, origin)
        client.send(hello("example.com") + hello("example.org"))
        assert await client.rest() == DENIED
        assert b"example.org" not in origin.heads[0]


async def test_a_server_that_never_says_hello_is_cut(tmp_path: Path) -> None:
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"\x15\x03\x03\x00\x02\x01\x00" * 1000)
        await reader.read()

    origin.script = script
    async with origin.running(), opened(tmp_path, tls(origin)) as world:
        client = await established(world, origin)
        client.send(hello("example.com"))
        assert b"\x15\x03\x03" in await client.rest()
        await settled(lambda: world.metrics.tunnels.value == 0)


async def unread_80(tmp_path: Path, script: Script, **limits: float) -> bytes:
    """Return what a client that says `SSH` gets of port 80 under `tls: false`."""
    host = f"127.81.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"
    rule = allow("example.com", ports=[80], addresses=[LOOPBACK], tls=False)
    origin = Origin(script)
    wanted = msgspec.structs.replace(QUICK, **limits)
    async with origin.running(host, 80), opened(tmp_path, rule, limits=wanted) as world:
        world.names.table["example.com"] = [host]
        client = await established(world, origin)
        if not limits:
            client.send(b"SSH-2.0-x\r\n")
        octets = await client.exactly(5)
        client.abort()
        return octets


async def test_what_is_no_http_on_port_80_stays_unread(tmp_path: Path) -> None:
    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        assert await reader.readexactly(11) == b"SSH-2.0-x\r\n"
        writer.write(b"first")
        await reader.read()

    assert await unread_80(tmp_path, script) == b"first"


@pytest.mark.parametrize("speaks_at_once", [True, False])
async def test_a_server_may_speak_first_on_port_80(tmp_path: Path, *, speaks_at_once: bool) -> None:
    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        if not speaks_at_once:
            await asyncio.sleep(0.1)
        writer.write(b"first")
        await reader.read()

    limits = {"linger_s": 1.0} if speaks_at_once else {"hello_s": 0.03}
    assert await unread_80(tmp_path, script, **limits) == b"first"


@pytest.mark.parametrize(
    ("octets", "verdict"),
    [
        (b"", None), (b"G", None), (b"GET", None), (b"GET ", True), (b"GET / HTTP/1.1", True),
        (b"PROPPATCH /", True), (b"\x16\x03", False), (b"SSH-2.0", False), (b"get / ", False),
        (b"A" * 24, None), (b"A" * 25, False), (b" ", False),
    ],
)  # fmt: skip
def test_guesses_http_from_a_method(octets: bytes, verdict: bool | None) -> None:
    assert looks_like_http(octets) is verdict


def test_an_address_as_server_name_must_be_the_one_dialled() -> None:
    said = read_hello(hello("example.com"), 65536)
    assert said is not None
    with_address = msgspec.structs.replace(said, server_name=parse_address("192.0.2.1"))
    same, other = parse_address("192.0.2.1"), parse_address("192.0.2.2")
    assert blame_hello(with_address, same, accept_ech=False) is None
    assert blame_hello(with_address, other, accept_ech=False) is Reason.SNI_MISMATCH
    name = parse("example.com")
    assert blame_hello(with_address, name, accept_ech=False) is Reason.SNI_MISMATCH


def holds(origin: Origin, octets: bytes) -> bool:
    return origin.heads[0] == octets


async def test_every_hello_of_a_route_is_judged(tmp_path: Path) -> None:
    """threats.md, "Between name and address": "SNI, Host/:authority and CONNECT target"."""
    async with keeping().running() as origin, opened(tmp_path, tls(origin)) as world:
        for name, is_cut in [("example.com", False), ("example.org", True), ("example.com", False)]:
            client = await established(world, origin)
            said = hello(name)
            origin.heads[0] = b""
            client.send(said)
            if is_cut:
                assert await client.rest() == DENIED
                assert origin.heads == [b""]
            else:
                await settled(partial(holds, origin, said))
                client.abort()
        assert world.metrics.tunnel_cuts.value("sni-mismatch") == 1


@pytest.mark.parametrize("speaks_first", ["client", "origin"])
async def test_octets_go_both_ways_after_the_answer(tmp_path: Path, speaks_first: str) -> None:
    answered = b"\x16\x03\x03\x00\x2a\x02" + b"\0" * 41
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.read(65536)
        writer.write(answered)
        if speaks_first == "origin":
            await writer.drain()
            await settled(lambda: bool(origin.heads))
            writer.write(b"more")
        while data := await reader.read(65536):
            writer.write(data)

    origin.script = script
    async with origin.running(), opened(tmp_path, tls(origin)) as world:
        client = await established(world, origin)
        said = hello("example.com")
        client.send(said)
        assert await client.exactly(len(answered)) == answered
        origin.heads.append(b"")
        expected = b"more" if speaks_first == "origin" else b""
        assert await client.exactly(len(expected)) == expected
        for _ in range(3):
            client.send(b"echo")
            assert await client.exactly(4) == b"echo"
        client.end()
        assert await client.rest() == b""
        await settled(lambda: world.metrics.tunnels.value == 0)
        assert world.metrics.octets.value("up") == len(said) + 12
        assert world.metrics.octets.value("down") == len(answered) + len(expected) + 12
