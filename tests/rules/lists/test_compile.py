"""List files become one table and a report on each; what is no list is an error."""

import pytest

from rules.errors import Severity
from rules.lists import compile as module
from rules.lists.compile import compile_lists
from rules.lists.trigger import LINE_CHARACTERS
from tests.rules.lists.reading import compiled, source, table


def test_each_list_is_reported_with_the_format_that_was_found() -> None:
    made = compiled(
        (source("a"), "0.0.0.0 a.example localhost\n"),
        (source("b"), "b.example\nc.example\n"),
        (source("c"), "||d.example^\n||e.example^$script\n"),
        (source("d"), "@ SOA a. b. 1 2 3 4 5\nf.example CNAME .\n"),
        (source("e", format="adblock"), "||g.example^\nplain.example\n"),
    )
    assert [(each.shown, each.format, each.lines, each.entries) for each in made.reports] == [
        ("a", "hosts", 1, 1),
        ("b", "plain", 2, 2),
        ("c", "adblock", 2, 1),
        ("d", "rpz", 2, 1),
        ("e", "adblock", 2, 1),
    ]
    assert [each.skipped for each in made.reports] == [
        {"name of the host itself": 1},
        {},
        {"not for DNS": 1},
        {},
        {"not for DNS": 1},
    ]
    assert made.errors == ()


def test_broken_lines_are_warnings_and_the_rest_is_in_force() -> None:
    made = compiled((source(format="plain"), "a.example\nb..example\nc.example\n"))
    (report,) = made.reports
    assert (report.entries, report.omitted, made.errors) == (2, 0, ())
    assert [str(problem.place) for problem in report.problems] == ["bad.txt:2:1"]


@pytest.mark.parametrize("format_", ["auto", "plain", "hosts", "rpz"])
def test_a_page_that_was_stored_instead_of_a_list_is_an_error(format_: str) -> None:
    page = "<!DOCTYPE html>\n<html>\n<h1>Not found</h1>\n</html>\n" * 30
    made = compiled((source("a"), "a.example\n"), (source(format=format_), page))
    (error,) = made.errors
    assert error.severity is Severity.ERROR
    assert (str(error.place), bool(error.cure)) == ("bad.txt:1:1", True)
    report = made.reports[1]
    assert report.format == ("" if format_ == "auto" else format_)
    assert len(report.problems) + report.omitted in {1, 121}


def test_a_line_that_is_too_long_is_skipped() -> None:
    text = "a.example\n" + "x" * LINE_CHARACTERS + ".example\nb.example\n"
    for each in (source(), source(format="plain")):
        (report,) = compiled((each, text)).reports
        assert (report.entries, report.skipped) == (2, {"too long": 1})
        (warning,) = report.problems
        assert (str(warning.place), warning.severity) == ("bad.txt:2:1", Severity.WARNING)


@pytest.mark.parametrize(
    ("format_", "text"),
    [
        ("adblock", "<!DOCTYPE html>\n<html>\n<h1>Not found</h1>\n</html>\n"),
        ("adblock", "a.example\nb.example\n"),
        ("adblock", "0.0.0.0 a.example\n"),
        ("hosts", "192.0.2.1 a.example\n"),
        ("auto", ""),
        ("plain", ""),
    ],
)
def test_a_file_of_which_nothing_is_in_force_is_no_empty_list(format_: str, text: str) -> None:
    made = compiled((source(format=format_), text))
    (error,) = made.errors
    assert (str(error.place), bool(error.cure)) == ("bad.txt:1:1", True)


@pytest.mark.parametrize("text", ["\n", "# comments alone\n", "@ SOA a. b. 1 2 3 4 5\n"])
def test_a_list_of_nothing_is_warned_of(text: str) -> None:
    made = compiled((source(), text))
    (report,) = made.reports
    assert (made.errors, report.entries) == ((), 0)
    assert [each.message for each in report.problems] == ["the list denies nothing"]


def test_entries_beyond_the_bound_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRIES", 3)
    made = compiled((source("a"), "a.example\nb.example\n"), (source("b"), "c.example\n" * 5))
    (error,) = made.errors
    assert (error.place.file, error.message) == ("b", "more than 3 entries of all lists")


def test_lines_beyond_the_bound_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty ones take time as well, and 128 MiB hold as many."""
    monkeypatch.setattr(module, "LINES", 3)
    made = compiled((source("a"), "a.example\n\n"), (source("b"), "b.example\n\n"))
    (error,) = made.errors
    assert (error.place.file, error.message) == ("b", "more than 3 lines of all lists")
    assert [each.lines for each in made.reports] == [2, 1]
    made = compiled((source("a"), "a.example\n\n\n"), (source("b"), "b.example\n"))
    assert [(each.place.file, each.message) for each in made.errors] == [("b", error.message)]
    assert compiled((source("a"), "a.example\n\n"), (source("b"), "b.example\n")).errors == ()


def test_progress_is_told_while_a_list_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRESS_LINES", 2)
    told: list[tuple[int, int]] = []
    lists = [(source("a"), ["a.example\n"] * 5), (source("b"), ["b.example\n"] * 2)]
    compile_lists(lists, progress=lambda number, lines: told.append((number, lines)))
    assert told == [(0, 2), (0, 4), (1, 2)]
    assert compile_lists(lists).errors == ()


def test_the_lines_are_walked_through_once() -> None:
    lines = (f"n{n}.example\n" for n in range(3000))
    (report,) = compile_lists([(source(), lines)]).reports
    assert (report.lines, report.entries) == (3000, 3000)
    assert next(lines, None) is None


def test_a_byte_order_mark_and_other_line_ends_are_no_part_of_a_name() -> None:
    (report,) = compiled((source(), "\ufeffa.example\r\n||b.example^\r\nc.example\r\n")).reports
    assert (report.entries, len(report.problems)) == (2, 1)
    (report,) = compiled((source(), "\ufeff||a.example^\r\n||b.example^\r\n")).reports
    assert (report.format, report.entries, report.skipped) == ("adblock", 2, {})


def test_no_lists_are_an_empty_table() -> None:
    assert compiled().reports == ()
    assert not table().covers_all
