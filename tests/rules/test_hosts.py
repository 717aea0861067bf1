"""One name, many spellings: host patterns come out canonical or not at all (threats.md)."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.errors import Severity
from rules.hosts import HostReader, parse_host, parse_pattern
from rules.node import MistakeError, Node, Report, ScalarNode, SequenceNode
from rules.pattern import PatternKind
from tests.rules.files import SUFFIXES


def nodes(texts: list[str]) -> Node:
    items: list[Node] = [ScalarNode(n, 1, text, True) for n, text in enumerate(texts, 1)]
    return items[0] if len(items) == 1 else SequenceNode(1, 1, items)


def allowed(*texts: str, tenants: bool = False) -> tuple[list[str], list[str]]:
    report = Report("f", "")
    patterns = HostReader(SUFFIXES).allowed(
        list(texts), nodes(list(texts)), report, tenants=tenants
    )
    problems = report.problems(Severity.ERROR)
    return [str(each) for each in patterns], [f"{p.place.line} {p.message}" for p in problems]


def denied(*texts: str) -> tuple[list[str], list[str]]:
    report = Report("f", "")
    patterns = HostReader(SUFFIXES).denied(list(texts), nodes(list(texts)), report)
    problems = report.problems(Severity.ERROR)
    return [str(each) for each in patterns], [f"{p.place.line} {p.message}" for p in problems]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.Com.", "example.com"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("corp", "corp"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER。example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("\uff21.example.com", "a.example.com"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("**.Example.COM.", "**.example.com"),
        ("*", "*"),
    ],
)
def test_a_pattern_has_one_form(text: str, canonical: str) -> None:
    assert str(parse_pattern(text)) == canonical


def test_the_kind_follows_from_the_stars() -> None:
    assert parse_pattern("*.example.com").kind is PatternKind.CHILD
    assert parse_pattern("**.example.com").kind is PatternKind.BELOW
    assert parse_pattern("*").kind is PatternKind.EVERY
    assert parse_pattern("example.com").kind is PatternKind.EXACT


@pytest.mark.parametrize(
    "text", ["**", "***.example.com", "*example.com", "a.*.example.com", "*.*.example.com", "a*"]
)
def test_stars_stand_for_whole_labels_first(text: str) -> None:
    with pytest.raises(MistakeError, match="a `\\*` stands for whole labels") as caught:
        parse_pattern(text)
    assert "*.example.com" in caught.value.cure


@pytest.mark.parametrize(
    ("text", "message", "cure"),
    [
        ("", "an empty label", "domain name"),
        (".", "an empty label", "domain name"),
        ("a..example", "an empty label", "domain name"),
        ("a b.example", "labels hold", "domain name"),
        ("-a.example", "labels hold", "domain name"),
        ("a" * 64 + ".example", "64 octets", "domain name"),
        ("a." * 127 + "com", "more than 253", "domain name"),
        ("é" * 254, "longer than 253", "domain name"),
        ("☃.example", "no international name", "domain name"),
        ("a\x00.example", "labels hold", "domain name"),
        ("https://example.com/x", "labels hold", "no scheme"),
        ("10.0.0.0/8", "labels hold", "networks stand in `addresses`"),
        ("example.com:443", "labels hold", "list it in `ports`"),
        ("[::1]", "an address, not a name", "without `host`"),
        ("2001:db8::1", "an address, not a name", "without `host`"),
        ("192.0.2.1", "an address, not a name", "without `host`"),
        ("127.1", "an address, not a name", "without `host`"),
        ("0x7f.1", "an address, not a name", "without `host`"),
        ("0x7f000001", "an address, not a name", "without `host`"),
        ("2130706433.", "an address, not a name", "without `host`"),
        ("\uff11\uff12\uff17.0.0.1", "an address, not a name", "without `host`"),
        ("*.0.0.1", "an address, not a name", "without `host`"),
    ],
)
def test_anything_but_a_name_is_refused_with_a_cure(text: str, message: str, cure: str) -> None:
    """threats.md: "One name, many spellings"; a literal in `host` is a load error."""
    with pytest.raises(MistakeError, match=message) as caught:
        parse_pattern(text)
    assert cure in caught.value.cure


def test_parse_host_knows_no_wildcard() -> None:
    assert parse_host("Example.com") == "example.com"
    with pytest.raises(MistakeError):
        parse_host("*.example.com")


def test_the_fast_way_and_the_slow_way_agree_and_name_each_once() -> None:
    patterns, problems = allowed("example.com", "EXAMPLE.com", "example.com", "a.example.com.")
    assert patterns == ["example.com", "a.example.com"]
    assert problems == []


def test_each_wrong_item_is_reported_at_its_place() -> None:
    patterns, problems = allowed("example.com", "10.0.0.1", "ok.example.com", "a..b")
    assert patterns == ["example.com", "ok.example.com"]
    assert [problem.split()[0] for problem in problems] == ["2", "4"]


def test_a_long_name_of_plain_labels_is_still_too_long() -> None:
    assert allowed("a." * 125 + "aaa")[1] == []
    assert "more than 253" in allowed("a." * 125 + "aaaa")[1][0]


@pytest.mark.parametrize("text", ["*.com", "**.com", "**.co.uk", "*.uk", "*.ck", "*.x.ck", "*.zz"])
@pytest.mark.parametrize("tenants", [False, True])
def test_a_wildcard_over_a_registry_is_healed_by_nothing(text: str, tenants: bool) -> None:
    patterns, problems = allowed(text, tenants=tenants)
    assert patterns == []
    assert "every customer of a registry" in problems[0]


def test_two_stars_above_a_registry_reach_its_customers() -> None:
    assert "every customer of a registry" in allowed("**.nordland.no")[1][0]
    assert allowed("*.nordland.no") == (["*.nordland.no"], [])


@pytest.mark.parametrize("tenants", [False, True])
def test_every_name_is_never_allowed(tenants: bool) -> None:
    """threats.md: an empty or too wide allow list taken as "open"."""
    patterns, problems = allowed("*", tenants=tenants)
    assert patterns == []
    assert problems == ["1 `*` would allow every name"]


@pytest.mark.parametrize(
    "text",
    [
        "*.github.io.example",
        "**.github.io.example",
        "*.me.github.io.example",
        "*.io.example",
        "**.io.example",
        "*.tenants.example",
        "**.tenants.example",
        "*.a.tenants.example",
        "**.cloud.example",
        "*.cloud.example",
    ],
)
def test_a_wildcard_that_reaches_tenants_must_be_accepted(text: str) -> None:
    """threats.md: wildcard over a multi-tenant suffix."""
    patterns, problems = allowed(text)
    assert patterns == []
    assert "names of many tenants" in problems[0]
    assert allowed(text, tenants=True) == ([text], [])


@pytest.mark.parametrize("text", ["*.corp.example.com", "**.example.com", "github.io.example"])
def test_other_wildcards_and_exact_names_need_nothing(text: str) -> None:
    assert allowed(text) == ([text], [])


def test_one_star_two_labels_above_a_suffix_does_not_reach_it() -> None:
    """`*.example` matches cloud.example, which is no tenant of the suffix eu.cloud.example."""
    reader = HostReader(SUFFIXES)
    assert not reader._reaches_tenants(parse_pattern("*.example"))
    assert reader._reaches_tenants(parse_pattern("**.example"))


def test_deny_may_be_as_wide_as_it_likes() -> None:
    texts = ("*", "**.com", "com", "**.github.io.example", "**.tenants.example", "EXAMPLE.com")
    assert denied(*texts) == (["*", "**.com", "com", *texts[3:5], "example.com"], [])


def test_deny_refuses_literals_too() -> None:
    assert "an address, not a name" in denied("192.0.2.1")[1][0]


@given(st.text(max_size=40))
def test_any_text_is_a_canonical_pattern_or_a_mistake(text: str) -> None:
    with suppress(MistakeError):
        pattern = parse_pattern(text)
        assert parse_pattern(str(pattern)) == pattern
        assert str(pattern).isascii()
