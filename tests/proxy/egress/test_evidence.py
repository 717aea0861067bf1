"""Lines that repeat: counted in the open fold of their route, and exact."""

from asyncio import StreamReader, StreamWriter
from pathlib import Path
from typing import Any

from proxy.egress.connect import ESTABLISHED
from rules.ruleset import AllowRule
from tests.proxy.egress.world import LOOPBACK, Origin, World, connect, get, opened, settled
from tests.rules.written import allow


def to(origin: Origin) -> AllowRule:
    return allow("example.com", ports=[origin.port], addresses=[LOOPBACK], tls=False)


def echo() -> Origin:
    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)

    return Origin(script)


async def pass_through(world: World, origin: Origin, octets: bytes) -> None:
    client = await world.client()
    client.send(connect(f"example.com:{origin.port}"))
    assert await client.head() == ESTABLISHED
    client.send(octets)
    assert await client.exactly(len(octets)) == octets
    client.end()
    assert await client.rest() == b""
    await settled(lambda: world.metrics.tunnels.value == 0)


def total(lines: list[dict[str, Any]], key: str) -> int:
    return sum(line[key] for line in lines)


async def test_every_tunnel_counts_and_so_does_every_octet(tmp_path: Path) -> None:
    async with echo().running() as origin, opened(tmp_path, to(origin)) as world:
        for number in range(1, 6):
            await pass_through(world, origin, b"x" * number)
        lines = [line for line in await world.lines() if line["fact"] == "connect"]
        ends = [line for line in lines if "duration" in line]
        begins = [line for line in lines if "duration" not in line]
        assert total(begins, "count") == total(ends, "count") == 5
        assert total(ends, "octets_up") == total(ends, "octets_down") == 15
        assert {line["id"] for line in ends} == {line["id"] for line in begins}
        assert {line["address"] for line in begins if line["count"] == 1} <= {"127.0.0.1"}


async def test_another_generation_has_lines_of_its_own(tmp_path: Path) -> None:
    async with echo().running() as origin, opened(tmp_path, to(origin)) as world:
        for generation in (2, 3):
            world.use(generation, to(origin))
            await pass_through(world, origin, b"x")
            await pass_through(world, origin, b"x")
        lines = [line for line in await world.lines() if line["fact"] == "connect"]
        for generation in (2, 3):
            mine = [line for line in lines if line["generation"] == generation]
            assert total(mine, "count") == 4


async def test_a_request_that_repeats_is_counted_and_another_is_told(tmp_path: Path) -> None:
    async with Origin().running() as origin, opened(tmp_path, to(origin)) as world:
        client = await world.client()
        for path in ("/a", "/a", "/a", "/b", "/a"):
            client.send(get(f"example.com:{origin.port}", path))
            assert (await client.reply()).body == b"ok"
        lines = await world.lines()
        assert total([line for line in lines if line["target"].endswith("/a")], "count") == 4
        assert total([line for line in lines if line["target"].endswith("/b")], "count") == 1
