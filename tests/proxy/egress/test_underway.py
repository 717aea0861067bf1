"""What ends a request before its response has ended."""

from pathlib import Path

import pytest

from proxy.egress.sweep import sweep, sweep_askers
from rules.ruleset import AllowRule
from tests.proxy.egress.world import LOOPBACK, Origin, get, opened, saying, settled
from tests.rules.written import allow


def web(origin: Origin) -> AllowRule:
    return allow("example.com", ports=[origin.port], addresses=[LOOPBACK])


@pytest.mark.parametrize(
    "half",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
    ],
)
async def test_a_response_that_breaks_off_has_its_line(tmp_path: Path, half: bytes) -> None:
    async with saying(half, close=True).running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        assert b"half" in await client.rest()
        await settled(lambda: world.metrics.proxy_requests.value("forward", "failed") == 1)
        failed = [line for line in await world.lines() if line["verdict"] == "fail"]
    assert [line["fact"] for line in failed] == ["request"]
    assert failed[0]["text"]


async def test_with_nothing_under_way_nothing_is_cut(tmp_path: Path) -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with saying(ok).running() as origin, opened(tmp_path, web(origin)) as world:
        client = await world.client()
        client.send(get(f"example.com:{origin.port}"))
        assert (await client.reply()).status == 200
        world.use(2, web(origin))
        assert await sweep(world.egress, 2) == 0
        assert await sweep_askers(world.egress) == 0
        client.abort()
