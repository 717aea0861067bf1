"""One audit line per flow or miss: folded, bounded per app, written off the hot path.

    write -> fold (audit_fold) -> a second later: encode (audit_line) -> writer thread
    (audit_writer) -> files (audit_file)

`admits` says beforehand whether there is room; what is written is never refused here.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from msgspec import Struct

from proxy.audit_file import AuditFile
from proxy.audit_fold import FOLD_S, LINE_OCTETS, Fold, Folds, Repeats, Width
from proxy.audit_line import Line, Record, encode, rfc3339
from proxy.audit_writer import AuditWriter
from proxy.flow import Plane, new_id
from proxy.limits import Limits
from proxy.metrics import Metrics
from rules.decision import Reason, Verdict

__all__ = ["Audit", "AuditSettings", "Line"]

_TICK_S = 0.1  # between looks at what is due
_SLICE = 256  # lines encoded at once: about 1 ms of the loop's time
_PAUSE_S = 0.002  # between slices
_ENTROPY_OCTETS = 10


class AuditSettings(Struct, frozen=True):
    """Where the lines go: `rotate` octets a file, `keep` files beside the one that is written.

    `on_failure` says what becomes of an allow that cannot be recorded.
    """

    file: str
    rotate: int = 64 << 20
    keep: int = 16
    on_failure: Literal["deny", "allow"] = "deny"


class Audit:
    """Folds, bounds and hands over to the writer; call it from the loop's thread only.

    `wall` returns Unix time in seconds; `entropy(n)` returns n random octets and is asked from
    two threads.
    """

    def __init__(
        self,
        settings: AuditSettings,
        limits: Limits,
        metrics: Metrics,
        wall: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self.now = wall
        self._settings = settings
        self._limits = limits
        self._metrics = metrics
        self._entropy = entropy
        self._folds = Folds(limits, metrics, wall, entropy, self._emit)
        reserve = limits.audit_reserve_octets
        file = AuditFile(Path(settings.file), settings.rotate, settings.keep, reserve)
        self._writer = AuditWriter(file, self._notice)
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._counted = (0, 0, 0)  # of the writer's numbers, what the metrics hold already

    def start(self) -> None:
        """Open the file and begin to write; needs a running loop.

        Raises:
            BindError: the file or its folder cannot be used; the text says what to do.
        """
        self._writer.start()
        self._tick()

    async def close(self) -> None:
        """Write every open line and wait until it stands in the file: half of `shutdown_s`."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._emit(self._folds.rest())
        await self._writer.close(self._limits.shutdown_s / 2)
        self._count()

    def status(self) -> str | None:
        """Return what is wrong with the file; None while it can be written."""
        if self._is_closed:
            return "closed"
        if self._is_full():
            return "the disk is slower than the lines: the queue is full"
        return self._writer.problem

    def admits(self, app: str) -> Reason | None:
        """Return None while there is room for a line of `app`, else why there is none.

        AUDIT_UNAVAILABLE: the file cannot be written or the queue is full, and `on_failure` is
        `deny`.  AUDIT_QUOTA: the app has used up its octets of this minute; they flow back
        evenly, so that it is slowed to its quota.
        """
        if self._settings.on_failure == "deny" and self.status() is not None:
            self._metrics.bounds.add("audit_queue_octets", n=int(self._is_full()))
            return Reason.AUDIT_UNAVAILABLE
        if self._folds.is_over_quota(app):
            self._metrics.bounds.add("audit_quota_octets")
            return Reason.AUDIT_QUOTA
        return None

    def has_room(self, app: str) -> bool:
        """Return whether `admits` would say None; nothing is counted."""
        if self._settings.on_failure == "deny" and self.status() is not None:
            return False
        return not self._folds.is_over_quota(app)

    def write(
        self,
        line: Line,
        id: str | None = None,  # noqa: A002 - the field's own name
        repeats: Repeats | None = None,
    ) -> str:
        """Take `line` and return the id under which it stands in the file, a second later.

        A flow that was allowed is written when it was decided and again when it ends, then with
        the `id` of its first line.  `repeats` counts what repeats the line for a second from
        now on.  Never raises.
        """
        if len(line.target) > self._limits.audit_target_characters:
            line.target = line.target[: self._limits.audit_target_characters]
        return self._folds.add(line, id, repeats)

    def flush(self, now: float) -> None:
        """Hand over every line whose second is over at `now` (Unix time), without pausing."""
        self._folds.refill(now)
        while self._hand_over(now):
            pass
        self._count()

    def _tick(self) -> None:
        is_more = False
        try:
            now = self.now()
            self._folds.refill(now)
            is_more = self._hand_over(now)
            self._count()
        finally:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_PAUSE_S if is_more else _TICK_S, self._tick)

    def _hand_over(self, now: float) -> bool:
        """Emit one slice of what is due; return whether there may be more."""
        self._folds.is_stalled = self._is_full()
        if self._folds.is_stalled:
            return False  # what stays open folds on, and takes no more room
        due = self._folds.due(now, _SLICE)
        self._emit(due)
        return len(due) == _SLICE

    def _emit(self, folds: list[Fold]) -> None:
        """Encode and queue; where the queue is full the lines are lost and counted."""
        if self._is_full() and not self._is_closed:
            self._metrics.audit_lines.add("dropped", n=sum(fold.count for fold in folds))
            return
        lines = [_encode_fold(fold) for fold in folds]
        for fold, line in zip(folds, lines, strict=True):
            left = fold.usage.left_octets + LINE_OCTETS - len(line)
            fold.usage.left_octets = max(0.0, left)
        self._metrics.audit_lines.add("folded", n=sum(fold.count - 1 for fold in folds))
        if lines:
            self._writer.put(b"".join(lines))

    def _is_full(self) -> bool:
        return self._writer.queued_octets >= self._limits.audit_queue_octets

    def _count(self) -> None:
        writer = self._writer
        present = (writer.written_lines, writer.dropped_lines, writer.written_octets)
        written, dropped, octets = (
            new - old for new, old in zip(present, self._counted, strict=True)
        )
        self._counted = present
        self._metrics.audit_lines.add("written", n=written)
        self._metrics.audit_lines.add("dropped", n=dropped)
        self._metrics.audit_octets.add(n=octets)

    def _notice(self, problem: str | None) -> bytes:
        """Return the line that says that the file cannot be written, or that it can again."""
        now = self.now()
        record = Record(
            time=rfc3339(now),
            id=new_id(now, self._entropy(_ENTROPY_OCTETS)),
            flow=None,
            app=None,
            evidence=(),
            plane=Plane.CONTROL,
            fact=None,
            verdict=Verdict.ALLOW if problem is None else Verdict.FAIL,
            reason=Reason.LOCAL if problem is None else Reason.AUDIT_UNAVAILABLE,
            rule=None,
            generation=None,
            count=1,
            target=self._settings.file,
        )
        return encode(record, {"problem": problem})


def _encode_fold(fold: Fold) -> bytes:
    line = fold.line
    is_wide = fold.samples is not None
    record = Record(
        time=rfc3339(fold.opened),
        id=fold.id,
        flow=line.flow,
        app=line.app,
        evidence=line.evidence,
        plane=line.plane,
        fact=line.fact,
        verdict=line.verdict,
        reason=line.reason,
        rule=None if is_wide and fold.width is Width.OVER_QUOTA else line.rule,
        generation=line.generation,
        count=fold.count,
        target=None if is_wide else line.target,
    )
    if fold.count == 1:
        return encode(record, line.detail)
    detail = line.detail if fold.samples is None else {"samples": fold.samples}
    if fold.span_s > FOLD_S:
        detail = {**detail, "within_s": fold.span_s}
    if fold.is_end:
        sums = {"octets_up": fold.octets_up, "octets_down": fold.octets_down}
        detail = {**detail, **sums, "duration": fold.duration}
    return encode(record, detail)
