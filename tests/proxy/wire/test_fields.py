"""Fields: what is read of them, what is sent on, and what is written."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import PeerError, UpstreamError
from proxy.wire.fields import (
    FIELD_LINES,
    blame_line,
    connection_options,
    end_to_end,
    read_trailers,
    request_malformed,
    show,
    split_lines,
    upstream_malformed,
    write_fields,
)
from rules.decision import Reason

_NAME = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=12).map(str.encode)
_OCTETS = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)]).decode("latin-1")
_VALUE = st.text(_OCTETS, max_size=20).map(lambda text: text.strip(" \t").encode("latin-1"))


def test_blames_the_side_that_sent_it() -> None:
    assert isinstance(request_malformed("x"), PeerError)
    assert request_malformed("x").reason is Reason.REQUEST_MALFORMED
    assert isinstance(upstream_malformed("x"), UpstreamError)
    assert upstream_malformed("x").reason is Reason.UPSTREAM_MALFORMED


def test_names_become_lower_case_and_values_lose_outer_white_space() -> None:
    lines = [b"Accept: a, b ", b"X-A:\t\xfc \t", b"Empty:"]
    assert split_lines(lines) == ((b"accept", b"a, b"), (b"x-a", b"\xfc"), (b"empty", b""))


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (None, set()),
        (b"keep-alive", {b"keep-alive"}),
        (b"Close", {b"close"}),
        (b" Upgrade ,, HTTP2-Settings,", {b"upgrade", b"http2-settings"}),
        (b"", set()),
    ],
)
def test_reads_connection_options(value: bytes | None, options: set[bytes]) -> None:
    assert connection_options(value, request_malformed) == options


@pytest.mark.parametrize(
    "name",
    [b"Host", b"content-length", b"Authorization", b"cookie", b"Cache-Control", b"X-Forwarded-For",
     b"if-none-match", b"sec-fetch-site", b"expect", b"accept-encoding"],
)  # fmt: skip
def test_refuses_connection_options_that_name_end_to_end_fields(name: bytes) -> None:
    """`Connection:`-listed end-to-end headers."""
    with pytest.raises(PeerError, match="end-to-end") as refused:
        connection_options(b"close, " + name, request_malformed)
    assert refused.value.reason is Reason.REQUEST_MALFORMED
    with pytest.raises(UpstreamError):
        connection_options(name, upstream_malformed)


def test_drops_hop_by_hop_fields() -> None:
    fields = [
        (b"host", b"example.com"),
        (b"connection", b"keep-alive"),
        (b"proxy-connection", b"keep-alive"),
        (b"keep-alive", b"timeout=5"),
        (b"te", b"trailers"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"websocket"),
        (b"http2-settings", b"AAMAAABkAAQCAAAAAAIAAAAA"),
        (b"proxy-authorization", b"Basic x"),
        (b"proxy-authenticate", b"Basic"),
        (b"proxy-authentication-info", b"x"),
        (b"trailer", b"x-checksum"),
        (b"content-length", b"5"),
        (b"expect", b"100-continue"),
    ]
    assert [name for name, _ in end_to_end(fields)] == [
        b"host",
        b"trailer",
        b"content-length",
        b"expect",
    ]


@pytest.mark.parametrize("options", [[b"X-Hop, close"], [b"keep-alive", b"x-hop"]])
def test_drops_what_connection_lists(options: list[bytes]) -> None:
    fields = [(b"x-hop", b"1"), (b"x-end", b"2"), *[(b"connection", value) for value in options]]
    assert end_to_end(fields) == [(b"x-end", b"2")]


def test_keeps_everything_where_there_is_no_connection_field() -> None:
    assert end_to_end([(b"x-hop", b"1")]) == [(b"x-hop", b"1")]


def test_reads_trailers_and_drops_those_that_have_no_place_there() -> None:
    section = b"X-Checksum: a\r\nContent-Length: 5\r\nHost: b\r\nTE: x\r\nX-Forwarded-For: y\r\n"
    assert read_trailers(section, 5, request_malformed) == ((b"x-checksum", b"a"),)


def test_refuses_too_many_trailers() -> None:
    with pytest.raises(UpstreamError, match="more than 2"):
        read_trailers(b"A: b\r\n" * 3, 2, upstream_malformed)


def test_refuses_malformed_trailers() -> None:
    with pytest.raises(PeerError, match="folded"):
        read_trailers(b"A: b\r\n c\r\n", 9, request_malformed)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b" folded", "folded"),
        (b"\tfolded", "folded"),
        (b"a: b\nc: d", "bare CR or LF"),
        (b"a: b\rc", "bare CR or LF"),
        (b"a : b", "no field line"),
        (b"a\0b: c", "no field line"),
        (b": b", "no field line"),
        (b"ab", "no field line"),
    ],
)
def test_says_what_is_wrong_with_a_line(line: bytes, why: str) -> None:
    text = blame_line([b"Fine: yes", line, b"\xff"])
    assert why in text
    assert text.isprintable()


def test_never_shows_a_value_a_query_or_a_password() -> None:
    assert "secret" not in blame_line([b"authorization: secret\0"])
    assert "secret" not in blame_line([b" secret"])
    assert show(b"GET http://example.com/?key=secret") == "'GET http://example.com/'"
    assert show(b"ftp://me:secret@example.com/") == "'example.com/'"


def test_says_something_where_every_line_is_well() -> None:
    assert "no field line" in blame_line([b"Fine: yes"])


def test_writes_one_line_for_each_field() -> None:
    assert write_fields([(b"host", b"a"), (b"x", b"")]) == b"host: a\r\nx: \r\n"
    assert write_fields([]) == b""


@pytest.mark.parametrize("value", [b"a\r\nevil: 1", b"a\nb", b"a\rb", b"a\0b", b"\r\n"])
def test_never_writes_a_field_that_holds_another(value: bytes) -> None:
    """CRLF in h2 values (CVE-2025-57804): no later plane can write one either."""
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        write_fields([(b"x", value)])
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        write_fields([(value, b"x")])


@given(st.lists(st.tuples(_NAME, _VALUE), max_size=6))
def test_written_fields_read_back(fields: list[tuple[bytes, bytes]]) -> None:
    block = write_fields(fields)
    lines = block.split(b"\r\n")[:-1]
    assert re.fullmatch(FIELD_LINES, b"".join(b"\r\n" + line for line in lines))
    assert split_lines(lines) == tuple((name.lower(), value) for name, value in fields)
