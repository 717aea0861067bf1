"""What may be read: regular files, of nobody else, without a wait."""

import errno
import os
from pathlib import Path

import pytest

from proxy.reload.guarded import (
    UnfitError,
    opened,
    problem_at,
    problem_of,
    refuse_others,
    shown,
    without_waiting,
)

CURE = "name a regular file"
NOBODY = 65534


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "a.txt"
    made.write_text("text")
    made.chmod(0o644)
    return made


def refused(path: Path, *, system: bool = False) -> UnfitError:
    with pytest.raises(UnfitError) as raised, opened(path, CURE, system=system):
        pytest.fail("it was opened")
    return raised.value


def test_opens_what_nobody_else_may_write_and_closes_it(file: Path) -> None:
    for system in (False, True):
        with opened(file, CURE, system=system) as reader:
            assert reader.read() == b"text"
        assert reader.closed


def test_refuses_what_every_user_may_write(file: Path) -> None:
    """threats.md, Identity: same-uid agents outside a sandbox rewrite rules."""
    file.chmod(0o646)
    assert refused(file).cure == f"chmod o-w {file}"


def test_refuses_what_is_another_s_under_system_only(file: Path) -> None:
    if os.geteuid() != 0:
        pytest.fail("run as root: --system is about what is root's")
    file.chmod(0o664)
    assert refused(file, system=True).cure == f"chmod g-w {file}"
    os.chown(file, NOBODY, -1)
    assert refused(file, system=True).cure == f"chown root {file}"
    with opened(file, CURE, system=False):
        pass


def test_refuses_what_another_could_replace_under_system_only(file: Path) -> None:
    file.parent.chmod(0o777)
    cure = f"chown root {file.parent} && chmod go-w {file.parent}"
    assert refused(file, system=True).cure == cure
    file.parent.chmod(0o1777)  # sticky: what is root's stays where it is
    with opened(file, CURE, system=True):
        pass


def test_refuses_a_fifo_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    found = refused(tmp_path / "a.txt")
    assert (found.message, found.cure) == ("is no regular file", CURE)
    os.close(without_waiting(str(tmp_path / "a.txt"), os.O_RDONLY))


def test_judges_a_folder_as_a_file(tmp_path: Path) -> None:
    refuse_others(tmp_path, tmp_path.stat(), system=True)
    tmp_path.chmod(0o707)
    with pytest.raises(UnfitError):
        refuse_others(tmp_path, tmp_path.stat(), system=False)


@pytest.mark.parametrize(
    ("error", "message", "cure"),
    [
        (UnfitError("is odd", "mend it"), "is odd", "mend it"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), "is not UTF-8 (octet 0)", "save"),
        (OSError(errno.ENOENT, "No such file"), "cannot be read: No such file", "link to nothing"),
        (OSError(errno.EACCES, "Denied"), "cannot be read: Denied", "chmod u+r /x/a"),
        (OSError(), "cannot be read: None", "chmod u+r /x/a"),
    ],
)
def test_says_what_is_wrong_and_the_cure(
    error: UnfitError | UnicodeDecodeError | OSError, message: str, cure: str
) -> None:
    found = problem_of(Path("/x/a"), error)
    assert (found.message, str(found.place)) == (message, "/x/a:1:1")
    assert cure in found.cure
    assert problem_at(Path("/x/a"), found.message, found.cure) == found


def test_shows_a_name_that_is_no_text() -> None:
    assert shown(Path(os.fsdecode(b"/x/\xff.yaml"))) == "/x/\\xff.yaml"
