"""The policy enforcement point: every decision of both planes passes here, and only here.

Facts go to `rules.decide`; the decision is counted, and an allow stands only while audit has
room for the line that will prove it.  The planes carry the decision out and then `record` it.
"""

import logging

from proxy.advice import advise
from proxy.audit import Audit, Line
from proxy.flow import Flow
from proxy.metrics import Metrics
from proxy.refusals import Refusal, Refusals
from proxy.target import describe
from rules.decide import decide
from rules.decision import Decision, Reason, Verdict
from rules.facts import Connect, Endpoint, Facts, Question, Request
from rules.match import RuleIndex

logger = logging.getLogger(__name__)

_FACT: dict[type, str] = {
    Question: "question",
    Connect: "connect",
    Endpoint: "endpoint",
    Request: "request",
}
_BUG = Decision(Verdict.DENY, Reason.INTERNAL_ERROR)


class Authorizer:
    """Decides, counts and records, against one generation of rules at a time."""

    def __init__(
        self, index: RuleIndex, audit: Audit, refusals: Refusals, metrics: Metrics
    ) -> None:
        self._index = index
        self._audit = audit
        self._refusals = refusals
        self._decisions = metrics.decisions

    @property
    def generation(self) -> int:
        """The generation that decisions are made under now."""
        return self._index.generation

    def use(self, index: RuleIndex) -> None:
        """Decide by `index` from now on; one assignment, so no decision sees half of it."""
        self._index = index

    def authorize(self, flow: Flow, facts: Facts) -> Decision:
        """Decide and count.  Never raises: what cannot be decided is denied."""
        try:
            decision = decide(self._index, facts)
            if decision.verdict is Verdict.ALLOW:
                full = self._audit.admits(flow.principal.app)
                if full is not None:
                    decision = Decision(Verdict.DENY, full)
        except Exception:
            logger.exception("no decision for %r", facts)
            decision = _BUG
        self._decisions.add(_FACT[type(facts)], decision.verdict, decision.reason)
        return decision

    def fails(self, reason: Reason, text: str = "") -> Decision:
        """Return the outcome of something that was allowed and did not work."""
        return Decision(Verdict.FAIL, reason, text=text)

    def record(
        self,
        flow: Flow,
        facts: Facts,
        decision: Decision,
        *,
        id: str | None = None,  # noqa: A002 - the audit field's own name
        **detail: object,
    ) -> str:
        """Write the audit line of `decision`; remember a refusal for `why`.  Returns its id."""
        target, described = describe(facts)
        principal = flow.principal
        line = Line(
            flow=flow.id,
            app=principal.app,
            evidence=principal.evidence,
            plane=flow.plane,
            fact=_FACT[type(facts)],
            verdict=decision.verdict,
            reason=decision.reason,
            rule=decision.rule,
            generation=self._index.generation,
            target=target,
            detail=described | detail,
        )
        recorded = self._audit.write(line, id)
        if decision.verdict is not Verdict.ALLOW:
            self._remember(flow, decision, target, recorded)
        return recorded

    def _remember(self, flow: Flow, decision: Decision, target: str, recorded: str) -> None:
        app = flow.principal.app
        refusal = Refusal(
            id=recorded,
            app=app,
            plane=flow.plane,
            reason=decision.reason,
            target=target,
            how=advise(decision, app),
            rule=decision.rule,
            time=self._audit.now(),
        )
        self._refusals.remember(app, recorded, refusal)
