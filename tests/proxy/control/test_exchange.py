"""Requests over any stream: who may ask is looked at each time, and every end is noticed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from proxy.control.asked import RefusedError
from proxy.control.exchange import EndedError, Exchanges
from proxy.control.place import Caller
from proxy.control.routes import Routes
from proxy.control.status import LastSeen
from proxy.limits import Limits
from proxy.wire.head import RequestHead
from tests.proxy.control_stand import Stand

GET = b"GET /apps HTTP/1.1\r\nhost: localhost\r\n\r\n"
US = Caller(1, 0, 0)


class Door:
    """Lets in who stands in `answers`, one a request: a caller, or what is raised."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        stand = Stand(folder, limits)
        self.metrics = stand.metrics
        routes = Routes(stand.sources, LastSeen(stand.metrics))
        self.exchanges = Exchanges(routes, limits, stand.metrics)
        self.answers: list[Caller | Exception] = []
        self.ended = asyncio.Event()
        self.port = 0

    def admit(self, _: RequestHead) -> Caller:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.exchanges.take(reader, writer, self.admit, self.ended.set)


@asynccontextmanager
async def opened(folder: Path, limits: Limits | None = None) -> AsyncIterator[Door]:
    door = Door(folder, limits or Limits())
    server = await asyncio.start_server(door.accept, "127.0.0.1", 0)
    door.port = server.sockets[0].getsockname()[1]
    try:
        yield door
    finally:
        server.close()
        await door.exchanges.close()


async def test_each_request_is_admitted_anew(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        door.answers = [US, US, RefusedError(403, "no more")]
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(GET * 3)
        replies = await reader.read()
        writer.close()
    assert replies.count(b"HTTP/1.1 200 ") == 2
    assert replies.count(b"HTTP/1.1 403 ") == 1
    assert b"no more" in replies


async def test_one_that_has_ended_is_told_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        door.answers = [EndedError()]
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(GET)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        await asyncio.wait_for(door.ended.wait(), 10)
        writer.close()


async def test_every_end_is_noticed(tmp_path: Path) -> None:
    async with opened(tmp_path, Limits(control_connections=1)) as door:
        door.answers = [US]
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await asyncio.wait_for(door.ended.wait(), 10)
        assert door.metrics.connections.value("control", "accepted") == 1


async def test_where_all_are_being_answered_one_more_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path, Limits(control_connections=0)) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        await asyncio.wait_for(door.ended.wait(), 10)
        assert door.metrics.connections.value("control", "refused") == 1
        assert door.metrics.bounds.value("control_connections") == 1
        writer.close()
