"""What a fact was about, as one line and as fields."""

import pytest

from proxy.target import authority, describe
from rules.address import parse_address
from rules.facts import Connect, Endpoint, Facts, Question, Request
from rules.name import parse
from rules.rtype import AAAA
from tests.proxy.composed import ME

NAME = parse("example.com")


@pytest.mark.parametrize(
    ("fact", "line"),
    [
        (Question(ME, NAME, AAAA), "example.com AAAA"),
        (Connect(ME, NAME, 443), "example.com:443"),
        (Connect(ME, parse_address("2001:db8::1"), 443), "[2001:db8::1]:443"),
        (Endpoint(ME, NAME, parse_address("192.0.2.1"), 443), "example.com 192.0.2.1"),
        (Endpoint(ME, None, parse_address("192.0.2.1"), 443), "literal 192.0.2.1"),
        (Request(ME, "GET", NAME, 80, "/a"), "GET http://example.com:80/a"),
    ],
)
def test_says_what_was_asked_for(fact: Facts, line: str) -> None:
    assert describe(fact)[0] == line


def test_a_chain_target_says_by_which_name_it_was_reached() -> None:
    fields = describe(Question(ME, NAME, AAAA, via=parse("www.example.com")))[1]
    assert fields == {"name": "example.com", "type": "AAAA", "via": "www.example.com"}


def test_fields_are_plain_values() -> None:
    fields = describe(Endpoint(ME, NAME, parse_address("192.0.2.1"), None))[1]
    assert fields == {"name": "example.com", "address": "192.0.2.1", "port": None}


def test_an_authority_has_brackets_around_ipv6_only() -> None:
    assert authority("192.0.2.1", 80) == "192.0.2.1:80"
    assert authority("::1", 80) == "[::1]:80"
