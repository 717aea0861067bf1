"""A decision is a verdict with a reason of one closed list."""

import re

from rules.decision import Decision, PeekTls, Reason, Refuse, Verdict


def test_verdicts_and_reasons_are_the_words_of_the_reference() -> None:
    assert [str(verdict) for verdict in Verdict] == ["allow", "deny", "fail"]
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", reason) for reason in Reason)
    assert len(Reason) == len({reason.value for reason in Reason})


def test_a_decision_says_no_more_than_it_was_given() -> None:
    decision = Decision(Verdict.DENY, Reason.HOST_NOT_LISTED)
    assert decision.rule is None
    assert decision.obligations == ()
    assert decision.text == ""
    assert decision.refuse is Refuse.NXDOMAIN
    assert not decision.empty


def test_encrypted_client_hello_is_cut_unless_accepted() -> None:
    assert not PeekTls().accept_ech
