import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from subprocess import run

import pytest

from proxy.audit_file import AuditFile, numbered, series
from proxy.errors import BindError
from tests.proxy.lines import small_disk


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "audit.jsonl"


def opened(file: Path, rotate: int = 1 << 20, keep: int = 3, reserve: int = 4096) -> AuditFile:
    audit_file = AuditFile(file, rotate, keep, reserve)
    audit_file.open()
    return audit_file


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 64 << 10) as folder:
        yield folder


def test_makes_folder_and_files_that_only_we_can_read(file: Path) -> None:
    opened(file).close()
    assert (mode(file.parent), mode(file), mode(file.with_suffix(".reserve"))) == (
        *(0o700, 0o600),
        0o600,
    )


def test_takes_rights_away_that_an_older_file_gave(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"{}\n")
    file.chmod(0o644)
    opened(file).close()
    assert mode(file) == 0o600


def test_appends_to_what_stands(file: Path) -> None:
    for text in (b"1\n", b"2\n"):
        audit_file = opened(file)
        assert audit_file.append(text) == 2
        audit_file.close()
    assert file.read_bytes() == b"1\n2\n"


def test_a_line_that_a_crash_cut_off_does_not_swallow_the_next(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b'1\n{"half')
    audit_file = opened(file)
    audit_file.append(b"2\n")
    audit_file.close()
    assert file.read_bytes().splitlines() == [b"1", b'{"half', b"2"]


def test_turns_to_a_new_file_before_one_grows_over_its_size(file: Path) -> None:
    audit_file = opened(file, rotate=4, keep=2)
    for number in range(5):
        audit_file.append(b"%d\n" % number * 2)
    audit_file.close()
    assert [path.name for path in series(file)] == [
        *("audit.jsonl", "audit.1.jsonl", "audit.2.jsonl")
    ]
    assert [path.read_bytes()[:1] for path in series(file)] == [b"4", b"3", b"2"]


def test_the_oldest_two_files_are_merged_where_apps_share_them(file: Path) -> None:
    """Three files of the loud app do not push the quiet one's line out."""
    quiet, loud = b'{"app":"quiet"}\n', b'{"app":"loud"}\n'
    audit_file = opened(file, rotate=64, keep=1)
    audit_file.append(quiet)
    for _ in range(3):
        audit_file.append(loud * 4)
    audit_file.close()
    assert numbered(file, 1).read_bytes() == quiet + loud * 3


def test_a_file_that_somebody_took_is_room(file: Path) -> None:
    audit_file = opened(file, rotate=2, keep=2)
    for text in (b"1\n", b"2\n", b"3\n"):
        audit_file.append(text)
    numbered(file, 1).unlink()
    audit_file.append(b"4\n")
    audit_file.close()
    assert [path.read_bytes() for path in series(file)] == [b"4\n", b"3\n", b"1\n"]


def test_two_files_that_cannot_be_merged_make_room_all_the_same(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    audit_file = opened(disk / "audit.jsonl", rotate=16 << 10, keep=1, reserve=0)
    for app in (b"a", b"b"):
        audit_file.append(((b'{"app":"%b"}' % app).ljust(63) + b"\n") * 256)
    (disk / "ballast").write_bytes(b"x" * (28 << 10))
    audit_file.append(b"c\n")
    audit_file.close()
    assert "go unsorted: No space left on device" in caplog.text
    assert b'"a"' not in numbered(disk / "audit.jsonl", 1).read_bytes()


def test_keeps_no_old_file_where_none_is_asked_for(file: Path) -> None:
    audit_file = opened(file, rotate=2, keep=0)
    audit_file.append(b"1\n")
    audit_file.append(b"2\n")
    audit_file.close()
    assert series(file) == (file,)
    assert file.read_bytes() == b"2\n"


def test_series_steps_over_the_gap_of_a_rotation_that_was_cut_short(file: Path) -> None:
    file.parent.mkdir()
    for number in (1, 2, 3, 7):
        numbered(file, number).touch()
    assert [path.name for path in series(file)] == [
        *("audit.1.jsonl", "audit.2.jsonl", "audit.3.jsonl")
    ]


def test_series_of_a_folder_that_is_not_there_is_empty(file: Path) -> None:
    assert series(file) == ()


def test_series_of_an_unreadable_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with pytest.raises(BindError, match="cannot read"):
        series(tmp_path / "plain" / "audit.jsonl")


@pytest.mark.parametrize("is_removed", [True, False])
def test_writes_a_new_file_when_somebody_took_the_old_one(file: Path, is_removed: bool) -> None:
    audit_file = opened(file)
    audit_file.append(b"1\n")
    file.unlink() if is_removed else file.rename(file.with_name("taken"))
    audit_file.append(b"2\n")
    audit_file.close()
    assert file.read_bytes() == b"2\n"


def test_a_folder_that_comes_back_is_locked_again(file: Path) -> None:
    """threats.md, "Evidence as a weapon": the audit file, or its folder, taken away."""
    audit_file = opened(file)
    audit_file.append(b"1\n")
    shutil.rmtree(file.parent)
    with pytest.raises(OSError, match="No such file"):
        audit_file.append(b"2\n")
    file.parent.mkdir(mode=0o700)
    file.parent.chmod(0o777)
    with pytest.raises(BindError, match="writable by everybody"):
        audit_file.append(b"2\n")
    file.parent.chmod(0o700)
    other = opened(file)
    with pytest.raises(BindError, match="another sallyport"):
        audit_file.append(b"2\n")
    other.close()
    assert audit_file.append(b"3\n") == 2
    with pytest.raises(BindError, match="another sallyport"):
        opened(file)
    audit_file.close()
    assert file.read_bytes() == b"3\n"


def test_a_second_writer_is_refused(file: Path) -> None:
    audit_file = opened(file)
    with pytest.raises(BindError, match="another sallyport"):
        opened(file)
    audit_file.close()
    opened(file).close()


def test_a_link_is_not_followed(file: Path, tmp_path: Path) -> None:
    file.parent.mkdir()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BindError, match="symbolic link"):
        opened(file)
    assert not (tmp_path / "elsewhere").exists()


def test_a_fifo_is_refused_and_not_waited_for(file: Path) -> None:
    file.parent.mkdir()
    os.mkfifo(file)
    with pytest.raises(BindError, match="not a regular file"):
        opened(file)


def test_a_folder_that_everybody_may_write_is_refused(file: Path) -> None:
    file.parent.mkdir()
    file.parent.chmod(0o1777)
    with pytest.raises(BindError, match="chmod o-w"):
        opened(file)


def test_a_folder_in_the_files_place_says_what_to_do(file: Path) -> None:
    file.mkdir(parents=True)
    with pytest.raises(BindError, match="a folder stands there"):
        opened(file)


@pytest.mark.parametrize("below", ["plain/audit.jsonl", "plain/deeper/audit.jsonl"])
def test_a_file_in_a_folders_place_says_what_to_do(tmp_path: Path, below: str) -> None:
    (tmp_path / "plain").touch()
    with pytest.raises(BindError, match="in a folder's place: remove it"):
        opened(tmp_path / below)


def test_a_full_disk_at_the_start_says_what_to_do(disk: Path) -> None:
    with pytest.raises(BindError, match="the disk is full: free space"):
        opened(disk / "audit.jsonl", reserve=128 << 10)


def test_a_disk_that_fills_up_keeps_whole_lines_only(disk: Path) -> None:
    audit_file = opened(disk / "audit.jsonl", reserve=4096)
    lines = b"0123456789abcde\n" * (8 << 10)
    written = audit_file.append(lines)
    assert 0 < written < len(lines)
    assert written % 16 == 0
    assert (disk / "audit.jsonl").stat().st_size == written
    with pytest.raises(OSError, match="No space left"):
        audit_file.append(b"x" * 8192 + b"\n")
    audit_file.close()


def test_the_reserve_leaves_room_for_a_last_word(disk: Path) -> None:
    audit_file = opened(disk / "audit.jsonl", reserve=8192)
    audit_file.append(b"0123456789abcde\n" * (8 << 10))
    audit_file.give_reserve_up()
    assert audit_file.append(b"full\n") == 5
    with pytest.raises(OSError, match="No space left"):
        audit_file.append(b"x" * 8192 + b"\n")
    audit_file.close()
    assert (disk / "audit.jsonl").read_bytes().endswith(b"\nfull\n")


def test_a_rotation_that_finds_no_room_is_not_done_again(disk: Path) -> None:
    """threats.md, "Evidence as a weapon": a full disk rolls nothing out."""
    audit_file = opened(disk / "audit.jsonl", rotate=4096, keep=3, reserve=0)
    audit_file.append(b"first\n")
    run(["mount", "-o", "remount,nr_inodes=3", disk], check=True)
    for _ in range(5):
        with pytest.raises(OSError, match="No space left"):
            audit_file.append(b"x" * 4095 + b"\n")
    assert (disk / "audit.1.jsonl").read_bytes() == b"first\n"
    audit_file.close()


def test_an_unwritable_folder_says_what_to_do(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(BindError, match="give this user the folder"):
        opened(file)


def test_leaves_no_descriptor_open_when_it_fails(file: Path) -> None:
    file.mkdir(parents=True)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(BindError):
            opened(file)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
