"""The file of the detector: what is held, and what was counted, over a restart and a kill."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from proxy.detection.file import BudgetRow, DetectionFile
from proxy.detection.hold import HeldSuffix
from proxy.errors import BindError
from proxy.limits import Limits

HOLD = HeldSuffix(
    "me", "leaky.com", 5.5, "0" * 32, "tunnel:names:2m", 520, 512, "ordinary",
    {"entropy": 3.9}, ("a.leaky.com",),
)  # fmt: skip
EARLIER = HeldSuffix("other", "a.example", 1.0, "1" * 32, "tunnel:names:1h", 1030, 1024)
DISABLED = """\
import asyncio, sys
from pathlib import Path
from proxy.detection.file import DetectionFile
from proxy.detection.hold import HeldSuffix
from proxy.limits import Limits

async def main() -> None:
    file = DetectionFile(Path(sys.argv[1]), Limits())
    await file.open(lambda rows: None)
    file.hold(HeldSuffix("me", "leaky.com", 5.5, "0" * 32, "tunnel:names:2m", 520, 512))
    await file.keep([("me", "leaky.com", b"first")])
    print("written", flush=True)
    file.behind.put("later", "INSERT OR REPLACE INTO budget VALUES ('me', 'leaky.com', x'00')", ())
    await asyncio.sleep(3600)

asyncio.run(main())
"""


class Read:
    """What a file says."""

    def __init__(self) -> None:
        self.holds: list[HeldSuffix] = []
        self.parts: list[list[BudgetRow]] = []

    def take(self, rows: Iterable[BudgetRow]) -> None:
        self.parts.append(list(rows))

    @property
    def rows(self) -> list[BudgetRow]:
        return sorted(row for part in self.parts for row in part)


async def read(path: Path) -> Read:
    found = Read()
    file = DetectionFile(path, Limits())
    stored = await file.open(found.take)
    found.holds = list(stored.holds)
    await file.behind.close()
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "detection.sqlite"


async def test_holds_and_budgets_are_there_again(path: Path) -> None:
    file = DetectionFile(path, Limits())
    await file.open(lambda _: None)
    file.hold(HOLD)
    file.hold(EARLIER)
    await file.keep([("me", "leaky.com", b"\x00row"), ("me", ".", b"all")])
    await file.behind.close()
    found = await read(path)
    assert found.holds == [EARLIER, HOLD]
    assert found.rows == [("me", ".", b"all"), ("me", "leaky.com", b"\x00row")]


async def test_what_is_let_go_or_forgotten_is_gone(path: Path) -> None:
    file = DetectionFile(path, Limits())
    await file.open(lambda _: None)
    file.hold(HOLD)
    file.hold(EARLIER)
    await file.keep([("me", each, b"x") for each in ("a.com", "b.com", "c.com")])
    file.let_go("me", "leaky.com")
    await file.keep([("me", "a.com", b""), ("me", "b.com", b"")])
    await file.behind.close()
    found = await read(path)
    assert found.holds == [EARLIER]
    assert found.rows == [("me", "c.com", b"x")]


async def test_many_rows_are_read_in_parts_and_never_wait_all_at_once(path: Path) -> None:
    file = DetectionFile(path, Limits())
    await file.open(lambda _: None)
    waiting = 0

    def rows() -> Iterable[BudgetRow]:
        nonlocal waiting
        for each in range(1000):
            waiting = max(waiting, len(file.behind))
            yield "me", f"a{each}.com", b"x"

    await file.keep(rows())
    await file.behind.close()
    found = await read(path)
    assert len(found.rows) == 1000
    assert max(map(len, found.parts)) == waiting + 1 == 256


async def test_a_process_that_is_killed_leaves_what_was_settled(path: Path) -> None:
    """Issue 6, Show: a kill -9 in the middle never opens a blocked suffix."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DISABLED, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"written\n"
    os.kill(process.pid, signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    found = await read(path)
    assert [each.suffix for each in found.holds] == ["leaky.com"]
    assert [row[:2] for row in found.rows] == [("me", "leaky.com")]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO held VALUES ('me', 'a.com', x'00')",
        "INSERT INTO held VALUES ('me', 'a com', CAST('{}' AS BLOB))",
    ],
)
async def test_what_we_never_wrote_is_said(path: Path, statement: str) -> None:
    await read(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(statement)
    with pytest.raises(BindError, match="damaged"):
        await read(path)


async def test_a_name_that_is_none_is_never_held(path: Path) -> None:
    file = DetectionFile(path, Limits())
    await file.open(lambda _: None)
    file.hold(HeldSuffix("me", "no name", 1.0, "", "", 1, 1))
    await file.behind.close()
    with pytest.raises(BindError, match="damaged"):
        await read(path)


async def test_rows_that_cannot_be_taken_are_damage(path: Path) -> None:
    file = DetectionFile(path, Limits())
    await file.open(lambda _: None)
    await file.keep([("me", "a.com", b"x")])
    await file.behind.close()

    def refuse(_: Iterable[BudgetRow]) -> None:
        raise ValueError("no row of ours")

    with pytest.raises(BindError, match="no row of ours"):
        await DetectionFile(path, Limits()).open(refuse)
