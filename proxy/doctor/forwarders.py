"""Check for local forwarders: a program in front of us makes many apps look like one.

Two signs are looked for: a process that holds a connection to one of our listeners and listens
itself, whatever its name; and a resolver whose configuration names one of our listeners.
"""

import contextlib
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from msgspec import Struct

from proxy.config import read_socket, write_socket
from proxy.doctor.patient import Finding, Patient
from rules.address import Address

_ESTABLISHED, _LISTEN = "01", "0A"  # include/net/tcp_states.h
_CURE = "point each agent at a listener of its own, or give it a token; do not forward for many"
_RESOLVED = "systemd-resolved"
_FILE_OCTETS = 1 << 20  # of one configuration file; dnsmasq's own example has 27 KiB


class _Socket(Struct, frozen=True):
    """A line of /proc/net/tcp; `far` is `ADDRESS:PORT` as `listen:` has it."""

    far: str
    state: str
    inode: str


def forwarders(patient: Patient) -> Iterator[Finding]:
    """Find programs that stand between the agents and us."""
    yield from _relays(patient)
    yield from _resolvers(patient)


def _relays(patient: Patient) -> Iterator[Finding]:
    ours = {label: kind for kind, label in patient.listeners() if kind != "metrics"}
    sockets = list(_sockets(patient.proc))
    reaching = {each.inode: each.far for each in sockets if each.far in ours}
    listening = {each.inode for each in sockets if each.state == _LISTEN}
    if not reaching:
        return
    for process in sorted(patient.proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        held = _inodes(process)
        labels = sorted({reaching[inode] for inode in held & reaching.keys()})
        if labels and held & listening and int(process.name) != patient.pid:
            where = ", ".join(f"{ours[label]} {label}" for label in labels)
            message = (
                f"pid {process.name} ({_name(process)}) accepts connections and holds some to"
                f" {where}: all whom it serves are one app to us"
            )
            yield Finding("warning", message, _CURE)


def _sockets(proc: Path) -> Iterator[_Socket]:
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:  # no IPv6 on this host, or no /proc
            continue
        for line in lines:
            columns = line.split()
            if columns[3] in {_ESTABLISHED, _LISTEN}:
                yield _Socket(_place(columns[2]), columns[3], columns[9])


def _place(text: str) -> str:
    """Return `ADDRESS:PORT` of a column of /proc/net/tcp: words of 32 bits in host order."""
    words, _, port = text.partition(":")
    octets = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
    found: Address = ip_address(octets)
    if found.version == 6 and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return write_socket(found, int(port, 16))


def _inodes(process: Path) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):  # ended meanwhile, or another user's
        for each in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(each.readlink())
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    return found


def _name(process: Path) -> str:
    try:
        name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "?"
    return "".join(each if each.isprintable() else "?" for each in name)


def _resolvers(patient: Patient) -> Iterator[Finding]:
    sockets = [read_socket(label) for label in patient.settings.listen.do53]
    for pid, text in _dnsmasqs(patient.proc):
        files = [*_options(text), *_lines(patient.etc / "dnsmasq.conf", patient.etc / "dnsmasq.d")]
        if any(_dnsmasq_names(line, sockets) for line in files):
            message = f"dnsmasq (pid {pid}) forwards to us: all whom it serves are one app to us"
            yield Finding("warning", message, _CURE)
    conf = [patient.etc / "systemd" / "resolved.conf", patient.etc / "systemd" / "resolved.conf.d"]
    if any(_resolved_names(line, sockets) for line in _lines(*conf)):
        message = f"{_RESOLVED} is told to forward to us: all of this host is one app to us"
        yield Finding("warning", message, _CURE)


def _dnsmasqs(proc: Path) -> Iterator[tuple[str, list[str]]]:
    for process in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        if _name(process) == "dnsmasq":
            with contextlib.suppress(OSError):
                octets = (process / "cmdline").read_bytes()
                yield process.name, octets.decode(errors="replace").split("\0")


def _options(words: list[str]) -> Iterator[str]:
    """Yield the command line of dnsmasq as lines of its configuration file, and those it names."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word == "-S":
            yield f"server={after}"
        elif word.startswith("-S"):
            yield f"server={word[2:]}"
        elif word.startswith("--conf-file="):
            yield from _lines(Path(word.partition("=")[2]))
        elif word == "-C":
            yield from _lines(Path(after))
        elif word.startswith("--"):
            yield word[2:]


def _lines(*places: Path) -> Iterator[str]:
    for place in places:
        files = sorted(place.glob("*.conf")) if place.is_dir() else [place]
        for file in files:
            with (
                contextlib.suppress(OSError),
                file.open(encoding="utf-8", errors="replace") as text,
            ):
                yield from map(str.strip, text.read(_FILE_OCTETS).splitlines())


def _dnsmasq_names(line: str, sockets: list[tuple[Address, int]]) -> bool:
    """Return whether `server=/corp.example/127.0.0.1#5300` and the like name one of ours."""
    key, _, value = line.partition("=")
    if key.strip() not in {"server", "rev-server"}:
        return False
    place = value.strip().rpartition("/")[2].partition("@")[0]
    host, _, port = place.partition("#")
    return any(host == str(address) and (port or "53") == str(ours) for address, ours in sockets)


def _resolved_names(line: str, sockets: list[tuple[Address, int]]) -> bool:
    """Return whether `DNS=127.0.0.1:5300#name` names one of ours (resolved.conf(5))."""
    key, _, value = line.partition("=")
    if key.strip() not in {"DNS", "FallbackDNS"}:
        return False
    words = {word.partition("#")[0].partition("%")[0] for word in value.split()}
    ours = {write_socket(address, port) for address, port in sockets}
    ours |= {str(address) for address, port in sockets if port == 53}
    return bool(words & ours)
