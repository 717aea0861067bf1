"""Results for tests, each with a token that is its id."""

from hashlib import sha256
from typing import Any

from proxy.attested.binding import Binding, Kind
from proxy.attested.known import Attestations
from proxy.attested.result import Result
from proxy.limits import Limits
from rules.facts import Level

NOW = 1_000_000.0
TTL_S = 300.0
KEY = Binding(Kind.KEY, "aa" * 32)
OTHER = Binding(Kind.KEY, "bb" * 32)


def result(unique: str, **changed: Any) -> Result:
    at = changed.get("at", NOW)
    known: dict[str, Any] = {
        "token_sha256": sha256(unique.encode()).hexdigest(),
        "binding": KEY,
        "app": "coder",
        "spiffe_id": "spiffe://sallyport.internal/coder",
        "level": Level.SOFTWARE,
        "attester": "cc" * 32,
        "at": at,
        "expires": at + TTL_S,
        "thumbprint": "dd" * 32,
        "serial": "1a2b",
    }
    return Result(unique, **{**known, **changed})


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Table:
    """Attestations with a clock, what was told of them and which bounds were met."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.clock = Clock()
        self.bounds: list[str] = []
        self.told: list[tuple[str, ...]] = []
        self.monotonic = Clock(0.0)
        self.known = Attestations(
            limits or Limits(), self.clock, self.bounds.append, self.monotonic
        )
        self.voids: list[bool] = []
        self.known.on_void(self._hear)
        self.known.use({"coder": (60, 300), "other": (60, 300)})

    def _hear(self, results: tuple[Result, ...], *, is_void: bool) -> None:
        self.told.append(tuple(each.id for each in results))
        self.voids.append(is_void)

    def at(self, seconds: float) -> None:
        """Let it be so many seconds after NOW, as the tick of each second sees it."""
        self.clock.now = NOW + seconds
        self.known.look(self.clock.now)
