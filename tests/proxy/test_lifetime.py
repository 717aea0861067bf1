"""From ready to the signal that ends it: systemd, SIGHUP, and what is printed."""

import asyncio
import gc
import json
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import override

import pytest

from proxy.banner import Ready
from proxy.errors import BindError
from proxy.lifetime import live

READY = Ready(4711, 3, "advisory", {"do53": ["127.0.0.1:53"]}, ["a.yaml"], ["a note"])


class Lives:
    """What is started; `steps` is what was done with it, in order."""

    def __init__(self, error: Exception | None = None) -> None:
        self.steps: list[str] = []
        self.error = error
        self.did = asyncio.Event()

    async def start(self) -> Ready:
        self._step("start")
        if self.error is not None:
            raise self.error
        return READY

    async def close(self) -> None:
        self._step("close")

    def reload(self) -> None:
        self._step("reload")

    def _step(self, name: str) -> None:
        self.steps.append(name)
        self.did.set()

    async def until(self, name: str) -> None:
        async with asyncio.timeout(10):
            while name not in self.steps:
                self.did.clear()
                await self.did.wait()


@pytest.fixture
async def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[socket.socket]:
    """What systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield made
    gc.unfreeze()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().remove_signal_handler(number)


async def heard(manager: socket.socket) -> bytes:
    async with asyncio.timeout(10):
        return await asyncio.get_running_loop().sock_recv(manager, 100)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_lives_until_a_signal_ends_it(
    manager: socket.socket, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    lives = Lives()
    living = asyncio.ensure_future(live(lives, as_json=True))
    assert await heard(manager) == b"READY=1"
    assert json.loads(capsys.readouterr().out)["event"] == "ready"
    assert lives.steps == ["start"]
    os.kill(os.getpid(), signal.SIGHUP)
    await lives.until("reload")
    assert not living.done()
    os.kill(os.getpid(), number)
    assert await living == 0
    assert lives.steps == ["start", "reload", "close"]
    assert await heard(manager) == b"STOPPING=1"


async def test_a_person_reads_a_table_with_the_notes_in_it(
    manager: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    living = asyncio.ensure_future(live(Lives(), as_json=False))
    assert await heard(manager) == b"READY=1"
    os.kill(os.getpid(), signal.SIGTERM)
    assert await living == 0
    out = capsys.readouterr().out
    assert "a note" in out
    assert "127.0.0.1:53" in out


async def test_what_reads_json_finds_the_notes_in_the_log(
    manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "sallyport")
    living = asyncio.ensure_future(live(Lives(), as_json=True))
    await heard(manager)
    os.kill(os.getpid(), signal.SIGTERM)
    await living
    assert caplog.messages == ["a note"]


async def test_a_signal_while_it_starts_ends_it_once_it_has(manager: socket.socket) -> None:
    class Slow(Lives):
        @override
        async def start(self) -> Ready:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0)
            return await super().start()

    lives = Slow()
    assert await live(lives, as_json=True) == 0
    assert lives.steps == ["start", "close"]
    assert await heard(manager) == b"READY=1"


async def test_what_cannot_start_is_nobodys_success(manager: socket.socket) -> None:
    with pytest.raises(BindError):
        await live(Lives(BindError("no port")), as_json=True)
    with pytest.raises(BlockingIOError):
        manager.recv(100)
