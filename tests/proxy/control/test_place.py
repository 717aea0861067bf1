"""Where the control socket stands, who may use it, and what a dead process left."""

import grp
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import override

import pytest

from proxy.control.place import (
    EXT_AUTHZ,
    OPEN_WORKLOAD,
    WORKLOAD,
    Caller,
    ControlSocket,
    bind_control,
    bind_door,
    caller_of,
)
from proxy.errors import BindError, ConfigError

ROOT = Path(__file__).parents[3]
GROUP = grp.getgrgid(os.getgid()).gr_name
NOBODY = 65534
IS_ROOT = os.geteuid() == 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


@pytest.fixture
def bound(path: Path) -> Iterator[ControlSocket]:
    found = bind_control(path)
    yield found
    found.close()


def test_the_socket_and_its_folder_are_ours_alone(bound: ControlSocket) -> None:
    """threats.md, "Identity": the agent reaches the admin side."""
    assert stat.S_IMODE(bound.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(bound.path.parent.stat().st_mode) == 0o700


def test_a_group_may_enter_and_use_it_and_nobody_else(path: Path) -> None:
    found = bind_control(path, GROUP)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    assert path.stat().st_gid == path.parent.stat().st_gid == os.getgid() == found.group
    found.close()


def test_a_group_that_cannot_enter_the_folder_is_said(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with pytest.raises(BindError, match="chmod 750"):
        bind_control(path, GROUP)


def test_a_group_that_does_not_exist_is_said(path: Path) -> None:
    with pytest.raises(ConfigError, match="groupadd"):
        bind_control(path, "no-such-group")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_a_folder_that_others_may_write_is_no_place(path: Path, mode: int) -> None:
    """threats.md, "Identity": another user puts a socket there first and is told of tokens."""
    path.parent.mkdir()
    path.parent.chmod(mode)
    with pytest.raises(BindError, match="others may write there"):
        bind_control(path)
    assert list(path.parent.iterdir()) == []


def test_never_in_the_folder_for_temporary_files() -> None:
    with pytest.raises(BindError, match="others may write there"):
        bind_control(Path(tempfile.gettempdir()) / "sallyport-control.sock")


def test_a_folder_above_that_others_may_write_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(BindError, match="open is no place"):
        bind_control(tmp_path / "open" / "run" / "control.sock")


def test_a_folder_of_another_user_is_no_place(path: Path) -> None:
    if IS_ROOT:
        path.parent.mkdir()
        os.chown(path.parent, NOBODY, NOBODY)
        with pytest.raises(BindError, match="is no place"):
            bind_control(path)


def test_a_path_that_no_socket_can_have_is_said(tmp_path: Path) -> None:
    with pytest.raises(BindError, match="longer than"):
        bind_control(tmp_path / ("x" * 100) / "control.sock")


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BindError, match=r"choose another listen\.control"):
        bind_control(tmp_path / "file" / "control.sock")


def test_what_is_no_socket_is_not_removed(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text("a file of somebody's")
    with pytest.raises(BindError, match="no socket"):
        bind_control(path)
    assert path.read_text() == "a file of somebody's"
    path.unlink()
    bind_control(path).close()  # the lock was let go


def test_what_cannot_be_bound_is_said_and_lets_go(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: socket.socket, _backlog: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "listen", full)
        with pytest.raises(BindError, match="No space left"):
            bind_control(path)
    bind_control(path).close()


def test_one_that_is_alive_is_named_by_its_pid(bound: ControlSocket) -> None:
    with pytest.raises(BindError, match=f"already running, pid {os.getpid()}"):
        bind_control(bound.path)
    assert bound.path.exists()


def test_one_that_is_alive_and_whose_socket_was_removed_is_not_doubled(
    bound: ControlSocket,
) -> None:
    bound.path.unlink()
    with pytest.raises(BindError, match="already running;"):
        bind_control(bound.path)


DYING = """
import os, sys
from pathlib import Path
from proxy.control.place import bind_control
bind_control(Path(sys.argv[1]))
os._exit(0)
"""


def test_what_a_dead_process_left_is_replaced(path: Path) -> None:
    command = [sys.executable, "-P", "-c", DYING, str(path)]
    subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, check=True)
    assert path.is_socket()
    found = bind_control(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    found.close()
    assert not path.exists()


def test_the_kernel_says_who_calls(bound: ControlSocket) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(bound.path))
        accepted, _ = bound.socket.accept()
        with accepted:
            caller = caller_of(accepted)
    assert (caller.pid, caller.uid, caller.gid) == (os.getpid(), os.getuid(), os.getgid())
    assert caller.groups == frozenset(os.getgroups())


def test_more_groups_than_can_be_told_are_none() -> None:
    class Crowded(socket.socket):
        """A socket whose peer is in very many groups, as the kernel would say it."""

        @override
        def getsockopt(self, level: int, name: int, size: int = 0) -> bytes:  # type: ignore[override]  # its other form is not used
            if name == socket.SO_PEERCRED:
                return super().getsockopt(level, name, size)
            raise OSError(34, "Numerical result out of range")

    ours, theirs = socket.socketpair()
    with ours, theirs, Crowded(fileno=os.dup(ours.fileno())) as crowded:
        assert caller_of(crowded).groups == frozenset()


@pytest.mark.parametrize(
    ("caller", "group", "may"),
    [
        (Caller(1, os.geteuid(), 5), None, True),
        (Caller(1, 0, 5), None, True),
        (Caller(1, 4321, 5), None, False),
        (Caller(1, 4321, 5), 7, False),
        (Caller(1, 4321, 7), 7, True),
        (Caller(1, 4321, 5, frozenset({6, 7})), 7, True),
    ],
)
def test_ourselves_root_and_the_group_may_ask(caller: Caller, group: int | None, may: bool) -> None:
    """threats.md, "Identity": the agent reaches the admin side."""
    assert caller.may_ask(group) is may


INTRUDING = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
client = socket.socket(socket.AF_UNIX)
try:
    client.connect(sys.argv[1])
except OSError as error:
    sys.exit(error.strerror)
"""


def test_another_user_does_not_reach_it(bound: ControlSocket) -> None:
    """threats.md, "Identity": the agent reaches the admin side: a unix socket by peer uid."""
    if IS_ROOT:
        command = [sys.executable, "-c", INTRUDING, str(bound.path)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert found.returncode == 1
        assert "Permission denied" in found.stderr


def test_another_socket_of_ours_is_ours_alone_as_well(path: Path) -> None:
    for door in (EXT_AUTHZ, WORKLOAD):
        found = bind_door(door, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        found.close()


def test_what_is_wrong_is_said_of_the_key_that_it_is_about(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with pytest.raises(BindError, match=r"Workload API: others may write .* as listen\.workload"):
        bind_door(WORKLOAD, path)
    with pytest.raises(BindError, match=r"ext_authz: others may write .* as listen\.ext_authz"):
        bind_door(EXT_AUTHZ, path)


@pytest.fixture
def passable() -> Iterator[Path]:
    """A folder that every user may pass through, and nobody else may write."""
    folder = Path(tempfile.mkdtemp(prefix="place-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def test_the_open_one_can_be_used_by_everybody_and_its_folder_by_nobody(passable: Path) -> None:
    """threats.md, "Identity": the agents' socket opens nothing else."""
    control = bind_control(passable / "run" / "control.sock")
    found = bind_door(OPEN_WORKLOAD, passable / "run" / "workload.sock")
    assert stat.S_IMODE(found.path.stat().st_mode) == 0o666
    assert stat.S_IMODE(found.path.parent.stat().st_mode) == 0o711
    assert stat.S_IMODE(control.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(f"{found.path}.lock").stat().st_mode) == 0o600
    if IS_ROOT:
        for bound, said in ((found, ""), (control, "Permission denied")):
            command = [sys.executable, "-c", INTRUDING, str(bound.path)]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            assert ran.stderr.strip() == said
    again = found.again()
    assert stat.S_IMODE(again.path.stat().st_mode) == 0o666
    found.socket.close()
    again.close()
    control.close()


def test_the_folder_of_a_group_stays_the_groups(passable: Path) -> None:
    control = bind_control(passable / "run" / "control.sock", GROUP)
    found = bind_door(OPEN_WORKLOAD, passable / "run" / "workload.sock")
    assert stat.S_IMODE(found.path.parent.stat().st_mode) == 0o751
    control.again().socket.close()
    found.close()
    control.close()


def test_an_open_one_that_nobody_could_get_to_is_said(passable: Path) -> None:
    passable.chmod(0o700)
    with pytest.raises(BindError, match=r"cannot pass through .* chmod it 711"):
        bind_door(OPEN_WORKLOAD, passable / "run" / "workload.sock")
