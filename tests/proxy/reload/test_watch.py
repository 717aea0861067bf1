"""What a look at rule files sees, and when a change is over."""

import os
import shutil
from pathlib import Path

import pytest

from proxy.limits import Limits
from proxy.reload.watch import Look, Watch, look, look_at, status_of

LIMITS = Limits(reload_look_s=0.5, reload_quiet_s=0.2, reload_settle_s=2.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "rules"
    made.mkdir()
    (made / "a.yaml").write_text("one")
    return made


def seen(*folders: Path) -> Look:
    return look([str(each) for each in folders])


def test_what_did_not_change_looks_the_same(folder: Path) -> None:
    assert seen(folder) == seen(folder)


def test_what_is_no_rule_is_not_looked_at(folder: Path) -> None:
    before = seen(folder)
    (folder / "a.yaml~").write_text("an editor's")
    (folder / ".a.yaml.swp").write_text("an editor's")
    (folder / ".#a.yaml").symlink_to("nobody@nowhere")
    assert seen(folder) == before


def test_a_file_that_is_written_looks_other(folder: Path) -> None:
    before = seen(folder)
    (folder / "a.yaml").write_text("more than before")
    assert seen(folder) != before


def test_a_file_that_is_replaced_by_another_of_the_same_size_and_time_looks_other(
    folder: Path,
) -> None:
    """Editors write beside the file and rename."""
    before = seen(folder)
    times = (folder / "a.yaml").stat()
    (folder / "new").write_text("two")
    os.utime(folder / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
    (folder / "new").rename(folder / "a.yaml")
    assert seen(folder) != before


def test_a_file_that_is_written_in_place_with_its_old_size_and_time_looks_other(
    folder: Path,
) -> None:
    """Restored from a backup, say: what the kernel itself noted of the change cannot be set."""
    before = seen(folder)
    times = (folder / "a.yaml").stat()
    (folder / "a.yaml").write_text("two")
    os.utime(folder / "a.yaml", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (folder / "a.yaml").stat().st_size == times.st_size
    assert seen(folder) != before


def test_files_that_come_and_go_are_seen(folder: Path) -> None:
    before = seen(folder)
    (folder / "b.yaml").write_text("two")
    assert seen(folder) != before
    (folder / "b.yaml").unlink()
    assert seen(folder) == before


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_mode_that_changes_is_seen(folder: Path, what: str) -> None:
    before = seen(folder)
    (folder / "a.yaml" if what == "file" else folder).chmod(0o702)
    assert seen(folder) != before


def test_a_folder_that_is_removed_and_made_again_is_seen_each_time(folder: Path) -> None:
    before = seen(folder)
    shutil.rmtree(folder)
    gone = seen(folder)
    folder.mkdir()
    (folder / "a.yaml").write_text("one")
    assert gone not in (before, seen(folder))


def test_a_link_that_is_turned_to_another_folder_is_seen(tmp_path: Path) -> None:
    """How Kubernetes replaces mounted files: `..data` is turned, and the files lead through it."""
    for version in ("..1", "..2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "a.yaml").write_text(version)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    before = seen(tmp_path)
    (tmp_path / "..tmp").symlink_to("..2")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    assert seen(tmp_path) != before


def test_a_file_behind_a_link_is_seen(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("one")
    (folder / "b.yaml").symlink_to(tmp_path / "target")
    before = seen(folder)
    (tmp_path / "target").write_text("another")
    assert seen(folder) != before
    (tmp_path / "target").unlink()
    assert seen(folder) != before


def test_single_files_are_looked_at_in_the_same_way(folder: Path) -> None:
    files = [str(folder / "a.yaml"), str(folder / "none")]
    before = look_at(files)
    assert [file for file, _ in before] == files
    assert before == look_at(files)
    assert before[0][1] == status_of((folder / "a.yaml").stat())
    (folder / "none").write_text("there now")
    (folder / "a.yaml").touch()
    after = look_at(files)
    assert all(old != new for old, new in zip(before, after, strict=True))


def watch(first: Look = ("a",)) -> Watch:
    return Watch(first, LIMITS)


def test_nothing_is_read_while_nothing_moves() -> None:
    watching = watch()
    assert [watching.see(("a",), now) for now in (0.5, 1.0, 1.5)] == [False] * 3
    assert watching.rest_s() == LIMITS.reload_look_s


def test_a_change_is_read_once_it_is_quiet() -> None:
    watching = watch()
    assert not watching.see(("b",), 0.5)
    assert watching.rest_s() == LIMITS.reload_quiet_s
    assert not watching.see(("c",), 0.7)
    assert watching.see(("c",), 0.9)
    assert watching.rest_s() == LIMITS.reload_look_s
    assert not watching.see(("c",), 1.4)


def test_a_change_that_was_taken_back_is_none() -> None:
    watching = watch()
    assert not watching.see(("b",), 0.5)
    assert not watching.see(("a",), 0.7)
    assert not watching.see(("a",), 0.9)


def test_changes_without_a_pause_are_read_all_the_same() -> None:
    watching = watch()
    assert [watching.see((number,), number / 5) for number in range(11)] == [False] * 10 + [True]


def test_what_was_read_for_another_reason_is_not_read_again() -> None:
    watching = watch()
    assert not watching.see(("b",), 0.5)
    watching.settle(("b",))
    assert not watching.see(("b",), 0.7)
    assert not watching.see(("b",), 1.2)
