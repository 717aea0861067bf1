"""The control API has two doors, and the same answers behind both."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.binding import Bound
from proxy.control.client import NotRunningError
from proxy.control.place import bind_control
from proxy.controlling import KIND, Controlling
from proxy.errors import BindError
from proxy.limits import Limits
from proxy.transport.listen import bind_tcp
from tests.proxy.control.remote_stand import RemoteStand


class Desk(RemoteStand):
    """What `Controlling` serves, and what asks it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Limits(), ())
        self.controlling = Controlling(self.limits, self.metrics)
        self.sockets = [bind_tcp("127.0.0.1", 0) for _ in range(2)]
        self.port = self.sockets[0].getsockname()[1]
        self.is_open = True

    async def close(self) -> None:
        if self.is_open:
            self.is_open = False
            await self.controlling.close()

    @property
    def bound(self) -> list[Bound]:
        """A socket of ours, and one of another kind."""
        one, other = self.sockets
        return [Bound(KIND, "127.0.0.1:9443", one), Bound("proxy", "127.0.0.1:3128", other)]


@asynccontextmanager
async def desk_in(folder: Path) -> AsyncIterator[Desk]:
    made = Desk(folder)
    made.audit.start()
    await made.tokens.open()
    try:
        yield made
    finally:
        for _ in range(3):  # asyncio itself loses the socket that it accepts while a server closes
            await asyncio.sleep(0)
        await made.close()
        for each in made.sockets:
            each.close()
        await made.tokens.close()
        await made.audit.close()


async def test_both_doors_answer_the_same_until_they_are_closed(tmp_path: Path) -> None:
    async with desk_in(tmp_path) as desk:
        await desk.controlling.start(desk.sources, bind_control(desk.path))
        await desk.controlling.start_remote(desk.bound, desk.admins, desk.tls)
        alice = desk.issued()
        assert await desk.ask("GET", "/apps") == await desk.ask_as(alice, "GET", "/apps")
        assert desk.controlling.problem is None
        await desk.close()
        assert not desk.path.exists()
        with pytest.raises(NotRunningError):
            await desk.ask("GET", "/apps")
        with pytest.raises(BindError, match="Connection refused"):
            await desk.ask_as(alice, "GET", "/apps")


async def test_sockets_of_other_kinds_are_left_alone(tmp_path: Path) -> None:
    async with desk_in(tmp_path) as desk:
        await desk.controlling.start(desk.sources, None)
        await desk.controlling.start_remote(desk.bound, desk.admins, desk.tls)
        other = desk.sockets[1]
        reader, writer = await asyncio.open_connection(*other.getsockname())
        accepted, _ = await asyncio.get_running_loop().sock_accept(other)  # by us, and nobody else
        accepted.close()
        assert await reader.read() == b""
        writer.close()


async def test_without_a_door_admins_elsewhere_are_served(tmp_path: Path) -> None:
    async with desk_in(tmp_path) as desk:
        assert desk.controlling.problem is None
        await desk.controlling.start(desk.sources, None)
        await desk.controlling.start_remote(desk.bound, desk.admins, desk.tls)
        assert await desk.ask_as(desk.issued(), "GET", "/tokens") == []
        with pytest.raises(NotRunningError):
            await desk.ask("GET", "/apps")


async def test_without_tls_nobody_elsewhere_is_served(tmp_path: Path) -> None:
    async with desk_in(tmp_path) as desk:
        await desk.controlling.start(desk.sources, bind_control(desk.path))
        await desk.controlling.start_remote(desk.bound, desk.admins, None)
        assert desk.controlling._remote is None
        assert await desk.ask("GET", "/tokens") == []


async def test_a_door_that_is_gone_is_a_problem(tmp_path: Path) -> None:
    async with desk_in(tmp_path) as desk:
        await desk.controlling.start(desk.sources, bind_control(desk.path))
        desk.path.unlink()
        desk.path.mkdir()
        async with asyncio.timeout(10):
            while desk.controlling.problem is None:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
        assert str(desk.path) in desk.controlling.problem
        desk.path.rmdir()


async def test_one_that_never_began_ends_quietly(tmp_path: Path) -> None:
    async with desk_in(tmp_path) as desk:
        await desk.controlling.start_remote(desk.bound, desk.admins, desk.tls)
        await desk.close()
        with pytest.raises(NotRunningError):
            await desk.ask("GET", "/apps")
