"""Who called `connect` on a unix socket of ours, and whether he is still what he was.

The kernel keeps the caller's credentials as they were then (SO_PEERCRED) and names his process by
a descriptor (SO_PEERPIDFD) that never becomes another's.  What /proc says of a number is believed
only while that process lives.  A connection that was handed on, or that a child inherited, is
still its caller's: it ends with him.

What cannot be known is absent, and never matches: the cgroup of a process that our PID namespace
does not hold, the program of one that several processes share, the uid of a foreign user
namespace.  As on TCP, all of it is a hint: any process of the same uid can arrange for it.
"""

import errno
import fcntl
import os
import select
import socket
import struct
from functools import cache
from pathlib import Path

from msgspec import Struct

from proxy.limits import Limits
from proxy.transport.peer import SocketOwner
from proxy.workload.inode import UnixDiag

_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_SO_PEERPIDFD = 77  # asm-generic/socket.h, since Linux 6.5
_GET_INFO = 0xC040FF0B  # PIDFD_GET_INFO: _IOWR(0xFF, 11, 64 octets), since Linux 6.13
_INFO_OCTETS = 64  # PIDFD_INFO_SIZE_VER0, linux/pidfd.h
_INFO_CGROUP = 4  # PIDFD_INFO_CGROUPID
_UNKNOWN_UID = 0xFFFFFFFF  # (uid_t) -1 is nobody's: credentials(7)
_UID_MAP, _OVERFLOW = Path("/proc/self/uid_map"), Path("/proc/sys/kernel/overflowuid")
_EVERY_UID = ["0", "0", "4294967295"]


class Mark(Struct, frozen=True):
    """What a living process may change of itself: its cgroup, and the file that it runs.

    `cgroup` is the inode of the cgroup's folder, `program` device and inode.
    """

    cgroup: int | None = None
    program: tuple[int, int] | None = None


class Caller:
    """One caller; `pidfd` is ours to close.  `inode` is of his end of the connection."""

    def __init__(self, pid: int, uid: int, pidfd: int | None = None, inode: int = 0) -> None:
        self.pid = pid
        self.uid = uid
        self.pidfd = pidfd
        self.inode = inode
        self.mark = self.look()
        """What he was when he was first looked at."""

    @property
    def is_alive(self) -> bool:
        """Whether his process runs; without a descriptor of it that cannot be known: it does."""
        if self.pidfd is None:
            return True
        ended = select.poll()
        ended.register(self.pidfd, select.POLLIN)
        return not ended.poll(0)

    def look(self) -> Mark:
        """Return what he is now; what is read of one who ends meanwhile is nothing."""
        if self.pidfd is None or self.pid <= 0:
            return Mark()
        mark = Mark(_cgroup(self.pid, self.pidfd), _program(self.pid))
        return mark if self.is_alive else Mark()

    def owner(self, limits: Limits, *, asks_program: bool) -> SocketOwner:
        """Return what identity lines are compared with.

        The program is that of the one process that holds the other end, which has to be the
        caller himself: not one that he passed it to.
        """
        inode = self.inode if asks_program and self._holds_it(limits.process_fds) else 0
        return SocketOwner(self.uid, inode, self.mark.cgroup)

    def close(self) -> None:
        """Let go of his process."""
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None

    def _holds_it(self, most: int) -> bool:
        if not self.inode or self.pidfd is None or self.pid <= 0:
            return False
        wanted = f"socket:[{self.inode}]"
        try:
            with os.scandir(f"/proc/{self.pid}/fd") as entries:
                for entry, _ in zip(entries, range(most), strict=False):
                    if os.readlink(entry.path) == wanted:  # noqa: PTH115 - a Path per descriptor is slow
                        return self.is_alive
        except OSError:  # another uid's, and we are not root: it cannot be known
            return False
        return False


def caller_at(connection: socket.socket, diag: UnixDiag) -> Caller | None:
    """Return who called `connect` at the other end; None if his process has ended already."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    if uid == foreign_uid(_UID_MAP, _OVERFLOW):
        uid = _UNKNOWN_UID
    try:
        (pidfd,) = struct.unpack("=i", connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4))
    except OSError as error:
        # Older kernels: only the uid counts, for a number may be another process's by now.
        return Caller(pid, uid) if error.errno == errno.ENOPROTOOPT else None
    caller = Caller(pid, uid, pidfd, diag.peer(connection))
    if caller.is_alive:
        return caller
    caller.close()
    return None


@cache
def foreign_uid(uid_map: Path, overflow: Path) -> int | None:
    """Return what the kernel says of every uid that our user namespace lacks; None: it has all.

    user_namespaces(7): they all read as the overflow uid, which is nobody's here then.
    """
    try:
        if uid_map.read_text().split() == _EVERY_UID:
            return None
        return int(overflow.read_text())
    except FileNotFoundError:  # a kernel without user namespaces
        return None


def _cgroup(pid: int, pidfd: int) -> int | None:
    """Return the inode of the process's cgroup, of the process that `pidfd` is."""
    info = bytearray(_INFO_OCTETS)
    struct.pack_into("=Q", info, 0, _INFO_CGROUP)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, info)
        mask, cgroup = struct.unpack_from("=QQ", info)
        return int(cgroup) if mask & _INFO_CGROUP and cgroup else None
    except OSError as error:
        return _cgroup_by_name(pid) if error.errno in {errno.ENOTTY, errno.EINVAL} else None


def _cgroup_by_name(pid: int) -> int | None:
    """Return the same of a kernel that only tells its path (cgroups(7))."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        path = next(line[3:] for line in lines if line.startswith("0::"))
        mount = cgroup_mount()
        if mount is None or path.startswith("/.."):  # outside of our cgroup namespace
            return None
        return (mount / path.lstrip("/")).stat().st_ino
    except (OSError, StopIteration, UnicodeDecodeError):  # who makes a cgroup names it as he likes
        return None


def cgroup_mount() -> Path | None:
    """Return where the cgroup v2 hierarchy is mounted; None where there is none."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if "cgroup2" in fields[fields.index("-") :]:
            return Path(fields[4])
    return None


def _program(pid: int) -> tuple[int, int] | None:
    try:
        found = os.stat(f"/proc/{pid}/exe")  # noqa: PTH116 - a Path costs more than the call
    except OSError:
        return None
    return found.st_dev, found.st_ino
