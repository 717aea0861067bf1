"""Reading on after a last response."""

from pathlib import Path

import msgspec

from tests.proxy.egress.world import QUICK, get, opened, settled


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
