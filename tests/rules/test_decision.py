"""A decision is a verdict with a reason of one closed list."""

import re

import pytest

from rules.decision import Decision, PeekTls, Reason, Refuse, UpgradeTls, Verdict, upgraded_port


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


@pytest.mark.parametrize(("asked", "dialled"), [(80, 443), (443, 443), (8080, 8080), (1, 1)])
def test_an_upgrade_dials_443_for_80_and_any_other_port_as_it_is(asked: int, dialled: int) -> None:
    assert upgraded_port(asked) == dialled


def test_an_upgrade_presents_nothing_by_itself() -> None:
    assert UpgradeTls().certificate is None
