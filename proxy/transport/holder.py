"""Who holds a port, so that "address in use" can name the culprit."""

from collections.abc import Iterator
from pathlib import Path
from socket import SOCK_STREAM, SocketKind

_LISTEN = "0A"  # include/net/tcp_states.h
_BOUND = "07"  # an unconnected UDP socket stands in state CLOSE


def holder(port: int, kind: SocketKind, proc: Path = Path("/proc")) -> str:
    """Return `pid N (NAME)` of a process that is bound to `port`; "" where that is not readable.

    Other users' descriptors cannot be read without CAP_SYS_PTRACE, so this is a hint, no proof.
    """
    inodes = {f"socket:[{inode}]" for inode in _inodes(port, kind, proc)}
    if not inodes:
        return ""
    for process in proc.glob("[0-9]*"):
        if _holds(process, inodes):
            return f"pid {process.name} ({_name(process)})"
    return ""


def _inodes(port: int, kind: SocketKind, proc: Path) -> Iterator[str]:
    table, state = ("tcp", _LISTEN) if kind == SOCK_STREAM else ("udp", _BOUND)
    for name in (table, f"{table}6"):
        try:
            lines = (proc / "net" / name).read_text(encoding="ascii").splitlines()[1:]
        except OSError:  # no IPv6 on this host, or no /proc
            continue
        for line in lines:
            columns = line.split()
            if columns[3] == state and int(columns[1].rpartition(":")[2], 16) == port:
                yield columns[9]


def _holds(process: Path, inodes: set[str]) -> bool:
    try:
        return any(str(each.readlink()) in inodes for each in (process / "fd").iterdir())
    except OSError:  # ended meanwhile, or another user's
        return False


def _name(process: Path) -> str:
    try:
        name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "?"
    return "".join(each if each.isprintable() else "?" for each in name)
