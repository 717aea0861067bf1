"""What was found stands in audit under the app that asked."""

import os
import time
from pathlib import Path

import msgspec

from proxy.audit import Audit, AuditSettings
from proxy.detection.lines import Lines, Told
from proxy.limits import Limits
from proxy.metrics import Metrics
from rules.decision import Reason, Verdict


async def test_each_finding_has_a_line_with_its_numbers(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    audit = Audit(AuditSettings(str(file)), Limits(), Metrics(), time.time, os.urandom)
    audit.start()
    lines = Lines(audit, lambda: 7, time.time, os.urandom)
    detail = {"window": "2m", "octets": 530, "limit": 512, "measured": {"hex": 1.0}}
    told = Told(
        "me", "leaky.com", "tunnel-blocked", "tunnel:names:2m", detail,
        Verdict.DENY, Reason.TUNNEL_DETECTED,
    )  # fmt: skip
    ids = [lines.write(told), lines.write(told)]
    await audit.close()
    read = [msgspec.json.decode(each) for each in file.read_bytes().splitlines()]
    assert [each["id"] for each in read] == ids
    assert len({*ids}) == 2
    wanted = {
        "app": "me", "plane": "control", "verdict": "deny", "reason": "tunnel-detected",
        "rule": "tunnel:names:2m", "generation": 7, "target": "leaky.com",
        "change": "tunnel-blocked", **detail,
    }  # fmt: skip
    assert {key: read[0][key] for key in wanted} == wanted
