"""The errors of the token endpoint: the closed lists of the RFCs."""

from proxy.capabilities import refused
from rules.decision import Reason


def test_each_refusal_has_an_error_of_oauth_an_outcome_and_a_reason() -> None:
    made = [
        refused.unidentified(),
        refused.unproven("x"),
        refused.unproven("x", Reason.REVOKED),
        refused.ungranted(refused.INVALID_SCOPE, "x"),
        refused.unavailable("x", "full", Reason.CAPACITY),
    ]
    assert [(each.error, each.outcome, each.reason, each.status) for each in made] == [
        ("invalid_client", "unidentified", Reason.IDENTITY_UNKNOWN, 400),
        ("invalid_request", "unproven", Reason.ATTESTATION_REQUIRED, 400),
        ("invalid_request", "unproven", Reason.REVOKED, 400),
        ("invalid_scope", "ungranted", Reason.RULE, 400),
        ("temporarily_unavailable", "full", Reason.CAPACITY, 503),
    ]
