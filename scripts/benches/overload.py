"""UDP at twice what one processor serves: what is admitted is in time, and the rest is told of."""

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from scripts.benches import servers
from scripts.benches.ground import LOAD_CPU, Server, pinned
from scripts.benches.planes import Plan, Result, ground, running, warm_up
from scripts.benches.reload import METRICS_PORT, scrape
from scripts.benches.servers import DO53_PORT, Peer

BAR_MS = 20.0
LEAST_S = 60.0
TWICE = 2.0
START = {"hit": 400_000.0, "miss": 20_000.0}  # a second: more than is served of either
SHED = (
    "sallyport_dns_udp_overflows_total",
    'sallyport_bounds_total{limit="dns_udp_wait_s"}',
    'sallyport_bounds_total{limit="dns_udp_in_flight"}',
    'sallyport_bounds_total{limit="upstream_in_flight"}',
)


class Offered(Struct, frozen=True):
    """What the load saw; times are of answered queries, shed ones got SERVFAIL."""

    sent: int
    answered: int
    shed: int
    seconds: float
    p50_ms: float
    p99_ms: float
    worst_ms: float


def ours(folder: Path, port: int) -> list[str | Path]:
    """Return ourselves with a listener for metrics, and with evidence without a quota."""
    argv = servers.ours(folder, port)
    file = folder / "sallyport.yaml"
    said = file.read_text().replace("metrics: []", f'metrics: ["127.0.0.1:{METRICS_PORT}"]')
    # A line for each miss: the quota of evidence would stop the app first.
    file.write_text(f"{said}limits: {{audit_quota_octets: 1 GiB}}\n")
    return argv


OURS = Peer("sallyport", sys.executable, DO53_PORT, ours)


def offer(plan: Plan, kind: str, a_second: float, seconds: float) -> Offered:
    """Offer so many queries a second, whatever becomes of them."""
    seed = str(int.from_bytes(os.urandom(3)) * 50)  # no name a second time
    argv: list[str | Path] = [
        plan.folder / "overload",
        str(DO53_PORT),
        str(seconds),
        kind,
        str(a_second),
        seed,
    ]
    ended = subprocess.run(
        pinned(LOAD_CPU, argv), stdout=subprocess.PIPE, check=True, timeout=seconds + 60
    )
    return msgspec.json.decode(ended.stdout, type=Offered)


def told() -> float:
    """Return how much the metrics say was shed."""
    page = scrape()
    return sum(float(page.get(name, 0)) for name in SHED)


def measured(plan: Plan, server: Server, kind: str) -> list[Result]:
    """Find out what one processor serves, offer twice that, and return what is told of it."""
    served = 0.0
    for _ in range(3):  # more than it can do, until that is found
        found = offer(plan, kind, max(START[kind], served * TWICE), 2.0)
        served = found.answered / found.seconds
        print(found, file=sys.stderr)
    before = told()
    seconds = max(plan.seconds, LEAST_S)
    found = offer(plan, kind, served * TWICE, seconds)
    time.sleep(0.5)  # what the last queries became stands in the metrics then
    counted = told() - before
    lost = found.sent - found.answered
    print(
        f"  overload     {kind:5} offered {found.sent / seconds:,.0f} a second,"
        f" answered {found.answered / seconds:,.0f}, p50 {found.p50_ms} ms, p99 {found.p99_ms} ms,"
        f" worst {found.worst_ms} ms; {lost} not answered, of which {found.shed} SERVFAIL;"
        f" the metrics tell of {counted:.0f}; {server.resident_octets() >> 20} MiB",
        file=sys.stderr,
    )
    kept = max(counted, 0.0) / max(lost, 1)
    return [
        Result(
            "overload", f"bar: p99 of {kind}", found.p99_ms, BAR_MS, BAR_MS / found.p99_ms, "ms"
        ),
        Result("overload", f"{kind}: told, shed", counted, lost, kept, "queries"),
    ]


def measure(plan: Plan) -> list[Result]:
    """Hold the 99th percentile of what is answered against the bar, for hits and for misses."""
    with ground(plan), running(plan, OURS) as us:
        warm_up(plan, "udp-hit", us)
        return [row for kind in START for row in measured(plan, us, kind)]
