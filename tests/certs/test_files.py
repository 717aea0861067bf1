"""The folder of keys: whose it is, how files get into it, and what is never read."""

import fcntl
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from certs.errors import KeystoreError
from certs.files import ROOT_KEY, ROOT_PEM, enter, locked, read, read_secret, steady, write

ROOT = Path(__file__).resolve().parents[2]
type Breaks = Callable[[Path], object]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "ca"
    enter(path)
    return path


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_folder_and_files_are_ours_alone_whatever_the_umask(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    enter(folder)
    write(folder, ROOT_KEY, b"key")
    assert mode(folder) == 0o700
    assert mode(folder / ROOT_KEY) == 0o600


def test_a_folder_that_is_there_is_entered_again(folder: Path) -> None:
    write(folder, ROOT_PEM, b"kept")
    enter(folder)
    assert read(folder, ROOT_PEM) == b"kept"


@pytest.mark.parametrize("bits", [0o710, 0o740, 0o701, 0o755, 0o777])
def test_a_folder_that_is_open_to_others_is_refused_with_the_cure(folder: Path, bits: int) -> None:
    folder.chmod(bits)
    with pytest.raises(KeystoreError, match=f"chmod 700 {folder}"):
        enter(folder)


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o644, 0o610])
def test_a_key_that_is_open_to_others_is_refused_with_the_cure(folder: Path, bits: int) -> None:
    write(folder, ROOT_KEY, b"secret")
    (folder / ROOT_KEY).chmod(bits)
    with pytest.raises(KeystoreError, match="chmod 600") as caught:
        read_secret(folder, ROOT_KEY)
    assert "secret" not in str(caught.value)


def test_a_certificate_may_be_open_to_others(folder: Path) -> None:
    write(folder, ROOT_PEM, b"public")
    (folder / ROOT_PEM).chmod(0o644)
    assert read(folder, ROOT_PEM) == b"public"


def test_what_belongs_to_another_user_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, ROOT_KEY, b"secret")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    cure = f"belongs to uid {os.getuid()}, .*run as that user"
    with pytest.raises(KeystoreError, match=cure):
        read_secret(folder, ROOT_KEY)
    with pytest.raises(KeystoreError, match=cure):
        enter(folder)


def test_what_is_not_there_is_none(folder: Path) -> None:
    assert read(folder, ROOT_PEM) is None
    assert read_secret(folder, ROOT_KEY) is None


def linked(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def huge(path: Path) -> None:
    path.write_bytes(bytes(65537))
    path.chmod(0o600)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, linked, huge])
def test_only_a_small_regular_file_is_read(folder: Path, make: Breaks) -> None:
    make(folder / ROOT_KEY)
    with pytest.raises(KeystoreError, match=r"move it away|a symbolic link stands there"):
        read_secret(folder, ROOT_KEY)


@pytest.mark.parametrize("make", [Path.touch, linked])
def test_a_folder_is_a_folder(tmp_path: Path, make: Breaks) -> None:
    make(tmp_path / "ca")
    with pytest.raises(KeystoreError, match="is not a folder: move it away"):
        enter(tmp_path / "ca")


def test_a_folder_below_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(KeystoreError, match="cannot use"):
        enter(tmp_path / "state" / "ca")
    with pytest.raises(KeystoreError, match="a file stands in a folder's place"):
        write(tmp_path / "state", ROOT_PEM, b"")


def test_what_was_written_replaces_the_old_and_leaves_nothing_beside(folder: Path) -> None:
    (folder / f"{ROOT_PEM}.new").write_bytes(b"of a process that was killed")
    for octets in (b"one", b"two"):
        write(folder, ROOT_PEM, octets)
        assert read(folder, ROOT_PEM) == octets
    assert [path.name for path in folder.iterdir()] == [ROOT_PEM]


def test_a_link_is_replaced_and_not_followed(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"untouched")
    for name in (ROOT_KEY, f"{ROOT_KEY}.new"):
        (folder / name).symlink_to(target)
    write(folder, ROOT_KEY, b"key")
    assert target.read_bytes() == b"untouched"
    assert not (folder / ROOT_KEY).is_symlink()


def test_a_full_disk_leaves_the_old_file(folder: Path) -> None:
    """threats.md, "Parser, transport, cache": disk full."""
    write(folder, ROOT_PEM, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(KeystoreError, match="ulimit -f"):
            write(folder, ROOT_PEM, bytes(100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read(folder, ROOT_PEM) == b"old"
    assert [path.name for path in folder.iterdir()] == [ROOT_PEM]


READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" -P -c '
import sys
from pathlib import Path
from certs.files import write
write(Path(sys.argv[1]), "root.pem", b"new")
' "$1"
"""


def test_a_read_only_file_system_is_said_with_the_cure(folder: Path) -> None:
    write(folder, ROOT_PEM, b"old")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", READ_ONLY, "sh", folder, sys.executable],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "the file system is read-only: set `state:`" in done.stderr
    assert read(folder, ROOT_PEM) == b"old"


KILLED = """
import os, signal, sys
from pathlib import Path
from certs import files
step = getattr(os, sys.argv[2])
def killed(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, sys.argv[2], killed)
files.write(Path(sys.argv[1]), "root.pem", b"new")
"""


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
def test_a_kill_in_between_leaves_the_old_file(folder: Path, step: str) -> None:
    write(folder, ROOT_PEM, b"old")
    done = subprocess.run(
        [sys.executable, "-P", "-c", KILLED, folder, step],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert read(folder, ROOT_PEM) == b"old"
    write(folder, ROOT_PEM, b"new")
    assert [path.name for path in folder.iterdir()] == [ROOT_PEM]


def test_who_loads_the_files_waits_for_nobody(folder: Path, tmp_path: Path) -> None:
    with steady(folder) as is_steady, steady(folder) as is_steady_too:
        assert is_steady
        assert is_steady_too
    with locked(folder), steady(folder) as is_steady:
        assert not is_steady
    with steady(tmp_path / "nowhere") as is_steady:
        assert not is_steady


def test_one_writer_at_a_time(folder: Path) -> None:
    with locked(folder):
        fd = os.open(folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def test_a_folder_that_is_not_there_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(KeystoreError, match="cannot use"), locked(tmp_path / "nowhere"):
        pass
