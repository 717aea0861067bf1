"""The place of a unix socket of ours: a folder that nobody else can write.

The folder and the file's mode are the wall of the control socket: who cannot open it cannot ask.
A folder that others may write is refused, since they could put their own socket there and be told
of tokens.  A lock beside the socket tells one that is alive from one that a dead process left.
The socket of the Workload API is for every user under --system: others may pass through its
folder then, and still change nothing there.
"""

import fcntl
import grp
import os
import socket
import stat
import struct
from pathlib import Path

from msgspec import Struct

from proxy.errors import BindError, ConfigError

_PATH_OCTETS = 107  # unix(7): sun_path holds 108 with the NUL at its end
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_SO_PEERGROUPS = 59  # asm-generic/socket.h, since Linux 4.13


class Caller(Struct, frozen=True):
    """Who is at the other end, as the kernel knows it (SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()

    def may_ask(self, group: int | None) -> bool:
        """Return whether it is ourselves, root, or a member of `group`."""
        is_member = group is not None and group in {self.gid, *self.groups}
        return is_member or self.uid in {0, os.geteuid()}

    def said(self) -> dict[str, object]:
        """Return what stands of him in an audit line."""
        return {"by_uid": self.uid, "by_pid": self.pid}


class Door(Struct, frozen=True):
    """A kind of socket: `key` is where its path is configured, `what` its name for people.

    `is_open`: every user of the host may connect.
    """

    key: str
    what: str
    is_open: bool = False
    backlog: int = 16  # connections not yet accepted; the SOMAXCONN of today's Linux is 4096


CONTROL = Door("listen.control", "control socket")
EXT_AUTHZ = Door("listen.ext_authz", "socket of ext_authz")
WORKLOAD = Door("listen.workload", "socket of the Workload API", backlog=128)
OPEN_WORKLOAD = Door("listen.workload", "socket of the Workload API", is_open=True, backlog=128)


class ControlSocket(Struct, frozen=True):
    """A listening socket, and the lock that says that it is in use."""

    socket: socket.socket
    path: Path
    lock: int
    group: int | None
    door: Door = CONTROL

    def is_there(self) -> bool:
        """Return whether the socket's file is still where it was made."""
        try:
            return stat.S_ISSOCK(self.path.lstat().st_mode)
        except OSError:
            return False

    def again(self) -> "ControlSocket":
        """Return another one in the same place, for one whose file was taken away.

        Raises:
            BindError: the place is no longer a safe one.
            OSError: it cannot be had.
        """
        _make_folder(self.path.parent, self.group)
        _check_folder(self.path.parent, self.group, self.door)
        listening = _listen(self.path, self.group, self.door)
        return ControlSocket(listening, self.path, self.lock, self.group, self.door)

    def close(self) -> None:
        """Remove the socket's file and let go of the lock."""
        self.socket.close()
        self.path.unlink(missing_ok=True)
        os.close(self.lock)


def bind_control(path: Path, group_name: str | None = None) -> ControlSocket:
    """Return the control socket at `path`; `bind_door` says how, and what it raises."""
    return bind_door(CONTROL, path, group_name)


def bind_door(door: Door, path: Path, group_name: str | None = None) -> ControlSocket:
    """Return a listening socket at `path`: 0600, 0660 for the group, 0666 where it `is_open`.

    Raises:
        ConfigError: there is no such group.
        BindError: the folder is no safe place, or an appliance runs already; what to do.
    """
    group = None if group_name is None else _group(group_name)
    if len(os.fsencode(path)) > _PATH_OCTETS:
        text = f"{path} is longer than a socket's path may be; name a shorter one"
        raise BindError(f"{text} as {door.key}")
    try:
        _make_folder(path.parent, group)
        _check_folder(path.parent, group, door)
        lock = _lock(path)
    except OSError as error:
        raise BindError(f"{path}: {error.strerror}; choose another {door.key}") from error
    try:
        return ControlSocket(_listen(path, group, door), path, lock, group, door)
    except BindError:
        os.close(lock)
        raise
    except OSError as error:
        os.close(lock)
        raise BindError(f"{path}: {error.strerror}; choose another {door.key}") from error


def caller_of(connection: socket.socket) -> Caller:
    """Return who called `connect` on the other end."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(found)
    return Caller(pid, uid, gid, _groups(connection))


def _groups(connection: socket.socket) -> frozenset[int]:
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
    except OSError:  # more than 256 groups, or none that can be told: who is named by its gid only
        return frozenset()
    return frozenset(struct.unpack(f"={len(packed) // 4}I", packed))


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        text = f"listen.control_group: there is no group {name!r}; make it with groupadd"
        raise ConfigError(text) from None


def _make_folder(folder: Path, group: int | None) -> None:
    if folder.exists():
        return
    folder.mkdir(parents=True, mode=0o700)
    if group is not None:
        os.chown(folder, -1, group)
        folder.chmod(0o750)


def safe_folder(folder: Path, door: Door) -> Path:
    """Return the folder that `folder` is, links resolved: nobody but root and we change its place.

    Raises:
        BindError: others may; what to do.
        OSError: there is none.
    """
    real = folder.resolve(strict=True)
    for each in (real, *real.parents):
        found = each.stat()
        is_ours = found.st_uid in {0, os.geteuid()}
        by_others = stat.S_IWOTH | (stat.S_IWGRP if each == real else 0)
        is_open = bool(found.st_mode & by_others)
        # In a sticky folder nobody moves what is another's; but anyone may be there first.
        if not is_ours or (is_open and (each == real or not found.st_mode & stat.S_ISVTX)):
            raise BindError(
                f"{each} is no place for the {door.what}: others may write there;"
                f" name a path in a folder of your own as {door.key}"
            )
    return real


def _check_folder(folder: Path, group: int | None, door: Door) -> None:
    real = safe_folder(folder, door)
    if door.is_open:
        _let_through(real, door)
    found = real.stat()
    if group is not None and not (found.st_gid == group and found.st_mode & stat.S_IXGRP):
        raise BindError(
            f"the control group cannot enter {real}; chgrp it to the group and chmod 750 it"
        )


def _let_through(folder: Path, door: Door) -> None:
    """Let every user pass through `folder`, which lists and gives them nothing else."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    if not mode & stat.S_IXOTH:
        folder.chmod(mode | stat.S_IXGRP | stat.S_IXOTH)  # 0711 of 0700
    for each in folder.parents:
        if not each.stat().st_mode & stat.S_IXOTH:
            raise BindError(
                f"other users cannot pass through {each}; chmod it 711, or name another {door.key}"
            )


def _lock(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(f"{path}.lock", flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise BindError(f"already running{_pid_at(path)}; end it, or use its socket") from None
    return lock


def _pid_at(path: Path) -> str:
    """Return `, pid N` of whoever listens at `path`; nothing where nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return ""
        return f", pid {caller_of(probe).pid}"


def _listen(path: Path, group: int | None, door: Door) -> socket.socket:
    if path.exists(follow_symlinks=False):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise BindError(f"{path} is no socket; move it away, or choose another {door.key}")
        path.unlink()  # of a dead process: we hold the lock
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        bound.bind(os.fspath(path))
        # Nobody can connect before `listen`, so that there is no moment with another mode.
        path.chmod(0o666 if door.is_open else 0o600 if group is None else 0o660)
        if group is not None:
            os.chown(path, -1, group)
        bound.listen(door.backlog)
    except OSError:
        bound.close()
        raise
    return bound
