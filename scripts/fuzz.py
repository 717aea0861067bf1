"""Run the fuzz targets: `scripts/fuzz [--seconds N] [--seed N] [TARGET ...]`.

A target is tests/fuzz/fuzz_NAME.py with `SEEDS: tuple[bytes, ...]` and `target(data: bytes) ->
None`, which swallows the exceptions that its reader documents; any other exception is a finding.
Inputs are mutated from the seeds; one that reaches a new line of rules/ or proxy/ joins them
(PEP 669 tells at no cost, as each line reports once).  A finding is printed as hex, and the run
ends with 1.
"""

import argparse
import faulthandler
import importlib
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType

from msgspec import Struct

ROOT = Path(__file__).resolve().parent.parent
TOOL = sys.monitoring.COVERAGE_ID
LINE = sys.monitoring.events.LINE
WATCHED = tuple(str(ROOT / room) for room in ("proxy", "rules", "certs"))
CORPUS_ENTRIES = 4096  # inputs kept; a target has fewer lines than that
HANG_S = 30.0  # no input may take that long: then every stack is printed and the run ends
INPUT_OCTETS = 8192  # longer inputs repeat what shorter ones do
SPECIAL = (0x00, 0x01, 0x0A, 0x0D, 0x20, 0x2E, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xFF)


class Found(Struct):
    """What the runs of one target gave so far."""

    lines: int = 0
    runs: int = 0
    finding: bytes | None = None
    trace: str = ""


def mutate(chance: random.Random, corpus: list[bytes]) -> bytes:
    """Change a known input in one to eight places."""
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.randint(1, 8)):
        chance.choice(MUTATIONS)(chance, data, corpus)
    return bytes(data[:INPUT_OCTETS])


def flip(chance: random.Random, data: bytearray, _corpus: list[bytes]) -> None:
    """Flip one bit."""
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def put(chance: random.Random, data: bytearray, _corpus: list[bytes]) -> None:
    """Insert an octet that formats give a meaning to."""
    data.insert(chance.randint(0, len(data)), chance.choice(SPECIAL))


def overwrite(chance: random.Random, data: bytearray, _corpus: list[bytes]) -> None:
    """Replace one octet."""
    if data:
        data[chance.randrange(len(data))] = chance.choice((*SPECIAL, chance.randrange(256)))


def drop(chance: random.Random, data: bytearray, _corpus: list[bytes]) -> None:
    """Remove a run of octets, often the tail."""
    start = chance.randint(0, len(data))
    del data[start : chance.choice((start + chance.randint(1, 8), len(data)))]


def repeat(chance: random.Random, data: bytearray, _corpus: list[bytes]) -> None:
    """Say a part again, up to sixty-four times."""
    start = chance.randint(0, len(data))
    part = data[start : start + chance.randint(1, 32)]
    data[start:start] = part * chance.choice((1, 2, 64))


def splice(chance: random.Random, data: bytearray, corpus: list[bytes]) -> None:
    """Go on with the rest of another input."""
    other = chance.choice(corpus)
    data[chance.randint(0, len(data)) :] = other[chance.randint(0, len(other)) :]


MUTATIONS: tuple[Callable[[random.Random, bytearray, list[bytes]], None], ...] = (
    flip,
    put,
    overwrite,
    drop,
    repeat,
    splice,
)


def fuzz(name: str, seconds: float, seed: int) -> Found:
    """Feed one target until the time is up or an exception gets out."""
    module = importlib.import_module(f"tests.fuzz.fuzz_{name}")
    corpus: list[bytes] = [b"", *module.SEEDS]
    chance, found = random.Random(seed), Found()  # noqa: S311 - mutations are to be repeatable, not secret

    def reached(code: CodeType, _line: int) -> object:
        found.lines += code.co_filename.startswith(WATCHED)
        return sys.monitoring.DISABLE  # each line speaks once

    sys.monitoring.use_tool_id(TOOL, "fuzz")
    sys.monitoring.register_callback(TOOL, LINE, reached)
    sys.monitoring.set_events(TOOL, LINE)
    faulthandler.dump_traceback_later(seconds + HANG_S, exit=True)
    try:
        feed(module.target, corpus, chance, found, time.monotonic() + seconds)
    finally:
        faulthandler.cancel_dump_traceback_later()
        sys.monitoring.set_events(TOOL, 0)
        sys.monitoring.free_tool_id(TOOL)
        sys.monitoring.restart_events()
    return found


def feed(
    target: Callable[[bytes], None],
    corpus: list[bytes],
    chance: random.Random,
    found: Found,
    until: float,
) -> None:
    """Run the seeds, then mutations of all that reached something new."""
    seeds = iter(tuple(corpus))
    while time.monotonic() < until:
        data = next(seeds, None)
        data = mutate(chance, corpus) if data is None else data
        known = found.lines
        found.runs += 1
        try:
            target(data)
        except Exception:  # noqa: BLE001 - whatever gets out of a target is the finding
            found.finding, found.trace = data, traceback.format_exc()
            return
        if found.lines > known and len(corpus) < CORPUS_ENTRIES:
            corpus.append(data)


def main() -> int:
    """Run the named targets, or all of them, one after the other."""
    known = sorted(
        path.stem.removeprefix("fuzz_") for path in (ROOT / "tests/fuzz").glob("fuzz_*.py")
    )
    parser = argparse.ArgumentParser(
        description="feed the readers of outside octets with broken input"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=None, help="repeats a run")
    parser.add_argument("target", nargs="*", choices=[*known, []], help=", ".join(known))
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    findings = 0
    for name in options.target or known:
        found = fuzz(name, options.seconds, seed)
        print(
            f"fuzz {name}: {found.runs} inputs, {found.lines} lines reached, seed {seed}",
            flush=True,
        )
        if found.finding is not None:
            findings += 1
            print(f"  finding: {found.finding.hex()}\n{found.trace}")
    print(f"{len(options.target or known)} fuzz targets, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
