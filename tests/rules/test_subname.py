"""A name is split where somebody registered it, and again where a tenant was given it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.name import DomainName, parse
from rules.subname import Splitter, whole
from rules.suffix import read_suffixes

LIST = """
// ===BEGIN ICANN DOMAINS===
com
uk
co.uk
*.ck
!www.ck
*.kawasaki.jp
!city.kawasaki.jp
jp
// ===END ICANN DOMAINS===
// ===BEGIN PRIVATE DOMAINS===
github.io
s3.cloud.com
*.compute.cloud.com
!own.compute.cloud.com
*.tenants
// ===END PRIVATE DOMAINS===
"""
SUFFIXES = read_suffixes(LIST.splitlines())
WORDS = "com uk co ck www jp kawasaki city io github s3 cloud compute own a b tenants"
LABELS = st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=7)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.b.example.com", (("example.com", "b.a"),)),
        ("example.com", (("example.com", ""),)),
        ("com", (("com", ""),)),
        ("a.example.co.uk", (("example.co.uk", "a"),)),
        ("co.uk", (("co.uk", ""),)),
        ("a.b.c.ck", (("b.c.ck", "a"),)),
        ("a.www.ck", (("www.ck", "a"),)),
        ("a.city.kawasaki.jp", (("city.kawasaki.jp", "a"),)),
        ("a.b.other.kawasaki.jp", (("b.other.kawasaki.jp", "a"),)),
        ("b.a.corp.internal", (("internal", "corp.a.b"),)),
        ("corp", (("corp", ""),)),
        ("a.me.github.io", (("github.io", "me.a"), ("me.github.io", "a"))),
        ("a.b.cloud.com", (("cloud.com", "b.a"),)),
        ("github.io", (("github.io", ""),)),
        ("me.github.io", (("github.io", "me"), ("me.github.io", ""))),
        ("x.b.s3.cloud.com", (("cloud.com", "s3.b.x"), ("b.s3.cloud.com", "x"))),
        ("x.eu.compute.cloud.com", (("cloud.com", "compute.eu.x"), ("x.eu.compute.cloud.com", ""))),
        (
            "x.own.compute.cloud.com",
            (("cloud.com", "compute.own.x"), ("own.compute.cloud.com", "x")),
        ),
        ("a.b.c.tenants", (("c.tenants", "b.a"), ("b.c.tenants", "a"))),
    ],
)
def test_a_name_is_split_at_both_levels(name: str, expected: tuple[tuple[str, str], ...]) -> None:
    assert Splitter(SUFFIXES).split(parse(name)) == expected


@given(LABELS)
def test_the_deepest_suffix_is_the_registrable_domain(labels: list[str]) -> None:
    name = DomainName(".".join(labels))
    below = Splitter(SUFFIXES).split(name)
    registrable = SUFFIXES.registrable(name)
    if registrable is not None:
        assert below[-1][0] == registrable
    assert all(whole(sub, suffix) == name for suffix, sub in below)


def test_an_empty_list_leaves_two_labels() -> None:
    splitter = Splitter(read_suffixes([]))
    assert splitter.split(parse("a.b.c")) == (("b.c", "a"),)


def test_the_last_name_is_split_once() -> None:
    splitter = Splitter(SUFFIXES)
    first = splitter.split(parse("a.b.example.com"))
    assert splitter.split(parse("a.b.example.com")) is first
    assert splitter.split(parse("a.c.example.com")) == (("example.com", "c.a"),)
