"""The seam to who looks for secrets."""

from proxy.leak import NO_LEAKS
from rules.facts import Principal, Question
from rules.name import parse
from rules.rtype import A


def test_where_nothing_is_registered_nothing_is_found() -> None:
    assert not NO_LEAKS
    assert NO_LEAKS.found("me", "a.example") is None


def test_where_nothing_is_registered_facts_are_written_down_as_they_are() -> None:
    fact = Question(Principal("me"), parse("a.example"), A)
    assert NO_LEAKS.redacted(fact) is fact
    assert NO_LEAKS.purged("text") == "text"
