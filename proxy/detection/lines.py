"""Audit lines of what was found in an app's look-ups: the plane is control, the app the asker."""

from collections.abc import Callable, Mapping

from msgspec import Struct

from proxy.audit import Audit, Line
from proxy.flow import Plane, new_id
from rules.decision import Reason, Verdict

SAMPLES = 8  # names or addresses in a line; as many as `rules.flux` gives
_ENTROPY_OCTETS = 10


class Told(Struct, frozen=True):
    """What a line says: `change` of `target` for `app`, by `rule`; `detail` are the numbers."""

    app: str
    target: str
    change: str
    rule: str
    detail: Mapping[str, object]
    verdict: Verdict = Verdict.ALLOW
    reason: Reason = Reason.LOCAL


class Lines:
    """Writes them; `wall` is Unix time in seconds, `generation` that of the rules in force."""

    def __init__(
        self,
        audit: Audit,
        generation: Callable[[], int],
        wall: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._audit = audit
        self._generation = generation
        self._wall = wall
        self._entropy = entropy

    def write(self, told: Told) -> str:
        """Write a line that folds with no other; return its id."""
        unique = new_id(self._wall(), self._entropy(_ENTROPY_OCTETS))
        line = Line(
            flow=unique,
            app=told.app,
            evidence=(),
            plane=Plane.CONTROL,
            fact=None,
            verdict=told.verdict,
            reason=told.reason,
            rule=told.rule,
            generation=self._generation(),
            target=told.target,
            detail={"change": told.change, **told.detail},
        )
        return self._audit.write(line, unique)
