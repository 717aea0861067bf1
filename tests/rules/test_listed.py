"""What deny lists say."""

from rules.listed import NO_LISTS, Listed
from rules.name import parse


def test_what_is_listed_is_known_by_its_file_and_line() -> None:
    assert Listed("lists/exfil.txt", 12, "a.example").id == "lists/exfil.txt:12"


def test_without_lists_nothing_is_denied() -> None:
    name = parse("a.example")
    assert not NO_LISTS.covers_all
    assert not NO_LISTS.covers("me")
    assert NO_LISTS.find("me", name) is None
    assert NO_LISTS.find_address("me", name) is None
    assert NO_LISTS.find_server("me", name) is None
