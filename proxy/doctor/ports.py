"""Checks of the ports: who holds them, and whether another appliance runs."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import SOCK_DGRAM, SOCK_STREAM, SocketKind, socket

from proxy.config import Settings, read_socket
from proxy.doctor.patient import STREAMS, Finding, Patient
from proxy.errors import BindError
from proxy.transport.holder import holder
from proxy.transport.listen import bind_tcp, bind_udp

_MODULE = b"proxy.appliance"
_BINDS: dict[SocketKind, Callable[[str, int], socket]] = {
    SOCK_STREAM: bind_tcp,
    SOCK_DGRAM: bind_udp,
}


def running_pid(settings: Settings, proc: Path = Path("/proc")) -> int | None:
    """Return the process that holds the audit of these settings: the appliance, where it runs.

    It is read from /proc/locks.  Trying the lock would take it, and an appliance that starts at
    that moment would find another one.  Where the state is closed to whoever asks, it is the
    appliance of the state's owner.
    """
    try:
        inode = Path(settings.audit.file).with_suffix(".reserve").stat().st_ino
        lines = (proc / "locks").read_text(encoding="ascii").splitlines()
    except PermissionError:
        return appliance_of(Path(settings.state), proc)
    except OSError:
        return None
    for words in map(str.split, lines):
        # "1: FLOCK  ADVISORY  WRITE 2171 fe:00:1050 0 EOF", proc_locks(5); "->" is who waits
        if words[1] == "FLOCK" and int(words[5].rpartition(":")[2]) == inode:
            return int(words[4]) or None
    return None


def appliance_of(state: Path, proc: Path) -> int | None:
    """Return an appliance that the owner of `state` runs; None where none is seen."""
    try:
        owner = state.stat().st_uid
        processes = [each for each in proc.glob("[0-9]*") if each.stat().st_uid == owner]
    except OSError:  # one of them has just ended: there is nothing to be sure of
        return None
    return next((int(each.name) for each in processes if _is_appliance(each)), None)


def ports(patient: Patient) -> Iterator[Finding]:
    """Find listeners that cannot be bound, and those that the running appliance does not hold."""
    for kind, label in patient.listeners():
        kinds = (SOCK_STREAM,) if kind in STREAMS else (SOCK_STREAM, SOCK_DGRAM)
        for each in kinds:
            yield from _port(patient, kind, label, each)


def _port(patient: Patient, kind: str, label: str, socket_kind: SocketKind) -> Iterator[Finding]:
    address, port = read_socket(label)
    if not port:
        return
    try:
        _BINDS[socket_kind](str(address), port).close()
    except BindError as error:
        cause = error.__cause__
        code = cause.errno if isinstance(cause, OSError) else None
        if code in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT} and address.version == 6:
            return  # the check `ipv6` tells of it
        if code == errno.EADDRINUSE and _is_ours(patient, port, socket_kind):
            return
        if code in {errno.EACCES, errno.EPERM} and patient.settings.system:
            return  # the unit has the capability; who asks has not
        yield Finding("error", f"{kind} {label}: {error}", "end that process, or change `listen:`")
        return
    if patient.pid is not None:
        message = (
            f"{kind} {label} is configured, and the appliance (pid {patient.pid}) is not there"
        )
        yield Finding("warning", message, "restart sallyport: listeners are bound at the start")


def _is_ours(patient: Patient, port: int, kind: SocketKind) -> bool:
    if patient.pid is None:
        return False
    found = holder(port, kind)
    return not found or found.startswith(f"pid {patient.pid} ")  # "": of a user we may not look at


def instances(patient: Patient) -> Iterator[Finding]:
    """Find appliances of other states: two of them share no counters, tokens or evidence."""
    ours = _network(patient.proc / "self")
    for process in sorted(patient.proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        if int(process.name) == patient.pid or not _is_appliance(process):
            continue
        if _network(process) not in {ours, ""}:
            continue  # a container's, or a sandbox's: it serves another world
        message = f"pid {process.name} is another appliance{_evidence_of(process)}"
        yield Finding("warning", message, f"kill {process.name} where it is not wanted")


def _network(process: Path) -> str:
    """Return the network namespace of a process; "" where we may not look."""
    try:
        return str((process / "ns" / "net").readlink())
    except OSError:
        return ""


def _is_appliance(process: Path) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[1:4] == [b"-P", b"-m", _MODULE]


def _evidence_of(process: Path) -> str:
    """Return where it writes its audit, as far as we may look: the lock of it is an open file."""
    try:
        held = [str(each.readlink()) for each in (process / "fd").iterdir()]
    except OSError:  # ended meanwhile, or another user's
        return ""
    files = [path for path in held if path.endswith(".reserve")]
    return f", with its audit in {Path(files[0]).parent}" if files else ""
