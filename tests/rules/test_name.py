"""A name has one spelling; what is no name is an error, never an escape."""

from string import ascii_lowercase, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.errors import MalformedNameError
from rules.name import ROOT, DomainName, ancestors, from_labels, is_below, parent, parse

LABEL = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,10}[a-z0-9_])?", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=6).map(".".join)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.Com", "example.com"),
        ("example.com.", "example.com"),
        ("_dns._udp.example.com", "_dns._udp.example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a", "a"),
        ("1.2.3.4", "1.2.3.4"),
        ("a" * 63 + ".b", "a" * 63 + ".b"),
        (".".join(["a" * 49] * 5) + ".abc", ".".join(["a" * 49] * 5) + ".abc"),
    ],
)
def test_folds_case_and_drops_one_trailing_dot(written: str, name: str) -> None:
    """Closes "trailing dot and case (CVE-2022-24825)"."""
    assert parse(written) == name


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "an empty label"),
        (".", "an empty label"),
        ("..", "an empty label"),
        ("a..b", "an empty label"),
        (".a", "an empty label"),
        ("a..", "an empty label"),
        ("attacker.example\x00.google.com", "labels hold"),
        ("[example.com]", "labels hold"),
        ("a@b", "labels hold"),
        ("a%2eb", "labels hold"),
        ("a/b", "labels hold"),
        ("a\\b", "labels hold"),
        ("a b", "labels hold"),
        ("a\n", "labels hold"),
        ("-a.b", "labels hold"),
        ("a-.b", "labels hold"),
        ("*.a", "labels hold"),
        ("::1", "labels hold"),
        ("b\u00fccher.example", "A-labels"),
        ("example\u3002com", "A-labels"),
        ("\uff45xample.com", "A-labels"),
        ("\u212aelvin.example", "A-labels"),
        ("\u0131.example", "A-labels"),
        ("a" * 64, "a label of 64 octets"),
        (".".join(["a" * 49] * 5) + ".abcd", "more than 253"),
        ("a." * 5000, "more than 253"),
    ],
)
def test_refuses_what_is_no_name(written: str, said: str) -> None:
    """Closes "One name, many spellings": NUL, brackets, U-labels, U+3002, `%`, 63/255."""
    with pytest.raises(MalformedNameError, match=said) as caught:
        parse(written)
    assert len(str(caught.value)) < 2000


@given(st.text(max_size=300))
def test_any_text_is_a_name_or_an_error(text: str) -> None:
    try:
        name = parse(text)
    except MalformedNameError:
        return
    assert set(name) <= set(ascii_lowercase + digits + "-_.")
    assert parse(name) == name


@given(NAME)
def test_every_spelling_of_a_name_is_one_value(name: str) -> None:
    assert parse(name.upper()) == parse(name + ".") == parse(name) == name
    assert from_labels([label.upper().encode() for label in name.split(".")]) == name


@pytest.mark.parametrize(
    "labels",
    [
        [b"a.b", b"com"],
        [b"a\x00b", b"com"],
        [b"", b"com"],
        [b"a b"],
        [b"a\\.b"],
        [b"\xc3\xbc"],
        [b"-a"],
        [b"a-"],
        [b"a\n"],
        [b"a" * 64],
        [b"a" * 63] * 4,
    ],
)
def test_refuses_wire_labels_outside_the_alphabet(labels: list[bytes]) -> None:
    """Closes "a label that contains a dot or a NUL byte on the wire"."""
    with pytest.raises(MalformedNameError):
        from_labels(labels)


def test_no_labels_are_the_root() -> None:
    assert from_labels([]) == ROOT


def test_ancestors_are_the_parents_nearest_first() -> None:
    assert list(ancestors(parse("a.b.c"))) == ["b.c", "c"]
    assert list(ancestors(parse("a"))) == []
    assert list(ancestors(ROOT)) == []


@pytest.mark.parametrize(("name", "up"), [("a.b.c", "b.c"), ("a", "."), (".", ".")])
def test_the_parent_is_one_label_up(name: str, up: str) -> None:
    assert parent(DomainName(name)) == up


@pytest.mark.parametrize(
    ("name", "base", "expected"),
    [
        ("a.example.com", "example.com", True),
        ("b.a.example.com", "example.com", True),
        ("example.com", "example.com", False),
        ("evilexample.com", "example.com", False),
        ("com", "example.com", False),
        ("a", ".", True),
        (".", ".", False),
    ],
)
def test_below_is_by_whole_labels(name: str, base: str, expected: bool) -> None:
    """Closes "suffix without label boundary (evilexample.com)"."""
    assert is_below(DomainName(name), DomainName(base)) is expected


@given(NAME)
def test_a_name_is_below_each_of_its_ancestors_and_the_root(name: str) -> None:
    parsed = parse(name)
    assert all(is_below(parsed, up) for up in (*ancestors(parsed), ROOT))
