"""One connection to an origin, and who is told what of it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.egress.deadlines import Deadlines
from proxy.egress.origin import OriginConnection, OriginKey
from rules.address import parse_address
from rules.facts import Principal
from rules.name import parse
from tests.proxy.egress.world import Origin, settled


class Told:
    def __init__(self) -> None:
        self.what: list[str] = []
        self.data = b""

    def receive(self, data: bytes) -> None:
        self.data += data

    def origin_ended(self) -> None:
        self.what.append("ended")

    def origin_lost(self) -> None:
        self.what.append("lost")

    def origin_full(self) -> None:
        self.what.append("full")

    def origin_ready(self) -> None:
        self.what.append("ready")

    def origin_late(self) -> None:
        self.what.append("late")


class Line:
    """A connection, and who forgot it."""

    def __init__(self, deadlines: Deadlines, server: Origin) -> None:
        self.deadlines = deadlines
        self.server = server
        self.forgotten: list[OriginConnection] = []
        self.connection: OriginConnection

    async def connect(self) -> None:
        key = OriginKey(Principal("me"), parse("example.com"), self.server.port)
        address = parse_address("127.0.0.1")
        _, self.connection = await asyncio.get_running_loop().create_connection(
            lambda: OriginConnection(
                self.deadlines, self.forgotten.append, key, address, "127.0.0.1"
            ),
            "127.0.0.1",
            self.server.port,
        )


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    async with Origin().running() as server:
        line = Line(Deadlines(0.02), server)
        await line.connect()
        yield line
        await line.deadlines.drain(0.1)


async def test_hands_octets_to_its_receiver(line: Line) -> None:
    told = Told()
    line.connection.receiver = told
    assert line.connection.is_busy
    line.connection.transport.write(b"GET / HTTP/1.1\r\n\r\n")
    await settled(lambda: told.data.endswith(b"ok"))


async def test_octets_for_nobody_end_it(line: Line) -> None:
    line.connection.rested = True
    line.connection.transport.write(b"GET / HTTP/1.1\r\n\r\n")
    await settled(lambda: line.forgotten == [line.connection])


async def test_octets_before_anybody_used_it_are_kept_and_no_more_is_read(line: Line) -> None:
    line.connection.transport.write(b"GET / HTTP/1.1\r\n\r\n")
    await settled(lambda: line.connection.early.endswith(b"ok"))
    assert not line.connection.transport.is_reading()
    assert line.connection.leave().is_reading()


async def test_tells_of_pressure_and_loss(line: Line) -> None:
    told = Told()
    line.connection.pause_writing()
    line.connection.resume_writing()
    line.connection.receiver = told
    line.connection.pause_writing()
    line.connection.resume_writing()
    line.connection.end()
    await settled(lambda: told.what == ["full", "ready", "lost"])
    assert line.forgotten == []


async def test_tells_of_an_orderly_end(line: Line) -> None:
    told = Told()
    line.connection.receiver = told
    line.connection.eof_received()
    assert told.what == ["ended"]
    line.connection.receiver = None
    assert line.connection.eof_received() is False


async def test_a_limit_in_time_is_told_or_ends_it(line: Line) -> None:
    told = Told()
    line.connection.receiver = told
    line.connection.deadline = 0.0
    await settled(lambda: told.what == ["late"])
    line.connection.receiver = None
    line.connection.deadline = 0.0
    await settled(lambda: line.forgotten == [line.connection])


async def test_may_be_left_and_come_back(line: Line) -> None:
    line.connection.receiver = Told()
    transport = line.connection.leave()
    assert len(line.deadlines) == 0
    assert not line.connection.is_busy
    transport.pause_reading()
    line.connection.come_back()
    assert transport.get_protocol() is line.connection
    assert len(line.deadlines) == 1
