"""The tunnel detector of a running appliance, and its file: `$STATE/detection.sqlite`.

`Lookup` shows it every question before that leaves, and every answer before that is handed on.
What it holds is on the disk before the refusal is answered; what it counted, within `SAVE_S`.  A
crash loses that much of the budgets and opens nothing.  The tables are made, and the file is
opened, when the first look-up is counted.

While there is a file that cannot be read, nobody knows what is held: every look-up that is watched
with `block` is refused, and `problem` says why.  A file that cannot be written costs no look-up:
what is found is in force all the same.
"""

import asyncio
import contextlib
import importlib
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, override

from msgspec import Struct

from proxy.database.lazy import LazyFile
from proxy.detection.hold import HeldSuffix
from proxy.detection.lines import Told
from proxy.detection.shown import TunnelView, of_hold, of_state
from proxy.errors import BindError
from proxy.flow import Flow
from proxy.held import Held, Hold
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.response import Response
from proxy.resolver.walk import Walked
from rules.decision import Decision, Reason, Verdict, Watch
from rules.facts import Question
from rules.name import DomainName, ancestors
from rules.suffix import PublicSuffixes
from rules.watch import Detect, Mode

if TYPE_CHECKING:
    from proxy.detection.file import BudgetRow, DetectionFile
    from proxy.detection.rulings import Rulings

FILE_NAME = "detection.sqlite"
"""In the folder of state."""

TICK_S: Final = 1.0
SAVE_S: Final = 10.0  # between writes of what was counted; a crash may lose a minute
_SLICE = 8  # states that are worked out at once: half a millisecond of the loop's time

_HELD = Decision(Verdict.DENY, Reason.TUNNEL_DETECTED)
_UNREAD = Decision(
    Verdict.DENY, Reason.CAPACITY, text="what is held cannot be read; the operator must act"
)

_STRICT = Watch(Detect())  # of what says nothing: as an app that says nothing is watched


class Ground(Struct, frozen=True):
    """What the detector stands on; `still` decides without counting, `tell` writes audit lines."""

    limits: Limits
    metrics: Metrics
    suffixes: PublicSuffixes
    held: Held
    still: Callable[[Question], Decision]
    tell: Callable[[Told], str]


class LiveDetection(LazyFile["DetectionFile"]):
    """`proxy.resolver.watching.Watching` over the detector; for the loop's thread only.

    `wall` returns Unix time in seconds.
    """

    def __init__(self, path: Path, ground: Ground, wall: Callable[[], float]) -> None:
        super().__init__(path, wall, TICK_S)
        self._ground = ground
        self._rulings: Rulings | None = None
        self._making = asyncio.Lock()
        self._is_known = True  # what the file says, or that there is none
        self._holds: dict[tuple[str, str], HeldSuffix] = {}
        self._committing: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._saving: asyncio.Task[None] | None = None
        self._save_at = 0.0
        self._waiting: list[BudgetRow] = []  # taken from the tables, and not written
        self._on_held: Callable[[], object] = lambda: None
        ground.metrics.detect_held.read_by(lambda: len(self._holds))

    def on_held(self, act: Callable[[], object]) -> None:
        """Call `act` whenever what is held has changed: whatever is open is decided again then."""
        self._on_held = act

    @override
    async def open(self) -> None:
        self._is_known = not self.path.exists(follow_symlinks=False)
        await super().open()

    async def read(self) -> None:
        """Know what the file says, which is there, and write nothing by itself.

        Raises:
            BindError: it cannot be used.
        """
        self._is_known = False
        await self.ready()

    @override
    async def close(self) -> None:
        """Write what waits, and close the file."""
        await asyncio.gather(*self._committing.values(), return_exceptions=True)
        if self._saving is not None:
            await asyncio.gather(self._saving, return_exceptions=True)
        if self._rulings is not None and self._timer is not None:
            await self._save()
        await super().close()

    async def admit(self, flow: Flow, question: Question, decision: Decision) -> Decision | None:  # noqa: ARG002 - the seam's own
        """Count a question that is about to be asked upstream; return why it must not be."""
        watch = _watch(decision)
        mode = watch.detect.mode
        if mode is not Mode.OFF and not self._is_known:
            return _UNREAD if mode is Mode.BLOCK else None
        rulings = self._rulings or await self._made()
        if mode is Mode.OFF:
            return None
        committing = self._committing and self._committed(question)
        if committing:
            await asyncio.shield(committing)
            return _HELD
        if self._holds:
            held = self._ground.held.refusal(question.principal.app, question.name)
            if held is not None:  # since it was allowed
                return held
        ruling = rulings.asked(question, watch, self.now())
        if ruling is None:
            return None
        if ruling.hold is not None and self._has_room():
            await asyncio.shield(self._begin(ruling.hold))
        return ruling.refusal

    def answered(
        self,
        flow: Flow,  # noqa: ARG002 - the seam's own
        question: Question,
        decision: Decision,
        response: Response,
        walked: Walked,
    ) -> Decision | None:
        """Learn from an answer; return why it must not be handed on.

        What is held because of it is on the disk when `admit` is asked of the same name again.
        """
        if self._rulings is None:
            return None
        if self._committing and self._committed(question):
            return _HELD  # it is counted no more: of many answers at once one alone is told of
        watch = _watch(decision)
        ruling = self._rulings.answered(question, watch, response, walked, self.now())
        if ruling is None:
            return None
        if ruling.hold is not None and self._has_room():
            self._begin(ruling.hold)
        return ruling.refusal

    def connected(self, app: str, name: DomainName) -> None:
        """Learn that the proxy was asked to reach `name`."""
        if self._rulings is not None:
            self._rulings.connected(app, name, self.now())

    async def clear(self, app: str, suffix: DomainName) -> TunnelView | None:
        """Let go of a suffix, and count it anew; return what it was.

        None: nothing was known of it.  It is in force, and on the disk, when this returns.

        Raises:
            BindError: it is in force and cannot be written just now, which is tried again; or
                what is held cannot be read.
        """
        found, rulings = await self.show(app, suffix), self._rulings
        if found is None or rulings is None:
            return None
        committing = self._committing.get((app, suffix))
        if committing is not None:  # else it were held again when that is written
            await asyncio.gather(asyncio.shield(committing), return_exceptions=True)
        rulings.clear(app, suffix, self.now())
        if self._holds.pop((app, suffix), None) is not None:
            self._ground.held.let_go(app, suffix)
            self._on_held()
        if self._file is not None:
            self._file.let_go(app, suffix)
            await self._file.keep(rulings.changed())
        return found

    async def show(self, app: str, suffix: DomainName) -> TunnelView | None:
        """Return what is known of a suffix; None: nothing.  Raises what `list` raises."""
        views = await self.list(everything=True)
        return next((each for each in views if (each.app, each.suffix) == (app, suffix)), None)

    async def list(self, *, everything: bool = False) -> list[TunnelView]:
        """Return what is held or alerting, or `everything` that is counted, by app and suffix.

        Raises:
            BindError: what is held cannot be read, so that nobody knows.
        """
        if not self._is_known:
            raise BindError(self.problem or f"{self.path} is being read")
        views: dict[tuple[str, str], TunnelView] = {}
        states = () if self._rulings is None else self._rulings.states(self.now())
        for at, state in enumerate(states, 1):
            hold = self._holds.get((state.app, state.suffix))
            if everything or state.alerting or hold is not None:
                views[state.app, state.suffix] = of_state(state, hold)
            if at % _SLICE == 0:
                await asyncio.sleep(0)
        for key, held in self._holds.items():
            views.setdefault(key, of_hold(held))
        return [views[key] for key in sorted(views)]

    def _committed(self, question: Question) -> "asyncio.Task[None] | None":
        """Return what writes a block that is about the question."""
        app, name = question.principal.app, question.name
        under_way = (self._committing.get((app, each)) for each in (name, *ancestors(name)))
        return next((each for each in under_way if each is not None), None)

    def _has_room(self) -> bool:
        """Return whether one more may be held; else the budget alone refuses, while it is used up.

        None of those that are held makes way: that would open it.
        """
        if len(self._holds) < self._ground.limits.held_suffixes:
            return True
        self._ground.metrics.bounds.add("held_suffixes")
        return False

    def _begin(self, hold: HeldSuffix) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(self._commit(hold))
        self._committing[hold.app, hold.suffix] = task
        return task

    async def _commit(self, hold: HeldSuffix) -> None:
        """Hold a suffix: on the disk first, else a crash would open what was refused."""
        self._holds[hold.app, hold.suffix] = hold
        try:
            with contextlib.suppress(BindError):  # `problem` says it; it is tried again
                if self._file is None:
                    await self.ready()
            if self._file is not None:
                self._file.hold(hold)
                with contextlib.suppress(BindError):
                    await self.settled()
        finally:
            del self._committing[hold.app, hold.suffix]
            self._enforce(hold)
            self._on_held()

    def _enforce(self, hold: HeldSuffix) -> None:
        self._holds[hold.app, hold.suffix] = hold
        self._ground.held.hold(hold.app, DomainName(hold.suffix), Hold(hold.id, hold.at))

    async def _made(self) -> "Rulings":
        """Return the tables; making them takes longer than a query may wait for on the loop."""
        async with self._making:
            if self._rulings is None:
                self._rulings = await asyncio.to_thread(_make, self._ground)
            return self._rulings

    @override
    def _look(self, now: float) -> None:
        if self._rulings is None:
            return
        self._rulings.count()
        is_idle = self._saving is None or self._saving.done()
        if is_idle and not now < self._save_at <= now + SAVE_S:
            self._save_at = now + SAVE_S
            self._saving = asyncio.get_running_loop().create_task(self._save())

    async def _save(self) -> None:
        """Write what was counted since the last time."""
        rows = chain(self._waiting, () if self._rulings is None else self._rulings.changed())
        self._waiting = list(islice(rows, 1))
        if not self._waiting:
            return  # no file is made for nothing
        with contextlib.suppress(BindError):
            await self.ready()
            if self._file is not None:
                rows, self._waiting = chain(self._waiting, rows), []
                await self._file.keep(rows)

    @override
    async def _load(self) -> "DetectionFile":
        if not self.path.parent.exists():  # who took it away is to be noticed
            raise BindError(f"{self.path.parent} is gone, where what is held is kept; put it back")
        # Loading it takes longer than a query may wait.
        module = await asyncio.to_thread(importlib.import_module, "proxy.detection.file")
        file: DetectionFile = module.DetectionFile(self.path, self._ground.limits)
        if self._is_known:  # it is made now
            await file.open(lambda _: None)
            for each in self._holds.values():
                file.hold(each)
            return file
        rulings = await asyncio.to_thread(_make, self._ground)
        now = self.now()
        stored = await file.open(lambda rows: rulings.restore(rows, now))
        for each in stored.holds:
            self._enforce(each)
        self._rulings, self._is_known = rulings, True
        self._on_held()
        return file


def _make(ground: Ground) -> "Rulings":
    module = importlib.import_module("proxy.detection.rulings")
    rulings: Rulings = module.Rulings(ground.suffixes, ground.metrics, ground.still, ground.tell)
    return rulings


def _watch(decision: Decision) -> Watch:
    """Return how closely the look-up that `decision` allows is watched."""
    for each in decision.obligations:
        if isinstance(each, Watch):
            return each
    return _STRICT
