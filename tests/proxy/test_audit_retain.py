from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.audit_file import AuditFile, series
from proxy.audit_retain import fair_share, merge
from tests.proxy.lines import small_disk

ROOM = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 64 << 10) as folder:
        yield folder


def text(app: str, number: int, length: int = 64) -> bytes:
    """A line of `length` octets."""
    return (
        b'{"id":"%d","app":"%b","pad":"%%b"}\n'
        % (number, app.encode())
        % b"".ljust(
            length - len(b'{"id":"","app":"","pad":""}\n') - len(app) - len(str(number)), b"x"
        )
    )


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8), st.integers(0, 3000))
def test_shares_fit_and_leave_nothing_that_somebody_could_use(octets: list[int], room: int) -> None:
    share = fair_share(octets, room)
    kept = [min(taken, share) for taken in octets]
    assert sum(kept) <= room
    cut = [taken for taken in octets if taken > share]
    assert not cut or sum(min(taken, share + 1) for taken in octets) > room


def test_the_quiet_keep_everything_and_the_loud_their_newest(tmp_path: Path) -> None:
    older, newer = tmp_path / "2", tmp_path / "1"
    older.write_bytes(text("quiet", 1) + b"".join(text("loud", at) for at in range(63)))
    newer.write_bytes(b"".join(text("loud", at) for at in range(63, 126)) + text("quiet", 2))
    merge(older, newer, ROOM)
    kept = older.read_bytes().splitlines(keepends=True)
    assert kept == [
        *(text("quiet", 1), *(text("loud", at) for at in range(64, 126)), text("quiet", 2))
    ]
    assert not newer.exists()
    assert older.stat().st_size <= ROOM
    assert older.stat().st_mode & 0o777 == 0o600


def test_one_app_alone_keeps_the_newer_file(tmp_path: Path) -> None:
    older, newer = tmp_path / "2", tmp_path / "1"
    older.write_bytes(text("coder", 1))
    newer.write_bytes(text("coder", 2))
    merge(older, newer, ROOM)
    assert (older.read_bytes(), newer.exists()) == (text("coder", 2), False)


def test_lines_without_an_app_are_kept_as_those_of_one(tmp_path: Path) -> None:
    older, newer = tmp_path / "2", tmp_path / "1"
    said = b'{"id":"1","app":null,"detail":{"app":"loud"}}\n'
    older.write_bytes(said + b"half a li\n")
    newer.write_bytes(b"".join(text("loud", at) for at in range(64)))
    merge(older, newer, ROOM)
    assert older.read_bytes().startswith(said + b"half a li\n" + text("loud", 1)[:8])


def test_a_copy_that_a_crash_left_is_written_over(tmp_path: Path) -> None:
    older, newer = tmp_path / "audit.2.jsonl", tmp_path / "audit.1.jsonl"
    (tmp_path / "audit.2.merge").write_bytes(b"x")
    older.write_bytes(text("a", 1))
    newer.write_bytes(text("b", 2))
    merge(older, newer, ROOM)
    assert older.read_bytes() == text("a", 1) + text("b", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["audit.2.jsonl"]


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_one_app_cannot_roll_the_history_of_another_out(tmp_path: Path, keep: int) -> None:
    """threats.md, "Evidence as a weapon": one agent rolls the history out."""
    file = AuditFile(tmp_path / "audit.jsonl", ROOM, keep, 0)
    file.open()
    quiet = [text("quiet", at) for at in range(10)]
    for at in range(2000):
        if at % 100 == 0 and at < 1000:
            file.append(quiet[at // 100])
        file.append(text("loud", at))
    file.close()
    files = series(tmp_path / "audit.jsonl")
    lines = b"".join(path.read_bytes() for path in reversed(files)).splitlines(keepends=True)
    assert [line for line in lines if b'"quiet"' in line] == quiet
    assert lines[-1] == text("loud", 1999)
    assert len(files) == keep + 1
    assert all(path.stat().st_size <= ROOM for path in files)


def test_a_disk_without_room_for_a_copy_leaves_both_files(disk: Path) -> None:
    older, newer = disk / "2", disk / "1"
    older.write_bytes(text("a", 1) * 256)
    newer.write_bytes(text("b", 2) * 256)
    (disk / "ballast").write_bytes(b"x" * (28 << 10))
    with pytest.raises(OSError, match="No space left"):
        merge(older, newer, 16 << 10)
    assert older.read_bytes() == text("a", 1) * 256
    assert newer.read_bytes() == text("b", 2) * 256
    assert sorted(path.name for path in disk.iterdir()) == ["1", "2", "ballast"]
