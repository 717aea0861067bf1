"""Tunnels: both directions, their ends, their limits and their evidence."""

import asyncio
import gc
from asyncio import StreamReader, StreamWriter
from pathlib import Path

import msgspec
import pytest

from proxy.egress.connect import ESTABLISHED
from proxy.egress.tunnel import Side
from proxy.limits import Limits
from rules.ruleset import AllowRule
from tests.proxy.egress.world import LOOPBACK, QUICK, Origin, Peer, World, connect, opened, settled
from tests.rules.written import allow


def unread(origin: Origin) -> AllowRule:
    return allow("example.com", ports=[origin.port], addresses=[LOOPBACK], tls=False)


async def established(world: World, origin: Origin) -> Peer:
    client = await world.client()
    client.send(connect(f"example.com:{origin.port}"))
    assert await client.head() == ESTABLISHED
    return client


def silent() -> Origin:
    """Return an origin that reads until the end and keeps what it got."""
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        del writer
        origin.heads.append(await reader.read())

    origin.script = script
    return origin


async def test_the_end_of_one_direction_leaves_the_other_open(tmp_path: Path) -> None:
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        sent = await reader.read()  # until the client's end
        writer.write(b"got " + sent)

    origin.script = script
    async with origin.running(), opened(tmp_path, unread(origin)) as world:
        client = await established(world, origin)
        client.send(b"all")
        client.end()
        assert await client.rest() == b"got all"


async def test_the_origin_may_end_first(tmp_path: Path) -> None:
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        origin.heads.append(await reader.read())

    origin.script = script
    async with origin.running(), opened(tmp_path, unread(origin)) as world:
        client = await established(world, origin)
        assert await client.rest() == b"bye"
        client.send(b"late")
        client.end()
        await settled(lambda: origin.heads == [b"late"])
        await settled(lambda: world.metrics.tunnels.value == 0)


async def test_a_client_that_is_gone_ends_the_origin(tmp_path: Path) -> None:
    async with silent().running() as origin, opened(tmp_path, unread(origin)) as world:
        client = await established(world, origin)
        client.reset()
        await settled(lambda: origin.heads == [b""])
        assert world.egress.connections == {}


class Pouring:
    """Writes many octets, as fast as they are taken."""

    octets = 64 << 20

    def __init__(self) -> None:
        self.written = 0

    async def pour(self, writer: StreamWriter) -> None:
        while self.written < self.octets:
            writer.write(bytes(1 << 20))
            await writer.drain()
            self.written += 1 << 20

    async def stall(self) -> None:
        """Wait until the kernel's buffers are full and nothing moves."""
        before = -1
        while before != self.written:
            before = self.written
            await asyncio.sleep(0.1)
        assert 0 < self.written < self.octets // 2


async def test_an_origin_that_reads_slowly_stops_the_client(tmp_path: Path) -> None:
    go = asyncio.Event()
    origin, pouring = Origin(), Pouring()

    async def script(reader: StreamReader, _writer: StreamWriter) -> None:
        await go.wait()
        origin.heads.append(await reader.readexactly(pouring.octets))

    origin.script = script
    async with origin.running(), opened(tmp_path, unread(origin)) as world:
        client = await established(world, origin)
        task = asyncio.ensure_future(pouring.pour(client.writer))
        await pouring.stall()
        go.set()
        await task
        await settled(lambda: bool(origin.heads))


async def test_a_client_that_reads_slowly_stops_the_origin(tmp_path: Path) -> None:
    origin, pouring = Origin(), Pouring()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await pouring.pour(writer)
        await reader.read()

    origin.script = script
    async with origin.running(), opened(tmp_path, unread(origin)) as world:
        client = await established(world, origin)
        client.pause()
        await pouring.stall()
        client.resume()
        await client.exactly(pouring.octets)


@pytest.mark.parametrize(
    ("limit", "cut"),
    [
        ("tunnel_idle_s", "idle"),
        ("tunnel_life_s", "life"),
        ("tunnel_half_closed_s", "half-closed"),
    ],
)
async def test_limits_in_time_end_a_tunnel(tmp_path: Path, limit: str, cut: str) -> None:
    limits = msgspec.structs.replace(QUICK, **{limit: 0.05})
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.read()
        await asyncio.Event().wait()
        writer.close()

    origin.script = script
    async with origin.running(), opened(tmp_path, unread(origin), limits=limits) as world:
        client = await established(world, origin)
        if cut == "half-closed":
            client.end()
        assert await client.rest() == b""
        assert world.metrics.tunnel_cuts.value(cut) == 1
        assert world.metrics.bounds.value(limit) == 1
        assert world.metrics.tunnels.value == 0


async def test_a_tunnel_that_is_used_is_not_idle(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, tunnel_idle_s=0.5)
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        while data := await reader.read(10):
            writer.write(data)

    origin.script = script
    async with origin.running(), opened(tmp_path, unread(origin), limits=limits) as world:
        client = await established(world, origin)
        for _ in range(40):
            client.send(b"x")
            assert await client.exactly(1) == b"x"
            await asyncio.sleep(0.025)  # a second in all: twice the limit
        assert world.metrics.tunnel_cuts.value("idle") == 0


async def test_shutdown_ends_tunnels_at_once_and_counts_them(tmp_path: Path) -> None:
    async with silent().running() as origin, opened(tmp_path, unread(origin)) as world:
        client = await established(world, origin)
        client.send(b"abc")
        await settled(lambda: any(_octets(each) for each in world.egress.deadlines._timed))
        await world.egress.close(10.0)
        assert await client.rest() == b""
        assert world.metrics.tunnel_cuts.value("shutdown") == 1
        assert world.metrics.octets.value("up") == 3
        (last,) = [line for line in await world.lines() if "octets_up" in line]
        assert (last["octets_up"], last["octets_down"]) == (3, 0)


def _octets(timed: object) -> int:
    client = getattr(timed, "client", None)
    return int(client.octets) if client is not None else 0


async def test_a_peer_that_never_reads_its_last_octets_is_dropped(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, linger_s=0.05, tunnel_half_closed_s=0.1)
    limits = msgspec.structs.replace(limits, tunnel_buffer_octets=64 << 20)
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        del reader
        writer.write(bytes(16 << 20))
        writer.write_eof()
        await writer.drain()

    origin.script = script
    async with origin.running(), opened(tmp_path, unread(origin), limits=limits) as world:
        client = await established(world, origin)
        client.pause()
        client.end()
        await settled(lambda: world.egress.connections == {})


async def test_an_idle_tunnel_costs_little_memory(tmp_path: Path, report: list[str]) -> None:
    def resident() -> int:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * 4096

    many = 200
    async with silent().running() as origin, opened(tmp_path, unread(origin)) as world:
        first = [await established(world, origin) for _ in range(20)]
        before = resident()
        rest = [await established(world, origin) for _ in range(many)]
        growth = (resident() - before) / many
        # The test's own ends of each tunnel, two streams of asyncio, are counted as well.
        report.append(f"idle tunnel with both of its peers: {growth / 1024:.1f} KiB")
        assert len(first) + len(rest) == world.metrics.tunnels.value
        assert growth < 60 * 1024


def test_the_defaults_are_those_of_the_reference() -> None:
    assert (Limits().tunnel_idle_s, Limits().tunnel_buffer_octets) == (3600.0, 262144)


async def test_a_client_that_reads_slowly_gets_what_a_lost_origin_sent(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, linger_s=0.02, tunnel_buffer_octets=64 << 20)
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        del reader
        writer.write(bytes(8 << 20))
        writer.write_eof()
        await writer.drain()

    origin.script = script
    async with origin.running(), opened(tmp_path, unread(origin), limits=limits) as world:
        client = await established(world, origin)
        client.pause()
        client.end()  # both directions have ended, and most is not read yet
        await settled(lambda: world.metrics.tunnels.value == 0)
        await asyncio.sleep(0.2)  # ten times what a client is given that has read everything
        client.resume()
        assert len(await client.rest()) == 8 << 20


async def test_a_tunnel_leaves_nothing_to_the_collector(tmp_path: Path) -> None:
    """Cycles would keep each tunnel's memory until the next collection, and then cost it."""
    async with Origin().running() as origin:
        rule = allow("example.com", ports=[origin.port], addresses=[LOOPBACK], tls=False)
        async with opened(tmp_path, rule) as world:
            asked = connect(f"example.com:{origin.port}")
            await world.ask(asked)  # the usual way begins with the second
            gc.collect()
            gc.disable()
            try:
                client = await world.client()
                client.send(asked)
                assert await client.head() == ESTABLISHED
                client.end()
                await client.rest()
                await settled(lambda: not any(isinstance(each, Side) for each in gc.get_objects()))
            finally:
                gc.enable()
