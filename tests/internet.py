"""A small internet in network namespaces, without any link to the outside.

    agent  --- veth ---  outside
    appliance, clients   9.9.9.9 and 149.112.112.112: Unbound (Do53, DoT) over NSD
                         example.com, .org, .net: nginx (80, 443), git over http and https

All certificates are of a private CA (`Internet.ca`).  Every process is ended by its pid and both
namespaces are deleted when the world closes, also after a failure.
"""

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import pytest
from msgspec import Struct

from tests import outside
from tests.authority import PrivateAuthority

PACKAGES = {
    "iodine": "iodine",
    "iodined": "iodine",
    "dns2tcpc": "dns2tcp",
    "dns2tcpd": "dns2tcp",
    "kdig": "knot-dnsutils",
    "dig": "bind9-dnsutils",
    "unbound": "unbound",
    "nsd": "nsd",
    "nginx": "nginx-light",
    "fcgiwrap": "fcgiwrap",
    "curl": "curl",
    "wget": "wget",
    "git": "git",
    "ip": "iproute2",
    "node": "nodejs",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    "sysctl": "procps",
    "promtool": "prometheus",
    "systemd-analyze": "systemd",
    "javac": "default-jdk-headless",
    "h2load": "nghttp2-client",
    "testssl": "testssl.sh",
}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WAIT_S = 20.0  # for a server to accept; they take well under one
ETH_P_ALL = 3
OUTGOING = 4  # PACKET_OUTGOING of packet(7)
UDP, TCP = 17, 6


def need(command: str) -> str:
    """Return the path of a program; a missing one fails the test and names its package."""
    found = shutil.which(command, path=os.environ.get("PATH", "") + ":" + PATH)
    if found is None:
        package = PACKAGES.get(command, command)
        pytest.fail(f"{command} is missing: apt-get install --no-install-recommends {package}")
    return found


def until(condition: Callable[[], bool], what: str, wait_s: float = WAIT_S) -> None:
    """Wait for a condition that another process brings about."""
    deadline = time.monotonic() + wait_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {wait_s:.0f} s")
        time.sleep(0.02)


class Packet(Struct, frozen=True):
    """One packet that left a namespace; `payload` is what UDP or TCP carries."""

    protocol: int
    destination: str
    port: int
    payload: bytes


class Capture:
    """Every packet that leaves a namespace by its veth from now on."""

    def __init__(self, namespace: "Namespace") -> None:
        with namespace.entered():
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)
            )
        self._socket.settimeout(0.05)
        self._packets: list[Packet] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        """Begin to record."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End recording; what was recorded stays readable."""
        self._done.set()
        self._thread.join()
        self._socket.close()

    def packets(self) -> list[Packet]:
        """Return what carried octets so far; bare acknowledgements say nothing."""
        return [packet for packet in self._packets if packet.payload]

    def carries(self, octets: bytes) -> list[Packet]:
        """Return the packets in which these octets stand, whatever their case."""
        wanted = octets.lower()
        return [packet for packet in self.packets() if wanted in packet.payload.lower()]

    def _read(self) -> None:
        while not self._done.is_set():
            with contextlib.suppress(TimeoutError):
                data, (link, _, kind, *_) = self._socket.recvfrom(65535)
                if kind == OUTGOING and link == outside.AGENT_LINK:
                    self._packets.extend(read_packet(data))


def read_packet(data: bytes) -> Iterator[Packet]:
    """Read an IPv4 or IPv6 packet that holds UDP or TCP; anything else is kept whole."""
    if data[0] >> 4 == 4:
        protocol, header = data[9], (data[0] & 15) * 4
        destination = socket.inet_ntop(socket.AF_INET, data[16:20])
        data = data[: struct.unpack_from(">H", data, 2)[0]]
    elif data[0] >> 4 == 6:
        protocol, header = data[6], 40
        destination = socket.inet_ntop(socket.AF_INET6, data[24:40])
        data = data[: 40 + struct.unpack_from(">H", data, 4)[0]]
    else:  # ARP
        return
    segment = data[header:]
    if protocol not in (UDP, TCP):  # neighbour discovery of IPv6
        return
    start = 8 if protocol == UDP else (segment[12] >> 4) * 4
    yield Packet(protocol, destination, struct.unpack_from(">H", segment, 2)[0], segment[start:])


class Namespace:
    """A network namespace of `ip netns`, with `lo` up and nothing else."""

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    @contextlib.contextmanager
    def made(cls, role: str) -> Iterator[Self]:
        """Make one, named with our pid so that a later run can tell what was left behind."""
        made = cls(f"sally-{role}-{os.getpid()}")
        ip("netns", "add", made.name)
        try:
            ip("-n", made.name, "link", "set", "lo", "up")
            yield made
        finally:
            ip("netns", "delete", made.name)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread's new sockets be born in the namespace."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            os.setns(there, os.CLONE_NEWNET)
            yield
        finally:
            os.setns(home, os.CLONE_NEWNET)
            os.close(there)
            os.close(home)

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """Return the argument vector that runs `argv` in here."""
        return [need("ip"), "netns", "exec", self.name, *map(str, argv)]

    def run(
        self, argv: Sequence[str | Path], env: Mapping[str, str] | None = None, wait_s: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end with no environment but PATH and `env`."""
        return subprocess.run(
            self.command([need(str(argv[0])), *argv[1:]]),
            env={"PATH": PATH, **(env or {})},
            capture_output=True,
            text=True,
            timeout=wait_s,
            check=False,
        )

    @contextlib.contextmanager
    def started(
        self,
        argv: Sequence[str | Path],
        log: Path,
        env: Mapping[str, str] | None = None,
        stop: Callable[["subprocess.Popen[bytes]"], None] | None = None,
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """Run a server in here; its output goes to `log`, and it is ended by its pid."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.command([need(str(argv[0])), *argv[1:]]),
                env={"PATH": PATH, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            yield process
        finally:
            (stop or end)(process)

    def accepts(self, address: str, port: int) -> bool:
        """Say whether something listens on TCP there."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.entered(), socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(0.2)
            return probe.connect_ex((address, port)) == 0


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process to end; after five seconds, make it.  So it is with the children it leaves."""
    children = _children(process.pid)
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in children:  # fcgiwrap lets go of its own
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(child, signal.SIGKILL)  # it heeds no other
        os.close(child)


def _children(pid: int) -> list[int]:
    """Return a descriptor of each child that `pid` has now."""
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                found.append(os.pidfd_open(int(child)))
    return found


def ip(*arguments: str) -> None:
    """Run iproute2's `ip`; what it says on failure is the failure."""
    ended = subprocess.run([need("ip"), *arguments], capture_output=True, text=True, check=False)
    if ended.returncode:
        pytest.fail(f"ip {' '.join(arguments)}: {ended.stderr.strip()}")


def sweep() -> None:
    """Delete namespaces of runs that were killed before they could."""
    listed = Path("/run/netns").glob("sally-*") if Path("/run/netns").exists() else ()
    for left in [path.name for path in listed]:
        if not Path(f"/proc/{left.rpartition('-')[2]}").exists():
            ip("netns", "delete", left)


class Internet:
    """The two namespaces and what runs in the outer one."""

    def __init__(self, folder: Path, agent: Namespace, far: Namespace) -> None:
        self.folder = folder
        self.agent = agent
        self.outside = far
        self.authority = PrivateAuthority(folder)
        self.run = agent.run

    @property
    def ca(self) -> Path:
        """The certificate of the private CA, as PEM."""
        return self.authority.certificate

    def capture(self) -> Capture:
        """Record what leaves the agent's namespace while the context is open."""
        return Capture(self.agent)

    def requests(self) -> list[str]:
        """Return what the web servers logged: `scheme host method target status`."""
        log = self.folder / "outside" / "access.log"
        return log.read_text().splitlines() if log.exists() else []

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path) -> Iterator[Self]:
        """Make the namespaces, join them, start the servers; undo all of it in reverse."""
        sweep()
        with contextlib.ExitStack() as stack:
            agent = stack.enter_context(Namespace.made("agent"))
            far = stack.enter_context(Namespace.made("outside"))
            join(agent, far)
            world = cls(folder, agent, far)
            outside.write(folder / "outside", world.authority)
            for argv in outside.servers(folder / "outside"):
                log = folder / f"{argv[0]}.log"
                stack.enter_context(far.started(argv, log))
            for address, port in outside.LISTENERS:
                until(partial(far.accepts, address, port), f"{address} port {port} accepts")
            yield world


def join(agent: Namespace, far: Namespace) -> None:
    """Lay the only cable, give both ends addresses, and the far end the world's."""
    near_end, far_end = outside.AGENT_LINK, outside.FAR_LINK
    ip(
        "-n",
        agent.name,
        "link",
        "add",
        near_end,
        "type",
        "veth",
        "peer",
        far_end,
        "netns",
        far.name,
    )
    for address in outside.ADDRESSES:
        ip("-n", far.name, "address", "add", address, "dev", "lo", *nodad(address))
    for space, link, addresses in (
        (agent, near_end, outside.AGENT_ADDRESSES),
        (far, far_end, outside.FAR_ADDRESSES),
    ):
        for address in addresses:
            ip("-n", space.name, "address", "add", address, "dev", link, *nodad(address))
        ip("-n", space.name, "link", "set", link, "up")
    for gateway in outside.FAR_ADDRESSES:
        ip("-n", agent.name, "route", "add", "default", "via", gateway.partition("/")[0])


def nodad(address: str) -> tuple[str, ...]:
    """Let an IPv6 address be used at once: nobody else can have it."""
    return ("nodad",) if ":" in address else ()
