"""HTTP/1 heads: the vectors, the limits, and heads that come in pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import PeerError, UpstreamError
from proxy.limits import Limits
from proxy.wire.head import (
    ALT_SVC,
    NO_BODY,
    Body,
    BodyKind,
    RequestHead,
    ResponseHead,
    coding_fields,
    end_to_end,
    read_request,
    read_response,
    write_request,
    write_response,
)
from proxy.wire.section import SectionMemory
from rules.decision import Reason
from tests.proxy.wire.vectors import messages

_LIMITS = Limits()
_REQUESTS = messages("request-")
_RESPONSES = messages("response-")
_CHUNKED = Body(BodyKind.CHUNKED)
_GET = b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n"
_OK = b"HTTP/1.1 200 OK\r\n"


def request(octets: bytes) -> RequestHead:
    read = read_request(octets, _LIMITS)
    assert read is not None
    return read[0]


def response(octets: bytes, method: str = "GET") -> ResponseHead:
    read = read_response(octets, method, _LIMITS)
    assert read is not None
    return read[0]


@pytest.mark.parametrize("name", _REQUESTS)
def test_takes_what_real_clients_send(name: str) -> None:
    octets = _REQUESTS[name]
    read = read_request(octets, _LIMITS)
    assert read is not None
    head, end = read
    assert octets[:end].endswith(b"\r\n\r\n")
    assert octets.startswith(head.method.encode() + b" " + head.target)
    assert head.host == dict(head.fields)[b"host"]


@pytest.mark.parametrize("name", messages("refused-request-"))
def test_refuses_requests_that_two_readers_may_read_in_two_ways(name: str) -> None:
    """CL+TE, duplicate Content-Length, bare LF, obs-fold, space before colon, HTTP/0.9.

    Each is a file of tests/vectors/http; it is refused whole and never asks for more.
    """
    with pytest.raises(PeerError) as refused:
        read_request(messages(name)[name], _LIMITS)
    assert refused.value.reason is Reason.REQUEST_MALFORMED
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", messages("refused-response-"))
def test_refuses_responses_that_two_readers_may_read_in_two_ways(name: str) -> None:
    with pytest.raises(UpstreamError) as refused:
        read_response(messages(name)[name], "GET", _LIMITS)
    assert refused.value.reason is Reason.UPSTREAM_MALFORMED
    assert str(refused.value).isprintable()


def test_reads_a_request() -> None:
    octets = (
        b"POST http://example.com/a?b HTTP/1.1\r\nHOST:example.com\r\nContent-Length: 5\r\n"
        b"Connection: close\r\nX: a  b \t\r\n\r\nhello"
    )
    assert read_request(octets, _LIMITS) == (
        RequestHead(
            method="POST",
            target=b"http://example.com/a?b",
            minor=1,
            fields=(
                (b"host", b"example.com"),
                (b"content-length", b"5"),
                (b"connection", b"close"),
                (b"x", b"a  b"),
            ),
            body=Body(BodyKind.LENGTH, 5),
            host=b"example.com",
            options=frozenset({b"close"}),
            kept=b"content-length: 5\r\nx: a  b\r\n",
        ),
        len(octets) - 5,
    )


def test_a_connection_that_repeats_its_fields_is_read_as_any_other() -> None:
    client, origin = SectionMemory(b"host"), SectionMemory(ALT_SVC)
    for path in (b"/a", b"/b"):
        octets = b"GET http://h%b HTTP/1.1\r\nHost: h\r\nX: 1\r\n\r\n" % path
        assert read_request(octets, _LIMITS, client) == read_request(octets, _LIMITS)
    for status in (b"200", b"404"):
        octets = b"HTTP/1.1 %b\r\nContent-Length: 0\r\nAlt-Svc: h3\r\n\r\n" % status
        assert read_response(octets, "GET", _LIMITS, origin) == read_response(
            octets, "GET", _LIMITS
        )


def test_reads_a_response() -> None:
    octets = b"HTTP/1.1 404 Not \xfcber\r\nContent-Length: 5\r\nConnection: Upgrade, x\r\n\r\nhello"
    assert read_response(octets, "GET", _LIMITS) == (
        ResponseHead(
            minor=1,
            status=404,
            phrase=b"Not \xfcber",
            fields=((b"content-length", b"5"), (b"connection", b"Upgrade, x")),
            body=Body(BodyKind.LENGTH, 5),
            options=frozenset({b"upgrade", b"x"}),
            kept=b"content-length: 5\r\n",
        ),
        len(octets) - 5,
    )


def test_heads_that_come_octet_by_octet_are_never_refused() -> None:
    for octets in _REQUESTS.values():
        end = octets.index(b"\r\n\r\n") + 4
        assert all(read_request(octets[:cut], _LIMITS) is None for cut in range(end))
    for octets in _RESPONSES.values():
        end = octets.index(b"\r\n\r\n") + 4
        assert all(read_response(octets[:cut], "GET", _LIMITS) is None for cut in range(end))


def test_takes_a_buffer_that_may_grow() -> None:
    buffer = bytearray(_GET + b"\r\n")
    head = read_request(buffer, _LIMITS)
    buffer.clear()
    assert head is not None
    assert head[0].target == b"http://example.com/"


@pytest.mark.parametrize(
    "beginning",
    [b"\r", b"\n", b" ", b"\x16\3", b"\5\1", b"\0", b"GET\t", b"GET /\n", b"GET /\r\n",
     b"GET / HTTP/1.1\n", b"GET / HTTP/2\r\n", b"G\xc3T", b"SSH-2.0-OpenSSH_9.2p1\r\n"],
)  # fmt: skip
def test_refuses_a_beginning_of_no_request_without_waiting(beginning: bytes) -> None:
    """Leading CRLF before the request line (microsandbox 0c13181a); HTTP/0.9."""
    with pytest.raises(PeerError, match="does not begin"):
        read_request(beginning, _LIMITS)


@pytest.mark.parametrize("beginning", [b"<html>", b"\r\n", b"HTTP/2", b"HTTP/1.1 200 OK\n", b"h"])
def test_refuses_a_beginning_of_no_response_without_waiting(beginning: bytes) -> None:
    with pytest.raises(UpstreamError, match="does not begin"):
        read_response(beginning, "GET", _LIMITS)


def test_bounds_the_octets_of_a_head() -> None:
    """Slow loris on head: what is held is bounded."""
    limits = Limits(head_octets=len(_GET) + 2)
    assert read_request(_GET + b"\r\n" + bytes(99), limits) is not None
    with pytest.raises(PeerError, match="more than"):
        read_request(_GET + b"X: y\r\n\r\n", limits)
    with pytest.raises(UpstreamError, match="more than"):
        read_response(_OK + b"X: " + b"y" * 99, "GET", limits)


def test_bounds_the_fields_of_a_head() -> None:
    limits = Limits(head_fields=2)
    assert read_request(_GET + b"X: y\r\n\r\n", limits) is not None
    with pytest.raises(PeerError, match="more than 2 fields"):
        read_request(_GET + b"X: y\r\nX: y\r\n\r\n", limits)
    with pytest.raises(UpstreamError, match="more than 2 fields"):
        read_response(_OK + b"X: y\r\n" * 3 + b"\r\n", "GET", limits)


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (b"", NO_BODY),
        (b"Content-Length: 0\r\n", NO_BODY),
        (b"Content-Length: 9223372036854775807\r\n", Body(BodyKind.LENGTH, 2**63 - 1)),
        (b"Transfer-Encoding: cHuNkEd\r\n", _CHUNKED),
    ],
)
def test_tells_the_body_of_a_request(fields: bytes, body: Body) -> None:
    assert request(_GET + fields + b"\r\n").body == body


@pytest.mark.parametrize(
    ("method", "status", "fields", "kind"),
    [
        ("GET", b"200 OK", b"", BodyKind.UNTIL_CLOSE),
        ("GET", b"200 OK", b"Content-Length: 0\r\n", BodyKind.NONE),
        ("GET", b"200 OK", b"Transfer-Encoding: chunked\r\n", BodyKind.CHUNKED),
        ("HEAD", b"200 OK", b"Content-Length: 5\r\n", BodyKind.NONE),
        ("HEAD", b"200 OK", b"Transfer-Encoding: chunked\r\n", BodyKind.NONE),
        ("GET", b"304 Not Modified", b"Content-Length: 5\r\n", BodyKind.NONE),
        ("GET", b"204 No Content", b"Content-Length: 0\r\n", BodyKind.NONE),
        ("GET", b"100 Continue", b"", BodyKind.NONE),
        ("GET", b"101 Switching Protocols", b"Upgrade: x\r\n", BodyKind.NONE),
        ("CONNECT", b"200 OK", b"Content-Length: 5\r\n", BodyKind.NONE),
        ("CONNECT", b"403 No", b"Content-Length: 5\r\n", BodyKind.LENGTH),
    ],
)
def test_tells_the_body_of_a_response(
    method: str, status: bytes, fields: bytes, kind: BodyKind
) -> None:
    assert response(b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n", method).body.kind is kind


def test_takes_a_response_without_reason_phrase() -> None:
    assert response(b"HTTP/1.1 200 \r\n\r\n").phrase == b""
    assert response(b"HTTP/1.0 200\r\n\r\n").phrase == b""


@pytest.mark.parametrize(
    ("octets", "persistent"),
    [
        (_GET + b"\r\n", True),
        (_GET + b"Connection: Close\r\n\r\n", False),
        (_GET + b"Connection: keep-alive\r\nConnection: x, close\r\n\r\n", False),
        (b"GET http://a.example/ HTTP/1.0\r\n\r\n", False),
        (b"GET http://a.example/ HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
    ],
)
def test_says_whether_the_connection_persists(octets: bytes, persistent: bool) -> None:
    assert request(octets).persistent is persistent


def test_a_response_that_ends_with_the_connection_does_not_persist() -> None:
    assert not response(_OK + b"\r\n").persistent
    assert response(_OK + b"Content-Length: 0\r\n\r\n").persistent


def test_http_10_may_come_without_host_and_its_expectation_is_ignored() -> None:
    head = request(b"POST http://a.example/ HTTP/1.0\r\nExpect: 100-continue\r\nX: y\r\n\r\n")
    assert head.host is None
    assert not head.expect_continue
    assert head.fields == ((b"x", b"y"),)


def test_keeps_an_expectation_as_a_fact_and_as_a_field() -> None:
    head = request(_GET + b"Expect: 100-Continue\r\n\r\n")
    assert head.expect_continue
    assert (b"expect", b"100-Continue") in end_to_end(head.fields)


@pytest.mark.parametrize("method", [b"get", b"Trace", b"POSt"])
def test_refuses_a_method_that_is_not_in_capitals(method: bytes) -> None:
    """threats.md, "HTTP itself": "TRACE echo of an injected header": some read `trace` as it."""
    with pytest.raises(PeerError, match="in capitals"):
        request(method + b" / HTTP/1.1\r\nHost: a.example\r\n\r\n")


def test_a_connect_may_say_that_it_has_no_content() -> None:
    line = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nContent-Length: 0\r\n\r\n"
    assert request(line).body == NO_BODY


def test_writes_heads() -> None:
    assert write_request("GET", b"/a", [(b"host", b"b")]) == b"GET /a HTTP/1.1\r\nhost: b\r\n\r\n"
    assert write_response(403, b"sallyport rule", []) == b"HTTP/1.1 403 sallyport rule\r\n\r\n"


def test_a_chunked_body_is_told_anew() -> None:
    assert coding_fields(_CHUNKED) == [(b"transfer-encoding", b"chunked")]
    assert coding_fields(NO_BODY) == []


@pytest.mark.parametrize("name", _REQUESTS)
def test_what_is_written_reads_back_without_hop_by_hop_fields(name: str) -> None:
    head = request(_REQUESTS[name])
    fields = [*end_to_end(head.fields), *coding_fields(head.body)]
    again = request(write_request(head.method, head.target, fields))
    assert list(again.fields) == fields
    assert (again.body, again.host) == (head.body, head.host)


@given(st.binary(max_size=200), st.sampled_from([*_REQUESTS.values()]), st.data())
def test_any_octets_give_a_head_or_a_peer_error(
    noise: bytes, octets: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(octets)))
    for buffer in (noise, octets[:at] + noise + octets[at:]):
        try:
            read = read_request(buffer, _LIMITS)
        except PeerError:
            continue
        if read is not None:
            head, end = read
            assert buffer[:end].endswith(b"\r\n\r\n")
            assert write_request(head.method, head.target, head.fields)


@given(st.binary(max_size=200), st.sampled_from([*_RESPONSES.values()]), st.data())
def test_any_octets_give_a_response_head_or_an_upstream_error(
    noise: bytes, octets: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(octets)))
    for buffer in (noise, octets[:at] + noise + octets[at:]):
        try:
            read = read_response(buffer, "GET", _LIMITS)
        except UpstreamError:
            continue
        if read is not None:
            head, _end = read
            assert write_response(head.status, head.phrase, head.fields)
