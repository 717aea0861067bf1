"""The audit line of a handshake that a certificate ended."""

import itertools
import time
from pathlib import Path

import msgspec

from proxy.audit import Audit, AuditSettings
from proxy.flow import Plane
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.transport.handshake import Unverified
from proxy.unverified import recorder

LOCAL = ("::1", 8853, 0, 0)


async def recorded(folder: Path, *clients: tuple[Plane, Unverified]) -> list[dict[str, object]]:
    metrics = Metrics()
    file = folder / "audit.jsonl"
    numbers = itertools.count()
    audit = Audit(
        AuditSettings(str(file)),
        Limits(),
        metrics,
        time.time,
        lambda octets: next(numbers).to_bytes(octets),
    )
    audit.start()
    record = recorder(audit, lambda: 5)
    for plane, client in clients:
        record(plane, "[::1]:8853", client)
    await audit.close()
    return [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]


async def test_says_who_came_where_and_what_was_wrong(tmp_path: Path) -> None:
    client = Unverified(("::1", 4711, 0, 0), LOCAL, "certificate has expired")
    (line,) = await recorded(tmp_path, (Plane.DNS, client))
    told = {key: value for key, value in line.items() if key not in {"time", "id"}}
    assert told == {
        "flow": "",
        "app": "unknown",
        "evidence": ["certificate"],
        "plane": "dns",
        "fact": None,
        "verdict": "deny",
        "reason": "identity-unknown",
        "rule": None,
        "generation": 5,
        "count": 1,
        "target": "[::1]:8853: certificate has expired",
        "peer": "[::1]:4711",
    }


async def test_a_flood_of_certificates_is_one_line_for_each_way_to_fail(tmp_path: Path) -> None:
    """threats.md, "Evidence as a weapon": nobody rolls the history out with handshakes."""
    clients = [
        (Plane.HTTP, Unverified(("127.0.0.1", port), LOCAL, text))
        for port in range(1, 501)
        for text in ("certificate has expired", "invalid CA certificate")
    ]
    lines = await recorded(tmp_path, *clients)
    assert sorted(str(line["count"]) for line in lines) == ["500", "500"]
