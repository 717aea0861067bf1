"""A refusal has a status, a reason and a cure; a failure of ours is no denial."""

import json

import pytest

from proxy.agent_api.asked import Asked, Caller
from proxy.flow import Plane
from proxy.verifier.parts import Outcome, RefusedError
from proxy.verifier.refusing import (
    answer_of,
    failed,
    limited,
    malformed,
    stale,
    unavailable,
    verdict_of,
)
from rules.decision import Reason, Verdict
from rules.facts import Principal

ASKED = Asked("POST", "/attest", Caller(Principal("coder"), Plane.HTTP, "l"))


@pytest.mark.parametrize(
    ("refusal", "status", "verdict"),
    [
        (malformed("it is none"), 400, Verdict.DENY),
        (limited("too often"), 429, Verdict.DENY),
        (unavailable("not now"), 503, Verdict.FAIL),
        (unavailable("full", Reason.CAPACITY), 503, Verdict.FAIL),
        (stale(60.0), 403, Verdict.DENY),
        (failed("no", "try"), 403, Verdict.DENY),
        (RefusedError(Outcome.CHANGED, Reason.REVOKED, "no", "x", "a"), 403, Verdict.DENY),
    ],
)
def test_a_refusal_says_why_and_what_to_do(
    refusal: RefusedError, status: int, verdict: Verdict
) -> None:
    answer = answer_of(ASKED, refusal)
    said = json.loads(answer.content)
    assert (answer.status, said["reason"]) == (status, refusal.reason)
    assert said["how"]
    assert verdict_of(refusal) is verdict
    assert ((b"retry-after", b"1") in answer.fields) == (status in {429, 503})
