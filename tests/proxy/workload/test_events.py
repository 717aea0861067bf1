"""What the issuer tells, as audit lines and counts."""

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.audit import Audit, AuditSettings
from proxy.channel import Event
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.workload.events import Clock, Events

ID = "spiffe://sallyport.internal/coder"


class Desk:
    """Events over a real audit."""

    def __init__(self, folder: Path) -> None:
        limits = Limits(audit_target_characters=64)
        self.metrics = Metrics()
        self.file = folder / "audit.jsonl"
        self.audit = Audit(
            AuditSettings(str(self.file)), limits, self.metrics, time.time, os.urandom
        )
        self.audit.start()
        self.events = Events(self.audit, self.metrics, limits, Clock(time.time, os.urandom))
        self.events.generation = 3

    async def lines(self) -> list[dict[str, Any]]:
        await self.audit.close()
        return [msgspec.json.decode(line) for line in self.file.read_bytes().splitlines()]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    yield made
    await made.audit.close()


async def test_what_was_issued_is_a_line_of_its_own(desk: Desk) -> None:
    event = Event("issued", "coder", ID, detail={"serial": "0a", "how": "sds"})
    desk.events.take(event)
    desk.events.take(event)
    first, second = await desk.lines()
    assert first["id"] != second["id"]
    del first["id"], first["flow"], first["time"]
    assert first == {
        "app": "coder", "evidence": ["process"], "plane": "control", "fact": None,
        "verdict": "allow", "reason": "local", "rule": None, "generation": 3, "count": 1,
        "target": ID, "change": "issued", "serial": "0a", "how": "sds",
    }  # fmt: skip
    assert desk.metrics.svids.value("x509", "issued") == 2


async def test_refusals_of_a_workload_that_asks_without_end_fold(desk: Desk) -> None:
    """threats.md, "Evidence as a weapon": an agent rolls the history out."""
    for _ in range(50):
        desk.events.take(Event("refused", "", "workload", allowed=False, reason="revoked"))
    (line,) = await desk.lines()
    assert (line["count"], line["verdict"], line["reason"]) == (50, "deny", "revoked")
    assert (line["app"], line["evidence"]) == ("sallyport", [])
    assert desk.metrics.svids.value("x509", "refused") == 50


@pytest.mark.parametrize(
    ("event", "evidence"),
    [
        (Event("issued", "coder", ID, detail={"how": "workload"}), ["process"]),
        (Event("issued-jwt", "coder", ID), ["process"]),
        (Event("refused", "coder", ID, allowed=False), ["process"]),
        (Event("enrolled", "coder", ID, detail={"how": "join"}), ["token"]),
        (Event("issued", "coder", ID, detail={"how": "reenroll"}), ["certificate"]),
        (Event("refused", "coder", "coder", allowed=False, detail={"how": "join"}), []),
        (Event("enrolled", "coder", ID, detail={"how": "oidc"}), []),
        (Event("issued", "", ID, detail={"how": "sign"}), []),
        (Event("rotated", "", "intermediate"), []),
    ],
)
async def test_the_evidence_is_what_named_the_app(
    desk: Desk, event: Event, evidence: list[str]
) -> None:
    desk.events.take(event)
    (line,) = await desk.lines()
    assert line["evidence"] == evidence


async def test_each_kind_is_counted(desk: Desk) -> None:
    for event in (
        Event("issued-jwt", "coder", ID),
        Event("enrolled", "coder", ID, detail={"how": "join"}),
        Event("enrolled", "coder", ID, detail={"how": "by pigeon"}),
        Event("refused", "coder", "coder", allowed=False, detail={"how": "oidc"}),
        Event("rotated", "", "intermediate"),
    ):
        desk.events.take(event)
    counts = desk.metrics.enrolments
    assert desk.metrics.svids.value("jwt", "issued") == 1
    assert counts.value("join", "issued") == counts.value("other", "issued") == 1
    assert counts.value("oidc", "refused") == 1


async def test_a_bound_that_the_issuer_met_is_counted_and_writes_no_line(desk: Desk) -> None:
    desk.events.take(Event("bound", "coder", "svids", allowed=False, detail={"count": 3}))
    desk.events.take(Event("bound", "", "svids", allowed=False))
    desk.events.take(Event("bound", "", "no such limit", allowed=False))
    desk.events.take(Event("bound", "", "svids", allowed=False, detail={"count": "x"}))
    assert desk.metrics.bounds.value("svids") == 4
    assert await desk.lines() == []


async def test_what_is_said_is_bounded_and_an_unknown_reason_is_local(desk: Desk) -> None:
    detail: dict[str, str | int] = {f"key{number}": "x" * 100 for number in range(50)}
    desk.events.take(Event("issued", "coder", ID, reason="whim", detail=detail))
    (line,) = await desk.lines()
    assert line["reason"] == "local"
    assert line["key0"] == "x" * 64
    assert "key15" in line
    assert "key16" not in line
