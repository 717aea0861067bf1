"""What the detector costs: a question, and a full table in a process of its own."""

import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rules.detector import Detector
from rules.name import DomainName
from rules.rtype import A
from rules.watch import Mode
from scripts.benches import benign
from scripts.benches.benign_apps import Query
from scripts.benches.benign_names import HOLD_OUT, World
from scripts.benches.detect_ground import Ground
from scripts.benches.detect_tunnels import NOW

SUFFIXES, APPS, NAMES_A_SUFFIX = 10_000, 4, 8
ASKED_HOURS = 3
MIB = 1 << 20


def ask_us(ground: Ground) -> tuple[float, float]:
    """Return the median and the 99th percentile of a question past the cache, in CPU time.

    The first three hours of the hold-out half, when all is new: the dearest ones.  Three passes do
    the same; of each question the least counts, so that what else the machine does does not.
    """
    world = World(HOLD_OUT, ground.suffixes)
    queries = [query for hour in benign.hours(world, ASKED_HOURS) for query in hour]
    passes = [_timed(ground.detector(), queries) for _ in range(3)]
    least = [min(times) for times in zip(*passes, strict=True)]
    cuts = statistics.quantiles(least, n=100)
    return cuts[49] / 1000, cuts[98] / 1000


def _timed(detector: Detector, queries: Sequence[Query]) -> list[int]:
    times = []
    for at_s, index, name, rtype, _, _ in queries:
        app, now = f"app{index}", NOW + at_s
        began = time.thread_time_ns()
        detector.ask(app, name, rtype, is_named=False, mode=Mode.BLOCK, now=now)
        times.append(time.thread_time_ns() - began)
    return times


def _resident() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def fill(detector: Detector, suffixes: int = SUFFIXES) -> None:
    """Give each of four apps its share of suffixes, with eight names of fourteen octets each."""
    for number in range(suffixes):
        app, zone = f"app{number % APPS}", f"zone{number}.net"
        for turn in range(NAMES_A_SUFFIX):
            name = DomainName(f"{(number * 7919 + turn * 104_729) & 0xFFFFFFFF:08x}-shard.{zone}")
            now = NOW + number
            detector.ask(app, name, A, is_named=False, mode=Mode.OBSERVE, now=now)
            detector.answered(app, name, A, rdata=(), is_nxdomain=False, mode=Mode.OBSERVE, now=now)


def main() -> None:
    """Print how many octets of memory a full table takes."""
    detector = Ground().detector()
    gc.freeze()
    before = _resident()
    fill(detector)
    after = _resident()
    print(after - before, sum(1 for state in detector.states(NOW + SUFFIXES) if state.names))


def full_table() -> tuple[float, int]:
    """Return the MiB of a full table and how many suffixes are in it."""
    argv = [sys.executable, "-c", "from scripts.benches import detect_cost; detect_cost.main()"]
    said = subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=120, text=True)
    octets, suffixes = map(int, said.stdout.split())
    return octets / MIB, suffixes
