"""What agents do at their API stands in audit: each deed alone, refusals folded, nothing long."""

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.audit import Audit, AuditSettings
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.telling import Telling
from rules.decision import Reason, Verdict


class Desk:
    """Telling over a real file; `lines` ends the audit and returns what was written."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self.file = folder / "audit.jsonl"
        settings = AuditSettings(str(self.file))
        self.audit = Audit(settings, limits, Metrics(), time.time, os.urandom)
        self.telling = Telling(self.audit, lambda: 7, limits, time.time, os.urandom)

    def tell(self, verdict: Verdict, target: str = "spiffe://a/b", **detail: object) -> str:
        allowed = verdict is Verdict.ALLOW
        change = "attested" if allowed else "attest-refused"
        reason = Reason.LOCAL if allowed else Reason.ATTESTATION_REQUIRED
        return self.telling.record("coder", change, verdict, reason, target, detail)

    async def lines(self) -> list[dict[str, Any]]:
        await self.audit.close()
        return [msgspec.json.decode(each) for each in self.file.read_bytes().splitlines()]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    made.audit.start()
    yield made
    await made.audit.close()


async def test_each_deed_has_a_line_of_its_own_under_the_id_that_is_returned(desk: Desk) -> None:
    ids = [desk.tell(Verdict.ALLOW, id="x", expires=5) for _ in range(3)]
    lines = await desk.lines()
    assert [each["id"] for each in lines] == ids
    assert len({*ids}) == 3
    first = lines[0]
    told = {key: first[key] for key in ("app", "plane", "verdict", "reason", "target", "change")}
    assert told == {
        "app": "coder", "plane": "control", "verdict": "allow", "reason": "local",
        "target": "spiffe://a/b", "change": "attested",
    }  # fmt: skip
    assert (first["generation"], first["expires"]) == (7, 5)


async def test_refusals_fold_so_that_one_who_tries_fills_no_disk(desk: Desk) -> None:
    """threats.md, "Evidence as a weapon": audit lines as a weapon against the disk."""
    ids = {desk.tell(Verdict.DENY, text="the nonce was used") for _ in range(1000)}
    lines = await desk.lines()
    assert len(lines) < 10
    assert sum(each.get("count", 1) for each in lines) == 1000
    assert lines[0]["id"] in ids


async def test_what_others_wrote_is_cut(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Limits(audit_target_characters=10))
    desk.audit.start()
    desk.tell(Verdict.DENY, "t" * 5000, text="x" * 5000, number=10**12)
    [line] = await desk.lines()
    assert (line["target"], line["text"], line["number"]) == ("t" * 10, "x" * 10, 10**12)


async def test_where_nothing_can_be_written_that_is_said(desk: Desk) -> None:
    assert desk.telling.admits("coder") is None
    await desk.audit.close()
    assert desk.telling.admits("coder") is not None
