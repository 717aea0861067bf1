"""Tokens over restarts, and what other processes do to their file."""

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.capabilities.live import FILE_NAME, LiveCapabilities
from proxy.errors import BindError
from proxy.limits import Limits
from tests.proxy.capabilities.stand import Stand, by_certificate, standing
from tests.proxy.capabilities.test_known import NOW, token
from tests.proxy.lines import until

CODER, HELPER = by_certificate("coder"), by_certificate("helper")


class Clock:
    """The time, which a test says."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(folder: Path, clock: Clock) -> AsyncIterator[LiveCapabilities]:
    live = LiveCapabilities(folder / FILE_NAME, Limits(), clock)
    await live.open()
    try:
        yield live
    finally:
        await live.close()


async def again(stand: Stand) -> None:
    """Restart."""
    await stand.live.close()
    await stand.open()


async def test_tokens_and_what_is_void_of_them_outlast_a_restart(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        kept, revoked = await stand.token(CODER), await stand.token(CODER)
        _, answer = await stand.pass_on(HELPER, kept)
        stand.exchange.revoke(revoked, "why")
        await again(stand)
        assert await stand.is_active(kept)
        assert await stand.is_active(answer["access_token"])
        assert not await stand.is_active(revoked)
        assert await stand.ask("/revoke", CODER, token=kept) == (200, {})
        await again(stand)
        assert not await stand.is_active(answer["access_token"])
        stand.now += 60
        await again(stand)
        assert stand.live.known.all() == ()


async def test_no_token_is_on_the_disk(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        made = await stand.token(CODER)
        await stand.exchange.settled()
        path = stand.live.path
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        octets = b"".join(each.read_bytes() for each in tmp_path.glob(f"{FILE_NAME}*"))
        assert made.split(".")[2].encode() not in octets


async def test_who_exchanges_nothing_has_no_file(tmp_path: Path) -> None:
    async with opened(tmp_path, Clock()) as live:
        await live.settled()
        assert live.void(["x"], "") == ()
        assert (live.problem, live.is_full, live.path.exists()) == (None, False, False)


async def test_what_another_process_voids_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.capabilities.live.TICK_S", 0.03)
    clock = Clock()
    async with opened(tmp_path, clock) as live, opened(tmp_path, clock) as other:
        await live.ready()
        live.keep(token("a"))
        live.keep(token("b", "a"))
        live.keep(token("c"))
        await live.settled()
        await other.ready()  # reads them
        other.void(["a"], "why")
        await other.settled()
        await until(lambda: not live.known.stands(token("b"), clock.now))
        assert not live.known.stands(token("a"), clock.now)
        assert live.known.stands(token("c"), clock.now)


async def test_what_is_void_in_the_file_is_not_written_over(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, clock) as live, opened(tmp_path, clock) as other:
        await live.ready()
        live.keep(token("a"))
        await live.settled()
        await other.ready()
        other.void(["a"], "first")
        await other.settled()
        live.keep(token("a"))
        await live.settled()
    async with opened(tmp_path, clock) as live:
        kept = live.known.get("a")
        assert kept is not None
        assert kept.why == "first"


async def test_a_child_whose_parent_is_not_known_does_not_count(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, clock) as live:
        await live.ready()
        live.keep(token("b", "a"))
    async with opened(tmp_path, clock) as live:
        assert live.known.lineage(token("b", "a")) == (token("b", "a"), None)


async def test_a_file_that_is_none_of_ours_grants_nothing_until_it_is_moved_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / FILE_NAME, Clock()
    path.write_bytes(b"x" * 5000)
    path.chmod(0o600)
    async with opened(tmp_path, clock) as live:
        assert live.problem is not None
        with pytest.raises(BindError):
            await live.ready()
        path.unlink()
        monkeypatch.setattr("proxy.capabilities.live.TICK_S", 0.03)
        clock.now += 20
        await until(lambda: live.problem is None)
        await live.ready()


async def test_a_row_that_is_none_of_ours_is_damage(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, clock) as live:
        await live.ready()
        live.keep(token("a"))
    with sqlite3.connect(tmp_path / FILE_NAME, autocommit=True) as db:
        db.execute("UPDATE capability SET token = x'7b7d'")
    db.close()
    async with opened(tmp_path, clock) as live:
        assert "damaged" in str(live.problem)


async def test_a_file_that_goes_bad_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.capabilities.live.TICK_S", 0.03)
    async with opened(tmp_path, Clock()) as live:
        await live.ready()
        live.path.chmod(0o666)
        live.keep(token("a"))
        await live.settled()
        await until(lambda: live.problem is not None)
        assert "chmod 600" in str(live.problem)
        live.path.chmod(0o600)
        live.keep(token("b"))
        await live.settled()
        await until(lambda: live.problem is None)


async def test_a_file_that_is_taken_away_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.capabilities.live.TICK_S", 0.03)
    async with opened(tmp_path, Clock()) as live:
        await live.ready()
        live.keep(token("a"))
        await live.settled()
        for each in tmp_path.glob(f"{FILE_NAME}*"):
            each.unlink()
        await until(lambda: live.problem is not None)
        with pytest.raises(BindError):
            await live.ready()
        assert live.known.get("a") == token("a")


async def test_what_has_expired_leaves_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    counts: list[int] = []
    live = LiveCapabilities(tmp_path / FILE_NAME, Limits(), clock, count=counts.append)
    await live.ready()
    live.keep(token("a"))
    live.keep(token("b", expires=NOW + 3000))
    monkeypatch.setattr("proxy.capabilities.live.TICK_S", 0.03)
    await live.open()
    assert counts == [2]
    clock.now += 100
    await until(lambda: counts[-1] == 1)
    await asyncio.sleep(0)
    await live.close()
    db = sqlite3.connect(tmp_path / FILE_NAME)
    assert db.execute("SELECT id FROM capability").fetchall() == [("b",)]
    db.close()
