"""Refusals of the verifier, as the agent and audit are told of them."""

from proxy.agent_api.asked import Answer, Asked, ProblemError
from proxy.agent_api.refused import refused
from proxy.verifier.parts import Outcome, Parts, RefusedError, StaleError
from rules.decision import Reason, Verdict

_STATUS = {
    Outcome.MALFORMED: 400,
    Outcome.LIMITED: 429,
    Outcome.UNAVAILABLE: 503,
}
_FORBIDDEN = 403
_RETRY = ((b"retry-after", b"1"),)  # RFC 9110, section 10.2.3: seconds
_SOON = frozenset({Outcome.LIMITED, Outcome.UNAVAILABLE})


def answer_of(asked: Asked, refusal: RefusedError) -> Answer:
    """Return a refusal as an answer."""
    outcome = refusal.outcome
    status = _STATUS.get(outcome, _FORBIDDEN)
    error = ProblemError(status, refusal.reason, str(refusal), refusal.how)
    return refused(asked, error, _RETRY if outcome in _SOON else ())


def verdict_of(refusal: RefusedError) -> Verdict:
    """Return what audit calls it: a failure of ours is no denial."""
    return Verdict.FAIL if refusal.outcome is Outcome.UNAVAILABLE else Verdict.DENY


def malformed(text: str) -> RefusedError:
    """Return what to raise for a request that is none."""
    how = "docs/attestation.md shows what is sent; GET /openapi.json describes it"
    return RefusedError(Outcome.MALFORMED, Reason.REQUEST_MALFORMED, text, how)


def limited(text: str) -> RefusedError:
    """Return what to raise where somebody asks faster than he may."""
    return RefusedError(Outcome.LIMITED, Reason.RATE, text, "try again in a second")


def unavailable(text: str, reason: Reason = Reason.INTERNAL_ERROR) -> RefusedError:
    """Return what to raise where we cannot; the admin sees why in `sallyport status`."""
    return RefusedError(Outcome.UNAVAILABLE, reason, text, "try again in a second")


def stale(seconds: float) -> RefusedError:
    """Return what to raise for a nonce that does not count."""
    text = f"the nonce was used, is older than {seconds:g} s, or was not given on this connection"
    how = "ask POST /attest/nonce for another, on a connection with the same key"
    return StaleError(Outcome.FAILED, Reason.ATTESTATION_REQUIRED, text, how)


def failed(text: str, how: str) -> RefusedError:
    """Return what to raise for evidence that proves nothing."""
    return RefusedError(Outcome.FAILED, Reason.ATTESTATION_REQUIRED, text, how)


def check_audit(parts: Parts, app: str) -> None:
    """Raise where no line could be written of what is asked: then it does not happen."""
    barred = parts.admits(app)
    if barred is not None:
        raise unavailable("nothing can be recorded of this app now", barred)
