"""What a file says is in memory soon after it changed; what is wrong with it is said."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import override

import pytest

from proxy.database.live import BusyError, LiveFile
from proxy.errors import BindError


class Text(LiveFile):
    """A file of text: "bad" cannot be used, "busy" not now."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "texts", lambda: self.clock)
        self.clock = 1000.0
        self.known: str | None = None
        self.reads = 0
        self.looked: list[float] = []

    @override
    async def _take(self) -> None:
        self.reads += 1
        text = self.path.read_text()
        if text == "bad":
            raise BindError("bad text")
        if text == "busy":
            raise BusyError("busy text")
        self.known = text

    @override
    def _gone(self) -> str | None:
        return "gone" if self.known else None

    @override
    def _unusable(self) -> None:
        self.known = None

    @override
    def _look(self, now: float) -> None:
        self.looked.append(now)


@pytest.fixture
async def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Text]:
    monkeypatch.setattr("proxy.database.live.TICK_S", 0.01)
    made = Text(tmp_path / "text")
    await made.open()
    yield made
    await made.close()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not is_so():  # noqa: ASYNC110 - the file is another process's
            await asyncio.sleep(0.005)


async def test_no_file_is_no_problem(live: Text) -> None:
    await until(lambda: len(live.looked) > 2)
    assert (live.known, live.problem, live.reads) == (None, None, 0)


async def test_a_change_is_noticed_and_nothing_is_read_again_without_one(live: Text) -> None:
    live.path.write_text("one")
    await until(lambda: live.known == "one")
    reads, looks = live.reads, len(live.looked)
    await until(lambda: len(live.looked) > looks + 3)
    assert live.reads <= reads + 1
    live.path.with_name("text-wal").write_text("more")
    await until(lambda: live.reads > reads)


async def test_what_cannot_be_used_is_said_until_it_can(
    live: Text, caplog: pytest.LogCaptureFixture
) -> None:
    live.path.write_text("one")
    await until(lambda: live.known == "one")
    live.path.write_text("bad")
    await until(lambda: live.problem == "bad text")
    assert live.known is None
    live.path.write_text("two")
    await until(lambda: live.known == "two")
    assert live.problem is None
    assert "known again" in caplog.text


async def test_what_is_busy_takes_nothing_away_and_is_tried_again(live: Text) -> None:
    live.path.write_text("one")
    await until(lambda: live.known == "one")
    live.path.write_text("busy")
    await until(lambda: live.problem == "busy text")
    assert live.known == "one"
    reads = live.reads
    live.clock += 60
    await until(lambda: live.reads > reads)


async def test_a_file_that_is_missed_is_said_and_that_it_is_unusable(live: Text) -> None:
    live.path.write_text("one")
    await until(lambda: live.known == "one")
    live.path.unlink()
    await until(lambda: live.problem == "gone")
    assert live.known is None
