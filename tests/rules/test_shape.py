"""Shapes read nodes into msgspec values, and go on past what they cannot read."""

from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from msgspec import UNSET, Meta, Struct, UnsetType, field

from rules.errors import Severity
from rules.node import PROBLEMS, MappingNode, Report, ScalarNode, SequenceNode
from rules.shape import FAILED, shape_of, suggest
from rules.text import SourceText, compose


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Inner(Struct, frozen=True):
    needed: int
    also: int = 0


class Everything(Struct, frozen=True, kw_only=True):
    text: str = ""
    word: Annotated[str, Meta(pattern="^[a-z]+$")] = ""
    named: Annotated[str, Meta(pattern="^[a-z]+$", extra={"wanted": "a small word"})] = ""
    port: Annotated[int, Meta(ge=1, le=65535)] = 1
    low: Annotated[int, Meta(ge=0)] = 0
    high: Annotated[int, Meta(le=9)] = 0
    share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    seconds: float = 0.0
    flag: bool = False
    colour: Colour = Colour.RED
    choice: Literal["one", "two"] = "one"
    only: Literal["accepted"] = "accepted"
    maybe: str | None = None
    texts: list[str] = field(default_factory=list)
    some: Annotated[list[int], Meta(min_length=1)] | UnsetType = UNSET
    either: str | list[str] | int = ""
    fixed: tuple[str, ...] = ()
    group: frozenset[int] = frozenset()
    table: dict[Annotated[str, Meta(pattern="^[a-z]+$")], Inner] = field(default_factory=dict)
    inner: Inner | UnsetType = UNSET
    inners: list[Inner] = field(default_factory=list)
    record: Inner | str = ""
    mapped: dict[str, int] | str = ""
    renamed: str = field(name="re-named", default="")


def reading(text: str) -> tuple[Any, Any, list[str]]:
    """Return the value, the root node, and the problems as `line:column message | cure`."""
    report = Report("f", text)
    root = compose(SourceText("f", text), report)
    assert root is not None
    value = shape_of(Everything).read(root, "the file", report)
    problems = report.problems(Severity.ERROR)
    return (
        value,
        root,
        [f"{p.place.line}:{p.place.column} {p.message} | {p.cure}" for p in problems],
    )


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("text: a b", "text", "a b"),
        ('text: "5"', "text", "5"),
        ("word: off", "word", "off"),
        ("port: 65535", "port", 65535),
        ("low: 5", "low", 5),
        ("high: -5", "high", -5),
        ("share: 0.25", "share", 0.25),
        ("seconds: 3", "seconds", 3.0),
        ("flag: True", "flag", True),
        ("flag: false", "flag", False),
        ("colour: blue", "colour", Colour.BLUE),
        ("choice: two", "choice", "two"),
        ("maybe: null", "maybe", None),
        ("maybe: x", "maybe", "x"),
        ("texts: [a, b]", "texts", ["a", "b"]),
        ("texts: []", "texts", []),
        ("some: [1]", "some", [1]),
        ("either: a", "either", "a"),
        ("either: 5", "either", 5),
        ("either: [a]", "either", ["a"]),
        ("fixed: [a]", "fixed", ("a",)),
        ("group: [1, 1]", "group", frozenset({1})),
        ("table: {a: {needed: 1}}", "table", {"a": Inner(1)}),
        ("inner: {needed: 1, also: 2}", "inner", Inner(1, 2)),
        ("inners: [{needed: 1}]", "inners", [Inner(1)]),
        ("record: {needed: 1}", "record", Inner(1)),
        ("mapped: {a: 1}", "mapped", {"a": 1}),
        ("re-named: x", "renamed", "x"),
    ],
)
def test_reads_each_type(text: str, name: str, value: object) -> None:
    read, _, problems = reading(text)
    assert problems == []
    assert getattr(read, name) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("text: 5", '1:7 `text` wants text, found the number 5 | put it in quotes: "5"'),
        (
            "text: true",
            '1:7 `text` wants text, found the truth value true | put it in quotes: "true"',
        ),
        ("text:", "1:6 `text` wants text, found nothing | write text, or take the key out"),
        ("text: [a]", "1:7 `text` wants text, found a list | write text"),
        (
            "word: A",
            (
                "1:7 `word` wants text that matches ^[a-z]+$, found text 'A' | "
                "write text that matches ^[a-z]+$"
            ),
        ),
        (
            "word: 1",
            (
                "1:7 `word` wants text that matches ^[a-z]+$, found the number 1 | "
                'put it in quotes: "1"'
            ),
        ),
        ("named: A", "1:8 `named` wants a small word, found text 'A' | write a small word"),
        (
            "port: 0",
            (
                "1:7 `port` wants a whole number from 1 to 65535, found the number 0 | "
                "write a whole number from 1 to 65535"
            ),
        ),
        (
            "port: 65536",
            (
                "1:7 `port` wants a whole number from 1 to 65535, found the number 65536 | "
                "write a whole number from 1 to 65535"
            ),
        ),
        (
            "port: 007",
            (
                "1:7 `port` wants a whole number from 1 to 65535, found the number 007 | "
                "write a whole number from 1 to 65535"
            ),
        ),
        (
            'port: "443"',
            (
                "1:7 `port` wants a whole number from 1 to 65535, found text '443' | "
                "write a whole number from 1 to 65535"
            ),
        ),
        (
            "low: -1",
            (
                "1:6 `low` wants a whole number from 0, found the number -1 | "
                "write a whole number from 0"
            ),
        ),
        (
            "high: 10",
            (
                "1:7 `high` wants a whole number to 9, found the number 10 | "
                "write a whole number to 9"
            ),
        ),
        (
            "share: 1.5",
            (
                "1:8 `share` wants a number from 0 to 1, found the number 1.5 | "
                "write a number from 0 to 1"
            ),
        ),
        ("seconds: .inf", "1:10 `seconds` wants a number, found the number .inf | write a number"),
        ("flag: yes", "1:7 `flag` wants true or false, found text 'yes' | write true or false"),
        (
            "colour: green",
            ("1:9 `colour` wants one of red, blue, found text 'green' | write one of red, blue"),
        ),
        (
            "choice: 1",
            ("1:9 `choice` wants one of one, two, found the number 1 | write one of one, two"),
        ),
        ("only: no", "1:7 `only` wants accepted, found text 'no' | write accepted"),
        ("maybe: 5", '1:8 `maybe` wants text or null, found the number 5 | put it in quotes: "5"'),
        ("texts: a", "1:8 `texts` wants a list of text, found text 'a' | write [a]"),
        (
            "texts: {}",
            ("1:8 `texts` wants a list of text, found an empty mapping | write a list of text"),
        ),
        (
            "some: []",
            (
                "1:7 `some` wants a list of a whole number, not empty, "
                "found an empty list | "
                "write a list of a whole number, not empty, or take the key out"
            ),
        ),
        (
            "some:",
            (
                "1:6 `some` wants a list of a whole number, not empty, found nothing | "
                "write a list of a whole number, not empty, or take the key out"
            ),
        ),
        (
            "either: {}",
            (
                "1:9 `either` wants text or a list of text or a whole number, "
                "found an empty mapping | write text or a list of text or a whole number"
            ),
        ),
        (
            "table: []",
            (
                "1:8 `table` wants a mapping, found an empty list | "
                "write a mapping, or take the key out"
            ),
        ),
        (
            "table: {A: {needed: 1}}",
            (
                "1:9 a key of `table` wants text that matches ^[a-z]+$, "
                "found text 'A' | write text that matches ^[a-z]+$"
            ),
        ),
        (
            "table: {a: 5}",
            (
                "1:12 `a` wants a mapping with keys of also, needed, found the number 5 | "
                "write a mapping with keys of also, needed"
            ),
        ),
        ("inner: {also: 1}", "1:8 `inner` lacks the key `needed` | add `needed: ...`"),
        (
            "inner: {needed: x}",
            ("1:17 `needed` wants a whole number, found text 'x' | write a whole number"),
        ),
        (
            "txet: a",
            (
                "1:1 'txet' is no key of the file | did you mean `text`? Else write one of: "
                "choice, colour, either, fixed, flag, group, high, inner, inners, low, mapped, "
                "maybe, named, only, port, re-named, record, seconds, share, "
                "some, table, text, texts, word"
            ),
        ),
    ],
)
def test_says_what_was_found_and_what_is_wanted(text: str, problem: str) -> None:
    value, root, problems = reading(text)
    assert problems == [problem]
    assert value == Everything()
    assert root.flawed


def test_a_key_is_text_however_it_looks() -> None:
    _, _, problems = reading("table: {443: {needed: 1}}")
    assert problems[0].startswith("1:9 a key of `table` wants text")
    assert "found text '443'" in problems[0]


def test_a_choice_of_types_fits_what_one_of_them_fits() -> None:
    shape = shape_of(str | int)
    assert shape.fits(ScalarNode(1, 1, "5", plain=True))
    assert not shape.fits(ScalarNode(1, 1, "", plain=True))


def test_a_root_of_another_kind_is_a_problem() -> None:
    value, _, problems = reading("[a]")
    assert value is FAILED
    assert problems[0].startswith("1:1 the file wants a mapping with keys of choice, colour")


def test_what_failed_is_taken_out_and_the_rest_stands() -> None:
    value, root, problems = reading(
        "texts: [a, 5, b, true]\ninners: [{needed: 1}, {needed: x}, {also: 3}]\nport: 0\n"
        "table: {ok: {needed: 1}, bad: 5}\nword: fine\ninner: {needed: 1, also: x}\n"
    )
    assert len(problems) == 7
    assert (value.texts, value.inners, value.port) == (["a", "b"], [Inner(1)], 1)
    assert (value.table, value.word, value.inner) == ({"ok": Inner(1)}, "fine", Inner(1))
    texts, inners = root.value("texts"), root.value("inners")
    assert isinstance(texts, SequenceNode)
    assert isinstance(inners, SequenceNode)
    assert [item.column for item in texts.items] == [9, 15]
    assert len(inners.items) == 1
    inner = root.value("inner")
    assert isinstance(inner, MappingNode)
    assert inner.flawed
    assert root.flawed


def test_a_full_report_makes_no_suggestions() -> None:
    report = Report("f", "")
    for _ in range(PROBLEMS):
        report.error_at(1, 1, "wrong", "mend")
    root = compose(SourceText("f", "txet: a"), report)
    assert root is not None
    shape_of(Everything).read(root, "the file", report)
    assert report.errors == PROBLEMS + 1


def test_suggests_what_was_probably_meant() -> None:
    assert (
        suggest("hots", ["host", "ports"]) == "did you mean `host`? Else write one of: host, ports"
    )
    assert suggest("zzz", ["host", "ports"]) == "write one of: host, ports"
    assert suggest("zzz", []) == "write one of: (there is none)"


def test_a_type_that_no_node_can_be_is_our_own_mistake() -> None:
    class Odd(Struct):
        at: bytes

    with pytest.raises(TypeError, match="no YAML node can be read into"):
        shape_of(Odd)
