"""Who called connect on a unix socket, and what is believed of him."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import override

import pytest

from proxy.limits import Limits
from proxy.workload import callers
from proxy.workload.callers import Caller, Mark, caller_at, cgroup_mount, foreign_uid
from proxy.workload.inode import UnixDiag

CLIENT = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
print("connected", flush=True)
sys.stdin.read()
"""
PROGRAM = Path(sys.executable).resolve().stat()
LIMITS = Limits()


@contextmanager
def called(folder: Path) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """A connection of another process."""
    path = folder / "s"
    command = [sys.executable, "-c", CLIENT, str(path)]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdin is not None
            child.stdout.readline()
            accepted, _ = listening.accept()
            with accepted:
                yield accepted, child
            child.stdin.close()


@pytest.fixture
def diag() -> Iterator[UnixDiag]:
    made = UnixDiag()
    yield made
    made.close()


def cgroup_of(pid: int) -> int | None:
    mount = cgroup_mount()
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    path = next(line[3:] for line in lines if line.startswith("0::"))
    return None if mount is None else (mount / path.lstrip("/")).stat().st_ino


def test_says_who_and_what_he_is(tmp_path: Path, diag: UnixDiag) -> None:
    with called(tmp_path) as (accepted, child):
        caller = caller_at(accepted, diag)
        assert caller is not None
        assert (caller.pid, caller.uid, caller.is_alive) == (child.pid, os.getuid(), True)
        assert caller.mark == Mark(cgroup_of(child.pid), (PROGRAM.st_dev, PROGRAM.st_ino))
        owner = caller.owner(LIMITS, asks_program=True)
        held = {str(each.readlink()) for each in Path(f"/proc/{child.pid}/fd").iterdir()}
        assert f"socket:[{owner.inode}]" in held
        assert (owner.uid, owner.cgroup) == (os.getuid(), cgroup_of(child.pid))
        assert caller.owner(LIMITS, asks_program=False).inode == 0
        caller.close()
        caller.close()


def test_one_who_ends_is_nothing_from_then_on(tmp_path: Path, diag: UnixDiag) -> None:
    """threats.md, "Identity": a process id that another process may have by now."""
    with called(tmp_path) as (accepted, child):
        caller = caller_at(accepted, diag)
        assert caller is not None
        child.kill()
        child.wait()
        assert not caller.is_alive
        assert caller.look() == Mark()
        assert caller.owner(LIMITS, asks_program=True).inode == 0
        caller.close()
        assert caller_at(accepted, diag) is None


def test_a_number_that_is_reused_is_not_read(tmp_path: Path, diag: UnixDiag) -> None:
    """threats.md, "Identity": what /proc says of a number that is another's by now."""
    with called(tmp_path) as (accepted, child):
        caller = caller_at(accepted, diag)
        assert caller is not None
        child.kill()
        child.wait()
        caller.pid = os.getpid()  # as if the number had become this process's
        assert caller.look() == Mark()
        caller.close()


def test_very_many_descriptors_are_not_gone_through(tmp_path: Path, diag: UnixDiag) -> None:
    """threats.md, "Identity": a process with 10^6 descriptors as a slow look-up."""
    with called(tmp_path) as (accepted, _):
        caller = caller_at(accepted, diag)
        assert caller is not None
        assert caller.owner(Limits(process_fds=1), asks_program=True).inode == 0
        caller.close()


class Kernel(socket.socket):
    """A socket of a kernel that answers otherwise."""

    error = errno.ENOPROTOOPT

    @override
    def getsockopt(self, level: int, name: int, size: int = 0) -> bytes:  # type: ignore[override]  # its other form is not used
        if name == socket.SO_PEERCRED:
            return super().getsockopt(level, name, size)
        raise OSError(self.error, os.strerror(self.error))


def test_a_kernel_without_process_descriptors_tells_the_uid_alone(diag: UnixDiag) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Kernel(fileno=os.dup(ours.fileno())) as old:
        caller = caller_at(old, diag)
    assert caller is not None
    assert (caller.uid, caller.pidfd, caller.mark) == (os.getuid(), None, Mark())
    assert caller.is_alive
    assert caller.owner(LIMITS, asks_program=True).inode == 0
    caller.close()


def test_a_kernel_that_says_that_he_is_gone_is_believed(diag: UnixDiag) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Kernel(fileno=os.dup(ours.fileno())) as other:
        other.error = errno.ESRCH
        assert caller_at(other, diag) is None


def test_a_kernel_that_tells_no_cgroup_by_descriptor_is_asked_by_name(
    tmp_path: Path, diag: UnixDiag, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> int:
        raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")

    monkeypatch.setattr(fcntl, "ioctl", unknown)
    with called(tmp_path) as (accepted, child):
        caller = caller_at(accepted, diag)
        assert caller is not None
        assert caller.mark.cgroup == cgroup_of(child.pid)
        monkeypatch.setattr(callers, "cgroup_mount", lambda: None)
        assert caller.look().cgroup is None
        caller.close()


def test_a_cgroup_that_cannot_be_told_is_none(
    tmp_path: Path, diag: UnixDiag, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> int:
        raise OSError(errno.ESRCH, "No such process")

    monkeypatch.setattr(fcntl, "ioctl", gone)
    with called(tmp_path) as (accepted, _):
        caller = caller_at(accepted, diag)
        assert caller is not None
        assert caller.mark.cgroup is None
        caller.close()
    assert callers._cgroup_by_name(0) is None
    assert callers._program(0) is None


def test_a_cgroup_whose_name_is_no_text_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_text(_: Path) -> str:
        return b"0::/\xff\n".decode()

    monkeypatch.setattr(Path, "read_text", read_text)
    assert callers._cgroup_by_name(os.getpid()) is None


def test_a_process_that_our_namespace_does_not_hold_is_known_by_its_uid_alone() -> None:
    """pid_namespaces(7): the number of a process outside reads as 0."""
    caller = Caller(0, 1000, os.pidfd_open(os.getpid()), 5)
    assert caller.mark == Mark()
    assert caller.owner(LIMITS, asks_program=True) == caller.owner(LIMITS, asks_program=False)
    caller.close()


def test_the_uid_of_a_foreign_user_namespace_is_nobodys(
    tmp_path: Path, diag: UnixDiag, monkeypatch: pytest.MonkeyPatch
) -> None:
    """threats.md, "Identity": in a user namespace every foreign uid reads as the overflow uid."""
    uid_map, overflow = tmp_path / "uid_map", tmp_path / "overflowuid"
    overflow.write_text("65534\n")
    uid_map.write_text("         0          0 4294967295\n")
    assert foreign_uid(uid_map, overflow) is None
    foreign_uid.cache_clear()
    uid_map.write_text("         0     100000      65536\n")
    assert foreign_uid(uid_map, overflow) == 65534
    foreign_uid.cache_clear()
    assert foreign_uid(tmp_path / "none", overflow) is None  # no user namespaces at all
    foreign_uid.cache_clear()
    monkeypatch.setattr(callers, "foreign_uid", lambda *_: os.getuid())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        caller = caller_at(ours, diag)
    assert caller is not None
    assert caller.uid == 0xFFFFFFFF
    caller.close()
