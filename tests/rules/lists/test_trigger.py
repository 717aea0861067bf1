"""What all formats share: names, addresses, and the count of what was skipped."""

import pytest

from rules.errors import Severity
from rules.lists.layout import Scope
from rules.lists.trigger import PROBLEMS, Skipped, Tally, as_network, read_name, read_subject
from rules.node import EXCERPT_CHARACTERS


def test_names_come_in_canonical_form() -> None:
    tally = Tally("a")
    for word, name in (
        ("a.example", b"a.example"),
        ("A.Example.", b"a.example"),
        ("_x.a.example", b"_x.a.example"),
        ("münchen.example", b"xn--mnchen-3ya.example"),
        ("a.xn--p1ai", b"a.xn--p1ai"),
    ):
        assert read_name(1, word, word, tally) == name
    assert tally.skipped == {}


@pytest.mark.parametrize("word", ["a..b", "", "a b", "-a.example", "a" * 64 + ".example", "1.2"])
def test_what_is_no_name_is_warned_of(word: str) -> None:
    tally = Tally("a")
    assert read_name(7, f"x {word}", word, tally) is None
    assert read_subject(7, f"x {word}", word, Scope.BOTH, tally) is None
    assert tally.skipped == {Skipped.MALFORMED: 2}
    assert tally.problems[0].severity is Severity.WARNING
    assert tally.problems[0].place.line == 7


def test_a_name_that_is_too_long_is_none_though_its_labels_are() -> None:
    word = "a." * 124 + "example"
    assert read_subject(1, word, word, Scope.EXACT, Tally("a")) is None
    assert read_name(1, word, word, Tally("a")) is None


def test_a_subject_is_a_name_or_a_network() -> None:
    tally = Tally("a")
    for word, key in (("a.example", b"a.example"), ("10.0.0.0/8", b"#\x08\x0a\x00\x00\x00")):
        trigger = read_subject(3, word, word, Scope.BELOW, tally)
        assert trigger is not None
        assert (trigger.line, trigger.key, trigger.scope) == (3, key, Scope.BELOW)


@pytest.mark.parametrize("word", ["", "*", "a.example", "10.0.0.1/8", "/8", "1::2::3"])
def test_what_is_no_network_is_none(word: str) -> None:
    assert as_network(word) is None


def test_the_first_problems_are_kept_and_the_others_counted() -> None:
    tally = Tally("lists/a")
    for line in range(PROBLEMS + 5):
        tally.malformed(line + 1, "x y\n", "y", "no", "skip it")
    assert (len(tally.problems), tally.omitted) == (PROBLEMS, 5)
    assert tally.skipped == {Skipped.MALFORMED: PROBLEMS + 5}
    assert tally.problems[0].render() == (
        "lists/a:1:3: warning: no\n    x y\n      ^\n    cure: skip it"
    )


def test_an_error_stands_first_and_is_kept_whatever_was_before() -> None:
    tally = Tally("a")
    for line in range(PROBLEMS):
        tally.malformed(line + 1, "x", "x", "no", "skip it")
    tally.fail("no list", "look")
    assert tally.problems[0].severity is Severity.ERROR
    assert len(tally.problems) == PROBLEMS + 1


def test_control_characters_of_a_line_do_not_reach_a_terminal() -> None:
    tally = Tally("a")
    tally.malformed(1, "a\x1b[31m\tb", "b", "no", "skip it")
    tally.malformed(2, "a" * (EXCERPT_CHARACTERS + 1), "b", "no", "skip it")
    assert [problem.excerpt for problem in tally.problems] == ["a [31m b", ""]


@pytest.mark.parametrize("scope", [Scope.BELOW, Scope.BOTH])
def test_a_name_of_one_label_is_taken_and_warned_of(scope: Scope) -> None:
    tally = Tally("a")
    found = read_subject(1, "COM\n", "COM", scope, tally)
    assert found is not None
    assert (found.key, tally.skipped) == (b"com", {})
    (warning,) = tally.problems
    assert (warning.severity, warning.message) == (
        Severity.WARNING, "it is about everything below com",
    )  # fmt: skip


def test_a_name_of_several_labels_is_taken_without_a_word() -> None:
    tally = Tally("a")
    found = read_subject(1, "A.Example\n", "A.Example", Scope.BOTH, tally)
    assert found is not None
    assert (found.key, tally.problems) == (b"a.example", [])
