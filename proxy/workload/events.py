"""What the issuer tells of itself, as audit lines and counts: nothing else of it is written."""

from collections.abc import Callable

from msgspec import Struct

from proxy.audit import Audit, Line
from proxy.channel import Event
from proxy.flow import Plane, new_id
from proxy.limits import Limits
from proxy.metrics import EnrolmentWay, Metrics, SvidKind, SvidOutcome
from rules.decision import Reason, Verdict
from rules.facts import Evidence

OURSELVES = "sallyport"  # stands as the app of a line about nobody's request
_ENTROPY_OCTETS = 10
_MOST_SAID = 16  # entries of a detail, each of `audit_target_characters` at most
_EVIDENCE = {"join": (Evidence.TOKEN,), "reenroll": (Evidence.CERTIFICATE,)}
_OF_CALLERS = frozenset({"issued", "issued-jwt", "refused"})
_NO_CALLERS = frozenset({"join", "oidc", "reenroll", "sign"})
_WAYS: dict[str, EnrolmentWay] = {"join": "join", "oidc": "oidc", "reenroll": "reenroll"}
_KINDS: dict[str, SvidKind] = {"issued": "x509", "issued-jwt": "jwt", "refused": "x509"}
_LIMITS = frozenset(Limits.__struct_fields__)
_REASONS = {str(each): each for each in Reason}


class Clock(Struct, frozen=True):
    """`wall` returns Unix time in seconds, `entropy(n)` n random octets."""

    wall: Callable[[], float]
    entropy: Callable[[int], bytes]

    def new_id(self) -> str:
        """Return the id of a line."""
        return new_id(self.wall(), self.entropy(_ENTROPY_OCTETS))


class Events:
    """Writes and counts them."""

    def __init__(self, audit: Audit, metrics: Metrics, limits: Limits, clock: Clock) -> None:
        self._audit = audit
        self._metrics = metrics
        self._limits = limits
        self._clock = clock
        self.generation = 0
        """Of the rules in force."""

    def take(self, event: Event) -> None:
        """Count `event`, and write its line.

        A `change` of `bound` says that the issuer met the limit `target`; it is counted alone.
        """
        if event.change == "bound":
            times = event.detail.get("count", 1)
            if event.target in _LIMITS and isinstance(times, int):
                self._metrics.bounds.add(event.target, n=times)
            return
        self._count(event)
        line = Line(
            flow=(unique := self._clock.new_id()),
            app=event.app or OURSELVES,
            evidence=_evidence(event),
            plane=Plane.CONTROL,
            fact=None,
            verdict=Verdict.ALLOW if event.allowed else Verdict.DENY,
            reason=_REASONS.get(event.reason, Reason.LOCAL),
            rule=None,
            generation=self.generation,
            target=event.target,
            detail={"change": event.change, **self._cut(event.detail)},
        )
        # One that succeeded is a fact of its own; refusals fold, so that a workload that asks
        # without end fills no disk.
        self._audit.write(line, unique if event.allowed else None)

    def _count(self, event: Event) -> None:
        outcome: SvidOutcome = "issued" if event.allowed else "refused"
        how = _how(event)
        kind = _KINDS.get(event.change)
        if event.change == "enrolled" or (not event.allowed and how in _WAYS):
            self._metrics.enrolments.add(_WAYS.get(how, "other"), outcome)
        elif kind is not None:
            self._metrics.svids.add(kind, outcome)

    def _cut(self, detail: dict[str, str | int]) -> dict[str, object]:
        most = self._limits.audit_target_characters
        some = list(detail.items())[:_MOST_SAID]
        return {key: each[:most] if isinstance(each, str) else each for key, each in some}


def _how(event: Event) -> str:
    return str(event.detail.get("how", ""))


def _evidence(event: Event) -> tuple[Evidence, ...]:
    """Return what named the app of `event`: of a refused enrolment, nothing did."""
    how = _how(event)
    if how in _EVIDENCE:
        return _EVIDENCE[how] if event.allowed else ()
    is_of_caller = event.change in _OF_CALLERS and how not in _NO_CALLERS
    return (Evidence.PROCESS,) if is_of_caller and event.app else ()
