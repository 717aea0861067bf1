"""What is wrong is said with its place, an excerpt and the cure."""

import pytest

from rules import errors
from rules.errors import (
    MalformedPathError,
    Place,
    Problem,
    RuleError,
    RuleSyntaxError,
    Severity,
)

PLACE = Place("me.yaml", 3, 5)


def test_a_place_is_printed_as_editors_print_it_and_sorts_by_line() -> None:
    assert str(PLACE) == "me.yaml:3:5"
    assert Place("me.yaml", 3, 5) < Place("me.yaml", 3, 10) < Place("me.yaml", 20, 1)


def test_a_problem_shows_the_line_with_a_caret_below_its_column() -> None:
    problem = Problem(PLACE, "`hots` is no key", "write `host`", "  - hots: a.org")
    assert problem.render().splitlines() == [
        "me.yaml:3:5: error: `hots` is no key",
        "      - hots: a.org",
        "        ^",
        "    cure: write `host`",
    ]


def test_a_problem_without_an_excerpt_has_no_caret() -> None:
    problem = Problem(PLACE, "odd", "mend it", severity=Severity.WARNING)
    assert problem.render() == "me.yaml:3:5: warning: odd\n    cure: mend it"


def test_a_syntax_error_carries_and_prints_every_problem() -> None:
    problems = (Problem(PLACE, "one", "first cure"), Problem(PLACE, "other", "second cure"))
    error = RuleSyntaxError(problems)
    assert error.problems == problems
    assert str(error) == "\n".join(problem.render() for problem in problems)


def test_a_malformed_path_says_what_to_write_instead() -> None:
    with pytest.raises(RuleError, match="odd") as caught:
        raise MalformedPathError("odd", "write it even")
    assert isinstance(caught.value, MalformedPathError)
    assert caught.value.cure == "write it even"


def test_everything_that_is_raised_has_one_root_and_stands_in_the_tree() -> None:
    kinds = [kind for name, kind in vars(errors).items() if name.endswith("Error")]
    assert all(issubclass(kind, RuleError) for kind in kinds)
    assert [kind for kind in kinds if kind.__name__ not in (errors.__doc__ or "")] == []
