"""Hot reload: when to read the rule files again, and what follows.

A look at the files, SIGHUP or the control socket asks for it.  One build is under way at a time,
and what is asked for meanwhile is one more after it.  Rules that cannot be used change nothing:
the last good ones stay in force, and log, status and metrics say why.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from proxy.limits import Limits
from proxy.metrics import Metrics, ReloadOutcome
from proxy.reload.assembly import Assembly, Clock, Generation, RebuildError
from proxy.reload.handover import Request
from proxy.reload.progress import Progress, logged
from proxy.reload.table import ListsInForce
from proxy.reload.watch import Look, Seen, Watch, look, look_at
from rules.errors import Problem, RuleSyntaxError

logger = logging.getLogger(__name__)

_UNSEEN: Look = ("unseen",)  # differs from every look, so that it counts as a change

type Why = Literal["start", "files", "signal", "control"]

type Use = Callable[[Generation], None]
"""Takes a generation into force, by assignments alone."""

type Sweep = Callable[[int], Awaitable[int]]
"""Cuts what generation number so-and-so does not allow; returns how much that was."""


class ReloadStatus(Struct, frozen=True):
    """How the last reading of the rule files went; `time` is Unix time, of its end.

    `problems` are those of the files as they are now; with any, `generation` is of older ones.
    """

    generation: int
    outcome: ReloadOutcome
    why: Why
    time: float
    duration_s: float
    files: tuple[str, ...]
    problems: tuple[Problem, ...] = ()
    failure: str = ""
    warnings: tuple[Problem, ...] = ()
    cut: int = 0

    @property
    def told(self) -> tuple[str, ...]:
        """What is wrong, as a person reads it."""
        problems = tuple(problem.render() for problem in self.problems)
        return (*problems, self.failure) if self.failure else problems


class Reloader:
    """Keeps the rules in force as the files are."""

    def __init__(  # noqa: PLR0913, PLR0917 - the composition root hands every part in
        self,
        generation: Generation,
        request: Request,
        seen: Look,
        use: Use,
        sweep: Sweep,
        limits: Limits,
        metrics: Metrics,
        wall: Clock,
        clock: Clock,
    ) -> None:
        """`generation` is in force; `seen` is of its files, from before they were read.

        `wall` is Unix time, `clock` any that goes on within a turn of the loop.
        """
        self._generation = generation
        self._request = request
        self._lists_seen = generation.listed.read.seen
        self._watch = Watch((seen, self._lists_seen), limits)
        self._use = use
        self._sweep = sweep
        self._metrics = metrics
        self._wall = wall
        self._clock = clock
        self._executor = ThreadPoolExecutor(1, "reload")
        self._assembly = Assembly(self._executor, limits.reload_s, clock, self._told)
        self._assembly.seen = self._lists_seen
        self._log = logged(clock)
        self._progress: Progress | None = None
        self._asked = asyncio.Event()
        self._why: Why = "start"
        self._waiting: list[asyncio.Future[ReloadStatus]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._status = self._said("changed", 0.0)

    def start(self) -> None:
        """Watch the files from now on."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._watching()), loop.create_task(self._reloading())]

    def request(self, why: Why) -> None:
        """Have the files read again, after what is under way."""
        self._why = why
        self._asked.set()

    async def reload(self, why: Why) -> ReloadStatus:
        """Have the files read as they are now; return how that went."""
        done: asyncio.Future[ReloadStatus] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self.request(why)
        return await done

    def restate(self) -> int:
        """Put the same rules into force under a new generation, whose number is returned.

        Whatever was remembered of decisions is decided again from this moment on: something
        beside the rules, which decisions depend on as well, has changed.  Who calls has what is
        open decided again, too.
        """
        made = replace(self._generation, number=self._generation.number + 1)
        self._use(made)
        self._generation = made
        self._metrics.generation.set(made.number)
        return made.number

    def status(self) -> ReloadStatus:
        """Return how the last reading went."""
        return self._status

    def progress(self) -> Progress | None:
        """Return how far lists have been read; None while none is."""
        return self._progress

    def listed(self) -> ListsInForce:
        """Return the lists in force."""
        return self._generation.listed

    async def close(self) -> None:
        """Stop watching; end what is under way."""
        for task in self._tasks:
            task.cancel()
        self._assembly.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._executor.shutdown(wait=False, cancel_futures=True)
        for each in self._waiting:
            each.cancel()

    async def _watching(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._watch.rest_s())
            try:
                seen: Look = await self._look()
            except Exception:  # noqa: BLE001 - no thread, say: the reload that follows tells of it
                seen = _UNSEEN
            if self._watch.see(seen, loop.time()):
                self.request("files")

    async def _look(self) -> tuple[Look, Seen]:
        # Not on the loop: a file system may be on a network that does not answer.
        files = [file for file, _ in self._lists_seen]
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, lambda: (look(self._request.folders), look_at(files))
        )

    def _told(self, progress: Progress) -> None:
        self._progress = progress
        self._log(progress)

    async def _reloading(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            why, self._why = self._why, "files"
            waiting, self._waiting = self._waiting, []
            with contextlib.ExitStack() as stack:
                for each in waiting:
                    stack.callback(each.cancel)  # nobody waits for ever
                await self._reload(why)
                for each in waiting:
                    if not each.done():
                        each.set_result(self._status)

    async def _reload(self, why: Why) -> None:
        begun = self._clock()
        try:
            outcome, cut = await self._rebuild()
        except RuleSyntaxError as error:
            self._failed(why, begun, error.problems, "")
        except RebuildError as error:
            self._failed(why, begun, (), str(error))
        except Exception as error:
            logger.exception("rules were not read: a bug of ours")
            self._failed(why, begun, (), type(error).__name__)
        else:
            self._finished(self._said(outcome, begun, why, cut=cut))
        finally:
            self._progress = None

    async def _rebuild(self) -> tuple[ReloadOutcome, int]:
        asked = self._generation
        made = await self._build(asked)
        before = self._generation  # it has another number where `restate` was called meanwhile
        is_new = made.number != asked.number
        made = replace(made, number=before.number + is_new)
        if not is_new:
            self._generation = made  # of files that say the same
            return "unchanged", 0
        for warning in made.warnings:
            if warning not in before.warnings:
                logger.warning("%s", warning.render())
        self._use(made)
        self._generation = made
        self._metrics.generation.set(made.number)
        gone = [part for name, part in before.parts.items() if made.parts.get(name) is not part]
        tables = [before.listed]
        del asked, before
        cut = await self._sweep(made.number)
        await self._assembly.dissolve(gone, tables)
        return "changed", cut

    async def _build(self, before: Generation) -> Generation:
        """Return what follows `before`; what is written meanwhile is seen by the next look."""
        folders, lists = await self._look()
        self._watch.settle((folders, lists))
        try:
            return await self._assembly.build(self._asking(), before)
        finally:
            # Those that the rules name now, as they were when they were read.
            self._lists_seen = self._assembly.seen
            self._watch.settle((folders, self._lists_seen))

    def _asking(self) -> Request:
        """Return the request; first rules that could not be written are made up again."""
        request, first_run = self._request, self._generation.in_memory
        return Request(request.folders, first_run, request.system, request.listening)

    def _failed(self, why: Why, begun: float, problems: tuple[Problem, ...], text: str) -> None:
        for problem in problems:
            logger.error("%s", problem.render())
        number = self._generation.number
        reason = text or f"{len(problems)} problems"
        logger.error("rules were not reloaded (%s); generation %d stays in force", reason, number)
        self._finished(self._said("failed", begun, why, problems, text))

    def _finished(self, status: ReloadStatus) -> None:
        self._status = status
        self._metrics.reloads.add(status.outcome)
        self._metrics.rule_problems.set(len(status.problems) or bool(status.failure))
        if status.outcome == "changed":
            took_s, number = status.duration_s, status.generation
            logger.info("rules reloaded in %.2f s: generation %d", took_s, number)

    def _said(
        self,
        outcome: ReloadOutcome,
        begun: float,
        why: Why = "start",
        problems: tuple[Problem, ...] = (),
        failure: str = "",
        *,
        cut: int = 0,
    ) -> ReloadStatus:
        generation = self._generation
        duration_s = round(self._clock() - begun, 3) if begun else 0.0
        return ReloadStatus(
            generation.number,
            outcome,
            why,
            self._wall(),
            duration_s,
            generation.files,
            problems,
            failure,
            generation.warnings,
            cut,
        )
