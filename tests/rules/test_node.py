"""Nodes know their place and kind, and a report keeps a bounded number of problems."""

import pytest

from rules.errors import Place, Problem, Severity
from rules.node import (
    EXCERPT_CHARACTERS,
    PROBLEMS,
    MappingNode,
    MistakeError,
    Node,
    Report,
    ScalarNode,
    SequenceNode,
    at,
    describe,
    one_or_more,
    quote,
)


def scalar(text: str, *, plain: bool = True, line: int = 1, column: int = 1) -> ScalarNode:
    return ScalarNode(line, column, text, plain)


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL"])
def test_plain_null_is_nothing_and_quoted_null_is_text(text: str) -> None:
    assert scalar(text).is_null
    assert not scalar(text).is_text
    assert not scalar(text, plain=False).is_null
    assert scalar(text, plain=False).is_text


@pytest.mark.parametrize(("text", "flag"), [("true", True), ("False", True), ("off", False)])
def test_only_true_and_false_are_truth_values(text: str, flag: bool) -> None:
    """The country code `no` and the mode `off` are text (YAML 1.2.2, section 10.3.2)."""
    assert scalar(text).is_flag is flag
    assert scalar(text).is_text is not flag
    assert not scalar(text, plain=False).is_flag


@pytest.mark.parametrize(
    "text", ["443", "-1", "010", "0x1bb", "0o17", "1.5", "1e5", ".inf", ".NaN"]
)
def test_plain_numbers_are_no_text(text: str) -> None:
    assert not scalar(text).is_text


@pytest.mark.parametrize("text", ["10.0.0.1", "1h", "٣", "example.com", "-", "e5", "0x"])
def test_what_only_resembles_a_number_is_text(text: str) -> None:
    assert scalar(text).is_text


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (SequenceNode(1, 1, []), "an empty list"),
        (SequenceNode(1, 1, [scalar("a")]), "a list"),
        (MappingNode(1, 1, {}), "an empty mapping"),
        (MappingNode(1, 1, {"a": (scalar("a"), scalar("b"))}), "a mapping"),
        (scalar("a"), "text 'a'"),
        (scalar(""), "nothing"),
        (scalar("true"), "the truth value true"),
        (scalar("5"), "the number 5"),
    ],
)
def test_a_node_is_described_for_a_person(node: Node, words: str) -> None:
    assert describe(node) == words


def test_a_quoted_value_is_escaped_and_bounded() -> None:
    """threats.md: control bytes and escape sequences in names shown to a person."""
    assert quote("a\x1b[2Jb\u202e") == r"'a\x1b[2Jb\u202e'"
    assert quote("x" * 100) == "'" + "x" * 64 + "'..."


def test_a_value_alone_is_its_own_only_item() -> None:
    assert one_or_more(scalar("a")) == [scalar("a")]
    assert one_or_more(SequenceNode(1, 1, [scalar("a")])) == [scalar("a")]


def test_keys_lead_to_a_node() -> None:
    inner = MappingNode(1, 4, {"b": (scalar("b"), scalar("c", column=7))})
    outer = MappingNode(1, 1, {"a": (scalar("a"), inner)})
    assert at(outer, "a", "b") == scalar("c", column=7)
    assert outer.key("a") == scalar("a")
    assert at(scalar("x"), "a") == scalar("x")


def test_a_report_keeps_problems_with_place_and_excerpt_in_order() -> None:
    report = Report("f.yaml", "\ufeffone\r\n\ttwo\u202e\nthree")
    report.error(scalar("x", line=2, column=2), "second", "mend")
    report.warn(scalar("x", line=3), "third", "think")
    report.error_at(1, 2, "first", "mend")
    assert list(report.problems(Severity.ERROR)) == [
        Problem(Place("f.yaml", 1, 2), "first", "mend", "one"),
        Problem(Place("f.yaml", 2, 2), "second", "mend", " two "),
    ]
    (warning,) = report.problems(Severity.WARNING)
    assert warning == Problem(Place("f.yaml", 3, 1), "third", "think", "three", Severity.WARNING)
    assert (report.errors, report.warnings) == (2, 1)
    assert report.line_id(scalar("x", line=3)) == "f.yaml:3"
    assert report.place(scalar("x", line=3)) == Place("f.yaml", 3, 1)


def test_a_line_too_long_or_past_the_end_has_no_excerpt() -> None:
    report = Report("f.yaml", "x" * (EXCERPT_CHARACTERS + 1))
    report.error_at(1, 1, "long", "")
    report.error_at(2, 1, "past", "")
    assert [problem.excerpt for problem in report.problems(Severity.ERROR)] == ["", ""]


def test_beyond_the_bound_problems_are_counted() -> None:
    report = Report("f.yaml", "x")
    for _ in range(PROBLEMS):
        assert not report.is_full
        report.error_at(1, 1, "wrong", "mend")
        report.warn(scalar("x"), "odd", "think")
    report.error_at(1, 1, "wrong", "mend")
    report.warn(scalar("x"), "odd", "think")
    report.warn(scalar("x"), "odd", "think")
    assert report.is_full
    *kept, last = report.problems(Severity.ERROR)
    assert len(kept) == PROBLEMS
    assert last.message == "1 more problems of this file are not shown"
    *_, last = report.problems(Severity.WARNING)
    assert (last.severity, last.message[:6]) == (Severity.WARNING, "2 more")


def test_a_mistake_carries_its_cure() -> None:
    mistake = MistakeError("wrong", "mend")
    assert (str(mistake), mistake.cure) == ("wrong", "mend")


def test_a_file_that_is_named_is_kept_with_its_place() -> None:
    report = Report("a.yaml", "cert: x")
    for _ in range(PROBLEMS + 1):
        report.need(scalar("x"), "/etc/x")
    assert len(report.needed) == PROBLEMS
    assert report.needed[0].path == "/etc/x"
    assert report.needed[0].place == report.place(scalar("x"))
    assert report.needed[0].excerpt == "cert: x"
