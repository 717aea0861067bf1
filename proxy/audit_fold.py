"""Lines that say the same fold into one a second; what an app may take is bounded here.

How much "the same" ignores depends on what the app has taken already:

    PLAIN       flow, evidence and detail may differ
    FLOODING    beyond `refusals_a_second` new refusals the target may differ too: samples stay
    OVER_QUOTA  the rule may differ as well, so that what is left is a closed set of lines

So an app that floods takes no room from another's lines, and none of its own are lost: they are
told with less detail.  A fold's id is the id of its first line and of every repeat.

An app that has less than half of its quota left is told of answers out of its cache once a minute
and name: what each of them repeats was told within its second, when it was looked up.

What is answered again within the second (`proxy.resolver.hits`) is counted where it is answered,
as `Repeats` of an open fold, and added before the fold is told.
"""

from collections.abc import Callable
from enum import IntEnum

from msgspec import Struct

from proxy.audit_line import Line
from proxy.flow import new_id
from proxy.limits import Limits
from proxy.metrics import Metrics
from rules.decision import Verdict

FOLD_S = 1.0  # reference.md: identical lines fold into one a second
SLOW_FOLD_S = 60.0  # of answers from the cache: `cache_entries` names a minute are half a quota
LINE_OCTETS = 384  # what a line is taken for until it is encoded
_MINUTE_S = 60.0
_SPILL = 64  # folds that close early when there are too many: room for as many new ones
_ENTROPY_OCTETS = 10  # of one id
_IDS_A_DRAW = 64  # random octets are drawn for many ids, because a system call costs more than one


class Width(IntEnum):
    """How much the lines of one fold may differ."""

    PLAIN = 0
    FLOODING = 1
    OVER_QUOTA = 2


class Usage(Struct, gc=False):
    """What one app has taken of its bounds."""

    left_octets: float
    second: float = 0.0  # when the second began in which `refusals` were counted
    refusals: int = 0


class Fold(Struct, gc=False):
    """A line that still gathers repeats; `opened` is Unix time, durations are in seconds."""

    id: str
    line: Line
    usage: Usage
    opened: float
    width: Width = Width.PLAIN
    span_s: float = FOLD_S
    count: int = 1
    octets_up: int = 0
    octets_down: int = 0
    duration: float = 0.0
    is_end: bool = False
    samples: list[str] | None = None
    repeats: "set[Repeats] | None" = None

    def close(self) -> None:
        """Add what is repeated and not yet counted; no repeat counts from now on."""
        for each in tuple(self.repeats or ()):
            each.end()

    def gather(self, detail: dict[str, object]) -> None:
        """Add what can be summed of one more line: only the end of a flow has such."""
        up, down = detail.get("octets_up"), detail.get("octets_down")
        duration = detail.get("duration")
        if isinstance(up, int) and isinstance(down, int):
            self.octets_up += up
            self.octets_down += down
        if isinstance(duration, float | int):
            self.duration = max(self.duration, duration)
            self.is_end = True


class Repeats:
    """Repeats of the line of `fold`: counted here one by one, added to the fold by `settle`.

    They may be counted for `left_s` seconds after the line was written, and not once `fold` is
    None.  (A class with slots: an attribute of a msgspec value takes three times as long to set.)
    """

    __slots__ = ("count", "fold", "left_s")

    def __init__(self) -> None:
        self.count = 0
        self.left_s = 0.0
        self.fold: Fold | None = None

    def begin(self, fold: Fold, left_s: float) -> None:
        """Repeat the line of `fold` from now on."""
        if self.fold is not fold:
            self.end()
            self.fold = fold
            if fold.repeats is None:
                fold.repeats = set()
            fold.repeats.add(self)
        self.left_s = left_s

    def settle(self) -> int:
        """Add what was counted since the last time to the fold; return how much that is."""
        counted, self.count = self.count, 0
        if counted and self.fold is not None:
            self.fold.count += counted
        return counted

    def end(self) -> None:
        """Settle, and leave the fold."""
        self.settle()
        if self.fold is not None and self.fold.repeats is not None:
            self.fold.repeats.discard(self)
        self.fold = None
        self.left_s = 0.0


class Folds:
    """The folds that are open, and the bounds of each app."""

    def __init__(
        self,
        limits: Limits,
        metrics: Metrics,
        wall: Callable[[], float],
        entropy: Callable[[int], bytes],
        spill: Callable[[list[Fold]], None],
    ) -> None:
        self.is_stalled = False  # the disk does not keep up: fold as much as can be folded
        self._limits = limits
        self._metrics = metrics
        self._wall = wall
        self._entropy = entropy
        self._spill = spill
        self._open: dict[tuple[object, ...], Fold] = {}  # in the order in which they opened
        self._spans: dict[float, dict[tuple[object, ...], Fold]] = {FOLD_S: {}, SLOW_FOLD_S: {}}
        self._apps: dict[str, Usage] = {}
        self._refilled = wall()
        self._pool = b""
        self._drawn = 0  # octets of the pool that are used up

    def add(self, line: Line, id: str | None, repeats: Repeats | None = None) -> str:  # noqa: A002 - the audit field's own name
        """Fold `line`, or open a fold with it; return the id under which it will stand.

        `repeats` counts for that fold from now on.
        """
        key = (
            *(line.app, line.plane, line.fact, line.verdict, line.reason, line.rule),
            *(line.target, line.generation, id),
        )
        fold = self._open.get(key)
        if fold is None:
            fold = self._begin(key, line, id)
        else:
            fold.count += 1
            if "duration" in line.detail:
                fold.gather(line.detail)
        if repeats is not None:
            repeats.begin(fold, self._left_s(fold))
        return fold.id

    def due(self, now: float, at_most: int) -> list[Fold]:
        """Take out the folds whose second (or minute) is over at `now`, the first opened first."""
        taken: list[tuple[object, ...]] = []
        for span_s, folds in self._spans.items():
            for key, fold in folds.items():
                # A clock that was set back must not keep a fold open.
                if 0 <= now - fold.opened < span_s or len(taken) == at_most:
                    break
                taken.append(key)
        return self._take(taken)

    def rest(self) -> list[Fold]:
        """Take out every fold that is open."""
        return self._take(list(self._open))

    def is_over_quota(self, app: str) -> bool:
        """Return whether `app` has used up its octets of this minute."""
        usage = self._apps.get(app)
        return usage is not None and usage.left_octets <= 0

    def refill(self, now: float) -> None:
        """Give back to every app, evenly over a minute, what it may write in a minute."""
        quota = self._limits.audit_quota_octets
        share = max(0.0, now - self._refilled) * quota / _MINUTE_S
        self._refilled = now
        for usage in self._apps.values():
            usage.left_octets = min(quota, usage.left_octets + share)

    def new_id(self, now: float) -> str:
        """Return a fresh id for `now` (Unix time)."""
        if self._drawn == len(self._pool):
            self._pool, self._drawn = self._entropy(_IDS_A_DRAW * _ENTROPY_OCTETS), 0
        self._drawn += _ENTROPY_OCTETS
        return new_id(now, self._pool[self._drawn - _ENTROPY_OCTETS : self._drawn])

    def _begin(self, key: tuple[object, ...], line: Line, id: str | None) -> Fold:  # noqa: A002 - as above
        now = self._wall()
        usage = self._apps.get(line.app) or self._meet(line.app)
        width = self._width(line, usage, now)
        if width:
            rule = line.rule if width is Width.FLOODING else ...
            key = (*key[:5], rule, line.generation, id is None)
            fold = self._open.get(key)
            if fold is not None:
                return self._join(fold, line)
        if len(self._open) >= self._limits.audit_folds:
            self._make_room()
        fold = Fold(id or self.new_id(now), line, usage, now, width, self._span_s(line, usage))
        if "duration" in line.detail:
            fold.gather(line.detail)
        usage.left_octets = max(0.0, usage.left_octets - LINE_OCTETS)
        self._open[key] = self._spans[fold.span_s][key] = fold
        return fold

    def _span_s(self, line: Line, usage: Usage) -> float:
        # Ordinary use of many names that are allowed must not end in a refusal of them.
        is_short = usage.left_octets < self._limits.audit_quota_octets / 2
        return SLOW_FOLD_S if is_short and "cached" in line.detail else FOLD_S

    def _join(self, fold: Fold, line: Line) -> Fold:
        fold.count += 1
        if "duration" in line.detail:
            fold.gather(line.detail)
        samples = fold.samples
        if samples is None:
            samples = fold.samples = [fold.line.target]
        if len(samples) < self._limits.refusal_samples and line.target not in samples:
            samples.append(line.target)
        return fold

    def _width(self, line: Line, usage: Usage, now: float) -> Width:
        if self.is_stalled or usage.left_octets <= 0:
            return Width.OVER_QUOTA
        if line.verdict is Verdict.ALLOW:
            return Width.PLAIN
        if not 0 <= now - usage.second < 1:
            usage.second, usage.refusals = now, 0
        usage.refusals += 1
        if usage.refusals <= self._limits.refusals_a_second:
            return Width.PLAIN
        self._metrics.bounds.add("refusals_a_second")
        return Width.FLOODING

    def _meet(self, app: str) -> Usage:
        if len(self._apps) >= self._limits.apps_remembered:
            self._metrics.bounds.add("apps_remembered")
            del self._apps[next(iter(self._apps))]
        usage = self._apps[app] = Usage(self._limits.audit_quota_octets)
        return usage

    def _make_room(self) -> None:
        self._metrics.bounds.add("audit_folds")
        oldest = [key for key, _ in zip(self._open, range(_SPILL), strict=False)]
        self._spill(self._take(oldest))

    def _take(self, keys: list[tuple[object, ...]]) -> list[Fold]:
        taken = [self._open.pop(key) for key in keys]
        for key, fold in zip(keys, taken, strict=True):
            del self._spans[fold.span_s][key]
            if fold.repeats:
                fold.close()
        return taken

    def _left_s(self, fold: Fold) -> float:
        """Return for how long a line like this is told by this fold: never over a second."""
        began = fold.usage.second if fold.width is Width.FLOODING else fold.opened
        return min(max(began + fold.span_s - self._wall(), 0.0), FOLD_S)
