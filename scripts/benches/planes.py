"""The benches that put load on running servers: who takes part, and what is counted."""

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from scripts.benches import encrypted, servers
from scripts.benches.encrypted import Load
from scripts.benches.ground import (
    BULK_OCTETS,
    LOAD_CPU,
    ORIGIN,
    SERVER_CPU,
    Server,
    pinned,
    present,
    started,
)
from scripts.benches.servers import Peer

CLIENTS = {"forward": 16, "connect": 16, "bulk": 2}
MIB = 1 << 20


class Result(Struct, frozen=True):
    """One row: what ours and a peer reached.  `ratio` > 1 is better for us."""

    bench: str
    peer: str
    ours: float
    theirs: float
    ratio: float
    unit: str


class Plan(Struct, frozen=True):
    """How long each measurement is, how often, and where files go."""

    folder: Path
    rounds: int
    seconds: float


PLANES: dict[str, tuple[Peer, tuple[Peer, ...]]] = {
    "udp-hit": (servers.OURS_DNS, (servers.UNBOUND, servers.DNSMASQ)),
    "udp-refused": (servers.OURS_DNS, (servers.UNBOUND, servers.DNSMASQ)),
    "udp-refused-deep": (servers.OURS_DNS, (servers.UNBOUND, servers.DNSMASQ)),
    "dot": (servers.OURS_DOT, (servers.UNBOUND_DOT, servers.DNSDIST_DOT)),
    "dot-handshake": (servers.OURS_DOT, (servers.UNBOUND_DOT, servers.DNSDIST_DOT)),
    "doh": (servers.OURS_DOH, (servers.UNBOUND_DOH, servers.DNSDIST_DOH)),
    "forward": (servers.OURS_HTTP, (servers.SQUID, servers.TINYPROXY, servers.MITMDUMP_FORWARD)),
    "connect": (servers.OURS_HTTP, (servers.SQUID, servers.TINYPROXY, servers.MITMDUMP_TUNNEL)),
    "bulk": (servers.OURS_HTTP, (servers.SQUID, servers.TINYPROXY, servers.MITMDUMP_TUNNEL)),
}
WARM_UP_S = {"doh": 3.0}  # each connection asks for every name a few times: ten times the others
UNITS = {"udp-hit": "answers", "udp-refused": "answers", "forward": "requests"}
UNITS |= {"dot": "answers", "dot-handshake": "handshakes"}
UNITS |= {"doh": "answers", "udp-refused-deep": "answers"}
UNITS |= {"connect": "tunnels", "bulk": "MiB"}


@contextlib.contextmanager
def ground(plan: Plan) -> Iterator[None]:
    """Run the upstream resolver and the origin on the load's core."""
    tools = plan.folder
    origin: list[str | Path] = [tools / "origin", "80", "443", "8443", str(BULK_OCTETS)]
    upstream = servers.upstream(tools)
    with (
        started("upstream", upstream, servers.UPSTREAM_PORT, LOAD_CPU, tools),
        started("origin", origin, 80, LOAD_CPU, tools),
    ):
        yield


@contextlib.contextmanager
def running(plan: Plan, peer: Peer) -> Iterator[Server]:
    """Run one server on the server's core."""
    folder = plan.folder / f"{peer.name}-{peer.port}"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    argv = peer.configure(folder, peer.port)
    with started(peer.name, argv, peer.port, SERVER_CPU, folder) as server:
        yield server


def load(plan: Plan, plane: str, server: Server, seconds: float) -> Load:
    """Put one plane's load on a server."""
    if plane == "dot":
        return encrypted.pipelined(plan.folder, server.port, seconds)
    if plane == "dot-handshake":
        return encrypted.handshakes(plan.folder, server.port, seconds)
    if plane == "doh":
        return encrypted.requests(plan.folder, server.port, seconds)
    port, length = str(server.port), str(seconds)
    argv: list[str | Path]
    if plane.startswith("udp-"):
        seed = str(int.from_bytes(os.urandom(3)) * 100_000)  # no name a second time
        argv = [plan.folder / "dnsload", port, length, plane.removeprefix("udp-"), seed]
    else:
        argv = [plan.folder / "httpload", port, length, plane, str(CLIENTS[plane]), ORIGIN]
        argv += [plan.folder / "hello", str(BULK_OCTETS)]
    ended = subprocess.run(
        pinned(LOAD_CPU, argv), stdout=subprocess.PIPE, check=True, timeout=seconds + 60
    )
    return msgspec.json.decode(ended.stdout, type=Load)


def rate(plan: Plan, plane: str, server: Server) -> float:
    """Return what one CPU second of the server does, in one measurement.

    Raises:
        RuntimeError: more than one in a hundred failed: then the figure would be no figure.
    """
    before = server.cpu_seconds()
    counted = load(plan, plane, server, plan.seconds)
    used = server.cpu_seconds() - before
    done = counted.octets / MIB if plane == "bulk" else counted.done
    wall, per_cpu = done / counted.seconds, done / max(used, 0.01)
    print(
        f"  {plane:12} {server.name:10} {wall:10,.0f} a second {per_cpu:10,.0f} a CPU second"
        f"  failed {counted.failed} lost {counted.lost}",
        file=sys.stderr,
    )
    if counted.failed * 100 > counted.done + 100 or not counted.anything:
        raise RuntimeError(f"{server.name}: {counted.failed} of {plane} failed")
    return per_cpu


def measure(plan: Plan, plane: str) -> list[Result]:
    """Run one plane: all servers stay up, rounds go from server to server."""
    us, peers = PLANES[plane]
    absent = [peer for peer in peers if not present(peer.command)]
    for peer in absent:
        print(f"  {plane}: {peer.name} is not on this machine", file=sys.stderr)
    taking_part = [us, *(peer for peer in peers if peer not in absent)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(ground(plan))
        running_now = [stack.enter_context(running(plan, peer)) for peer in taking_part]
        for server in running_now:
            warm_up(plan, plane, server)
        rounds = [[rate(plan, plane, server) for server in running_now] for _ in range(plan.rounds)]
    mine, *theirs = (statistics.median(figures) for figures in zip(*rounds, strict=True))
    unit = f"{UNITS[plane]} a CPU second"
    named = zip(taking_part[1:], theirs, strict=True)
    return [Result(plane, peer.name, mine, other, mine / other, unit) for peer, other in named]


def warm_up(plan: Plan, plane: str, server: Server) -> None:
    """Fill caches and pools before anything is counted; wait for the first good answer."""
    deadline = time.monotonic() + 10
    while not load(plan, plane, server, WARM_UP_S.get(plane, 0.3)).anything:
        if time.monotonic() > deadline:
            log = plan.folder / f"{server.name}-{server.port}" / f"{server.name}.log"
            raise RuntimeError(f"{server.name} answers nothing: {log.read_text()[-800:]}")
    load(plan, plane, server, 1.0)  # what was lost on the way is asked again by then
