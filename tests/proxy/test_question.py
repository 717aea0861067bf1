"""What a person types after `explain APP`, as the facts that an agent would raise."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import PeerError
from proxy.question import read_facts
from rules.errors import RuleError
from rules.facts import Connect, Evidence, Facts, Principal, Question, Request
from rules.name import parse
from rules.rtype import HTTPS, A

ME = Principal("me")
NAME = parse("example.com")


def asked(text: str, rtype: str = "A", method: str = "GET") -> tuple[Facts, ...]:
    return read_facts("me", text, rtype, method)


def look_up(rtype: int = A) -> Question:
    return Question(ME, NAME, rtype)


@pytest.mark.parametrize("text", ["example.com", "EXAMPLE.com", "example.com."])
def test_a_name_is_a_question(text: str) -> None:
    assert asked(text) == (look_up(),)
    assert asked(text, "HTTPS") == (look_up(HTTPS),)
    assert asked(text, "type65") == (look_up(HTTPS),)


def test_an_authority_is_a_look_up_and_a_connect() -> None:
    assert asked("example.com:8443") == (look_up(), Connect(ME, NAME, 8443))


@pytest.mark.parametrize("text", ["192.0.2.1", "192.0.2.1:443", "[2001:db8::1]"])
def test_an_address_is_a_connect_alone(text: str) -> None:
    address = ip_address(text.removesuffix(":443").strip("[]"))
    assert asked(text) == (Connect(ME, address, 443),)


@pytest.mark.parametrize(
    "text", ["https://example.com", "HTTPS://Example.com/a?b#c", "https://example.com:443?x"]
)
def test_of_an_https_url_the_proxy_sees_the_origin(text: str) -> None:
    assert asked(text) == (look_up(), Connect(ME, NAME, 443))


@pytest.mark.parametrize(
    ("text", "port", "path"),
    [
        ("http://example.com", 80, "/"),
        ("http://example.com?q=1", 80, "/"),
        ("http://example.com:8080/a/./b/%2e%2e/c?q#f", 8080, "/a/c"),
    ],
)
def test_an_http_url_is_a_request_too(text: str, port: int, path: str) -> None:
    assert asked(text, method="post") == (
        look_up(),
        Connect(ME, NAME, port),
        Request(ME, "POST", NAME, port, path),
    )


def test_a_url_of_an_address_asks_no_resolver() -> None:
    address = ip_address("192.0.2.1")
    facts = (Connect(ME, address, 80), Request(ME, "GET", address, 80, "/"))
    assert asked("http://192.0.2.1/") == facts


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ":443", "exam ple.com", "example.com:0", "example.com:65536", "0x7f.1",
        "b\xfccher.de",
        "http://", "https:///x", "https://user@example.com/", "https://example.com:/",
        "ftp://example.com/", "https://127.1/", "https://[example.com]/", "example.com/path",
        "example.com\x1b[2J", "\udcff.example",
    ],
)  # fmt: skip
def test_what_is_not_spelled_canonically_is_refused(text: str) -> None:
    """threats.md, "One name, many spellings"."""
    with pytest.raises((PeerError, ValueError)) as raised:
        asked(text)
    assert str(raised.value)


@pytest.mark.parametrize("path", ["/a%00", "/a\\b", "/%zz"])
def test_a_path_without_a_normal_form_is_refused(path: str) -> None:
    with pytest.raises(RuleError):
        asked(f"http://example.com{path}")


@pytest.mark.parametrize("rtype", ["", "AAAAA", "TYPE65536", "\u0661"])
def test_an_unknown_type_is_refused(rtype: str) -> None:
    with pytest.raises(ValueError, match="is no DNS record type"):
        asked("example.com", rtype)


@given(st.text(max_size=40) | st.from_regex(r"https?://[^/]{1,20}/.{0,20}", fullmatch=True))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        facts = asked(text)
    except (PeerError, RuleError, ValueError):
        return
    assert facts


def test_what_proves_who_asks_stands_in_every_fact() -> None:
    evidence = (Evidence.CERTIFICATE,)
    facts = read_facts("me", "http://example.com/", "A", "GET", evidence)
    assert [each.principal for each in facts] == [Principal("me", evidence)] * 3
