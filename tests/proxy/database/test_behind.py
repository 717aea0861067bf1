"""Rows are written a moment later, in their order, and none is forgotten on the way."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiosqlite
import pytest

from proxy.database import behind
from proxy.database.behind import Behind
from proxy.database.file import Contents, UnfitError
from proxy.errors import BindError
from tests.proxy.issuing.stand import until

CONTENTS = Contents("rows", "move it away", ("CREATE TABLE row (id TEXT PRIMARY KEY, n INT)",))
KEEP = "INSERT OR REPLACE INTO row VALUES (?, ?)"
DROP = "DELETE FROM row WHERE id = ?"


async def nothing(_: aiosqlite.Connection) -> None:
    pass


async def rows_in(path: Path) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []

    async def read(db: aiosqlite.Connection) -> None:
        rows = await db.execute_fetchall("SELECT id, n FROM row ORDER BY id")
        found.extend((row[0], row[1]) for row in rows)

    file = Behind(path, CONTENTS, 1.0, 10)
    await file.open(read)
    await file.close()
    return found


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[Behind]:
    made = Behind(tmp_path / "rows.sqlite", CONTENTS, 1.0, 3)
    await made.open(nothing)
    yield made
    await made.close()


async def test_what_is_put_is_written_by_itself(file: Behind, tmp_path: Path) -> None:
    file.put("a", KEEP, ("a", 1))
    assert len(file) == 1
    await until(lambda: len(file) == 0)
    assert await rows_in(tmp_path / "rows.sqlite") == [("a", 1)]


async def test_of_one_key_the_last_counts_and_all_are_in_order(
    file: Behind, tmp_path: Path
) -> None:
    file.put("a", KEEP, ("a", 1))
    file.put("b", KEEP, ("b", 1))
    file.put("a", DROP, ("a",))
    file.put("c", KEEP, ("c", 1))
    file.put("b", KEEP, ("b", 2))
    await file.settled()
    assert len(file) == 0
    assert await rows_in(tmp_path / "rows.sqlite") == [("b", 2), ("c", 1)]
    await file.settled()  # nothing waits: nothing happens


async def test_it_is_full_until_something_is_written(file: Behind) -> None:
    for name in "abc":
        assert not file.is_full
        file.put(name, KEEP, (name, 1))
    assert file.is_full
    await file.settled()
    assert not file.is_full


async def test_what_waits_at_the_end_is_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.sqlite"
    file = Behind(path, CONTENTS, 1.0, 3)
    await file.open(nothing)
    file.put("a", KEEP, ("a", 1))
    await file.close()
    assert await rows_in(path) == [("a", 1)]
    await file.settled()  # closed: nothing to write to


async def test_a_failed_write_is_told_kept_and_tried_again(
    file: Behind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind, "RETRY_S", 0.01)
    async with aiosqlite.connect(tmp_path / "rows.sqlite") as other:
        await other.execute("DROP TABLE row")
        await other.commit()
    file.put("a", KEEP, ("a", 1))
    with pytest.raises(BindError, match="no such table"):
        await file.settled()
    assert (len(file), file.problem is not None) == (1, True)
    await until(lambda: not file._more.is_set())  # it is tried by itself as well
    async with aiosqlite.connect(tmp_path / "rows.sqlite") as other:
        await other.execute(CONTENTS.tables[0])
        await other.commit()
    await until(lambda: file.problem is None)
    assert len(file) == 0
    assert await rows_in(tmp_path / "rows.sqlite") == [("a", 1)]


async def test_who_waits_together_is_written_together(file: Behind, tmp_path: Path) -> None:
    async def one(name: str) -> None:
        file.put(name, KEEP, (name, 1))
        await file.settled()
        assert name not in file._queue

    await asyncio.gather(*(one(name) for name in "abcdef"))
    assert len(await rows_in(tmp_path / "rows.sqlite")) == 6


async def test_what_is_put_while_it_is_written_waits_for_the_next_time(
    file: Behind, tmp_path: Path
) -> None:
    file.put("a", KEEP, ("a", 1))
    writing = asyncio.ensure_future(file.settled())
    await asyncio.sleep(0)  # it has taken the row along
    file.put("a", KEEP, ("a", 2))
    await writing
    assert len(file) == 1
    await file.settled()
    assert await rows_in(tmp_path / "rows.sqlite") == [("a", 2)]


async def test_who_gives_up_waiting_loses_nothing(file: Behind, tmp_path: Path) -> None:
    file.put("a", KEEP, ("a", 1))
    writing = asyncio.ensure_future(file.settled())
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await file.settled()
    assert await rows_in(tmp_path / "rows.sqlite") == [("a", 1)]


@pytest.mark.parametrize("value", [1 << 70, "\udc80"])
async def test_a_value_that_the_file_cannot_hold_is_told(file: Behind, value: object) -> None:
    file.put("a", KEEP, ("a", value))
    with pytest.raises(BindError, match="cannot be written"):
        await file.settled()
    file.put("a", KEEP, ("a", 1))
    await file.settled()
    assert (len(file), file.problem) == (0, None)


async def test_a_file_that_is_none_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "rows.sqlite"
    path.write_bytes(b"no database, by far" * 100)
    path.chmod(0o600)
    file = Behind(path, CONTENTS, 1.0, 3)
    with pytest.raises(BindError, match="move it away"):
        await file.open(nothing)
    await file.close()
    assert path.read_bytes().startswith(b"no database")


async def test_what_the_reader_refuses_is_not_opened(tmp_path: Path) -> None:
    async def read(_: aiosqlite.Connection) -> None:
        raise UnfitError("it is damaged")

    file = Behind(tmp_path / "rows.sqlite", CONTENTS, 1.0, 3)
    with pytest.raises(BindError, match="it is damaged"):
        await file.open(read)
    await file.close()
