"""One generation of rules, put together beside the one in force.

A child process reads the files (`proxy.reload.rebuild`).  What it hands over is taken in here, on
the loop, a millisecond at a time: no query waits for more than that.  Apps that did not change are
not handed over, and go on as they are.
"""

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from proxy.errors import ProxyError
from proxy.reload.handover import ForeignValueError, Heading, Request, read_apps, read_pieces
from rules.crumble import crumble
from rules.errors import Problem, RuleSyntaxError
from rules.match import AppIndex, RuleIndex, Steps, index_steps
from rules.ruleset import Ruleset

_WORK_S, _REST_S = 0.0005, 0.001  # of work before a rest; queries are answered in the rest
_RARELY = 1 << 30
_ROOT = Path(__file__).resolve().parent.parent.parent

type Clock = Callable[[], float]


class RebuildError(ProxyError):
    """Rule files could not be read at all; the text says why."""


class Part(Struct, frozen=True):
    """An app of a generation; equal digests are equal apps."""

    digest: str
    index: AppIndex


class Generation(Struct, frozen=True):
    """The rules of one generation, and the files that they came from."""

    number: int
    digest: str
    parts: dict[str, Part]
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[Problem, ...] = ()
    in_memory: bool = False

    @property
    def index(self) -> RuleIndex:
        """The index that decisions are made on."""
        return RuleIndex(self.number, {name: part.index for name, part in self.parts.items()})

    @property
    def ruleset(self) -> Ruleset:
        """The rules as values."""
        return Ruleset(self.number, {name: part.index.app for name, part in self.parts.items()})


NO_RULES = Generation(0, "", {})
"""What is in force before the first rules are read."""


class Pace:
    """Rests from time to time, so that what else is on the loop is served."""

    def __init__(self, clock: Clock) -> None:
        """`clock` is in seconds and must not be the loop's, which stands still meanwhile."""
        self._clock = clock
        self._until = clock() + _WORK_S

    async def keep[T](self, steps: Steps[T]) -> T:
        """Return what `steps` come to."""
        while True:
            try:
                next(steps)
            except StopIteration as ended:
                result: T = ended.value
                return result
            if self._clock() >= self._until:
                await asyncio.sleep(_REST_S)
                self._until = self._clock() + _WORK_S


class Assembly:
    """Makes generations, one at a time."""

    def __init__(self, executor: Executor, time_s: float, clock: Clock) -> None:
        """The child is waited for in `executor`, for at most `time_s`."""
        self._executor = executor
        self._time_s = time_s
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None
        self._is_over = False

    async def build(self, request: Request, before: Generation) -> Generation:
        """Return the generation that follows `before`: the same number where no rule changed.

        Raises:
            RuleSyntaxError: with every problem of every file.
            RebuildError: they were not read: no process, no time, a bug of ours.
        """
        digests = {name: part.digest for name, part in before.parts.items()}
        request = msgspec.structs.replace(request, digest=before.digest, apps=digests)
        loop = asyncio.get_running_loop()
        with os.fdopen(os.memfd_create("rules"), "r+b") as file:
            await loop.run_in_executor(self._executor, self._read, request, file)
            file.seek(0)
            with _without_full_collections():
                try:
                    return await self._assemble(file, before)
                except (ForeignValueError, EOFError) as error:
                    raise RebuildError(f"what was read cannot be used: {error}") from error

    def kill(self) -> None:
        """End the child, if there is one, and each that begins from now on."""
        self._is_over = True
        if self._child is not None:
            self._child.kill()

    async def dissolve(self, parts: list[Part]) -> None:
        """Free what nobody uses any more; `parts` is empty afterwards."""
        pace = Pace(self._clock)
        while parts:
            await pace.keep(_crumbled(parts))

    def _read(self, request: Request, out: BinaryIO) -> None:
        argv = [sys.executable, "-P", "-m", "proxy.reload.rebuild"]
        # The same order of every set makes the same digest of the same app.
        env = {**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONHASHSEED": "0"}
        try:
            child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                # Signals of our terminal are for us.
                argv, stdin=subprocess.PIPE, stdout=out, env=env, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise RebuildError(f"no process to read them with: {error.strerror}") from error
        self._child = child
        if self._is_over:
            child.kill()
        try:
            # Not in its arguments: they are every user's to see, and short for many apps.
            child.communicate(msgspec.json.encode(request), self._time_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            raise RebuildError(f"not read within {self._time_s:g} s; split the files") from None
        finally:
            self._child = None
        if child.returncode:
            raise RebuildError(f"the process that reads them ended with {child.returncode}")

    async def _assemble(self, file: BinaryIO, before: Generation) -> Generation:
        pieces = read_pieces(file)
        heading = next(pieces, None)
        if not isinstance(heading, Heading):
            raise ForeignValueError("no heading")
        if heading.problems:
            raise RuleSyntaxError(heading.problems)
        if heading.digest == before.digest:
            return before
        made: dict[str, AppIndex] = {}
        pace = Pace(self._clock)
        for steps in read_apps(pieces):
            app = await pace.keep(steps)
            made[app.name] = await pace.keep(index_steps(app))
        return _generation(heading, made, before)


def _generation(heading: Heading, made: dict[str, AppIndex], before: Generation) -> Generation:
    parts = {
        name: Part(digest, made[name]) if name in made else before.parts[name]
        for name, digest in heading.apps
    }
    is_new = bool(made) or parts.keys() != before.parts.keys() or before is NO_RULES
    return Generation(
        before.number + is_new,
        heading.digest,
        parts,
        heading.files,
        heading.notes,
        heading.warnings,
        heading.in_memory,
    )


def _crumbled(parts: list[Part]) -> Steps[None]:
    # The last reference is the one that `crumble` lets go.
    yield from crumble(parts.pop().index)


class _without_full_collections:  # noqa: N801 - used as a word of a `with`
    """Lets the cyclic collector leave the old generation alone.

    New rules would be walked again and again while they come in.  The young ones are collected as
    ever, which takes rules out of its sight for good: nothing of theirs can be part of a cycle.
    """

    def __enter__(self) -> None:
        """Begin."""
        self._before = gc.get_threshold()
        gc.set_threshold(*self._before[:2], _RARELY)

    def __exit__(self, *_: object) -> None:
        """End."""
        gc.set_threshold(*self._before)
