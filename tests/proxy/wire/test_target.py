"""Request targets, and the Host field that must agree with them."""

from ipaddress import IPv6Address

import pytest

from proxy.errors import PeerError
from proxy.wire.head import RequestHead
from proxy.wire.target import absolute_form, authority_form, check_host
from rules.decision import Reason
from rules.name import DomainName

_NAME = DomainName("example.com")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"http://example.com/a/b?c=d", ("example.com", 80, b"/a/b?c=d")),
        (b"HTTP://EXAMPLE.com.:8080", ("example.com", 8080, b"/")),
        (b"http://example.com?a", ("example.com", 80, b"/?a")),
        (b"http://[2001:db8::7]/", (IPv6Address("2001:db8::7"), 80, b"/")),
        (
            b"http://example.com/http://other.example/",
            ("example.com", 80, b"/http://other.example/"),
        ),
        (b"http://example.com//evil.example/", ("example.com", 80, b"//evil.example/")),
    ],
)
def test_splits_absolute_form(target: bytes, expected: object) -> None:
    assert absolute_form(target) == expected


def test_options_of_an_empty_path_are_those_of_the_origin() -> None:
    assert absolute_form(b"http://example.com", "OPTIONS")[2] == b"*"
    assert absolute_form(b"http://example.com/", "OPTIONS")[2] == b"/"
    assert absolute_form(b"http://example.com", "GET")[2] == b"/"


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (b"https://example.com/", "use CONNECT"),
        (b"HTTPS://example.com/", "use CONNECT"),
        (b"ftp://example.com/", "http only"),
        (b"/path", "absolute-form"),
        (b"*", "absolute-form"),
        (b"", "absolute-form"),
        (b"example.com:443", "absolute-form"),
        (b"//example.com/", "absolute-form"),
        (b"http:/example.com/", "absolute-form"),
        (b"http:///path", "no host"),
        (b"http://", "no host"),
        (b"http://example.com/#a", "fragment"),
        (b"http://example.com#a", "fragment"),
        (b"http://example.com/a b", "control"),
        (b"http://example.com/\x7f", "control"),
        ("http://example.com/\u00e9".encode(), "non-ASCII"),
    ],
)
def test_refuses_other_forms_and_says_what_to_do(target: bytes, why: str) -> None:
    with pytest.raises(PeerError, match=why) as refused:
        absolute_form(target)
    assert refused.value.reason is Reason.REQUEST_MALFORMED


@pytest.mark.parametrize(
    "target",
    [b"http://user@example.com/", b"http://a:b@example.com/", b"http://evil.example\\@example.com/",
     b"http://example.com:0/", b"http://example.com:/", b"http://0x7f.1/", b"http://[a.example]/"],
)  # fmt: skip
def test_refuses_an_authority_that_is_none(target: bytes) -> None:
    with pytest.raises(PeerError) as refused:
        absolute_form(target)
    assert refused.value.reason is Reason.NAME_MALFORMED


def test_splits_authority_form() -> None:
    assert authority_form(b"example.com:443") == ("example.com", 443)


@pytest.mark.parametrize(
    "target", [b"example.com", b"http://example.com/", b"/", b"*", b"example.com:443/"]
)
def test_refuses_a_connect_to_anything_but_host_and_port(target: bytes) -> None:
    with pytest.raises(PeerError) as refused:
        authority_form(target)
    assert refused.value.reason is Reason.NAME_MALFORMED


@pytest.mark.parametrize(
    ("method", "host", "port"),
    [
        ("GET", None, 80),
        ("GET", b"example.com", 80),
        ("GET", b"EXAMPLE.com.:80", 80),
        ("GET", b"example.com:8080", 8080),
        ("CONNECT", b"example.com:443", 443),
        ("CONNECT", b"example.com", 443),
    ],
)
def test_takes_a_host_that_agrees(method: str, host: bytes | None, port: int) -> None:
    check_host(RequestHead(method, b"", 1, (), host=host), _NAME, port)


def test_takes_a_host_without_the_default_port_of_its_scheme() -> None:
    check_host(RequestHead("GET", b"", 1, (), host=b"example.com"), _NAME, 443, 443)


@pytest.mark.parametrize(
    ("method", "host", "port"),
    [
        ("GET", b"other.example", 80),
        ("GET", b"example.com", 8080),
        ("GET", b"example.com:81", 80),
        ("GET", b"192.0.2.7", 80),
        ("CONNECT", b"example.com:80", 443),
        ("CONNECT", b"other.example", 443),
    ],
)
def test_refuses_a_host_that_names_another_authority(method: str, host: bytes, port: int) -> None:
    """Absolute-form against Host; SNI, Host and CONNECT target must agree (421)."""
    with pytest.raises(PeerError) as refused:
        check_host(RequestHead(method, b"", 1, (), host=host), _NAME, port)
    assert refused.value.reason is Reason.AUTHORITY_MISMATCH


def test_refuses_a_host_that_is_none() -> None:
    with pytest.raises(PeerError) as refused:
        check_host(RequestHead("GET", b"", 1, (), host=b""), _NAME, 80)
    assert refused.value.reason is Reason.NAME_MALFORMED
