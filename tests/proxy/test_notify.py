"""sd_notify(3): a real datagram socket hears us, and nobody else has to."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.notify import Heartbeat, notify, watchdog_s


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """What systemd binds and names in NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(5)
        yield bound


def environ_of(manager: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(manager.getsockname()), **more}


def test_says_every_line_in_one_datagram(manager: socket.socket) -> None:
    assert notify(environ_of(manager), "READY=1", "STATUS=generation 1")
    assert manager.recv(100) == b"READY=1\nSTATUS=generation 1"


def test_an_at_sign_is_the_abstract_namespace() -> None:
    name = f"sallyport-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind("\0" + name)
        assert notify({"NOTIFY_SOCKET": "@" + name}, "READY=1")
        assert bound.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative/path"])
def test_nobody_is_told_where_no_socket_of_ours_is_named(address: str) -> None:
    assert not notify({"NOTIFY_SOCKET": address}, "READY=1")
    assert not notify({}, "READY=1")


def test_a_manager_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    assert not notify({"NOTIFY_SOCKET": str(tmp_path / "none")}, "READY=1")


def test_a_full_queue_does_not_hold_us_up(manager: socket.socket) -> None:
    environ = environ_of(manager)
    sent = 0
    while notify(environ, "WATCHDOG=1"):
        sent += 1
        assert sent < 100_000, "the kernel bounds a datagram socket's queue"


@pytest.mark.parametrize(
    ("environ", "every_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time(
    environ: dict[str, str], every_s: float | None
) -> None:
    assert watchdog_s(environ, 7) == every_s


async def test_the_heart_beats_until_it_is_closed(manager: socket.socket) -> None:
    heartbeat = Heartbeat(environ_of(manager, WATCHDOG_USEC="2000"), 7, lambda: True)
    heartbeat.start()
    for _ in range(3):
        assert await asyncio.to_thread(manager.recv, 100) == b"WATCHDOG=1"
    heartbeat.close()
    heartbeat.close()


async def test_a_heart_that_is_not_well_is_silent(manager: socket.socket) -> None:
    asked = asyncio.Event()

    def is_well() -> bool:
        asked.set()
        return False

    heartbeat = Heartbeat(environ_of(manager, WATCHDOG_USEC="2000"), 7, is_well)
    heartbeat.start()
    await asked.wait()
    heartbeat.close()
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


async def test_without_a_watchdog_nothing_is_sent(manager: socket.socket) -> None:
    heartbeat = Heartbeat(environ_of(manager), 7, lambda: True)
    heartbeat.start()
    heartbeat.close()
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)
