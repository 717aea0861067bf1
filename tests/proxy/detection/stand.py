"""The detector of an appliance over the real parts, at a time that tests set."""

import base64
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from proxy.audit import Audit, AuditSettings
from proxy.authorize import Authorizer
from proxy.detection.file import DetectionFile
from proxy.detection.lines import Lines
from proxy.detection.live import FILE_NAME, Ground, LiveDetection
from proxy.flow import Flow, Plane
from proxy.held import Held
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.refusals import Refusals
from proxy.reload.files import public_suffixes
from rules.decision import Decision, Reason, Verdict, Watch
from rules.facts import Principal, Question
from rules.match import index_rules
from rules.name import DomainName, parse
from rules.rtype import A
from rules.ruleset import App, Ruleset
from rules.suffix import PublicSuffixes
from rules.watch import Detect, Mode
from tests.proxy.composed import ME, allow, below

NOW = 1_790_000_000.0
SUFFIX = parse("leaky.com")
BLOCK, ALERT, OBSERVE, OFF = (
    Watch(Detect(each)) for each in (Mode.BLOCK, Mode.ALERT, Mode.OBSERVE, Mode.OFF)
)


@cache
def suffixes() -> PublicSuffixes:
    return public_suffixes()


def allowed(watch: Watch = BLOCK) -> Decision:
    return Decision(Verdict.ALLOW, Reason.RULE, "allowed", (watch,))


def payload(suffix: str = SUFFIX, octets: int = 30, start: int = 0) -> Iterator[DomainName]:
    """Yield names that carry other octets each, as a tunnel's do."""
    at = start
    while True:
        at += 1
        chunk = base64.b32encode(hashlib.sha256(f"{suffix} {at}".encode()).digest())
        yield parse(f"{chunk.decode().lower()[:octets]}.{suffix}")


class Stand:
    """What tests look into; `now` is the time."""

    def __init__(self, folder: Path, now: float = NOW, limits: Limits | None = None) -> None:
        self.now = now
        self.path = folder / FILE_NAME
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.held = Held()
        self.changes = 0
        self.audit_file = folder / "audit.jsonl"
        settings = AuditSettings(str(self.audit_file))
        self.audit = Audit(settings, self.limits, self.metrics, self.wall, os.urandom)
        rules = Ruleset(1, {"me": App("me", allows=(allow(below("leaky.com")),))})
        self.authorizer = Authorizer(
            index_rules(rules),
            self.audit,
            Refusals(self.limits, self.metrics),
            self.metrics,
            held=self.held,
        )
        self.tell = Lines(self.audit, lambda: 7, self.wall, os.urandom).write
        ground = Ground(
            limits=self.limits,
            metrics=self.metrics,
            suffixes=suffixes(),
            held=self.held,
            still=self.authorizer.still,
            tell=self.tell,
        )
        self.live = LiveDetection(self.path, ground, self.wall)
        self.live.on_held(self._changed)

    def wall(self) -> float:
        return self.now

    def _changed(self) -> None:
        self.changes += 1

    async def ask(
        self, name: str, decision: Decision | None = None, who: Principal = ME
    ) -> Reason | None:
        """Return why a question must not be asked; None: it may."""
        refusal = await self.refusal(name, decision, who)
        return None if refusal is None else refusal.reason

    async def refusal(
        self, name: str, decision: Decision | None = None, who: Principal = ME
    ) -> Decision | None:
        flow = Flow("1", who, Plane.DNS)
        return await self.live.admit(flow, Question(who, parse(name), A), decision or allowed())

    async def leak(self, suffix: str = SUFFIX, start: int = 1000) -> int:
        """Ask names until one is refused; return how many octets left before."""
        left = 0
        for name in islice(payload(suffix, start=start), 200):
            if await self.ask(name) is not None:
                return left
            left += len(name) - len(suffix) - 1
        raise AssertionError("a tunnel is stopped")

    async def on_disk(self) -> list[str]:
        """Return the suffixes that are held by what another process would read."""
        file = DetectionFile(self.path, self.limits)
        stored = await file.open(lambda _: None)
        await file.behind.close()
        return [each.suffix for each in stored.holds]

    async def budgets(self) -> set[tuple[str, str]]:
        """Return of what budgets are in the file, by app and suffix."""
        found: set[tuple[str, str]] = set()
        if self.path.exists():
            file = DetectionFile(self.path, self.limits)
            await file.open(lambda rows: found.update((app, suffix) for app, suffix, _ in rows))
            await file.behind.close()
        return found

    async def lines(self) -> list[dict[str, Any]]:
        """End the audit and return every line of it."""
        await self.audit.close()
        return [msgspec.json.decode(line) for line in self.audit_file.read_bytes().splitlines()]


@asynccontextmanager
async def standing(
    folder: Path, now: float = NOW, limits: Limits | None = None
) -> AsyncIterator[Stand]:
    stand = Stand(folder, now, limits)
    stand.audit.start()
    await stand.live.open()
    try:
        yield stand
    finally:
        await stand.live.close()
        await stand.audit.close()
