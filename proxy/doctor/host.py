"""Checks of the host: its clock, its kernel, what a process may open, which addresses it has."""

import ctypes
import datetime as dt
import os
import resource
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from proxy.doctor.certificates import ca_folder, root_certificate
from proxy.doctor.patient import Finding, Patient
from proxy.limits import Limits
from proxy.transport.peer import PeerTable

KERNEL = (5, 9)
"""Since Linux 5.9 sock_diag(7) tells the cgroup of a socket (INET_DIAG_CGROUP_ID)."""

_STA_UNSYNC = 0x0040  # linux/timex.h
_TIMEX_OCTETS = 256  # struct timex has 208 on 64-bit Linux
_STATUS_AT = 5 * 8  # modes (padded), offset, freq, maxerror, esterror, then int status
_ROUNDING_S = 120.0  # what a clock that is being set may go back; DNSSEC and TLS bear as much
_TAIL_OCTETS = 65536
_PROBE_S = 1.0
_SYNC = "timedatectl set-ntp true, or start chronyd or ntpd"


class _NoLoopbackError(Exception):
    """A connection to ourselves failed."""


class _Line(Struct):
    time: dt.datetime


def clock(patient: Patient) -> Iterator[Finding]:
    """Find a clock that is before what has happened already, or that nobody sets."""
    for what, then in _happened(patient):
        if patient.now < then - _ROUNDING_S:
            hours = (then - patient.now) / 3600
            message = f"the clock is {hours:.1f} h before {what}"
            yield Finding("error", message, f"set it (date -s), then {_SYNC}")
    if is_unsynchronised():
        # No warning: a virtual machine's clock may be its host's, which says nothing here.
        yield Finding("info", "the kernel knows of nothing that keeps its clock right", _SYNC)


def _happened(patient: Patient) -> Iterator[tuple[str, float]]:
    """Yield events of the past that this host knows the time of; nobody outside is asked."""
    yield "this version was installed", Path(__file__).stat().st_mtime
    try:
        fields = root_certificate(ca_folder(patient))
    except OSError:  # another check tells of that
        fields = None
    if fields is not None:
        yield "the local CA was made", float(ssl.cert_time_to_seconds(fields["notBefore"]))
    newest = newest_line_s(Path(patient.settings.audit.file))
    if newest is not None:
        yield "the newest audit line", newest


def newest_line_s(file: Path) -> float | None:
    """Return the time of the last line of evidence, in seconds since 1970; None without one."""
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, os.fstat(opened.fileno()).st_size - _TAIL_OCTETS))
            lines = opened.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            return msgspec.json.decode(line, type=_Line).time.timestamp()
        except msgspec.MsgspecError:  # half a line
            continue
    return None


def is_unsynchronised() -> bool:
    """Return whether the kernel says that nothing disciplines its clock (adjtimex(2))."""
    timex = ctypes.create_string_buffer(_TIMEX_OCTETS)  # modes 0: read only
    if ctypes.CDLL(None, use_errno=True).adjtimex(timex) < 0:
        return False  # forbidden by a sandbox: nothing is known
    return bool(int.from_bytes(timex.raw[_STATUS_AT : _STATUS_AT + 4], "little") & _STA_UNSYNC)


def peers(_patient: Patient) -> Iterator[Finding]:
    """Find a kernel that does not say who owns a connection: process evidence needs it."""
    cure = (
        "load the modules inet_diag and tcp_diag, and allow AF_NETLINK"
        " (RestrictAddressFamilies=, seccomp); or use tokens instead of process evidence"
    )
    try:
        owner = _own_connection()
    except _NoLoopbackError as error:
        yield Finding("error", f"loopback does not work: {error}", "ip link set lo up")
        return
    except OSError as error:
        yield Finding("error", f"sock_diag is not to be had: {error.strerror}", cure)
        return
    if owner != os.geteuid():
        yield Finding("error", "sock_diag does not name the owner of a local connection", cure)


def _own_connection() -> int | None:
    """Return the uid that the kernel gives for a connection which is ours."""
    table = PeerTable(Limits(), time.time, lambda _name: None)  # noqa: TID251 - never asked here
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener, _connected(listener) as client:
            found = table.owner(client.getsockname(), listener.getsockname())
    finally:
        table.close()
    return None if found is None else found.uid


def _connected(listener: socket.socket) -> socket.socket:
    try:
        return socket.create_connection(listener.getsockname(), _PROBE_S)
    except OSError as error:
        raise _NoLoopbackError(error.strerror) from error


def kernel(_patient: Patient) -> Iterator[Finding]:
    """Find a kernel that is too old for evidence by cgroup and executable."""
    release = os.uname().release
    found = read_release(release)
    if found is not None and found < KERNEL:
        wanted = ".".join(map(str, KERNEL))
        message = f"Linux {release}: before {wanted} no cgroup or executable is evidence"
        yield Finding("warning", message, f"boot Linux {wanted} or later, or use tokens")


def read_release(text: str) -> tuple[int, int] | None:
    """Return the two numbers that a kernel's release begins with; None where it has none."""
    numbers = text.split(".")[:2]
    if len(numbers) < 2 or not all(each.isascii() and each.isdigit() for each in numbers):
        return None
    return int(numbers[0]), int(numbers[1])


def descriptors(patient: Patient) -> Iterator[Finding]:
    """Find a bound on open files that is below what the limits of the proxy admit."""
    most = _most_files(patient)
    needed = files_needed(patient.settings.limits)
    if most < needed:
        message = f"{most} files may be open; a full proxy listener needs {needed}"
        cure = f"LimitNOFILE={needed} in the unit, `ulimit -Hn`, or lower proxy_connections"
        yield Finding("warning", message, cure)


def files_needed(limits: Limits) -> int:
    """Return how many descriptors a proxy listener full of tunnels takes, with all else."""
    tunnels = 2 * limits.proxy_connections
    return tunnels + limits.dns_tcp_connections + limits.upstream_in_flight


def _most_files(patient: Patient) -> int:
    if patient.pid is not None:
        try:
            text = (patient.proc / str(patient.pid) / "limits").read_text(encoding="ascii")
        except OSError:  # another user's
            pass
        else:
            (line,) = (line for line in text.splitlines() if line.startswith("Max open files"))
            return int(line.split()[3])  # soft; the appliance raised it to the hard one
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def address_families(patient: Patient) -> Iterator[Finding]:
    """Find listeners on [::1] and the like where the host has no IPv6."""
    wanted = [label for _, label in patient.listeners() if label.startswith("[")]
    if not wanted or has_ipv6():
        return
    message = f"this host has no IPv6: nobody can reach {', '.join(wanted)}"
    cure = (
        "sysctl net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0,"
        " or list IPv4 addresses alone under `listen:`"
    )
    skipped = all(label in patient.settings.listen.skippable for label in wanted)
    yield Finding("warning" if skipped else "error", message, cure)


def has_ipv6() -> bool:
    """Return whether a socket can be bound to the loopback address of IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
