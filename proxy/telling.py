"""Audit lines of what agents do at their API: attest, exchange, revoke; of the plane control."""

from collections.abc import Callable, Mapping

from proxy.audit import Audit, Line
from proxy.flow import Plane, new_id
from proxy.limits import Limits
from rules.decision import Reason, Verdict

_ENTROPY_OCTETS = 10


class Telling:
    """Writes them; `wall` is Unix time in seconds, `generation` that of the rules in force."""

    def __init__(
        self,
        audit: Audit,
        generation: Callable[[], int],
        limits: Limits,
        wall: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._audit = audit
        self._generation = generation
        self._limits = limits
        self._wall = wall
        self._entropy = entropy

    def record(
        self,
        app: str,
        change: str,
        verdict: Verdict,
        reason: Reason,
        target: str,
        detail: Mapping[str, object],
    ) -> str:
        """Write the line of a `change` of `target`; return its id."""
        unique = new_id(self._wall(), self._entropy(_ENTROPY_OCTETS))
        line = Line(
            flow=unique,
            app=app,
            evidence=(),
            plane=Plane.CONTROL,
            fact=None,
            verdict=verdict,
            reason=reason,
            rule=None,
            generation=self._generation(),
            target=target[: self._limits.audit_target_characters],
            detail={"change": change, **self._cut(detail)},
        )
        # What was done is a fact of its own; refusals fold, so that one who tries fills no disk.
        return self._audit.write(line, unique if verdict is Verdict.ALLOW else None)

    def admits(self, app: str) -> Reason | None:
        """Return why no line of `app` can be written now; None: one can."""
        return self._audit.admits(app)

    def _cut(self, detail: Mapping[str, object]) -> dict[str, object]:
        most = self._limits.audit_target_characters
        return {
            key: value[:most] if isinstance(value, str) else value for key, value in detail.items()
        }
