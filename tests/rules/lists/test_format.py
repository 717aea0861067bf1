"""The format of a list shows in its first lines, or it is no list."""

import pytest

from rules.lists.format import READERS, find_format

HTML = "<!DOCTYPE html>\n<html>\n<head><title>Not found</title></head>\n<body>\n</body>\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("# Title\n127.0.0.1 localhost\n0.0.0.0 a.example\n0.0.0.0 b.example # why\n", "hosts"),
        ("::1\tlocalhost\n", "hosts"),
        ("# Title\na.example\n*.b.example\nbücher.example\n", "plain"),
        ("192.0.2.0/24 ; SBL1\n198.51.100.1\n", "plain"),
        ("# nothing\n\n; nothing\n", "plain"),
        ("", "plain"),
        ("! Title\n||a.example^\n@@||b.example^\n", "adblock"),
        ("[Adblock Plus 2.0]\n-ad-manager/\n&ad_box=\n", "adblock"),
        ("a.example##.ad\nb.example#@#.ad\n||c.example^$script\n", "adblock"),
        ("$TTL 60\n@ IN SOA a. b. (\n1 2 3 4 5 )\n", "rpz"),
        ("@ 60 IN SOA a. b. 1 2 3 4 5\n", "rpz"),
        ("a.example CNAME .\nb.example 60 IN A 192.0.2.1\n", "rpz"),
        (HTML, None),
        ("some words\nof a text\na.example\n", None),
    ],
)
def test_the_format_is_that_of_most_lines(text: str, name: str | None) -> None:
    assert find_format(text.splitlines()) == name


def test_every_format_has_its_reader() -> None:
    assert sorted(READERS) == ["adblock", "hosts", "plain", "rpz"]
