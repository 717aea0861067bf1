"""The policy enforcement point: every decision of both planes passes here, and only here.

Facts go to `rules.decide`; the decision is counted, and an allow stands only while audit has
room for the line that will prove it.  The planes carry the decision out and then `record` it.
Of an app that was revoked everything is refused, before any rule is asked (decision 0030), and so
is what is held because it leaked.  A registered secret in a name is refused whatever the rules say.
"""

import logging
from collections.abc import Mapping
from types import MappingProxyType

from proxy.advice import advise
from proxy.audit import Audit, Line
from proxy.audit_fold import Repeats
from proxy.audit_line import rfc3339
from proxy.certificates.revoked import Revocation
from proxy.flow import Flow
from proxy.held import Held
from proxy.leak import NO_LEAKS, Leaks
from proxy.metrics import Metrics
from proxy.refusals import Refusal, Refusals
from proxy.target import describe
from rules.beneath import Beneath, beneath
from rules.decide import decide
from rules.decision import Decision, Reason, Verdict
from rules.facts import UNKNOWN_APP, Connect, Endpoint, Facts, Question, Request
from rules.listing import listed_server
from rules.match import RuleIndex, index_app
from rules.name import DomainName
from rules.ruleset import App
from rules.siblings import Siblings, siblings
from rules.suffix import PublicSuffixes

logger = logging.getLogger(__name__)

_FACT: dict[type, str] = {
    Question: "question",
    Connect: "connect",
    Endpoint: "endpoint",
    Request: "request",
}
_BUG = Decision(Verdict.DENY, Reason.INTERNAL_ERROR)
_REVOKED = Decision(Verdict.DENY, Reason.REVOKED)
_SECRET = "secret:"  # noqa: S105 - how such rules begin
_LEAK = "a registered secret stands in the name"
_NO_RULES = index_app(App(UNKNOWN_APP))
_NOBODY: Mapping[str, Revocation] = MappingProxyType({})
_MOST_KNOWN = 4096  # Connects and Requests that were allowed; as many as an app may have pins
_PATH_CHARACTERS = 256  # longer paths are rare, and decided each time


class Authorizer:
    """Decides, counts and records, against one generation of rules at a time.

    `revoked` are the apps that count for nothing.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the composition root hands every part in
        self,
        index: RuleIndex,
        audit: Audit,
        refusals: Refusals,
        metrics: Metrics,
        revoked: Mapping[str, Revocation] = _NOBODY,
        held: Held | None = None,
        leaks: Leaks = NO_LEAKS,
    ) -> None:
        self._index = index
        self._held = Held() if held is None else held
        self._leaks = leaks
        self._revoked = revoked
        self._audit = audit
        self._refusals = refusals
        self._decisions = metrics.decisions
        self._app_decisions = metrics.app_decisions
        self._known: dict[Facts, Decision] = {}

    @property
    def generation(self) -> int:
        """The generation that decisions are made under now."""
        return self._index.generation

    def use(self, index: RuleIndex, revoked: Mapping[str, Revocation] | None = None) -> None:
        """Decide by `index` from now on; no decision sees half of it.

        `revoked` are the apps that count for nothing, None: those that did before.  Others than
        before need another generation: all that is remembered was decided under the last one.
        """
        if revoked is not None and revoked.keys() != self._revoked.keys():
            assert index.generation != self._index.generation, "a generation of its own"  # noqa: S101 - see above
        self._revoked = self._revoked if revoked is None else revoked
        self._index = index
        self._known = {}

    def revocation(self, app: str) -> Decision | None:
        """Return the refusal of everything that `app` has open; None while it is not revoked."""
        return _REVOKED if app in self._revoked else None

    def authorize(self, flow: Flow, facts: Facts) -> Decision:
        """Decide and count.  Never raises: what cannot be decided is denied."""
        try:
            decision = self._decide(facts)
            if self._leaks:
                decision = self._leaked(facts) or decision
            if decision.verdict is Verdict.ALLOW:
                full = self._audit.admits(flow.principal.app)
                if full is not None:
                    decision = Decision(Verdict.DENY, full)
        except Exception:
            logger.exception("no decision for %r", facts)
            decision = _BUG
        self._count(_FACT[type(facts)], flow.principal.app, decision, 1)
        return decision

    def server(self, question: Question, server: DomainName) -> Decision | None:
        """Return why an answer to `question` from the zone of this name server is refused.

        None: no list names the server.  Never raises, as `authorize`; a refusal is counted.
        """
        try:
            app = self._index.apps.get(question.principal.app, _NO_RULES)
            refusal = listed_server(self._index.lists, app.app, server, question.name)
        except Exception:
            logger.exception("no decision on the name server %r", server)
            refusal = _BUG
        if refusal is not None:
            self._count("question", question.principal.app, refusal, 1)
        return refusal

    def repeated(self, app: str, decision: Decision, counted: int) -> None:
        """Count so many Questions of `app` that got the same `decision` again (`Repeats`)."""
        self._count("question", app, decision, counted)

    def siblings(
        self, suffixes: PublicSuffixes, question: Question, decision: Decision
    ) -> Siblings | None:
        """Return which names beside that of `question` have its `decision` under these rules.

        None while secrets are registered: then every name is looked at.
        """
        if self._leaks:
            return None
        return siblings(self._index, suffixes, question, decision)

    def beneath(
        self, suffixes: PublicSuffixes, question: Question, decision: Decision
    ) -> Beneath | None:
        """Return in which trees of names every name has the `decision` on `question`, as above."""
        if self._leaks:
            return None
        return beneath(self._index, suffixes, question, decision)

    def has_room(self, app: str) -> bool:
        """Return whether audit has room for what is allowed to `app`."""
        return self._audit.has_room(app)

    def _count(self, fact: str, app: str, decision: Decision, n: int) -> None:
        self._decisions.add(fact, decision.verdict, decision.reason, n=n)
        self._app_decisions.add(app, decision.verdict, decision.reason, n=n)

    def _decide(self, facts: Facts) -> Decision:
        """Decide, or repeat what was said to the same facts under the same rules.

        A decision is a function of index and facts.  Of refusals nothing is kept, so that an
        agent that tries names cannot push out what is in use.
        """
        if facts.principal.app in self._revoked:
            return _REVOKED
        if self._held:
            held = self._held.refusal(facts.principal.app, _name_of(facts))
            if held is not None:
                return held
        if isinstance(facts, Request):
            if len(facts.path) > _PATH_CHARACTERS:
                return decide(self._index, facts)
        elif not isinstance(facts, Connect):
            return decide(self._index, facts)
        known = self._known.get(facts)
        if known is not None:
            return known
        decision = decide(self._index, facts)
        if decision.verdict is Verdict.ALLOW:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[facts] = decision
        return decision

    def _leaked(self, facts: Facts) -> Decision | None:
        """Return the refusal of a name that gives a secret away; a chain's target is no asker's."""
        is_asked = facts.via is None if isinstance(facts, Question) else isinstance(facts, Connect)
        name = _name_of(facts) if is_asked else None
        leak = None if name is None else self._leaks.found(facts.principal.app, name)
        if leak is None:
            return None
        return Decision(Verdict.DENY, Reason.TUNNEL_DETECTED, f"{_SECRET}{leak.secret}", text=_LEAK)

    def still(self, facts: Facts) -> Decision:
        """Decide for a flow that is open already: neither counted, nor a matter of audit's room."""
        try:
            return self._decide(facts)
        except Exception:
            logger.exception("no decision for %r", facts)
            return _BUG

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
        repeats: Repeats | None = None,
        target: str | None = None,
        **detail: object,
    ) -> str:
        """Write the audit line of `decision`; remember a refusal for `why`.  Returns its id.

        `target` is told where no fact could be made of a request that was read; `repeats` counts
        the same decision on the same facts for as long as it says (`left_s`).
        """
        if decision.rule is not None and decision.rule.startswith(_SECRET):
            facts = self._leaks.redacted(facts)
        if target is not None and self._leaks:  # as it was sent: no name was asked for
            target = self._leaks.purged(target)
            detail = {key: self._purged(value) for key, value in detail.items()}
        target, described = describe(facts) if target is None else (target, {})
        principal = flow.principal
        if decision.reason is Reason.REVOKED:
            described = described | self._since(principal.app)
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
        recorded = self._audit.write(line, id, repeats)
        if decision.verdict is not Verdict.ALLOW:
            self._remember(flow, decision, target, recorded)
        return recorded

    def _purged(self, value: object) -> object:
        return self._leaks.purged(value) if isinstance(value, str) else value

    def _since(self, app: str) -> dict[str, object]:
        revocation = self._revoked.get(app)
        return {} if revocation is None else {"revoked_at": rfc3339(revocation.at)}

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


def _name_of(facts: Facts) -> DomainName | None:
    """Return the name that is asked for; None of a literal."""
    if isinstance(facts, Question | Endpoint):
        return facts.name
    return facts.host if isinstance(facts.host, str) else None
