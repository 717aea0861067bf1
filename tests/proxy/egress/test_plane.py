"""The HTTP plane as a whole: it makes connections and ends them."""

import asyncio
from pathlib import Path

from rules.ruleset import AllowRule
from tests.proxy.egress.world import LOOPBACK, Origin, get, opened
from tests.rules.written import allow


async def test_serves_what_its_listener_accepts_and_ends_it_at_the_close(tmp_path: Path) -> None:
    async with Origin().running() as origin:
        rule = allow("example.com", ports=[origin.port], addresses=[LOOPBACK])
        await serve_and_close(origin, rule, tmp_path)


async def serve_and_close(origin: Origin, rule: AllowRule, tmp_path: Path) -> None:
    async with opened(tmp_path, rule) as world:
        reply = await world.ask(get(f"example.com:{origin.port}"))
        assert reply.status == 200
        await asyncio.wait_for(world.egress.close(0.1), 10)
        assert len(world.egress.pool) == 0
