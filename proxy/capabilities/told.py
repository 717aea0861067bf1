"""What audit and metrics are told of tokens; never a token."""

from collections.abc import Sequence

from proxy.agent_api.asked import Caller, OAuthError
from proxy.capabilities.parts import Parts
from proxy.capabilities.refused import RefusedError
from proxy.capabilities.token import CapabilityToken
from proxy.metrics import ExchangeOutcome
from rules.decision import Reason, Verdict

OURSELVES = "sallyport"
"""The app of a line about what nobody asked for, as in `proxy.control.routes`."""

_IDS = 16  # named in one line


class Told:
    """Writes the lines and counts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def exchanged(self, caller: Caller, token: CapabilityToken) -> None:
        """Tell of a new token."""
        self._parts.metrics.capability_exchanges.add("granted")
        detail = {
            "token": token.id,
            "scope": " ".join(token.scopes),
            "sub": token.subject.name,
            "actors": [each.name for each in token.parties[1:]],
            "level": token.least.name.lower(),
            "expires": token.expires,
            "granted_by": token.rule,
            "result": token.result,
            "parent": token.parent,
            "listener": caller.listener,
        }
        app, target = caller.principal.app, token.audience
        self._parts.record(app, "exchanged", Verdict.ALLOW, Reason.RULE, target, detail)

    def refused(self, caller: Caller, error: OAuthError, target: str) -> None:
        """Tell of an exchange that was refused."""
        reason = Reason.REQUEST_MALFORMED
        outcome: ExchangeOutcome = "malformed"
        if isinstance(error, RefusedError):
            reason, outcome = error.reason, error.outcome
        self._parts.metrics.capability_exchanges.add(outcome)
        detail = {"error": error.error, "text": str(error), "listener": caller.listener}
        app = caller.principal.app
        self._parts.record(app, "exchange-refused", Verdict.DENY, reason, target, detail)

    def introspected(self, *, active: bool) -> None:
        """Count an introspection: there may be one a request, and the exchange has its line."""
        self._parts.metrics.capability_introspections.add("active" if active else "inactive")

    def voided(self, tokens: Sequence[CapabilityToken], why: str, by: str | None = None) -> None:
        """Tell of tokens that count no more: the app `by` revoked them, None: we voided them."""
        if not tokens:
            return
        self._parts.metrics.capabilities_voided.add(n=len(tokens))
        change = "tokens-void" if by is None else "token-revoked"
        ids = [each.id for each in tokens[:_IDS]]
        detail = {"tokens": ids, "voided": len(tokens), "why": why}
        app, target = by or OURSELVES, tokens[0].audience
        self._parts.record(app, change, Verdict.ALLOW, Reason.LOCAL, target, detail)
