"""Paths have one normal form, and patterns match them by whole segments."""

import re
from contextlib import suppress
from string import ascii_letters, digits, hexdigits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.errors import MalformedPathError
from rules.path import PATH_SEGMENTS, PathIndex, normal_path, parse_glob, readings

SEGMENT = st.text(alphabet="ab.*", min_size=0, max_size=4).filter(lambda s: s not in {".", ".."})
PATH = st.lists(SEGMENT, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
GLOB_SEGMENT = st.one_of(st.just("**"), SEGMENT.filter(lambda s: "**" not in s))
GLOB = st.lists(GLOB_SEGMENT, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("", "/"),
        ("/", "/"),
        ("/repos/acme", "/repos/acme"),
        ("/a/../b", "/b"),
        ("/a/./b", "/a/b"),
        ("/a/.", "/a/"),
        ("/a/b/..", "/a/"),
        ("/..", "/"),
        ("/../../x", "/x"),
        ("/.hidden/x.y", "/.hidden/x.y"),
        ("/...", "/..."),
        ("//a//", "//a//"),
        ("/a//../b", "/a/b"),
        ("/a//b/..", "/a//"),
    ],
)
def test_removes_dot_segments_as_rfc_3986_does(written: str, normal: str) -> None:
    assert normal_path(written) == normal


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("/a/%2e%2E/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/%7euser/%41%2D", "/~user/A-"),
        ("/%c3%a9", "/%C3%A9"),
        ("/a%2fb", "/a%2Fb"),
        ("/a%2f%2fb", "/a%2F%2Fb"),
        ("/%252e%252e/x", "/%252e%252e/x"),
        ("/%252f", "/%252f"),
        ("/%25%32%65", "/%252e"),
        ("/a;b=c/@:!$&'()*+,", "/a;b=c/@:!$&'()*+,"),
        ("/%0a%20", "/%0A%20"),
        ("/a|b[c]", "/a|b[c]"),
    ],
)
def test_has_one_spelling_for_an_octet(written: str, normal: str) -> None:
    """Closes "dot segments and encoded slashes in paths"."""
    assert normal_path(written) == normal


@pytest.mark.parametrize(
    "written",
    [
        "a",
        "*",
        "http://example.org/",
        "/a\\b",
        "/a%5cb",
        "/a%5Cb",
        "/a%00",
        "/a b",
        "/a\tb",
        "/a\r\nb",
        "/a\x7f",
        "/a\x00",
        "/é",
        "/a%",
        "/a%4",
        "/a%zz",
        "/a%+1",
        "/a%\u0660\u0660",
        "/a?b",
        "/a#b",
        "/..%2fx",
        "/x%2F..",
        "/ok/..;/x",
        "/ok/.;a=b",
        "/ok/%2e%2e;/x",
        "/ok/a%2F..;x",
        "/x%2f%2e%2e%2fy",
        "/x/%2e%2f",
        "/" * (PATH_SEGMENTS + 1),
        "/a" * (PATH_SEGMENTS + 1),
    ],
)
def test_refuses_what_two_servers_may_read_in_two_ways(written: str) -> None:
    """Closes "dot segments and encoded slashes in paths"."""
    with pytest.raises(MalformedPathError) as caught:
        normal_path(written)
    assert caught.value.cure
    assert len(str(caught.value)) < 200


def test_takes_as_many_segments_as_the_limit_says() -> None:
    assert normal_path("/a" * PATH_SEGMENTS) == "/a" * PATH_SEGMENTS
    assert normal_path("/." * PATH_SEGMENTS) == "/"


@given(st.text(alphabet=ascii_letters + digits + "/.%~-*" + hexdigits, max_size=40))
def test_the_normal_form_is_its_own_normal_form(text: str) -> None:
    try:
        normal = normal_path("/" + text)
    except MalformedPathError:
        return
    assert normal_path(normal) == normal
    assert not {".", ".."} & set(normal.split("/"))


@given(st.text(max_size=40))
def test_any_text_is_a_path_or_an_error(text: str) -> None:
    with suppress(MalformedPathError):
        assert normal_path(text).startswith("/")


@pytest.mark.parametrize(
    ("glob", "matching", "others"),
    [
        ("/a", ["/a"], ["/", "/a/", "/b", "/a/b", "/aa", "/A"]),
        ("/a/", ["/a/"], ["/a", "/a//"]),
        ("/a/**", ["/a/", "/a/b", "/a/b/c", "/a//", "/a//b"], ["/a", "/", "/ab", "/b/a/"]),
        ("/**", ["/", "/a", "/a/b", "//"], []),
        ("/**/", ["/", "/a/", "/a/b/"], ["/a", "/a/b"]),
        ("/*", ["/a", "/a.b"], ["/", "/a/", "/a/b"]),
        ("/*/b", ["/a/b", "/b/b"], ["/b", "//b", "/a/c/b"]),
        ("/a/**/b", ["/a/b", "/a/x/b", "/a/x/y/b", "/a/b/b"], ["/ab", "/a", "/b", "/a/b/"]),
        ("/**/a/**/b", ["/a/b", "/x/a/a/y/b"], ["/b", "/a", "/b/a"]),
        ("/**/x", ["/x", "/a/x", "/x/x"], ["/x/y", "/"]),
        ("/v*", ["/v", "/v1", "/v1.2"], ["/1v", "/v1/", "/w"]),
        ("/*.json", ["/.json", "/a.json"], ["/a.jsonx", "/json", "/a/b.json"]),
        ("/a*b", ["/ab", "/axb", "/abab"], ["/a", "/b", "/ba"]),
        ("/aba*ba", ["/ababa", "/abaxba"], ["/aba", "/abba"]),
        ("/a*b*c*d", ["/abcd", "/a1b2c3d"], ["/acbd", "/abd"]),
        ("/*b*", ["/b", "/abc"], ["/", "/ac", "/a/b"]),
        ("/*aa*aa*", ["/aaaa", "/aaxaa"], ["/aaa", "/aa"]),
        ("/repos/acme/**", ["/repos/acme/x%2Fy"], ["/repos/acme%2Fx", "/repos/acme2/x"]),
        ("/%7ea%2fb", ["/~a%2Fb"], ["/~a/b"]),
    ],
)
def test_a_pattern_matches_by_whole_segments(
    glob: str, matching: list[str], others: list[str]
) -> None:
    parsed = parse_glob(glob)
    assert [path for path in matching if not parsed.matches(path)] == []
    assert [path for path in others if parsed.matches(path)] == []


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("/a/**/**", "/a/**"),
        ("/**/**/b", "/**/b"),
        ("/**/**/**", "/**"),
        ("/%7e*", "/~*"),
        ("/a%2a", "/a%2A"),
        ("/a%2fb", "/a%2Fb"),
    ],
)
def test_a_pattern_has_a_normal_form(written: str, normal: str) -> None:
    parsed = parse_glob(written)
    assert parsed.text == normal
    assert parsed.segments == tuple(normal.split("/")[1:])
    assert parse_glob(normal) == parsed


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "does not begin"),
        ("a/b", "does not begin"),
        ("**", "does not begin"),
        ("/a**", "stands beside"),
        ("/a/**b/c", "stands beside"),
        ("/***", "stands beside"),
        ("/a/../b", "dot segment"),
        ("/%2e/b", "dot segment"),
        ("/x%2f..", "dot segment beside"),
        ("/a?b=*", "a query"),
        ("/a#b", "a fragment"),
        ("/a\\b", "a backslash"),
        ("/a%5c", "begins no such octet"),
        ("/a%2", "begins no such octet"),
        ("/é", "outside visible ASCII"),
        ("/*" * (PATH_SEGMENTS + 1), "more than 256 segments"),
    ],
)
def test_refuses_a_pattern_that_cannot_match_or_misleads(written: str, said: str) -> None:
    with pytest.raises(MalformedPathError, match=said) as caught:
        parse_glob(written)
    assert caught.value.cure


@given(st.text(max_size=40))
def test_any_text_is_a_pattern_or_an_error(text: str) -> None:
    with suppress(MalformedPathError):
        assert parse_glob("/" + text).text.startswith("/")


def test_ranks_by_literal_octets_before_the_first_star_then_in_total_then_by_fewer_deep() -> None:
    globs = ["/ab/c", "/ab/*", "/ab/**", "/a*c/ddd", "/a*c/dd", "/**/*", "/**"]
    ranks = [parse_glob(glob).rank for glob in globs]
    assert ranks == sorted(ranks, reverse=True)
    assert parse_glob("/ab/*").rank > parse_glob("/ab/**").rank
    assert parse_glob("/a/**").rank == parse_glob("/b/**").rank


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b", ["/a/b"]),
        ("/a%2Fb", ["/a%2Fb", "/a/b"]),
        ("/a//b", ["/a//b", "/a/b"]),
        ("/%2Fa", ["/%2Fa", "//a", "/a"]),
        ("//a%2Fb", ["//a%2Fb", "//a/b", "/a%2Fb", "/a/b"]),
    ],
)
def test_a_deny_reads_a_path_as_any_server_may(path: str, expected: list[str]) -> None:
    """Closes "dot segments and encoded slashes in paths"."""
    assert list(readings(path)) == expected


@given(GLOB, PATH)
def test_matches_as_the_plain_definition_does(glob: str, path: str) -> None:
    *inner, last = parse_glob(glob).segments
    parts = ["(?:/[^/]*)*" if s == "**" else "/" + translated(s) for s in inner]
    parts.append("(?:/[^/]*)+" if last == "**" else "/" + translated(last))
    assert parse_glob(glob).matches(path) == bool(re.fullmatch("".join(parts), path))


def translated(segment: str) -> str:
    return "[^/]+" if segment == "*" else re.escape(segment).replace(r"\*", "[^/]*")


@given(st.lists(GLOB, max_size=8), PATH)
def test_an_index_finds_what_each_pattern_alone_matches(globs: list[str], path: str) -> None:
    index = PathIndex([(parse_glob(glob), glob) for glob in globs])
    found = [glob for leaf in index.find(path) for glob in leaf.rules]
    assert set(found) == {glob for glob in globs if parse_glob(glob).matches(path)}


def test_an_index_keeps_every_rule_of_one_pattern_once() -> None:
    glob = parse_glob("/a/*")
    first, second = object(), object()
    index = PathIndex([(glob, first), (glob, first), (glob, second)])
    (leaf,) = index.find("/a/b")
    assert leaf.rules == [first, second]
    assert leaf.rank == glob.rank


def test_the_work_on_a_hostile_path_is_bounded() -> None:
    """Closes "rule regexes that backtrack"."""
    globs = [parse_glob("/" + "**/a*a/" * 20 + f"x{n}") for n in range(50)]
    index = PathIndex([(glob, None) for glob in globs])
    assert index.find("/aa" * PATH_SEGMENTS) == []
