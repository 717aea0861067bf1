"""`scripts/bench detect`: tunnels against the detector, ordinary days against it, others' rules.

docs/detection.md has the tables and the method.  Nothing here opens a socket.
"""

import sys
import time

from rules.detector import Outcome
from scripts.benches.benign_names import HOLD_OUT, TRAIN, World
from scripts.benches.detect_benign import Half
from scripts.benches.detect_cost import ask_us, full_table
from scripts.benches.detect_ground import Ground
from scripts.benches.detect_others import Score, ours, theirs
from scripts.benches.detect_tables import benign_table, compared_table, tunnel_table
from scripts.benches.detect_tunnels import Run, run, worst_of
from scripts.benches.exfil_shapes import SHAPES, UNCAUGHT
from scripts.benches.exfil_tools import TOOLS, Tunnel
from scripts.benches.intervals import upper
from scripts.benches.planes import Plan, Result

SEEDS = 10  # runs of each tunnel
TRAIN_H = 72  # the half for looking at may be shorter
DAYS_A_SECOND, MOST_DAYS = 5, 10
ASK_BAR_US, STATE_BAR_MIB = 10.0, 32.0
QUERY_BAR, DOMAIN_BAR = 1e-6, 1e-4
SHOWN = 12
_PACES = {False: "octets", True: "octets an hour"}
_AT_MOST = "at most (95 %)"


def lower(name: str, value: float, bar: float, unit: str) -> Result:
    """Return a row where less is better."""
    return Result("detect", name, value, bar, bar / max(value, 1e-12), unit)


def measure(plan: Plan) -> list[Result]:
    """Run all; the replay is of five days a second of `--seconds`, ten at most."""
    days = min(MOST_DAYS, max(1, round(plan.seconds * DAYS_A_SECOND)))
    return report(24 * days, SEEDS if days == MOST_DAYS else 2)


def report(length_h: int, seeds: int) -> list[Result]:
    """Run tunnels and both halves, print the tables, return the rows."""
    began, ground = time.process_time(), Ground()
    runs = {tunnel.name: tunnels(ground, tunnel, seeds) for tunnel in (*TOOLS, *SHAPES)}
    uncaught = [tunnels(ground, tunnel, 1)[0] for tunnel in UNCAUGHT]
    worst = [worst_of(each) for each in runs.values()]
    print(tunnel_table([*worst, *uncaught]), end="\n\n")
    halves = [
        halve(ground, "train", TRAIN, min(length_h, TRAIN_H)),
        halve(ground, "hold-out", HOLD_OUT, length_h),
    ]
    print(benign_table(halves), end="\n\n")
    train, held_out = halves
    for half in halves:
        explain(half)
    domains = len(held_out.seen)
    wrong = held_out.wrong(Outcome.BLOCK, Outcome.BUDGET, Outcome.RATE)
    scores = [ours([one for each in runs.values() for one in each], wrong, domains)]
    scores += theirs((*TOOLS, *SHAPES), range(seeds), ground.suffixes, held_out.alarmed, domains)
    print(compared_table(scores), end="\n\n")
    rows = [*of_tunnels(worst), *of_ordinary(held_out), *of_costs(ground)]
    print(f"run: {time.process_time() - began:.0f} s of CPU, {train.cpu_s:.0f} s the train half")
    return rows + of_others(scores)


def tunnels(ground: Ground, tunnel: Tunnel, seeds: int) -> list[Run]:
    """Run one tunnel from several seeds, each against a detector that knows nothing."""
    found = [run(ground.detector(), tunnel, seed) for seed in range(seeds)]
    caught = sum(each.is_caught for each in found)
    print(f"  {tunnel.name}: {caught} of {seeds} in time", file=sys.stderr, flush=True)
    return found


def halve(ground: Ground, name: str, half: int, length_h: int) -> Half:
    """Replay one half."""
    world = World(half, ground.suffixes)
    found = Half(name, world, ground.detector(), is_compared=half == HOLD_OUT)
    found.replay(length_h)
    return found


def explain(half: Half) -> None:
    """Say what was found in the train half: numbers may be looked at there, and there alone."""
    for outcome in (Outcome.BLOCK, Outcome.BUDGET, Outcome.RATE, Outcome.ALERT):
        where = sorted(half.refused[outcome])
        if where and half.world.half == TRAIN:
            print(f"{half.name}: {outcome.name.lower()} at {len(where)}:", where[:SHOWN])


def of_tunnels(worst: list[Run]) -> list[Result]:
    """Return a row for each tunnel: octets before the refusal, or in the worst hour."""
    return [
        lower(
            each.tunnel.name,
            each.figure,
            each.bar,
            "octets an hour" if each.tunnel.is_slow else "octets",
        )
        for each in worst
    ]


def of_ordinary(half: Half) -> list[Result]:
    """Return the bounds on false positives, of queries and of domains, at 95 %."""
    held = half.wrong(Outcome.BLOCK)
    rate = upper(half.refusals, half.counts.queries)
    return [
        lower("refused, of a million", rate * 1e6, QUERY_BAR * 1e6, "at most (95 %)"),
        lower(
            "held, of 10,000 domains",
            upper(held, len(half.seen)) * 1e4,
            DOMAIN_BAR * 1e4,
            "at most (95 %)",
        ),
    ]


def of_costs(ground: Ground) -> list[Result]:
    """Return what a question past the cache costs, and the memory of a full table."""
    p50_us, p99_us = ask_us(ground)
    print(f"cost: p50 {p50_us:.1f} us, p99 {p99_us:.1f} us of CPU a question past the cache")
    memory_mib, suffixes = full_table()
    print(f"memory: {memory_mib:.1f} MiB at {suffixes:,} suffixes")
    return [
        lower("bar: p50 of a miss", p50_us, ASK_BAR_US, "us"),
        lower("bar: p99 of a miss", p99_us, ASK_BAR_US, "us"),
        lower("bar: 10,000 suffixes", memory_mib, STATE_BAR_MIB, "MiB"),
    ]


def of_others(scores: list[Score]) -> list[Result]:
    """Return recall and precision beside those of others."""
    mine, *others = scores
    rows = []
    for other in others:
        for what, one, two in (
            ("recall", mine.recall, other.recall),
            ("precision", mine.precision, other.precision),
        ):
            ratio = one / max(two, 0.001)
            rows.append(Result("detect", f"{what}: {other.name}", one * 100, two * 100, ratio, "%"))
    return rows
