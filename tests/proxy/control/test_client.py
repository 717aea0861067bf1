"""The command line's end: what it asks, and what it says where nobody answers."""

import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

from proxy.control.client import ControlClient, ControlError, NotRunningError
from proxy.errors import BindError
from tests.proxy.control_stand import Stand, standing


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path) as made:
        yield made


async def test_returns_what_the_appliance_answers(stand: Stand) -> None:
    assert (await stand.ask("GET", "/status"))["pid"] == os.getpid()
    assert await stand.ask("GET", "/tokens") == []


async def test_raises_what_the_appliance_refuses(stand: Stand) -> None:
    with pytest.raises(ControlError, match=r"docs/control\.md") as caught:
        await stand.ask("GET", "/nothing")
    assert caught.value.status == 404


def test_says_that_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match="sallyport up"):
        ControlClient(tmp_path / "control.sock").get("/status")
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "control.sock"))
    left.close()
    with pytest.raises(NotRunningError, match="sallyport up"):
        ControlClient(tmp_path / "control.sock").get("/status")


def test_says_what_to_do_where_the_socket_is_not_open_to_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(_self: socket.socket, _address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", closed)
    with pytest.raises(BindError, match="control group"):
        ControlClient(tmp_path / "control.sock").get("/status")


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Callable[[bytes], Path]]:
    """Return a socket's path at which one connection gets the octets that are given."""
    path = tmp_path / "control.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    threads: list[Thread] = []

    def answer(octets: bytes) -> Path:
        def serve() -> None:
            accepted, _ = listening.accept()
            with accepted:
                if octets:
                    accepted.recv(65536)
                    accepted.sendall(octets)

        threads.append(Thread(target=serve))
        threads[-1].start()
        return path

    yield answer
    for thread in threads:
        thread.join(10)
    listening.close()


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"SSH-2.0-x\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{", id="cut off"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n<>", id="no JSON"),
    ],
)
def test_what_is_no_answer_is_said(answering: Callable[[bytes], Path], octets: bytes) -> None:
    with pytest.raises(BindError, match=r"is it the control socket"):
        ControlClient(answering(octets)).get("/status")


def test_a_refusal_without_detail_is_told_by_its_phrase(
    answering: Callable[[bytes], Path],
) -> None:
    path = answering(b"HTTP/1.1 500 Broken\r\ncontent-length: 2\r\n\r\n[]")
    with pytest.raises(ControlError, match="Broken"):
        ControlClient(path).get("/status")


def test_a_socket_of_another_user_is_not_asked(
    answering: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """threats.md, "Identity": another uid listens while we are down and harvests tokens."""
    from proxy.control.place import Caller  # noqa: PLC0415 - beside what it replaces

    monkeypatch.setattr("proxy.control.client.caller_of", lambda _: Caller(1, 4321, 4321))
    with pytest.raises(BindError, match="another user's"):
        ControlClient(answering(b"")).get("/status")
