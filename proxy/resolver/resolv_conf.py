"""What this host is configured to ask: resolv.conf(5), read strictly and again when it changes.

Only `nameserver` lines count: no search list, domain or option is ever used.  Where the stub of
systemd-resolved is named, the file in which it keeps what it asks itself is read instead.  Our
own listeners are never among the servers: asking ourselves would go round in a circle.
"""

import os
import stat
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

from rules.address import Address, parse_address
from rules.errors import MalformedAddressError

RESOLV_CONF = Path("/etc/resolv.conf")
RESOLVED_CONF = Path("/run/systemd/resolve/resolv.conf")  # systemd-resolved.service(8)
SERVERS = 3  # resolv.conf(5), MAXNS: the C library uses no more
CHECK_S = 2.0  # how often the file may be looked at; the C library looks at each query
PORT = 53
_STUBS = (IPv4Address("127.0.0.53"), IPv4Address("127.0.0.54"))  # systemd-resolved.service(8)
_FILE_OCTETS = 65536  # a longer file is no resolv.conf

type IsOwn = Callable[[Address, int], bool]
"""Whether a connection to an address and port would reach a listener of ours."""

type _Stamp = tuple[tuple[int, ...], ...]


class HostResolvers:
    """The servers of resolv.conf, looked at again when a question comes, at most every CHECK_S."""

    def __init__(
        self, is_own: IsOwn, file: Path = RESOLV_CONF, resolved: Path = RESOLVED_CONF
    ) -> None:
        self._is_own = is_own
        self._files = (file, resolved)
        self._stamp: _Stamp | None = None
        self._checked: float | None = None
        self._servers: tuple[Address, ...] = ()
        self.problem = ""

    def servers(self, now: float) -> tuple[Address, ...]:
        """Return the servers; where there are none, `problem` says why and what to do."""
        if self._checked is not None and now < self._checked + CHECK_S:
            return self._servers
        self._checked = now
        stamp = tuple(map(_stamp, self._files))
        if stamp != self._stamp:
            self._stamp = stamp
            self._servers = self._read()
        return self._servers

    def _read(self) -> tuple[Address, ...]:
        named, used = self._named()
        servers = tuple(each for each in named if not self._is_own(each, PORT))[:SERVERS]
        what = "names no resolver" if not named else "names none but this appliance"
        self.problem = "" if servers else (
            f"{used} {what}; connect the host to a network, or name upstreams under"
            " `resolver.upstreams` instead of `system`"
        )  # fmt: skip
        return servers

    def _named(self) -> tuple[tuple[Address, ...], Path]:
        file, resolved = self._files
        named = nameservers(_text(file))
        if not any(stub in named for stub in _STUBS):
            return named, file
        others = tuple(each for each in nameservers(_text(resolved)) if each not in _STUBS)
        return others, resolved


def nameservers(text: str) -> tuple[Address, ...]:
    """Return the addresses of the `nameserver` lines, each once, in order.

    A line begins with the keyword, then blanks, then one address in canonical spelling (a zone id
    as in fe80::1%eth0 is none); a line that is anything else says nothing.
    """
    found: dict[Address, None] = {}
    for line in text.split("\n"):
        words = line.split()
        # resolv.conf(5): the keyword must start the line.
        if len(words) != 2 or not line.startswith("nameserver") or words[0] != "nameserver":
            continue
        try:
            address = parse_address(words[1])
        except MalformedAddressError:
            continue
        if not (address.is_unspecified or address.is_multicast):
            found[address] = None
    return tuple(found)


def _stamp(file: Path) -> tuple[int, ...]:
    try:
        seen = file.stat()
    except OSError:
        return ()
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns


def _text(file: Path) -> str:
    """Return what stands in `file`; nothing where it cannot be read, or is no text."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        data = os.read(descriptor, _FILE_OCTETS + 1) if is_file else b""
        return data.decode("utf-8", "replace") if len(data) <= _FILE_OCTETS else ""
    except OSError:
        return ""
    finally:
        os.close(descriptor)
