"""AdBlock lists deny and exempt whole domains; what is for browsers is counted."""

import pytest

from rules.lists.adblock import read_adblock
from rules.lists.layout import Deed, Scope
from tests.rules.lists.reading import Outcome


def test_domains_are_denied_with_what_is_below_and_exempted() -> None:
    found = Outcome(
        read_adblock,
        """\
        [Adblock Plus 2.0]
        ! Title: a list
        # comment
        #

        ||one.example^
        ||Two.example.^
        ||three.example
        ||four.example^|
        ||five.example^$third-party,important
        ||*.six.example^
        @@||ok.one.example^
        @@||bücher.example^$document
        """,
    )
    assert found.read == [
        (6, "one.example", Scope.BOTH, Deed.DENY),
        (7, "two.example", Scope.BOTH, Deed.DENY),
        (8, "three.example", Scope.BOTH, Deed.DENY),
        (9, "four.example", Scope.BOTH, Deed.DENY),
        (10, "five.example", Scope.BOTH, Deed.DENY),
        (11, "six.example", Scope.BELOW, Deed.DENY),
        (12, "ok.one.example", Scope.EXEMPT, Deed.PASSTHRU),
        (13, "xn--bcher-kva.example", Scope.EXEMPT, Deed.PASSTHRU),
    ]
    assert found.skipped == {}


@pytest.mark.parametrize(
    "rule",
    [
        "||one.example^$script",
        "||one.example^$third-party,domain=a.example",
        "||one.example^$badfilter",
        "||one.example/path",
        "one.example##.ad",
        "##.ad",
        "#@#.ad",
        "/ad[0-9]/",
        "-ad-manager/",
        "|https://one.example/",
        "@@one",
        "one.example",
    ],
)
def test_what_is_for_browsers_is_counted(rule: str) -> None:
    found = Outcome(read_adblock, rule)
    assert (found.read, found.skipped, found.warnings) == ([], {"NOT_DNS": 1}, [])


def test_a_star_in_a_domain_is_no_domain() -> None:
    found = Outcome(read_adblock, "||ads.*^\n||ad*.example^\n@@||*.a.*^\n")
    assert (found.read, found.skipped) == ([], {"WILDCARD": 3})


def test_a_domain_that_is_none_is_said_at_its_place() -> None:
    found = Outcome(read_adblock, f"||a..example^\n||{'a.' * 130}example^\n@@||-a.example^\n")
    assert found.read == []
    assert [warning.partition(" ")[0] for warning in found.warnings] == [
        "lists/bad.txt:1:3",
        "lists/bad.txt:2:3",
        "lists/bad.txt:3:5",
    ]


def test_an_address_between_the_marks_is_denied() -> None:
    (trigger,) = Outcome(read_adblock, "||192.0.2.1^").triggers
    assert trigger.key == b"#\x20\xc0\x00\x02\x01"
