import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.audit_file import AuditFile
from proxy.audit_writer import AuditWriter
from proxy.errors import BindError
from tests.proxy.lines import small_disk, until

LINE = b"0123456789abcde\n"
FULL = b"full\n"
WELL = b"well\n"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 64 << 10) as folder:
        yield folder


def notice(problem: str | None) -> bytes:
    return WELL if problem is None else FULL


def started(file: Path, reserve: int = 4096) -> AuditWriter:
    writer = AuditWriter(AuditFile(file, 1 << 20, 2, reserve), notice, probe_s=0.01)
    writer.start()
    return writer


async def test_writes_what_it_is_given_in_order(tmp_path: Path) -> None:
    writer = started(tmp_path / "audit.jsonl")
    for number in range(100):
        writer.put(b"%d\n%d\n" % (number, number))
    await writer.close(5)
    read = (tmp_path / "audit.jsonl").read_text().split()
    assert read == [str(number) for number in range(100) for _ in range(2)]
    assert (writer.written_lines, writer.written_octets, writer.queued_octets) == (200, 580, 0)


async def test_a_file_that_cannot_be_opened_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(BindError):
        started(tmp_path / "audit.jsonl")


async def test_closing_what_never_started_or_is_closed_does_nothing(tmp_path: Path) -> None:
    writer = AuditWriter(AuditFile(tmp_path / "audit.jsonl", 1, 1, 0), notice)
    await writer.close(1)
    writer = started(tmp_path / "audit.jsonl")
    await writer.close(5)
    await writer.close(5)
    assert writer.problem is None


async def test_a_full_disk_is_said_in_the_file_and_ends_when_there_is_room(disk: Path) -> None:
    """A full disk: what could not be written waits, in order, and nothing stands twice."""
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * (40 << 10))
    writer = started(disk / "audit.jsonl")
    count = 2500  # 40,000 octets: more than fits now, less than fits without the ballast
    for number in range(count):
        writer.put(b"%014d.\n" % number)
    await until(lambda: writer.problem is not None)
    assert writer.problem == "No space left on device"
    await until(lambda: b"full\n" in (disk / "audit.jsonl").read_bytes())
    assert writer.queued_octets > 0
    ballast.unlink()
    await until(lambda: writer.problem is None)
    await writer.close(5)
    text = (disk / "audit.jsonl").read_bytes()
    assert text.count(FULL) == text.count(WELL) == 1
    numbers = [int(line[:14]) for line in text.splitlines() if line.endswith(b".")]
    assert numbers == list(range(count))
    assert (writer.queued_octets, writer.dropped_lines) == (0, 0)
    assert (disk / "audit.reserve").stat().st_size == 4096


async def test_it_is_not_well_before_the_reserve_is_kept_again(disk: Path) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * (20 << 10))
    writer = started(disk / "audit.jsonl", reserve=24 << 10)
    writer.put(LINE * 1500)
    await until(lambda: writer.queued_octets == 0)
    assert writer.problem == "No space left on device"
    ballast.unlink()
    await until(lambda: writer.problem is None)
    await writer.close(5)
    assert (disk / "audit.jsonl").read_bytes().count(LINE) == 1500


async def test_closing_on_a_full_disk_counts_what_is_lost(disk: Path) -> None:
    writer = started(disk / "audit.jsonl")
    writer.put(LINE * (8 << 10))
    await until(lambda: writer.problem is not None)
    await writer.close(5)
    assert writer.dropped_lines > 0
    assert writer.written_lines + writer.dropped_lines == (8 << 10) + 1
    assert (disk / "audit.jsonl").read_bytes().endswith(b"\n")


async def test_a_disk_without_a_reserve_still_recovers(disk: Path) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * (60 << 10))
    writer = started(disk / "audit.jsonl", reserve=0)
    writer.put(LINE * 1024)
    await until(lambda: writer.problem is not None)
    ballast.unlink()
    await until(lambda: writer.problem is None)
    await writer.close(5)
    assert (disk / "audit.jsonl").read_bytes().count(LINE) == 1024


async def test_a_fifo_in_the_files_place_is_a_failure_that_ends(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    writer = started(file)
    file.unlink()
    os.mkfifo(file)
    writer.put(LINE)
    await until(lambda: writer.problem is not None)
    assert writer.problem is not None
    assert "not a regular file" in writer.problem
    file.unlink()
    await until(lambda: writer.problem is None)
    await writer.close(5)
    assert file.read_bytes() == LINE + WELL


async def test_a_disk_that_hangs_does_not_keep_us_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The write is held up until the test lets it go."""
    let_go = threading.Event()
    write = os.write

    def hang(fd: int, data: bytes) -> int:
        let_go.wait(10)
        return write(fd, data)

    writer = started(tmp_path / "audit.jsonl")
    monkeypatch.setattr(os, "write", hang)
    writer.put(LINE)
    await writer.close(0.05)
    assert "the audit disk hangs" in caplog.text
    let_go.set()
    await writer.close(5)
    assert (tmp_path / "audit.jsonl").read_bytes() == LINE
