"""Refusals as problem details."""

import msgspec

from proxy.problem import STATUS, problem
from rules.decision import Reason

ID = "0192f3a47c5b7d2e8f00112233445566"


def test_every_reason_has_a_status() -> None:
    assert STATUS.keys() == set(Reason)
    assert {400, 403, 421, 429, 502, 503, 504} <= set(STATUS.values())


def test_a_problem_says_who_was_refused_what_and_why() -> None:
    found = msgspec.to_builtins(problem(Reason.RATE, ID, "me", "a.example:443", "retry"))
    assert found["reason"] == "rate"
    assert found["status"] == 429
    assert found["instance"] == "urn:uuid:0192f3a4-7c5b-7d2e-8f00-112233445566"
    assert found["detail"] == "a.example:443 was refused to me: rate"
    assert (found["app"], found["target"], found["how"]) == ("me", "a.example:443", "retry")
