"""Audit lines and clocks that several tests of evidence use."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import run
from typing import Any

import msgspec
import pytest

from proxy.audit_line import Line
from proxy.flow import Plane
from rules.decision import Reason, Verdict
from rules.facts import Evidence

FLOW = "0192f3a0000070008000000000000001"


class Clock:
    """A wall clock that stands until it is set."""

    def __init__(self, now: float = 1_790_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def line(target: str = "example.com A", app: str = "coder", **changes: Any) -> Line:
    """An allowed look-up, with `changes` to its fields."""
    fields: dict[str, Any] = {
        "flow": FLOW,
        "app": app,
        "evidence": (Evidence.LISTENER,),
        "plane": Plane.DNS,
        "fact": "question",
        "verdict": Verdict.ALLOW,
        "reason": Reason.RULE,
        "rule": "me.yaml:4",
        "generation": 1,
        "target": target,
        "detail": {},
    }
    return Line(**{**fields, **changes})


def refused(target: str = "denied.example A", app: str = "coder", **changes: Any) -> Line:
    """A refused look-up, with `changes` to its fields."""
    fields: dict[str, Any] = {
        "verdict": Verdict.DENY,
        "reason": Reason.HOST_NOT_LISTED,
        "rule": None,
    }
    return line(target, app, **{**fields, **changes})


def read(*files: Path) -> list[dict[str, Any]]:
    """Return what stands in `files`, one value per line; every line must be whole."""
    return [
        msgspec.json.decode(text, type=dict[str, Any])
        for file in files
        for text in file.read_bytes().splitlines()
    ]


async def until(is_so: Callable[[], bool]) -> None:
    """Let the loop run until `is_so`, at most ten seconds."""
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - what is waited for happens in a thread
            await asyncio.sleep(0.01)


@contextmanager
def small_disk(folder: Path, octets: int) -> Iterator[Path]:
    """Mount a file system of `octets`, for tests that fill it."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount tmpfs")
    folder.mkdir(mode=0o700)
    size = f"size={octets},mode=0700"
    run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        run(["umount", "--lazy", folder], check=True)  # a failed test may have left a file open
