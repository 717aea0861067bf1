"""Room for a client connection."""

from pathlib import Path

import msgspec

from tests.proxy.egress.world import QUICK, get, opened, settled


async def test_places_are_given_back(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, proxy_connections=1)
    async with opened(tmp_path, limits=limits) as world:
        for _ in range(5):
            client = await world.client()
            client.send(get("example.org"))
            assert (await client.reply()).field("x-deny-reason") == "host-not-listed"
            client.reset()
            await settled(lambda: world.listener.connections == 0)
        assert world.egress.connections == {}
        assert world.metrics.connections.value("proxy", "accepted") == 5
        assert world.metrics.bounds.value("proxy_connections") == 0


async def test_the_bound_of_a_listener_refuses(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, proxy_connections=1)
    async with opened(tmp_path, limits=limits) as world:
        first, second = await world.client(), await world.client()
        assert (await second.reply()).field("x-deny-reason") == "capacity"
        assert world.metrics.bounds.value("proxy_connections") == 1
        first.send(get("example.org"))
        assert (await first.reply()).status == 403
        line = (await world.lines())[0]
        assert (line["reason"], line["app"]) == ("capacity", "me")
