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
from msgspec.structs import replace

from proxy.errors import ProxyError
from proxy.reload.handover import ForeignValueError, Heading, Request, read_apps, read_pieces
from proxy.reload.progress import Told, hearing, untold
from proxy.reload.table import NOTHING_LISTED, ListsInForce, ReadLists, in_force, new_table
from proxy.reload.watch import Seen
from rules.crumble import crumble
from rules.errors import Problem, RuleError, RuleSyntaxError
from rules.listed import Lists
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
    """The rules of one generation, and the files and lists that they came from."""

    number: int
    digest: str
    parts: dict[str, Part]
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    of_rules: tuple[Problem, ...] = ()
    in_memory: bool = False
    listed: ListsInForce = NOTHING_LISTED

    @property
    def index(self) -> RuleIndex:
        """The index that decisions are made on."""
        apps = {name: part.index for name, part in self.parts.items()}
        return RuleIndex(self.number, apps, self.lists)

    @property
    def lists(self) -> Lists:
        """The deny lists in force."""
        return self.listed.lists

    @property
    def ruleset(self) -> Ruleset:
        """The rules as values."""
        apps = {name: part.index.app for name, part in self.parts.items()}
        return Ruleset(self.number, apps, self.listed.read.sources)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What is not quite right with rules and lists."""
        return (*self.of_rules, *self.listed.read.warnings)


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

    def __init__(
        self, executor: Executor, time_s: float, clock: Clock, told: Told = untold
    ) -> None:
        """The child is waited for in `executor`, for at most `time_s`; `told` hears from it."""
        self._executor = executor
        self._time_s = time_s
        self._clock = clock
        self._told = told
        self.seen: Seen = ()  # of the lists that the files name, as they were read the last time
        self._child: subprocess.Popen[bytes] | None = None
        self._is_over = False

    async def build(self, request: Request, before: Generation) -> Generation:
        """Return the generation that follows `before`: the same number where no rule changed.

        Raises:
            RuleSyntaxError: with every problem of every file.
            RebuildError: they were not read: no process, no time, a bug of ours.
        """
        request = _asking(request, before)
        loop = asyncio.get_running_loop()
        with os.fdopen(os.memfd_create("rules"), "r+b") as file, new_table() as table:
            with hearing(self._told) as progress:
                request = replace(request, table=table.fileno(), progress=progress)
                await loop.run_in_executor(self._executor, self._read, request, file)
            file.seek(0)
            with _without_full_collections():
                try:
                    return await self._assemble(file, table, before)
                except RuleSyntaxError:
                    raise
                except (ForeignValueError, EOFError, OSError, ValueError, RuleError) as error:
                    raise RebuildError(f"what was read cannot be used: {error}") from error

    def kill(self) -> None:
        """End the child, if there is one, and each that begins from now on."""
        self._is_over = True
        if self._child is not None:
            self._child.kill()

    async def dissolve(self, parts: list[Part], tables: list[ListsInForce]) -> None:
        """Free what nobody uses any more; both lists are empty afterwards."""
        pace = Pace(self._clock)
        while parts:
            await pace.keep(_crumbled(parts))
        # To unmap a million names takes 5 ms, in which nothing of ours is held (mmap(2)).
        await asyncio.get_running_loop().run_in_executor(self._executor, tables.clear)

    def _read(self, request: Request, out: BinaryIO) -> None:
        argv = [sys.executable, "-P", "-m", "proxy.reload.rebuild"]
        # The same order of every set makes the same digest of the same app.
        env = {**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONHASHSEED": "0"}
        try:
            child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                # Signals of our terminal are for us.
                argv, stdin=subprocess.PIPE, stdout=out, env=env, start_new_session=True,
                pass_fds=(request.table, request.progress),
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

    async def _assemble(self, file: BinaryIO, table: BinaryIO, before: Generation) -> Generation:
        pieces = read_pieces(file)
        heading = next(pieces, None)
        if not isinstance(heading, Heading):
            raise ForeignValueError("no heading")
        if heading.lists is not None:
            self.seen = heading.lists.seen
        if heading.problems:
            raise RuleSyntaxError(heading.problems)
        listed = in_force(heading.lists or ReadLists(), table, before.listed)
        if heading.digest == before.digest:
            return _relisted(before, listed)
        made: dict[str, AppIndex] = {}
        pace = Pace(self._clock)
        for steps in read_apps(pieces):
            app = await pace.keep(steps)
            made[app.name] = await pace.keep(index_steps(app))
        return _generation(heading, made, listed, before)


def _asking(request: Request, before: Generation) -> Request:
    """Return the request, with what is in force `before` and need not be handed over again."""
    read = before.listed.read
    return replace(
        request,
        digest=before.digest,
        apps={name: part.digest for name, part in before.parts.items()},
        lists=read.sources,
        lists_digest=read.digest,
    )


def _relisted(before: Generation, listed: ListsInForce) -> Generation:
    """Return the generation of the same rules, with other lists if they are others."""
    if listed is before.listed:
        return before
    return replace(before, number=before.number + 1, listed=listed)


def _generation(
    heading: Heading, made: dict[str, AppIndex], listed: ListsInForce, before: Generation
) -> Generation:
    parts = {
        name: Part(digest, made[name]) if name in made else before.parts[name]
        for name, digest in heading.apps
    }
    is_new = bool(made) or parts.keys() != before.parts.keys() or before is NO_RULES
    is_new = is_new or listed.read.digest != before.listed.read.digest
    return Generation(
        before.number + is_new,
        heading.digest,
        parts,
        heading.files,
        heading.notes,
        heading.warnings,
        heading.in_memory,
        listed,
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
