"""How an agent is: by its attestation, its heartbeats, and what was revoked.

|                     | its heartbeats come, or it never sent one | they do not come any more |
| ------------------- | ----------------------------------------- | ------------------------- |
| its attestation stands | valid                                  | stale                     |
| it does not         | stale; silent where it never sent one     | silent                    |

Whatever else: revoked, where its app, SPIFFE ID or certificate is.
"""

from enum import StrEnum
from typing import Final, Literal

from msgspec import Struct

MISSED: Final = 3
"""How many heartbeats may fail to come; Kubernetes' nodes have four of 10 s."""

type Health = Literal["ok", "degraded", "failing"]


class State(StrEnum):
    """What is known of an agent, and not by its own words."""

    VALID = "valid"
    STALE = "stale"
    REVOKED = "revoked"
    SILENT = "silent"


def state_of(*, is_revoked: bool, is_proven: bool, heard_s: float | None, every_s: float) -> State:
    """Return the state of an agent whose last heartbeat was `heard_s` seconds ago; None: never."""
    if is_revoked:
        return State.REVOKED
    is_overdue = heard_s is not None and heard_s > MISSED * every_s
    if is_proven:
        return State.STALE if is_overdue else State.VALID
    return State.SILENT if is_overdue or heard_s is None else State.STALE


class Claimed(Struct, frozen=True):
    """What an agent says of itself, which nothing proves."""

    health: Health
    version: str
    detail: str


class AgentView(Struct, frozen=True, kw_only=True):
    """An agent as it is shown; ages are in seconds.

    `agent` is its SPIFFE ID, else its app and what its results are bound to.  `level` is the
    strongest that stands, `attested_s` the age of the newest result that does, `expires_s` what is
    left of the one that lasts longest; None without any.  `claimed` is of its last heartbeat.
    """

    agent: str
    app: str
    state: State
    level: str | None = None
    attested_s: float | None = None
    expires_s: float | None = None
    heartbeat_s: float | None = None
    claimed: Claimed | None = None
