"""`scripts/bench [PLANE...] [--json FILE]`: measure, print a table, write the rows."""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from scripts.benches import (
    attestation,
    decision,
    detect,
    identity,
    idle,
    overload,
    planes,
    reload,
    resident,
    revocation,
)
from scripts.benches.ground import prepare
from scripts.benches.planes import Plan, Result

ALL = (
    *planes.PLANES,
    "decision",
    "detect",
    "reload",
    "overload",
    "rss",
    "idle-tunnel",
    "revocation",
    *identity.BENCHES,
    *attestation.BENCHES,
)
BAR_CHARACTERS = 30


ALONE: dict[str, Callable[[Plan], list[Result]]] = {
    "decision": lambda _: decision.measure(),
    "detect": detect.measure,
    "overload": overload.measure,
    "reload": reload.measure,
    "revocation": revocation.measure,
    "idle-tunnel": idle.measure,
    "rss": resident.measure,
}


def bench(plan: Plan, plane: str) -> list[Result]:
    """Run one bench."""
    if plane in ALONE:
        return ALONE[plane](plan)
    if plane in identity.BENCHES:
        return identity.measure(plan, plane)
    if plane in attestation.BENCHES:
        return attestation.measure(plan, plane)
    return planes.measure(plan, plane)


def table(results: list[Result]) -> str:
    """Return the rows for a person: figures, and a bar with a mark where both are equal."""
    lines = []
    for row in results:
        filled = min(BAR_CHARACTERS, round(row.ratio * BAR_CHARACTERS / 3))
        bar = ("#" * filled).ljust(BAR_CHARACTERS)
        even = BAR_CHARACTERS // 3
        bar = bar[:even] + "|" + bar[even:]
        figures = f"{row.ours:12,.1f} {row.theirs:12,.1f} {row.ratio:7.2f}"
        lines.append(f"{row.bench:12} {row.peer:26} {figures}  {bar} {row.unit}")
    head = f"{'bench':12} {'peer':26} {'ours':>12} {'theirs':>12} {'ratio':>7}  | = even"
    return "\n".join([head, *lines])


def main() -> int:
    """Measure what was asked for; a peer that is missing is left out, a failure ends the run."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("plane", nargs="*", choices=[*ALL, []], help=", ".join(ALL))
    parser.add_argument("--json", type=Path, help="write the rows as a JSON array")
    parser.add_argument("--rounds", type=int, default=3, help="the median of these counts")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    options = parser.parse_args()
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="sallyport-bench-") as folder:
        Path(folder).chmod(0o755)
        prepare(Path(folder))
        plan = Plan(Path(folder), options.rounds, options.seconds)
        for plane in options.plane or ALL:
            results += bench(plan, plane)
    print(table(results))
    print("ratio > 1 is better for us; per CPU second of the server, median of the rounds")
    if options.json:
        options.json.write_bytes(msgspec.json.encode(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
