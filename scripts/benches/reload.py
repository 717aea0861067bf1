"""Latency of single queries while 100,000 names are reloaded and the metrics are scraped."""

import http.client
import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import override

from scripts.benches import servers
from scripts.benches.ground import LOAD_CPU, ORIGIN, Server
from scripts.benches.planes import MIB, Plan, Result, ground, running
from scripts.benches.servers import DO53_PORT, UNBOUND, Peer

NAMES = 100_000
WAIT_S, SCRAPE_S = 60.0, 0.2
BAR_US = 5000.0
METRICS_PORT = 9153
QUERY = (
    b"\0\1\1\0\0\1\0\0\0\0\0\0"
    + b"".join(bytes([len(label)]) + label for label in ORIGIN.encode().split(b"."))
    + b"\0\0\1\0\1"
)


def rules(salt: int) -> str:
    """Return an app with the origin's name and 100,000 others."""
    hosts = "".join(f"          - n{salt + n}.example{n % 97}.org\n" for n in range(NAMES))
    return f"""
apps:
  bench:
    identity: [{{listener: "127.0.0.1:{DO53_PORT}"}}]
    allow:
      - host:
          - {ORIGIN}
{hosts}"""


def ours(folder: Path, port: int) -> list[str | Path]:
    """Return ourselves with those rules, and with a listener for metrics."""
    argv = servers.ours(folder, port)
    (folder / "rules" / "bench.yaml").write_text(rules(0))
    file = folder / "sallyport.yaml"
    metrics = f'metrics: ["127.0.0.1:{METRICS_PORT}"]'
    said = file.read_text().replace("metrics: []", metrics)
    file.write_text(said.replace('proxy: ["127.0.0.1:3128"]', "proxy: []"))
    return argv


OURS = Peer("sallyport", sys.executable, DO53_PORT, ours)


def latencies_us(port: int, until: Callable[[], bool]) -> list[float]:
    """Ask one query after another until told to end; return how long each took, sorted."""
    taken = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.connect(("127.0.0.1", port))
        asker.settimeout(5)
        while not until():
            for _ in range(50):
                began = time.perf_counter_ns()
                asker.send(QUERY)
                asker.recv(4096)
                taken.append((time.perf_counter_ns() - began) / 1000)
    return sorted(taken)


def scrape() -> dict[str, str]:
    """Return the samples of the metrics page."""
    client = http.client.HTTPConnection("127.0.0.1", METRICS_PORT, timeout=10)
    client.request("GET", "/metrics")
    lines = client.getresponse().read().decode().splitlines()
    client.close()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


class Watcher(threading.Thread):
    """Scrapes until the next generation is in force; remembers the most memory that was used."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._status = Path(f"/proc/{server.process.pid}/status")
        self._deadline = time.monotonic() + WAIT_S
        self.first_mib = self.peak_mib = self._resident_mib()
        self.is_done = False

    @override
    def run(self) -> None:
        """Scrape."""
        while not self.is_done and time.monotonic() < self._deadline:
            changed = scrape()['sallyport_reloads_total{outcome="changed"}']
            self.peak_mib = max(self.peak_mib, self._resident_mib())
            self.is_done = float(changed) > 0
            time.sleep(SCRAPE_S)

    def _resident_mib(self) -> float:
        lines = self._status.read_text().splitlines()
        line = next(line for line in lines if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024 / MIB


@contextmanager
def on_the_loads_core() -> Iterator[None]:
    """Keep this process off the servers' core, where there are two."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {LOAD_CPU} & before or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def at_rest(plan: Plan, server: Server) -> list[float]:
    """Return the latencies of a server that nothing else is asked of."""
    end = time.monotonic() + plan.seconds
    return latencies_us(server.port, lambda: time.monotonic() > end)


def measure(plan: Plan) -> list[Result]:
    """Compare with Unbound at rest, in the same run.

    Raises:
        RuntimeError: the new rules were not in force in time.
    """
    with ground(plan), running(plan, OURS) as us, running(plan, UNBOUND) as peer:
        folder = plan.folder / f"{us.name}-{us.port}"
        end = time.monotonic() + 1
        with on_the_loads_core():
            for server in (us, peer):
                latencies_us(server.port, lambda: time.monotonic() > end)
            quiet = at_rest(plan, peer)
            itself = at_rest(plan, us)
            beside = folder / "rules" / ".bench.yaml"
            beside.write_text(rules(1))
            watcher = Watcher(us)
            watcher.start()
            beside.rename(folder / "rules" / "bench.yaml")
            busy = latencies_us(us.port, lambda: not watcher.is_alive())
    if not watcher.is_done:
        raise RuntimeError("the rules were not reloaded in time")
    extra = watcher.peak_mib - watcher.first_mib
    print(f"  reload       sallyport  {len(busy)} queries, {extra:.1f} MiB extra", file=sys.stderr)
    return rows(busy, (quiet, itself), watcher)


def rows(
    busy: list[float], resting: tuple[list[float], list[float]], watcher: Watcher
) -> list[Result]:
    """Return what is told of it; less is better in each.  `resting` are Unbound's and ours."""
    found = []
    for who, quiet in zip(("unbound", "itself"), resting, strict=True):
        for name, at in (("p50", 50), ("p99", 99)):
            mine, other = (statistics.quantiles(each, n=100)[at - 1] for each in (busy, quiet))
            peer = f"{who} at rest, {name}"
            found.append(Result("reload", peer, mine, other, other / mine, "us"))
    extra = max(watcher.peak_mib - watcher.first_mib, 0.1)
    return [
        *found,
        Result("reload", "bar: the latest answer", busy[-1], BAR_US, BAR_US / busy[-1], "us"),
        Result("reload", "rss before, peak", watcher.peak_mib, watcher.first_mib,
               watcher.first_mib / watcher.peak_mib, f"MiB ({extra:.0f} extra)"),
    ]  # fmt: skip
