"""Who is at the other end of a local TCP connection, as the kernel knows it.

The kernel is asked through sock_diag(7) (one netlink exchange, about 6 us); /proc/net/tcp is
never scanned.  What comes back is an ambient hint: any process of the same uid can arrange
for it (docs/identity.md).  Look-ups are made at accept, before the first octet is read: once
the peer has closed, the kernel forgets uid and cgroup.
"""

import hashlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from msgspec import Struct

from proxy.limits import Limits

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_INET_DIAG_CGROUP_ID = 21  # linux/inet_diag.h
_LISTEN = 10  # linux/tcp_states.h
_ALL_STATES = 0xFFFFFFFF
_NO_COOKIE = b"\xff" * 8
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI")
_PORTS = struct.Struct("!HH")
_MESSAGE_OCTETS = 16 + 72  # nlmsghdr and inet_diag_msg; attributes follow
_REPLY_OCTETS = 8192
_TIMEOUT_S = 0.1  # the kernel answers within the send; this only guards against a lost reply
_SETTLED_NS = 1_000_000_000  # a file changed within the last second may change again unseen

type SocketAddress = tuple[str, int] | tuple[str, int, int, int]


class SocketOwner(Struct, frozen=True):
    """What the kernel says of the peer's socket; `cgroup` is the inode of its cgroup folder."""

    uid: int
    inode: int
    cgroup: int | None


class PeerTable:
    """Answers who owns the peer's socket; holds one netlink socket."""

    def __init__(
        self, limits: Limits, wall: Callable[[], float], hit_bound: Callable[[str], None]
    ) -> None:
        """`hit_bound` is called with the name of a limit each time that it is met."""
        self._limits = limits
        self._wall = wall
        self._hit_bound = hit_bound
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        self._netlink.settimeout(_TIMEOUT_S)
        self._digests: dict[tuple[int, ...], str] = {}
        self._cgroups = _cgroup_mount()

    def owner(self, peer: SocketAddress, local: SocketAddress) -> SocketOwner | None:
        """Return the owner of the local socket whose address is `peer`; None if nobody holds it."""
        family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
        try:
            self._netlink.send(_ask(family, peer, local))
            return _read_owner(self._netlink.recv(_REPLY_OCTETS))
        except OSError:
            return None

    def is_in_cgroup(self, owner: SocketOwner, path: str) -> bool:
        """Return whether the socket belongs to the cgroup at `path` (as in /proc/PID/cgroup)."""
        if owner.cgroup is None or self._cgroups is None:
            return False
        try:
            return (self._cgroups / path.lstrip("/")).stat().st_ino == owner.cgroup
        except OSError:
            return False

    def executable_sha256(self, owner: SocketOwner) -> str | None:
        """Return the digest of the one process that holds the socket.

        None where it cannot be known: no cgroup v2, several holders, ourselves, no permission,
        or more entries, octets or time than the limits allow.
        """
        deadline = perf_counter() + self._limits.process_s
        holders = self._holders(owner, deadline)
        if holders is None or len(holders) != 1 or holders[0] == os.getpid():
            return None
        return self._digest(Path(f"/proc/{holders[0]}/exe"))

    def close(self) -> None:
        """Close the netlink socket."""
        self._netlink.close()

    def _holders(self, owner: SocketOwner, deadline: float) -> list[int] | None:
        folder = self._cgroup_folder(owner, deadline)
        if folder is None:
            return None
        wanted = f"socket:[{owner.inode}]"
        holders = []
        left = self._limits.process_fds
        for pid in (folder / "cgroup.procs").read_text().split():
            holds, left = _holds(pid, wanted, left)
            if left <= 0 or perf_counter() > deadline:
                # A process with very many descriptors is no way to slow us down.
                self._hit_bound("process_fds" if left <= 0 else "process_s")
                return None
            holders += [int(pid)] if holds else []
        return holders

    def _cgroup_folder(self, owner: SocketOwner, deadline: float) -> Path | None:
        if self._cgroups is None or owner.cgroup is None:
            return None
        for folder, _, _ in os.walk(self._cgroups):
            if perf_counter() > deadline:
                return None
            if Path(folder).stat().st_ino == owner.cgroup:
                return Path(folder)
        return None

    def _digest(self, exe: Path) -> str | None:
        try:
            with exe.open("rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_size > self._limits.process_exe_octets:
                    self._hit_bound("process_exe_octets")
                    return None
                # The change time cannot be set back (utimensat sets the others).
                key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
                known = self._digests.get(key)
                if known is None:
                    known = hashlib.file_digest(file, "sha256").hexdigest()
                    self._remember(key, known)
                return known
        except OSError:
            return None

    def _remember(self, key: tuple[int, ...], digest: str) -> None:
        if self._wall() * 1e9 - key[-1] < _SETTLED_NS:
            return
        if len(self._digests) >= self._limits.apps_remembered:
            self._digests.pop(next(iter(self._digests)))
        self._digests[key] = digest


def _ask(family: int, peer: SocketAddress, local: SocketAddress) -> bytes:
    ends = _PORTS.pack(peer[1], local[1])
    ends += b"".join(_packed(family, end[0]).ljust(16, b"\0") for end in (peer, local))
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES)
    body += ends + struct.pack("=I", 0) + _NO_COOKIE
    size = _HEADER.size + len(body)
    return _HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0) + body


def _packed(family: int, address: str) -> bytes:
    return socket.inet_pton(family, address.partition("%")[0])


def _read_owner(reply: bytes) -> SocketOwner | None:
    size, kind = struct.unpack_from("=IH", reply)
    if kind == _NLMSG_ERROR or size < _MESSAGE_OCTETS:
        return None
    uid, inode = struct.unpack_from("=II", reply, 16 + 64)
    # Without an inode nobody holds the socket any more, and before Linux 6.17 its uid reads 0,
    # which is root's.  A listening one is another's: the kernel offers it where the peer's is gone.
    if not inode or reply[17] == _LISTEN:
        return None
    at, cgroup = _MESSAGE_OCTETS, None
    while at + 4 <= size:
        length, attribute = struct.unpack_from("=HH", reply, at)
        if length < 4:
            break
        if attribute == _INET_DIAG_CGROUP_ID:
            (cgroup,) = struct.unpack_from("=Q", reply, at + 4)
        at += (length + 3) & ~3
    return SocketOwner(uid, inode, cgroup)


def _holds(pid: str, wanted: str, left: int) -> tuple[bool, int]:
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                left -= 1
                if left <= 0 or os.readlink(entry.path) == wanted:  # noqa: PTH115 - a Path per descriptor is slow
                    return left > 0, left
    except OSError:
        return False, left
    return False, left


def _cgroup_mount() -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if "cgroup2" in fields[fields.index("-") :]:
            return Path(fields[4])
    return None
