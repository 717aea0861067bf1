"""A database file is ours alone, whole, of a schema that we know, and changed whole or not."""

import os
import sqlite3
from pathlib import Path

import pytest

from proxy.database.file import Contents, DatabaseFile, UnfitError, version_of
from proxy.database.live import BusyError
from proxy.errors import BindError, ConfigError

OLD = Contents("things", "make them again", ("CREATE TABLE thing (a)",))
NEW = Contents(
    "things",
    "make them again",
    ("CREATE TABLE thing (a, b)", "CREATE TABLE other (c)"),
    ("ALTER TABLE thing ADD COLUMN b", "CREATE TABLE other (c)"),
)


def made(folder: Path, contents: Contents = NEW) -> DatabaseFile:
    return DatabaseFile(folder / "s" / "things.sqlite", contents, 0.1)


async def columns(file: DatabaseFile, table: str) -> list[str]:
    async with file.opened() as db:
        rows = await db.execute_fetchall(f"PRAGMA table_info({table})")
        return [row[1] for row in rows]


async def test_a_new_file_has_the_last_schema_and_is_ours_alone(tmp_path: Path) -> None:
    file = made(tmp_path)
    assert not file.is_there
    async with file.changing() as db:
        assert await version_of(db) == NEW.schema == 3
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    assert await columns(file, "thing") == ["a", "b"]


async def test_an_older_file_is_read_as_it_is_and_brought_up_by_a_change(tmp_path: Path) -> None:
    async with made(tmp_path, OLD).changing() as db:
        await db.execute("INSERT INTO thing VALUES (7)")
    async with made(tmp_path).opened() as db:
        assert await version_of(db) == 1
    async with made(tmp_path).changing() as db:
        assert await version_of(db) == 3
        assert list(await db.execute_fetchall("SELECT * FROM thing")) == [(7, None)]
    assert await columns(made(tmp_path), "other") == ["c"]


async def test_a_file_of_one_upgrade_gets_the_others_alone(tmp_path: Path) -> None:
    middle = Contents("things", "", ("CREATE TABLE thing (a, b)",), NEW.upgrades[:1])
    async with made(tmp_path, middle).changing() as db:
        assert await version_of(db) == 2
    async with made(tmp_path).changing() as db:
        assert await version_of(db) == 3


async def test_a_newer_file_is_not_used(tmp_path: Path) -> None:
    async with made(tmp_path).changing():
        pass
    with pytest.raises(BindError, match=r"the things in .* newer version"):
        async with made(tmp_path, OLD).opened():
            pass


async def test_another_programs_file_is_neither_used_nor_changed(tmp_path: Path) -> None:
    path = made(tmp_path).path
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(BindError, match="another program's"):
        async with made(tmp_path).changing():
            pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("error", [ConfigError("no room"), ValueError("a bug")])
async def test_a_change_that_fails_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    file = made(tmp_path, OLD)

    async def change() -> None:
        async with file.changing() as db:
            await db.execute("INSERT INTO thing VALUES (7)")
            raise error

    with pytest.raises(type(error)):
        await change()
    async with file.opened() as db:
        assert await version_of(db) == 0


async def test_what_a_reader_finds_unfit_is_worded_like_our_own(tmp_path: Path) -> None:
    file = made(tmp_path)
    with pytest.raises(BindError, match=r"the things in .* are not used: odd"):
        async with file.changing():
            raise UnfitError("odd")


async def test_a_damaged_file_is_told_with_the_cure(tmp_path: Path) -> None:
    path = made(tmp_path).path
    path.parent.mkdir()
    path.write_bytes(b"no database" * 500)
    path.chmod(0o600)
    with pytest.raises(BindError, match="make them again"):
        async with made(tmp_path).opened():
            pass


async def test_a_file_that_another_writes_is_busy_and_may_be_free_again(tmp_path: Path) -> None:
    async with made(tmp_path).changing():
        with pytest.raises(BusyError, match="try again"):
            async with made(tmp_path).changing():
                pass
    async with made(tmp_path).changing():
        pass


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.chmod(0o640), "chmod 600"),
        (lambda path: (path.unlink(), path.mkdir()), "no regular file"),
        (lambda path: (path.unlink(), path.symlink_to("/dev/null")), "no regular file"),
    ],
)
async def test_a_file_that_is_not_ours_alone_is_not_used(
    tmp_path: Path, spoil: object, words: str
) -> None:
    file = made(tmp_path)
    async with file.changing():
        pass
    assert callable(spoil)
    spoil(file.path)
    with pytest.raises(BindError, match=words):
        async with file.opened():
            pass


async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("")
    with pytest.raises(BindError, match="name a writable --state"):
        async with made(tmp_path).changing():
            pass
    assert os.listdir(tmp_path) == ["s"]  # noqa: PTH208 - names alone
