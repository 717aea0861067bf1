"""Reading on after a last response."""

import asyncio
from pathlib import Path

import msgspec

from proxy.egress.deadlines import Timed
from proxy.egress.linger import Linger
from tests.proxy.egress.world import LOOPBACK, QUICK, World, get, opened, saying, settled
from tests.rules.written import allow


async def test_the_response_arrives_although_content_follows(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        client = await world.client()
        client.send(get("example.org", "/", "Content-Length: 8388608", method="POST"))
        client.send(bytes(8 << 20))
        assert (await client.reply()).status == 403
        assert await client.rest() == b""


async def test_a_client_that_stays_is_dropped_after_a_while(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, linger_s=0.05)
    async with opened(tmp_path, limits=limits) as world:
        client = await world.client()
        client.send(b"\r\n")
        assert (await client.reply()).status == 400
        await settled(lambda: world.egress.connections == {})
        assert world.metrics.bounds.value("linger_s") == 1


async def test_shutdown_does_not_wait_for_it(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, linger_s=60.0)
    async with opened(tmp_path, limits=limits) as world:
        client = await world.client()
        client.send(b"\r\n")
        assert (await client.reply()).status == 400
        await world.egress.close(60.0)
        await settled(lambda: world.egress.connections == {})


async def test_a_client_that_reads_slowly_gets_all_of_it(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, linger_s=0.02, tunnel_buffer_octets=64 << 20)
    content = bytes(8 << 20)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content)
    async with saying(answer + content).running() as origin:
        rule = allow("example.com", ports=[origin.port], addresses=[LOOPBACK])
        async with opened(tmp_path, rule, limits=limits) as world:
            client = await world.client()
            client.pause()
            post = get(f"example.com:{origin.port}", "/", "Content-Length: 5", method="POST")
            client.send(post)
            await settled(lambda: any(isinstance(each, Linger) for each in _timed(world)))
            await asyncio.sleep(0.2)  # ten times what a client is given that has read everything
            client.resume()
            assert (await client.reply()).body == content


async def test_a_client_that_reads_nothing_is_dropped_at_last(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, linger_s=0.02, requests_in_body_s=0.1)
    limits = msgspec.structs.replace(limits, tunnel_buffer_octets=64 << 20)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (8 << 20)
    async with saying(answer + bytes(8 << 20)).running() as origin:
        rule = allow("example.com", ports=[origin.port], addresses=[LOOPBACK])
        async with opened(tmp_path, rule, limits=limits) as world:
            client = await world.client()
            client.pause()
            client.send(get(f"example.com:{origin.port}", "/", "Content-Length: 5", method="POST"))
            await settled(lambda: bool(origin.heads))
            await settled(lambda: world.egress.connections == {})


def _timed(world: World) -> set[Timed]:
    return world.egress.deadlines._timed
