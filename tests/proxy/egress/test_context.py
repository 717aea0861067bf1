"""What every connection shares."""

from pathlib import Path

from tests.proxy.egress.world import opened


async def test_begins_empty(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        context = world.egress
        assert (len(context.pool), len(context.deadlines), context.connections) == (0, 0, {})
        assert context.lookup is world.names
