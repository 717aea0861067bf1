"""Plain lists deny each domain with what is below, and addresses."""

from rules.address import parse_network
from rules.lists.layout import Deed, Scope, key_of_network
from rules.lists.plain import read_plain
from tests.rules.lists.reading import Outcome, compiled, source

BOTH, DENY = Scope.BOTH, Deed.DENY


def test_a_domain_a_line_is_denied_with_what_is_below() -> None:
    found = Outcome(
        read_plain,
        """\
        # comment
        ! comment
        ; comment
        // comment
        one.example
        *.two.example
        .three.example
        Four.Example.  # why
        bücher.example

        zip
        """,
    )
    assert found.read == [
        (5, "one.example", BOTH, DENY),
        (6, "two.example", BOTH, DENY),
        (7, "three.example", BOTH, DENY),
        (8, "four.example", BOTH, DENY),
        (9, "xn--bcher-kva.example", BOTH, DENY),
        (11, "zip", BOTH, DENY),
    ]


def test_addresses_and_networks_are_denied() -> None:
    text = "192.0.2.1\n198.51.100.0/24 ; SBL1\n2001:db8::/32\n::1\n"
    found = Outcome(read_plain, text)
    assert [(each.line, each.key) for each in found.triggers] == [
        (1, key_of_network(parse_network("192.0.2.1"))),
        (2, key_of_network(parse_network("198.51.100.0/24"))),
        (3, key_of_network(parse_network("2001:db8::/32"))),
        (4, key_of_network(parse_network("::1"))),
    ]


def test_what_is_neither_is_said_at_its_place() -> None:
    found = Outcome(read_plain, "a b\nhttps://a.example/\n*.*.example\n192.0.2.300\n*\n")
    assert found.read == []
    assert found.skipped == {"MALFORMED": 5}
    assert [warning.partition(" ")[0] for warning in found.warnings] == [
        "lists/bad.txt:1:1",
        "lists/bad.txt:2:1",
        "lists/bad.txt:3:3",
        "lists/bad.txt:4:1",
        "lists/bad.txt:5:1",
    ]


def test_a_whole_top_level_domain_is_denied_and_warned_of() -> None:
    """Half of `comcast.example`, where a download ended, may be such a line."""
    (report,) = compiled((source(format="plain"), "a.example\nCom")).reports
    (warning,) = report.problems
    assert (report.entries, report.skipped) == (2, {})
    assert str(warning.place) == "bad.txt:2:1"
    assert warning.message == "it is about everything below com"
