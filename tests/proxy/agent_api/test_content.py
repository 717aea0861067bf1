"""Content to values, and what is said of content that does not fit."""

from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from proxy.agent_api.asked import OAuthError, ProblemError
from proxy.agent_api.content import read_content
from proxy.limits import Limits
from tests.proxy.agent_api.endpoints import Form, Wanted

LIMITS = Limits()


class Exchange(Struct, frozen=True, rename={"type_": "type"}):
    """A form with a name that Python keeps for itself."""

    type_: str
    ttl_s: int = 0


def json(content: bytes, kind: Any = Wanted) -> Any:
    return read_content(content, kind, LIMITS, is_form=False)


def form(content: bytes, kind: type = Form) -> Any:
    return read_content(content, kind, LIMITS, is_form=True)


def test_json_is_read() -> None:
    assert json(b'{"text": "a"}') == Wanted("a")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'{"text": 1}', "Expected `str`, got `int` - at `$.text`"),
        (b"{}", "missing required field `text`"),
        (b'{"text": "a", "more": 1}', "unknown field `more`"),
        (b'{"text": "a", "colour": "blue"}', "not one of those it may be - at `$.colour`"),
        (b'{"text": "a"', "truncated"),
        (b'{"text": "\xff"}', "it is not UTF-8, or nested too deep"),
        (b'{"text": "a", "' + b"k" * 5000 + b'": 1}', "unknown field"),
        (b'{"text": "a", "\\u001b[31m": 1}', "unknown field `?[31m`"),
    ],
)
def test_what_does_not_fit_is_told(content: bytes, text: str) -> None:
    with pytest.raises(ProblemError) as caught:
        json(content)
    assert text in str(caught.value)
    assert len(str(caught.value)) < 300


def test_what_is_nested_too_deep_is_refused() -> None:
    with pytest.raises(ProblemError, match="nested too deep"):
        json(b"[" * 65000, list[Any])


def test_a_value_of_an_enumeration_without_a_place_is_not_told() -> None:
    with pytest.raises(ProblemError) as caught:
        json(b'"secret"', type(Wanted("a").colour))
    assert "secret" not in str(caught.value)


def test_forms_are_read() -> None:
    assert form(b"grant_type=a%20b+c&ttl_s=60") == Form("a b c", 60)
    assert form("grant_type=%C3%A9".encode("ascii")) == Form("é")
    assert form(b"type=x&ttl_s=1", Exchange) == Exchange("x", 1)


def test_unknown_and_empty_parameters_are_as_if_they_were_not() -> None:
    """RFC 6749, section 3.2."""
    assert form(b"grant_type=a&ttl_s=&client_secret=b&more=") == Form("a")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "missing required field `grant_type`"),
        (b"grant_type=", "missing required field `grant_type`"),
        (b"grant_type=a&grant_type=a", "there twice"),
        (b"grant_type=a&x=1&x=2", "there twice"),
        (b"grant_type=a&ttl_s=hush", "Expected `int | null`, got `str`"),
        (b"grant_type", "no form"),
        (b"grant_type=%ff", "no form"),
        ("grant_type=é".encode(), "no form"),
        (b"&".join(b"p%d=1" % number for number in range(33)), "no form"),
    ],
)
def test_forms_that_do_not_fit_are_invalid_requests(content: bytes, text: str) -> None:
    with pytest.raises(OAuthError) as caught:
        form(content)
    assert caught.value.error == "invalid_request"
    assert text in str(caught.value)
    assert "hush" not in str(caught.value)


@given(st.binary(max_size=400), st.booleans())
def test_whatever_comes_is_read_or_refused(content: bytes, is_form: bool) -> None:
    read = None
    with suppress(ProblemError, OAuthError):
        read = read_content(content, Form if is_form else Wanted, LIMITS, is_form=is_form)
    assert isinstance(read, Form | Wanted | None)


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_what_a_client_encodes_is_what_is_read(text: str) -> None:
    assert form(urlencode({"grant_type": text}).encode()) == Form(text)
