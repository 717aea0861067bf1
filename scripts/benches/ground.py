"""The ground: a namespace with the test's addresses, processes on their own core, CPU time."""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ORIGIN = "origin.example.net"
ORIGIN_ADDRESS = "93.184.216.34"
BULK_OCTETS = 256 << 20
SERVER_CPU, LOAD_CPU = 0, 1
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
WAIT_S = 30.0
PORTS = {
    "ip_local_port_range": "10240 65000",
    "tcp_tw_reuse": "1",
    "tcp_max_tw_buckets": "4096",
}
HERE = Path(__file__).resolve().parent


def prepare(folder: Path) -> None:
    """Give the namespace its addresses, and names to what asks the C library for them.

    The origin's address is public-looking and served here (an AnyIP route), but is no address of
    an interface: those are refused as destinations.
    """
    run("ip", "link", "set", "lo", "up")
    run("ip", "route", "add", "local", ORIGIN_ADDRESS, "dev", "lo")
    # Otherwise ports in TIME_WAIT run out after 50,000 connections, and connect(2) crawls.
    for name, value in PORTS.items():
        Path("/proc/sys/net/ipv4", name).write_text(value)
    hosts = folder / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{ORIGIN_ADDRESS} {ORIGIN}\n")
    run("mount", "--bind", str(hosts), "/etc/hosts")
    for program in ("dnsload", "httpload", "origin", "overload", "revocationload"):
        run("cc", "-O2", "-o", str(folder / program), str(HERE / f"{program}.c"))
    (folder / "hello").write_bytes(client_hello())


def run(*argv: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(argv, check=True)


def client_hello() -> bytes:
    """Return the first flight of a TLS client that wants the origin."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=ORIGIN)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def pinned(cpu: int, argv: Sequence[str | Path]) -> list[str]:
    """Return the command on one core, where there are two."""
    words = [str(word) for word in argv]
    return ["taskset", "-c", str(cpu), *words] if (os.cpu_count() or 1) > 1 else words


class Server:
    """A running server: where it listens, what it has used."""

    def __init__(self, name: str, port: int, process: "subprocess.Popen[bytes]") -> None:
        self.name = name
        self.port = port
        self.process = process

    def tree(self) -> list[int]:
        """Return the pids of the server and everything below it."""
        pids = [self.process.pid]
        for pid in pids:
            for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(FileNotFoundError):  # a thread that ended meanwhile
                    pids += [int(child) for child in tasks.read_text().split()]
        return pids

    def cpu_seconds(self) -> float:
        """Return user and system time of the tree so far."""
        total = 0
        for pid in self.tree():
            with contextlib.suppress(FileNotFoundError):  # a child that ended meanwhile
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total / TICKS_A_SECOND

    def resident_octets(self) -> int:
        """Return the resident memory of the tree; pages that processes share count in each."""
        total = 0
        for pid in self.tree():
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            line = next(line for line in rollup.splitlines() if line.startswith("Rss:"))
            total += int(line.split()[1]) * 1024
        return total


@contextlib.contextmanager
def started(
    name: str, argv: Sequence[str | Path], port: int, cpu: int, folder: Path
) -> Iterator[Server]:
    """Start a server on a core and wait until it accepts on TCP; end it by its pid."""
    with (folder / f"{name.replace(' ', '-')}.log").open("wb") as log:
        process = subprocess.Popen(
            pinned(cpu, argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
        )
    try:
        wait_accepting(name, process, port, Path(log.name))
        yield Server(name, port, process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_accepting(name: str, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Wait until the port is open.

    Raises:
        RuntimeError: the server ended, or is not there in time; the text holds its last words.
    """
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{name} does not accept on {port}: {log.read_text()[-600:]}")


def present(command: str | Path) -> bool:
    """Say whether a peer's program is on this machine."""
    return shutil.which(str(command), path=os.environ["PATH"] + ":/usr/sbin:/sbin") is not None
