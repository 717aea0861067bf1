"""Public suffixes come in as text, and tell registries from hosts of many tenants."""

import pytest

from rules.name import parse
from rules.suffix import PublicSuffixes, read_suffixes

LIST = """
// ===BEGIN ICANN DOMAINS===
com
uk
co.uk   // trailing words are a comment
jp
*.kawasaki.jp
!city.kawasaki.jp
\u0440\u0444
// ===END ICANN DOMAINS===
// ===BEGIN PRIVATE DOMAINS===
github.io
*.compute.example.com
// ===END PRIVATE DOMAINS===
"""


@pytest.fixture(name="suffixes")
def _suffixes() -> PublicSuffixes:
    return read_suffixes(LIST.splitlines())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("com", True),
        ("co.uk", True),
        ("example.com", False),
        ("kawasaki.jp", True),
        ("x.kawasaki.jp", True),
        ("city.kawasaki.jp", False),
        ("xn--p1ai", True),
        ("unheardof", True),
        ("lan", False),
        ("internal", False),
        ("github.io", False),
    ],
)
def test_knows_a_registry(suffixes: PublicSuffixes, name: str, expected: bool) -> None:
    assert suffixes.is_registry(parse(name)) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("github.io", True),
        ("me.github.io", True),
        ("a.me.github.io", True),
        ("eu.compute.example.com", True),
        ("compute.example.com", False),
        ("example.com", False),
        ("io", False),
    ],
)
def test_knows_a_host_of_many_tenants(suffixes: PublicSuffixes, name: str, expected: bool) -> None:
    """Closes "wildcard over a multi-tenant suffix"."""
    assert suffixes.is_shared(parse(name)) is expected


def test_keeps_what_lies_above_a_private_suffix(suffixes: PublicSuffixes) -> None:
    assert suffixes.above_private == {"io", "example.com", "com", "compute.example.com"}


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("a.b.example.com", "example.com"),
        ("example.com", "example.com"),
        ("com", None),
        ("a.b.co.uk", "b.co.uk"),
        ("co.uk", None),
        ("a.me.github.io", "me.github.io"),
        ("github.io", None),
        ("a.b.city.kawasaki.jp", "city.kawasaki.jp"),
        ("a.b.unheardof", "b.unheardof"),
        ("unheardof", None),
    ],
)
def test_the_registrable_domain_is_one_label_below_the_longest_suffix(
    suffixes: PublicSuffixes, name: str, domain: str | None
) -> None:
    assert suffixes.registrable(parse(name)) == domain
