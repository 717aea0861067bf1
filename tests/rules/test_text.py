"""YAML is read with places, and what is dangerous or ambiguous in it is refused."""

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from rules import text as text_module
from rules.errors import Severity
from rules.node import MappingNode, Node, Report, ScalarNode, SequenceNode
from rules.text import NESTING, SourceText, compose, decode, read


class Small(Struct, frozen=True):
    name: str = "none"
    ports: list[Annotated[int, Meta(ge=1)]] = []


class Needy(Struct, frozen=True):
    name: str


def composed(text: str) -> tuple[Node | None, list[str]]:
    report = Report("f", text)
    root = compose(SourceText("f", text), report)
    problems = report.problems(Severity.ERROR)
    return root, [f"{p.place.line}:{p.place.column} {p.message} | {p.cure}" for p in problems]


def test_nodes_know_their_line_and_column() -> None:
    root, problems = composed("# first\na:\n  - b\n  - 'c'\nd: {e: f}\n")
    assert problems == []
    assert isinstance(root, MappingNode)
    assert (root.line, root.column) == (2, 1)
    items = root.value("a")
    assert items == SequenceNode(3, 3, [ScalarNode(3, 5, "b", True), ScalarNode(4, 5, "c", False)])
    assert root.key("d") == ScalarNode(5, 1, "d", True)
    key, value = ScalarNode(5, 5, "e", True), ScalarNode(5, 8, "f", True)
    inner: dict[str, tuple[ScalarNode, Node]] = {"e": (key, value)}
    assert root.value("d") == MappingNode(5, 4, inner)


@pytest.mark.parametrize("text", ["", "# only words\n", "\ufeff", "---\n", "~"])
def test_a_file_without_content_is_a_struct_of_defaults(text: str) -> None:
    assert decode(SourceText("f", text), Small) == (Small(), [])


def test_a_byte_order_mark_moves_no_column() -> None:
    root, _ = composed("\ufeffa: b")
    assert isinstance(root, MappingNode)
    assert root.value("a").column == 4


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "a: 1\na: 2",
            "2:1 'a' stands twice, first at f:1:1 | take one of them out, or merge them",
        ),
        ("a: *b", "1:4 the alias `*b`: not part of this format | write the value out"),
        ("[*b]", "1:2 the alias `*b`: not part of this format | write the value out"),
        ("a: &b c", "1:4 the anchor `&b`: not part of this format | take it out"),
        ("&b {}", "1:1 the anchor `&b`: not part of this format | take it out"),
        ("a: !x c", "1:4 the tag '!x': not part of this format | take it out"),
        (
            "a: !!python/name:os c",
            (
                "1:4 the tag 'tag:yaml.org,2002:python/name:os': "
                "not part of this format | take it out"
            ),
        ),
        (
            "--- a\n--- b",
            ("2:1 a second document: not part of this format | put it into a file of its own"),
        ),
        ("? [x]\n: y", "1:3 a key that is no text | write one word as the key"),
        ("? {x: z}\n: y", "1:3 a key that is no text | write one word as the key"),
        (
            "[" * 40,
            (
                "1:33 nested deeper than 32 levels: not part of this format | "
                "unfold the inner levels"
            ),
        ),
        ("a: \x00", "1:4 a character that YAML does not allow | take the character out"),
        (
            "\ufeffé:\n  b: \x1b",
            ("2:6 a character that YAML does not allow | take the character out"),
        ),
        ("\ufeffa\n\ud800", "2:1 a character that YAML does not allow | take the character out"),
        (
            "a:\n\t- b",
            (
                "2:1 while scanning for the next token: found character that cannot start "
                "any token | indent with spaces; quote text that begins with a tab, @ or `"
            ),
        ),
        (
            "a: b: c",
            (
                "1:5 mapping values are not allowed in this context | "
                "quote text that holds `: `, or mend the indentation"
            ),
        ),
        (
            "a: [b\nc: d",
            (
                "2:2 while parsing a flow sequence: did not find expected ',' or ']' "
                "(begun in line 1) | put a comma between items and close the list with ]"
            ),
        ),
        (
            "a: [b",
            (
                "1:4 while parsing a flow sequence: did not find expected ',' or ']' | "
                "put a comma between items and close the list with ]"
            ),
        ),
        (
            "a: 'b",
            (
                "1:4 while scanning a quoted scalar: found unexpected end of stream | "
                "close the quotes"
            ),
        ),
        (
            'a: "\\q"',
            (
                "1:5 while parsing a quoted scalar: found unknown escape character | "
                "quote text that holds special characters"
            ),
        ),
    ],
)
def test_what_is_dangerous_or_broken_is_said_with_place_and_cure(text: str, problem: str) -> None:
    _, problems = composed(text)
    assert problems == [problem]


def test_aliases_cannot_multiply() -> None:
    """A billion laughs is a list of refused anchors and aliases, not a billion nodes."""
    bomb = "a0: &a0 [x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
    )
    root, problems = composed(bomb)
    assert isinstance(root, MappingNode)
    assert len(problems) == 10 + 9 * 9


def test_what_a_file_says_stands_without_its_aliases() -> None:
    root, _ = composed("a: *x\nb: [c, *x]\n*x : d\ne: f")
    assert isinstance(root, MappingNode)
    assert list(root.entries) == ["b", "e"]
    assert root.value("b") == SequenceNode(2, 4, [ScalarNode(2, 5, "c", True)])
    assert root.flawed


def test_nesting_up_to_the_bound_is_read() -> None:
    root, problems = composed("[" * NESTING + "]" * NESTING)
    assert isinstance(root, SequenceNode)
    assert problems == []


def test_a_file_over_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "FILE_OCTETS", 8)
    assert composed("a: bcdef")[1] == []
    assert composed("a: bcdefg")[1] == ["1:1 more than 8 octets | split the file"]
    assert composed("a: ééé")[1] == ["1:1 more than 8 octets | split the file"]


def test_lines_end_as_libyaml_ends_them() -> None:
    """The line of a place is that of the excerpt, whatever ends lines."""
    source = SourceText("f", "a: 1\r\nb: 2\rc: 3\x85d: 4\u2028name: 5")
    _, problems = decode(source, Small)
    assert [(each.place.line, each.excerpt) for each in problems] == [
        (1, "a: 1"),
        (2, "b: 2"),
        (3, "c: 3"),
        (4, "d: 4"),
        (5, "name: 5"),
    ]


def test_decode_gives_a_struct() -> None:
    source = SourceText("f", "name: x\nports: [1, 2]")
    assert decode(source, Small) == (Small("x", [1, 2]), [])


def test_decode_gives_every_problem_and_no_value() -> None:
    value, problems = decode(SourceText("f", "nmae: x\nports: [0, y, 3]\nname: 5"), Small)
    assert value is None
    assert [str(problem.place) for problem in problems] == ["f:1:1", "f:2:9", "f:2:12", "f:3:7"]
    assert problems[0].render() == (
        "f:1:1: error: 'nmae' is no key of the file\n    nmae: x\n    ^\n"
        "    cure: did you mean `name`? Else write one of: name, ports"
    )


def test_decode_of_no_yaml_is_that_problem_alone() -> None:
    value, problems = decode(SourceText("f", "name: [x"), Needy)
    assert value is None
    assert len(problems) == 1


def test_read_gives_what_is_left() -> None:
    report = Report("f", "")
    assert read(None, Needy, report) is None
    assert report.errors == 1
    root, _ = composed("name: 5\nports: [1]")
    assert read(root, Small, report) == Small("none", [1])


@given(st.text(alphabet="ab:-[]{},&*!|>'\"#%@`?\\ \n\t\x00\x85é", max_size=60))
def test_any_text_gives_a_tree_or_a_problem(text: str) -> None:
    value, problems = decode(SourceText("f", text), Small)
    assert (value is None) == bool(problems)
    for problem in problems:
        assert problem.message
        assert problem.cure
        assert problem.place.line >= 1
        assert problem.place.column >= 1
        assert problem.render()
