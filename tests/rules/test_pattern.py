"""A host pattern is a name, or a wildcard over whole labels below one."""

from itertools import product

import pytest

from rules.name import ROOT, DomainName, parse
from rules.pattern import HostPattern, PatternKind
from tests.rules.written import pattern


@pytest.mark.parametrize(
    ("written", "matching", "others"),
    [
        ("example.com", ["example.com"], ["a.example.com", "com", "evilexample.com"]),
        ("*.example.com", ["a.example.com"], ["example.com", "b.a.example.com", "evilexample.com"]),
        (
            "**.example.com",
            ["a.example.com", "b.a.example.com"],
            ["example.com", "evilexample.com"],
        ),
        ("*", ["example.com", "com", "."], []),
    ],
)
def test_matches_by_whole_labels(written: str, matching: list[str], others: list[str]) -> None:
    """Closes "suffix without label boundary (evilexample.com)"."""
    one = pattern(written)
    assert [name for name in matching if not one.matches(DomainName(name))] == []
    assert [name for name in others if one.matches(DomainName(name))] == []


@pytest.mark.parametrize("written", ["example.com", "*.example.com", "**.example.com", "*"])
def test_is_shown_as_it_is_written(written: str) -> None:
    assert str(pattern(written)) == written


def test_exact_is_more_specific_than_one_label_than_any_depth_than_everything() -> None:
    kinds = [PatternKind.EVERY, PatternKind.BELOW, PatternKind.CHILD, PatternKind.EXACT]
    assert sorted(PatternKind) == kinds
    assert HostPattern(PatternKind.EVERY, ROOT) < pattern("**.a") < pattern("*.a") < pattern("a")


def test_what_one_label_matches_any_depth_matches_too() -> None:
    names = [".".join(labels) for size in range(1, 5) for labels in product("ab", repeat=size)]
    matched = [name for name in names if pattern("*.a").matches(parse(name))]
    assert matched == ["a.a", "b.a"]
    assert all(pattern("**.a").matches(parse(name)) for name in matched)
