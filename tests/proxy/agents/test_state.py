"""The states of agents: the whole table."""

import pytest

from proxy.agents.state import MISSED, State, state_of

EVERY_S = 30.0
LATE_S = MISSED * EVERY_S


@pytest.mark.parametrize(
    ("is_proven", "heard_s", "state"),
    [
        (True, 0.0, State.VALID),
        (True, LATE_S, State.VALID),
        (True, LATE_S + 1, State.STALE),
        (True, None, State.VALID),
        (False, 0.0, State.STALE),
        (False, LATE_S + 1, State.SILENT),
        (False, None, State.SILENT),
    ],
)
def test_it_is_by_attestation_and_heartbeats(
    is_proven: bool, heard_s: float | None, state: State
) -> None:
    found = state_of(is_revoked=False, is_proven=is_proven, heard_s=heard_s, every_s=EVERY_S)
    assert found is state
    found = state_of(is_revoked=True, is_proven=is_proven, heard_s=heard_s, every_s=EVERY_S)
    assert found is State.REVOKED
