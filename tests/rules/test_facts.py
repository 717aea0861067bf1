"""Facts are values: equal when they ask the same, and never changed."""

import pytest

from rules.facts import UNKNOWN_APP, Attestation, Evidence, Level, Principal, Question
from rules.name import parse
from rules.rtype import A
from tests.rules.written import connect, endpoint, question, request


def test_evidence_is_listed_strongest_first() -> None:
    assert [str(one) for one in Evidence] == [
        "lease",
        "certificate",
        "token",
        "listener",
        "process",
    ]


def test_facts_that_ask_the_same_are_one_key() -> None:
    assert len({question("A.org"), question("a.org."), question("a.org", 28)}) == 2
    assert len({connect("a.org"), connect("a.org", 443), request("a.org")}) == 2


def test_a_fact_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        question("a.org").name = parse("b.org")  # type: ignore[misc]  # that is the test


def test_a_stronger_attestation_is_greater() -> None:
    assert Level.SOFTWARE < Level.LAUNCHED < Level.TPM


def test_who_was_attested_otherwise_asks_something_else() -> None:
    """A decision is kept by its facts: what lapses must make new ones."""
    proven = [Principal("me", (), (Attestation(Level.TPM, age_s),)) for age_s in (60, 60, 300)]
    assert len({connect("a.org", who=who) for who in proven}) == 2


def test_what_is_not_known_is_absent() -> None:
    principal = Principal(UNKNOWN_APP)
    assert (principal.evidence, principal.attested) == ((), ())
    assert Question(principal, parse("a.org"), A).via is None
    assert not endpoint("a.org", "8.8.8.8").own_listener
    assert not endpoint("a.org", "8.8.8.8").own_interface
