"""Requests to the API, and how they are refused."""

from proxy.agent_api.asked import ADMIN, OAuthError, ProblemError, encoded
from rules.decision import Reason


def test_a_value_is_json() -> None:
    answer = encoded({"a": 1}, 201)
    assert (answer.status, answer.content, answer.media_type) == (
        201,
        b'{"a":1}',
        "application/json",
    )


def test_an_admin_is_no_app() -> None:
    assert (ADMIN.app, ADMIN.evidence, ADMIN.attested) == ("", (), ())


def test_refusals_say_what_they_are() -> None:
    problem = ProblemError(403, Reason.REVOKED, "it is", "ask")
    assert (problem.status, problem.reason, problem.how, str(problem)) == (
        403, Reason.REVOKED, "ask", "it is",
    )  # fmt: skip
    oauth = OAuthError("invalid_scope", "none")
    assert (oauth.status, oauth.error, str(oauth)) == (400, "invalid_scope", "none")
