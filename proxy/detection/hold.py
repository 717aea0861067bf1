"""A suffix that is held for an app, and what it was found by."""

from msgspec import Struct


class HeldSuffix(Struct, frozen=True):
    """Which suffix is held, since when (Unix time, seconds), and by which audit line.

    `rule` says what was counted and over which time; `evidence` and `samples` are as of then.
    """

    app: str
    suffix: str
    at: float
    id: str
    rule: str
    octets: int
    limit: int
    tier: str = ""
    evidence: dict[str, float] = {}
    samples: tuple[str, ...] = ()
