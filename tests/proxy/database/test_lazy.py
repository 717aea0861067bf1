"""A file that is opened when it is first needed, and tried again when it could not be used."""

import asyncio
from pathlib import Path
from typing import override

import aiosqlite
import pytest

from proxy.database.behind import Behind
from proxy.database.file import Contents
from proxy.database.lazy import RETRY_S, LazyFile
from proxy.errors import BindError
from tests.proxy.lines import until

CONTENTS = Contents("words", "move it away", ("CREATE TABLE words (word TEXT PRIMARY KEY) STRICT",))
QUEUE = 2


class Opened:
    """The open file."""

    def __init__(self, path: Path) -> None:
        self.behind = Behind(path, CONTENTS, 1.0, QUEUE)
        self.words: list[str] = []

    async def read(self, db: aiosqlite.Connection) -> None:
        self.words = [row[0] for row in await db.execute_fetchall("SELECT word FROM words")]


class Words(LazyFile[Opened]):
    """Keeps words; the clock stands until somebody moves it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, lambda: self.at, 0.01)
        self.at = 1000.0
        self.looks = 0

    @property
    def words(self) -> list[str] | None:
        return None if self._file is None else self._file.words

    def put(self, word: str) -> None:
        assert self._file is not None
        self._file.behind.put(word, "INSERT INTO words VALUES (?)", (word,))

    @override
    async def _load(self) -> Opened:
        opened = Opened(self.path)
        await opened.behind.open(opened.read)
        return opened

    @override
    def _look(self, now: float) -> None:
        self.looks += 1


async def test_nothing_is_made_before_it_is_needed(tmp_path: Path) -> None:
    kept = Words(tmp_path / "words.sqlite")
    await kept.open()
    await kept.settled()
    assert (kept.words, kept.is_full, kept.problem) == (None, False, None)
    await kept.close()
    assert not kept.path.exists()


async def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    kept = Words(tmp_path / "words.sqlite")
    await kept.open()
    await asyncio.gather(kept.ready(), kept.ready())  # two that need it at once open it once
    kept.put("one")
    await kept.settled()
    await kept.close()
    again = Words(kept.path)
    await again.open()
    assert again.words == ["one"]
    await again.close()


async def test_says_when_no_more_may_wait(tmp_path: Path) -> None:
    kept = Words(tmp_path / "words.sqlite")
    await kept.open()
    await kept.ready()
    found = []
    for word in ("one", "two"):
        kept.put(word)
        found.append(kept.is_full)
    await kept.settled()
    assert [*found, kept.is_full] == [False, True, False]
    await kept.close()


async def test_a_file_that_cannot_be_used_is_tried_again_after_a_while(tmp_path: Path) -> None:
    path = tmp_path / "words.sqlite"
    path.write_bytes(bytes(4096))
    path.chmod(0o600)
    kept = Words(path)
    await kept.open()
    assert "move it away" in (kept.problem or "")
    with pytest.raises(BindError, match="move it away"):
        await kept.ready()
    path.unlink()
    looks = kept.looks
    await until(lambda: kept.looks >= looks + 3)  # the clock stands: it is not tried yet
    assert kept.words is None
    kept.at += RETRY_S
    await until(lambda: kept.problem is None)
    await until(lambda: kept.words == [])
    await kept.close()
