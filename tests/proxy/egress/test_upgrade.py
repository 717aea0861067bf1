"""A request that becomes a tunnel in another protocol, and the evidence of it."""

from asyncio import StreamReader, StreamWriter
from pathlib import Path

from rules.ruleset import AllowRule
from tests.proxy.egress.world import LOOPBACK, Origin, World, get, opened, settled
from tests.rules.written import allow


def web(origin: Origin) -> AllowRule:
    return allow("example.com", ports=[origin.port], addresses=[LOOPBACK])


async def switching(world: World, origin: Origin) -> bytes:
    """Ask to switch, say something early, and return what comes back."""
    client = await world.client()
    fields = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x")
    client.send(get(f"example.com:{origin.port}", "/", *fields) + b"early")
    head = await client.head() + await client.exactly(len(b"hello:early"))
    client.abort()
    return head


async def test_becomes_a_tunnel_after_101(tmp_path: Path) -> None:
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        head = await origin.read_head(reader)
        assert b"connection: upgrade\r\nupgrade: websocket\r\n" in head
        fields = b"Connection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: y\r\n"
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n" + fields + b"\r\nhello:")
        writer.write(await reader.readexactly(5))
        await reader.read()

    origin.script = script
    async with origin.running(), opened(tmp_path, web(origin)) as world:
        answer = await switching(world, origin)
        assert answer.endswith(b"\r\n\r\nhello:early")
        assert b"sec-websocket-accept: y" in answer.lower()
        await settled(lambda: world.metrics.tunnels.value == 0)
        closed = [line for line in await world.lines() if "octets_up" in line]
        assert (closed[0]["octets_up"], closed[0]["octets_down"]) == (5, 11)


async def test_the_line_of_its_request_says_that_it_was_upgraded(tmp_path: Path) -> None:
    origin = Origin()

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await origin.read_head(reader)
        fields = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n" + fields + b"\r\nhello:")
        writer.write(await reader.readexactly(5))
        await reader.read()

    origin.script = script
    async with origin.running(), opened(tmp_path, web(origin)) as world:
        await switching(world, origin)
        await settled(lambda: world.metrics.tunnels.value == 0)
        lines = [line for line in await world.lines() if line.get("upgrade") == "websocket"]
    assert [(line["fact"], line["verdict"]) for line in lines] == [("request", "allow")]
