"""Lists are readable on 80 columns, and what is copied out of them is whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.audit_line import printable
from proxy.commands.listing import Column, listing, show

ID = "0123456789abcdef" * 2
COLUMNS = (Column("id"), Column("app"), Column("level"), Column("why", is_free=True))
ROWS = ((ID, "coder", "", "it leaked"), ("1", "box", "", ""))


def test_what_fits_is_a_table_without_empty_columns() -> None:
    assert listing(COLUMNS, ROWS, 80) == [
        "id                                app    why",
        f"{ID}  coder  it leaked",
        "1                                 box",
    ]


def test_words_that_do_not_fit_stand_below_their_row() -> None:
    assert listing(COLUMNS, ROWS, 45) == [
        "id                                app",
        f"{ID}  coder",
        "    why: it leaked",
        "1                                 box",
    ]


def test_what_fits_no_row_has_lines_of_its_own() -> None:
    assert listing(COLUMNS, ROWS, 20) == [
        f"id   {ID}",
        "app  coder",
        "why  it leaked",
        "",
        "id   1",
        "app  box",
    ]


@pytest.mark.parametrize("width", [80, 45, 20])
def test_nothing_in_a_list_breaks_a_terminal(width: int) -> None:
    """threats.md, "Evidence as a weapon": escape sequences and fake lines shown to a person."""
    rows = (("\x1b[2J\nevil", "[red]a[/red]", "\u202e", ":warning:\r\n" + "x" * 30),)
    lines = listing(COLUMNS, rows, width)
    assert all(each.isprintable() for line in lines for each in line)
    assert any("[red]a[/red]" in line for line in lines)


def test_wide_letters_stay_in_their_column() -> None:
    rows = (("日本", "a", "", ""), ("abcdef", "b", "", ""))
    assert listing(COLUMNS, rows, 80)[1:] == ["日本    a", "abcdef  b"]


def test_an_empty_list_says_so_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    show(COLUMNS, (), "there is nothing")
    assert capsys.readouterr().out == "there is nothing\n"


def test_nothing_is_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    show(COLUMNS, (("[b]" + ID, ":warning:", "", ""),), "")
    assert capsys.readouterr().out == f"id   [b]{ID}\napp  :warning:\n"


@given(
    st.lists(st.tuples(*[st.text("ab日 \x1b\n", max_size=40)] * 4), min_size=1, max_size=5),
    st.integers(1, 200),
)
def test_every_value_stands_whole_in_one_line(
    rows: list[tuple[str, str, str, str]], width: int
) -> None:
    lines = listing(COLUMNS, rows, width)
    for row in rows:
        for text in row:
            assert any(printable(text).rstrip() in line for line in lines)
