"""SPIFFE IDs: the vectors of the standard, and no second spelling of anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.errors import SpiffeError
from certs.spiffe import (
    MOST_ID_OCTETS,
    SpiffeId,
    check_own_trust_domain,
    check_trust_domain,
    parse_id,
    shown,
    workload_id,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
trust_domains = st.text(alphabet=f"{LETTERS}0123456789._-", min_size=1, max_size=255)
segments = st.text(
    alphabet=f"{LETTERS}{LETTERS.upper()}0123456789._-", min_size=1, max_size=40
).filter(lambda text: text not in {".", ".."})
paths = st.lists(segments, max_size=6).map(lambda each: "".join(f"/{one}" for one in each))


@pytest.mark.parametrize(
    ("text", "trust_domain", "path"),
    [
        # SPIFFE-ID, section 2.2: the examples of the standard
        ("spiffe://staging.example.com/payments/mysql", "staging.example.com", "/payments/mysql"),
        ("spiffe://k8s-west.example.com/ns/staging/sa/default", "k8s-west.example.com", None),
        ("spiffe://example.com/9eebccd2-12bf-40a6-b262-65fe0487d453", "example.com", None),
        ("spiffe://example.com", "example.com", ""),
        # go-spiffe's vectors of what is right
        ("spiffe://a.b-c_d/x", "a.b-c_d", "/x"),
        ("spiffe://0.0/A.b-C_9", "0.0", "/A.b-C_9"),
        ("spiffe://td/...", "td", "/..."),
        ("spiffe://td/.a/..b", "td", "/.a/..b"),
    ],
)
def test_reads_what_the_standard_calls_an_id(
    text: str, trust_domain: str, path: str | None
) -> None:
    found = parse_id(text)
    assert found.trust_domain == trust_domain
    assert path is None or found.path == path
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe:",
        "spiffe:/td/x",
        "spiffe://",
        "spiffe:///path",
        "http://td/x",
        "SPIFFE://td/x",
        "Spiffe://td/x",
        " spiffe://td/x",
        "spiffe://TD/x",
        "spiffe://tD/x",
        "spiffe://td:80/x",
        "spiffe://user@td/x",
        "spiffe://[::1]/x",
        "spiffe://t%64/x",
        "spiffe://tdé/x",
        "spiffe://td。example/x",
        "spiffe://td/",
        "spiffe://td//",
        "spiffe://td//x",
        "spiffe://td/x/",
        "spiffe://td/x//y",
        "spiffe://td/./x",
        "spiffe://td/x/..",
        "spiffe://td/%2e%2e/x",
        "spiffe://td/x%00",
        "spiffe://td/x\x00",
        "spiffe://td/x\n",
        "spiffe://td\n/x",
        "spiffe://td/x?a=b",
        "spiffe://td/x#y",
        "spiffe://td?a/x",
        "spiffe://td#a/x",
        "spiffe://td/a b",
        "spiffe://td/a\\b",
        "spiffe://td/a:b",
        "spiffe://td/a@b",
        "spiffe://td/ü",
        "spiffe://td/а",  # noqa: RUF001 - Cyrillic, which looks like ours
    ],
)
def test_refuses_every_other_spelling(text: str) -> None:
    """threats.md, "One name, many spellings"."""
    with pytest.raises(SpiffeError):
        parse_id(text)


def test_lengths_are_those_of_the_standard() -> None:
    longest = "spiffe://td/" + "a" * (MOST_ID_OCTETS - 12)
    assert str(parse_id(longest)) == longest
    with pytest.raises(SpiffeError, match="2048"):
        parse_id(longest + "a")
    check_trust_domain("a" * 255)
    with pytest.raises(SpiffeError, match="255"):
        check_trust_domain("a" * 256)


@given(trust_domains, paths)
def test_what_is_written_is_what_is_read(trust_domain: str, path: str) -> None:
    assert parse_id(str(SpiffeId(trust_domain, path))) == SpiffeId(trust_domain, path)


@given(st.text(max_size=60) | st.text(max_size=60).map(lambda text: f"spiffe://{text}"))
def test_any_text_is_an_id_of_one_spelling_or_an_error_that_prints(text: str) -> None:
    try:
        found = parse_id(text)
    except SpiffeError as error:
        assert str(error).isprintable()  # noqa: PT017 - one of two right ends
    else:
        assert str(found) == text


def test_a_workload_has_a_path_and_is_of_its_trust_domain() -> None:
    assert workload_id("spiffe://td/x", "td").path == "/x"
    with pytest.raises(SpiffeError, match="has a path"):
        workload_id("spiffe://td", "td")
    for foreign in ("spiffe://other/x", "spiffe://td.other/x", "spiffe://x.td/x"):
        with pytest.raises(SpiffeError, match="not of the trust domain td"):
            workload_id(foreign, "td")


@pytest.mark.parametrize("name", ["sallyport.internal", "desk.example", "td", "a_b.c-d", "1.a"])
def test_our_own_trust_domain_is_a_host_name(name: str) -> None:
    check_own_trust_domain(name)


@pytest.mark.parametrize(
    "name", ["192.0.2.7", "a..b", ".a", "a.", "-a.b", "a-.b", "a." + "b" * 64, "A.b", "", "a.7"]
)
def test_what_no_name_constraint_can_hold_is_not_our_own(name: str) -> None:
    with pytest.raises(SpiffeError):
        check_own_trust_domain(name)


def test_what_others_wrote_is_quoted_short_and_harmless() -> None:
    assert shown("a\x1b[31m\n") == "'a\\x1b[31m\\n'"
    assert len(shown("x" * 5000)) < 90
