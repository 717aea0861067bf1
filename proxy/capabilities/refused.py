"""Why there is no token: what the agent is told, and what audit and metrics are."""

from proxy.agent_api.asked import OAuthError
from proxy.metrics import ExchangeOutcome
from rules.decision import Reason

INVALID_REQUEST = "invalid_request"
INVALID_TARGET = "invalid_target"
INVALID_SCOPE = "invalid_scope"
INVALID_CLIENT = "invalid_client"
UNAVAILABLE = "temporarily_unavailable"  # RFC 6749, section 4.1.2.1; with the status 503
_UNAVAILABLE = 503


class RefusedError(OAuthError):
    """No token: `outcome` is for metrics, `reason` for audit."""

    def __init__(
        self, error: str, text: str, outcome: ExchangeOutcome, reason: Reason, status: int = 400
    ) -> None:
        super().__init__(error, text, status)
        self.outcome: ExchangeOutcome = outcome
        self.reason = reason


def unidentified() -> RefusedError:
    """Return what is said where nothing holds a token to who asks."""
    text = "a plain port holds nothing to you: come over TLS with your certificate, or from a lease"
    return RefusedError(INVALID_CLIENT, text, "unidentified", Reason.IDENTITY_UNKNOWN)


def unproven(text: str, reason: Reason = Reason.ATTESTATION_REQUIRED) -> RefusedError:
    """Return what is said of a token that is not what it must be.

    RFC 8693, section 2.2.2: of a subject or actor token that is invalid or unacceptable "the value
    of the error parameter MUST be the invalid_request error code".
    """
    return RefusedError(INVALID_REQUEST, text, "unproven", reason)


def ungranted(error: str, text: str) -> RefusedError:
    """Return what is said where the rules do not grant it."""
    return RefusedError(error, text, "ungranted", Reason.RULE)


def unavailable(text: str, outcome: ExchangeOutcome, reason: Reason) -> RefusedError:
    """Return what is said where it may be granted a little later."""
    return RefusedError(UNAVAILABLE, text, outcome, reason, _UNAVAILABLE)
