"""Heads of DoH requests: what they ask for, and the status of what they may not."""

from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.resolver.doh_request import MEDIA_TYPE, DohRequest, HttpRefusal, read_doh, too_long
from proxy.wire.fields import Fields

WIRE = bytes(range(17))
DNS = b"dns=" + urlsafe_b64encode(WIRE).rstrip(b"=")
TYPE: Fields = ((b"content-type", MEDIA_TYPE),)
WHY = b"/why/0192f3a47c5b7d2e8f00112233445566"


def read(method: str, target: bytes, fields: Fields = (), octets: int | None = None) -> DohRequest:
    return read_doh(method, b"localhost", target, fields, octets)


def refused(request: DohRequest) -> HttpRefusal:
    assert request.refusal is not None
    assert request.is_final
    assert not request.is_usual
    return request.refusal


def test_a_get_holds_its_query() -> None:
    request = read("GET", b"/dns-query?" + DNS, ((b"accept", MEDIA_TYPE),))
    assert request.wire == WIRE
    assert request.is_usual
    assert not request.is_final
    assert read("GET", b"/dns-query?ct=x&" + DNS).wire == WIRE


@given(st.binary(min_size=1, max_size=300))
def test_any_message_is_read_from_its_one_spelling(message: bytes) -> None:
    spelled = urlsafe_b64encode(message).rstrip(b"=")
    assert read("GET", b"/dns-query?dns=" + spelled).wire == message


def test_a_head_is_like_a_get_and_not_the_usual() -> None:
    request = read("HEAD", b"/dns-query?" + DNS)
    assert (request.wire, request.is_head, request.is_usual) == (WIRE, True, False)


def test_a_post_holds_its_query_in_the_content() -> None:
    request = read("POST", b"/dns-query", (*TYPE, (b"accept", b"text/html, */*;q=0.1")), 33)
    assert request.wire is None
    assert request.octets == 33
    assert request.is_usual


@pytest.mark.parametrize(
    "query",
    [
        pytest.param(b"", id="no query"),
        pytest.param(b"?", id="an empty query"),
        pytest.param(b"?dns=", id="an empty message"),
        pytest.param(b"?name=example.com&type=A", id="name= of the JSON dialect"),
        pytest.param(b"?name=%65xample.com", id="name= with percent-encoding"),
        pytest.param(b"?dns=%41%41%41%41", id="percent-encoding"),
        pytest.param(b"?%64ns=AAAA", id="percent-encoding of the parameter's name"),
        pytest.param(b"?dns=AAAA&dns=AAAA", id="two messages"),
        pytest.param(b"?DNS=AAAA", id="another parameter"),
        pytest.param(b"?dns=AAA=", id="padding"),
        pytest.param(b"?dns=AAAAA", id="a length that is none"),
        pytest.param(b"?dns=AB", id="bits after the last octet"),
        pytest.param(b"?dns=AA+A", id="base64, not base64url"),
        pytest.param(b"?dns=AA\nA", id="white space"),
    ],
)
def test_one_message_has_one_spelling(query: bytes) -> None:
    """threats.md, "One name, many spellings": percent-encoding in DoH `name=`/GET."""
    assert refused(read("GET", b"/dns-query" + query)).status == 400


@pytest.mark.parametrize(
    ("method", "target", "fields", "octets", "status"),
    [
        ("GET", b"/", (), None, 404),
        ("GET", b"/dns-query/", (), None, 404),
        ("GET", b"/dns%2Dquery?" + DNS, (), None, 404),
        ("GET", b"*", (), None, 404),
        ("GET", b"/why/short", (), None, 404),
        ("PUT", b"/dns-query", TYPE, 1, 405),
        ("OPTIONS", b"/dns-query", (), None, 405),
        ("POST", WHY, (), None, 405),
        ("GET", b"/dns-query?" + DNS, ((b"accept", b"application/dns-json"),), None, 406),
        ("POST", b"/dns-query", (*TYPE, (b"accept", b"text/html"), (b"accept", b"x/y")), 1, 406),
        ("POST", b"/dns-query", (), 1, 415),
        ("POST", b"/dns-query", ((b"content-type", b"application/json"),), 1, 415),
        ("POST", b"/dns-query", (*TYPE, *TYPE), 1, 415),
        ("POST", b"/dns-query", (*TYPE, (b"content-encoding", b"gzip")), 1, 415),
        ("POST", b"/dns-query", TYPE, 65536, 413),
    ],
)
def test_what_is_refused_says_so_in_http(
    method: str, target: bytes, fields: Fields, octets: int | None, status: int
) -> None:
    found = refused(read(method, target, fields, octets))
    assert found.status == status
    assert (status == 405) == any(name == b"allow" for name, _ in found.fields)


@pytest.mark.parametrize(
    "field",
    [
        (b"origin", b"https://evil.example"),
        (b"origin", b"null"),
        (b"sec-fetch-site", b"cross-site"),
        (b"sec-fetch-site", b"same-origin"),
    ],
)
def test_pages_are_refused(field: tuple[bytes, bytes]) -> None:
    """threats.md, "HTTP itself": a web page in the user's browser reaching /dns-query."""
    for target in (b"/dns-query?" + DNS, WHY):
        assert refused(read("GET", target, (field,))).status == 403
    assert refused(read("POST", b"/dns-query", (*TYPE, field), 1)).status == 403


def test_what_the_user_typed_is_no_page() -> None:
    fields = ((b"sec-fetch-site", b"none"), (b"sec-fetch-mode", b"navigate"), (b"accept", b"*/*"))
    assert read("GET", b"/dns-query?" + DNS, fields).refusal is None


def test_a_media_type_may_have_parameters_and_capitals() -> None:
    fields = ((b"content-type", b"Application/DNS-Message; charset=x"),)
    assert read("POST", b"/dns-query", fields, 1).refusal is None


def test_a_credential_is_not_the_usual() -> None:
    request = read("GET", b"/dns-query?" + DNS, ((b"authorization", b"Bearer x"),))
    assert request.authorization == (b"Bearer x",)
    assert not request.is_usual


def test_why_names_a_refusal() -> None:
    request = read("GET", WHY)
    assert request.why == "0192f3a47c5b7d2e8f00112233445566"
    assert not request.is_usual


def test_too_long_is_413() -> None:
    assert too_long().status == 413
