import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.errors import BindError
from proxy.issuing import issued
from proxy.issuing.issued import FILE_NAME, Issued, IssuedLog
from tests.proxy.issuing.stand import until

NOW = 1_000_000.0


def one(serial: str, **fields: object) -> Issued:
    known: dict[str, object] = {
        "serial": serial,
        "spiffe_id": "spiffe://a/b",
        "app": "coder",
        "spki_sha256": "",
        "not_before": int(NOW),
        "not_after": int(NOW) + 3600,
        "how": "workload",
    }
    return Issued(**{**known, **fields})  # type: ignore[arg-type]  # a test's shorthand


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[IssuedLog]:
    found = IssuedLog(tmp_path / FILE_NAME, 3)
    await found.open(NOW)
    yield found
    await found.close()


async def test_what_is_added_is_found_before_and_after_it_is_written(log: IssuedLog) -> None:
    log.add(one("a"))
    assert await log.of_serial("a") == one("a")
    assert len(log) == 1
    await log.flush()
    assert len(log) == 0
    assert await log.of_serial("a") == one("a")
    assert await log.of_serial("b") is None
    await log.flush()  # nothing waits: nothing happens


async def test_what_is_valid_is_found_by_id_and_by_app(log: IssuedLog) -> None:
    log.add(one("a"))
    log.add(one("b", spiffe_id="spiffe://a/c", app="other"))
    log.add(one("c", not_after=int(NOW) + 10))
    found = await log.valid(NOW + 10, spiffe_id="spiffe://a/b")
    assert [each.serial for each in found] == ["a"]
    assert [each.serial for each in await log.valid(NOW, app="other")] == ["b"]
    assert await log.valid(NOW, app="nobody") == []


async def test_it_is_full_until_something_is_written(log: IssuedLog) -> None:
    for serial in "abc":
        assert not log.is_full
        log.add(one(serial))
    assert log.is_full
    await log.flush()
    assert not log.is_full


async def test_what_has_ended_is_dropped(log: IssuedLog, tmp_path: Path) -> None:
    log.add(one("a"))
    log.add(one("b", not_after=int(NOW) + 10))
    await log.flush()
    await log.drop(NOW + 10)
    assert await log.of_serial("b") is None
    await log.close()
    again = IssuedLog(tmp_path / FILE_NAME, 3)
    await again.open(NOW + 20)
    assert await again.of_serial("a") == one("a")
    await again.close()
    await again.open(NOW + 3600)
    assert await again.of_serial("a") is None
    await again.close()


async def test_it_is_written_and_dropped_by_itself(
    log: IssuedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issued, "BATCH_S", 0.0)
    monkeypatch.setattr(issued, "DROP_S", 0.05)
    now = [NOW]
    task = asyncio.get_running_loop().create_task(log.keep(lambda: now[0]))
    log.add(one("a"))
    await until(lambda: not len(log))
    dropped = asyncio.Event()
    drop = log.drop

    async def dropping(at: float) -> None:
        await drop(at)
        dropped.set()

    monkeypatch.setattr(log, "drop", dropping)
    now[0] = NOW + 4000
    async with asyncio.timeout(10):
        await dropped.wait()
    assert await log.of_serial("a") is None
    task.cancel()
    assert (await asyncio.gather(task, return_exceptions=True))[0] is not None


async def test_a_write_that_fails_is_tried_again(
    log: IssuedLog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(issued, "BATCH_S", 0.0)
    monkeypatch.setattr(issued, "RETRY_S", 0.0)
    other = sqlite3.connect(tmp_path / FILE_NAME)
    other.execute("ALTER TABLE issued RENAME TO away")
    log.add(one("a"))
    told: list[str] = []
    tries: list[None] = []
    mended = asyncio.Event()
    flush = log.flush

    async def flushing() -> None:
        tries.append(None)
        if len(tries) == 4:  # no transaction is open now
            await mended.wait()
        await flush()

    monkeypatch.setattr(log, "flush", flushing)
    task = asyncio.get_running_loop().create_task(log.keep(lambda: NOW, told.append))
    await until(lambda: len(tries) == 4)
    assert caplog.text.count("tried again") == 1  # a second's tries would fill the log
    assert await log.of_serial("a") == one("a")  # it waits still
    other.execute("ALTER TABLE away RENAME TO issued")
    mended.set()
    await until(lambda: len(told) == 2)
    assert (len(log), "cannot be written" in told[0], told[1]) == (0, True, "")
    other.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_waits_is_written_at_the_end(tmp_path: Path) -> None:
    log = IssuedLog(tmp_path / FILE_NAME, 3)
    await log.open(NOW)
    log.add(one("a"))
    await log.close()
    assert await log.valid(NOW, app="coder") == []  # it is closed
    await log.drop(NOW)
    rows = sqlite3.connect(tmp_path / FILE_NAME)
    assert rows.execute("SELECT serial FROM issued").fetchall() == [("a",)]
    rows.close()
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


async def test_a_file_that_is_none_of_ours_is_not_used(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 100)
    (tmp_path / FILE_NAME).chmod(0o600)
    with pytest.raises(BindError, match="move it away"):
        await IssuedLog(tmp_path / FILE_NAME, 3).open(NOW)
