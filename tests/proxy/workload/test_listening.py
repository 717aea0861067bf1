"""Accepting on a unix socket: nobody is lost when descriptors or the file are."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.control.place import WORKLOAD, ControlSocket, bind_door
from proxy.workload import listening
from proxy.workload.listening import Listening
from tests.proxy.lines import until


class Desk:
    """A socket that is accepted on, and what was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.taken: list[socket.socket] = []
        self.clients: list[socket.socket] = []
        self.listening = Listening(bind_door(WORKLOAD, path), self.taken.append)

    def dial(self) -> None:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.path))
        self.clients.append(client)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path / "run" / "w.sock")
    made.listening.start()
    yield made
    made.listening.close()
    for each in (*made.clients, *made.taken):
        each.close()


async def test_every_connection_is_taken_unread_and_does_not_block(desk: Desk) -> None:
    for _ in range(20):
        desk.dial()
    desk.clients[0].sendall(b"hello")
    await until(lambda: len(desk.taken) == 20)
    assert {each.getblocking() for each in desk.taken} == {False}
    assert desk.taken[0].recv(5) == b"hello"
    assert desk.listening.group is None


async def test_without_a_descriptor_it_rests_and_then_goes_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_REST_S", 0.01)
    tries = []
    real = socket.socket.accept

    def accept(self: socket.socket) -> tuple[socket.socket, object]:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", accept)
    desk.dial()
    await until(lambda: len(desk.taken) == 1)
    assert len(tries) == 4


async def test_it_ends_while_it_rests(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def accept(_: socket.socket) -> tuple[socket.socket, object]:
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    monkeypatch.setattr(socket.socket, "accept", accept)
    desk.dial()
    await until(lambda: desk.listening._resting is not None)
    desk.listening._stop()
    assert desk.listening._resting is None


async def test_a_file_that_is_taken_away_is_made_again(desk: Desk) -> None:
    desk.listening.look()
    desk.path.unlink()
    desk.listening.look()
    desk.dial()
    await until(lambda: len(desk.taken) == 1)


async def test_a_place_that_is_lost_is_said_until_it_is_there_again(desk: Desk) -> None:
    desk.path.unlink()
    desk.path.mkdir()
    desk.listening.look()
    desk.listening.look()
    assert "is gone and cannot be made" in (desk.listening.problem or "")
    desk.path.rmdir()
    desk.listening.look()
    assert desk.listening.problem is None
    desk.dial()
    await until(lambda: len(desk.taken) == 1)


async def test_a_client_that_gave_up_is_passed_over(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.socket.accept
    errors = [ConnectionAbortedError(), InterruptedError()]

    def accept(self: socket.socket) -> tuple[socket.socket, object]:
        if errors:
            raise errors.pop()
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", accept)
    desk.dial()
    await until(lambda: len(desk.taken) == 1)


async def test_one_that_nobody_can_take_is_closed_and_the_next_is_taken(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(each: socket.socket) -> None:
        desk.taken.append(each)
        raise ZeroDivisionError

    desk.listening._take = broken
    desk.dial()
    desk.dial()
    await until(lambda: len(desk.taken) == 2)
    assert [each.fileno() for each in desk.taken] == [-1, -1]
    assert caplog.text.count("a bug of ours at") == 2


async def test_its_file_goes_with_it(tmp_path: Path) -> None:
    bound: ControlSocket = bind_door(WORKLOAD, tmp_path / "run" / "w.sock")
    made = Listening(bound, lambda each: each.close())
    made.start()
    await asyncio.sleep(0)
    made.close()
    assert not bound.path.exists()


async def test_who_takes_long_to_be_looked_up_holds_nobody_else_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """threats.md, "Identity": a process with 10^6 descriptors as a slow look-up."""
    clock = iter(range(10_000))
    monkeypatch.setattr(listening, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(listening, "_A_TURN_S", 1.5)  # two ticks: one is accepted in a turn
    turns: list[int] = []

    def turn() -> None:
        turns.append(len(desk.taken))
        asyncio.get_running_loop().call_soon(turn)

    for _ in range(5):
        desk.dial()
    turn()
    await until(lambda: len(desk.taken) == 5)
    assert {1, 2, 3, 4} <= set(turns)
