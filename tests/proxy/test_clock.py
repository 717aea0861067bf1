"""The wall clock is set: an hour or a year, forward or back, while we run.

Caches, pins, time limits and reloads go by the monotonic clock, which nobody sets.  What goes by
the wall clock is given one that jumps.
"""

import os
from pathlib import Path

import msgspec
import pytest

from proxy.audit import Audit, AuditSettings
from proxy.flow import new_id
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.tokens.known import Token, Tokens, digest
from rules.decision import Reason
from tests.proxy.lines import Clock, line

HOUR_S, YEAR_S = 3600.0, 31_557_600.0
JUMPS = [HOUR_S, -HOUR_S, YEAR_S, -YEAR_S]


@pytest.mark.parametrize("jump_s", JUMPS)
async def test_evidence_goes_on_in_order(tmp_path: Path, jump_s: float) -> None:
    """threats.md, "Evidence as a weapon": clock jumps."""
    clock, metrics, file = Clock(), Metrics(), tmp_path / "audit.jsonl"
    audit = Audit(AuditSettings(str(file), 2048, 16), Limits(), metrics, clock, os.urandom)
    audit.start()
    ids = []
    for number in range(40):
        ids.append(audit.write(line(f"n{number}.example A")))
        if number == 20:
            clock.now += jump_s
            assert audit.admits("coder") is None
        clock.now += 1.0
        audit.flush(clock.now)
    await audit.close()
    files = sorted(tmp_path.glob("audit*.jsonl"))
    assert len(files) > 1  # rotation goes by size
    written = {
        msgspec.json.decode(each)["id"] for one in files for each in one.read_bytes().splitlines()
    }
    assert written == set(ids)
    assert len(written) == len(ids)
    assert metrics.audit_lines.value("dropped") == 0


@pytest.mark.parametrize("jump_s", JUMPS)
def test_ids_stay_unique_and_of_their_version(jump_s: float) -> None:
    """RFC 9562, section 5.7: the random part keeps ids apart where the time returns."""
    now = 1_790_000_000.0
    ids = [new_id(now + at, os.urandom(10)) for at in (0.0, jump_s, 0.0, 0.0)]
    assert len(set(ids)) == 4
    assert {each[12] for each in ids} == {"7"}


@pytest.mark.parametrize("jump_s", [HOUR_S, YEAR_S])
def test_a_token_ends_with_the_clock_and_returns_with_it(jump_s: float) -> None:
    """threats.md, "Parser, transport, cache": clock jumps."""
    clock = Clock()
    tokens = Tokens(clock)
    voided: list[Token] = []
    tokens.on_void(voided.append)
    kept = Token(id="coder.1", name="coder", created=clock.now, expires=clock.now + 600)
    tokens.use({digest("secret"): kept}, clock.now)
    clock.now += jump_s
    tokens.look(clock.now)
    assert tokens.find("secret", clock.now) is Reason.IDENTITY_UNKNOWN
    assert voided == [kept]  # what it opened is cut
    clock.now -= 2 * jump_s
    tokens.look(clock.now)
    assert tokens.find("secret", clock.now) == kept
    assert tokens.any_for_apps
