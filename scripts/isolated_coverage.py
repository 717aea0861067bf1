"""Check that its own test file alone covers each module of rules/ and proxy/wire/, branches too.

A suite's total hides a module that is only ever run by somebody else's tests.  One pytest per
module, two at a time; prints a line per module and ends with 1 when one falls short.

    python scripts/isolated_coverage.py [MODULE.py ...]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("rules", "proxy/wire")
AT_ONCE = 2


class Outcome(Struct, frozen=True):
    """What one module's own test file reached; `gaps` is empty when that is everything."""

    module: Path
    gaps: str
    seconds: float


def modules() -> list[Path]:
    """Return every module of the rooms; an `__init__` holds a docstring only."""
    found = (path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return sorted(path.relative_to(ROOT) for path in found if path.name != "__init__.py")


def own_test(module: Path) -> Path:
    """Return where the test file of a module stands."""
    return Path("tests") / module.parent / f"test_{module.name}"


def measure(module: Path) -> Outcome:
    """Run the module's own tests under coverage and say what they did not reach."""
    started = time.monotonic()
    if not (ROOT / own_test(module)).exists():
        return Outcome(module, f"no {own_test(module)}", 0.0)
    with tempfile.TemporaryDirectory() as folder:
        gaps = run_tests(module, Path(folder)) or read_gaps(module, Path(folder))
    return Outcome(module, gaps, time.monotonic() - started)


def run_tests(module: Path, folder: Path) -> str:
    """Run them; return what went wrong with the tests themselves."""
    coverage = [sys.executable, "-m", "coverage", "run", f"--rcfile={os.devnull}", "--branch"]
    coverage.append(f"--include={module}")  # our settings measure everything
    pytest = ["-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", str(own_test(module))]
    ended = subprocess.run(
        [*coverage, *pytest],
        cwd=ROOT,
        env={**os.environ, "COVERAGE_FILE": str(folder / "data")},
        capture_output=True,
        text=True,
        check=False,
    )
    return (
        ""
        if ended.returncode == 0
        else "its tests fail:\n" + ended.stdout[-2000:] + ended.stderr[-2000:]
    )


def read_gaps(module: Path, folder: Path) -> str:
    """Return the lines and branches that the run left out."""
    subprocess.run(
        [sys.executable, "-m", "coverage", "json", "--quiet", "-o", str(folder / "report.json")],
        cwd=ROOT,
        env={**os.environ, "COVERAGE_FILE": str(folder / "data")},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    report = (
        json.loads((folder / "report.json").read_text())
        if (folder / "report.json").exists()
        else {}
    )
    file = report.get("files", {}).get(str(module))
    if file is None:
        return "never imported by its own tests"
    lines, branches = file["missing_lines"], file["missing_branches"]
    return f"lines {lines} branches {branches}" if lines or branches else ""


def main(arguments: list[str]) -> int:
    """Measure the named modules, or all of them."""
    wanted = [Path(argument) for argument in arguments] or modules()
    with ThreadPoolExecutor(AT_ONCE) as workers:
        outcomes = []
        for outcome in workers.map(measure, wanted):
            outcomes.append(outcome)
            print(
                f"{outcome.module!s:32} {outcome.gaps or '100 %'}  ({outcome.seconds:.1f} s)",
                flush=True,
            )
    short = sum(bool(outcome.gaps) for outcome in outcomes)
    print(
        f"{len(outcomes) - short} of {len(outcomes)} modules are covered by their own tests alone"
    )
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
