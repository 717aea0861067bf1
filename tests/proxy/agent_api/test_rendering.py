"""Between the fields of HTTP and the API."""

import pytest

from proxy.agent_api.asked import Answer
from proxy.agent_api.rendering import fields_of, media_type_of, phrase, write_http1
from proxy.wire.fields import Fields

ANSWER = Answer(200, b"{}", fields=((b"x-a", b"b"),))


def test_every_answer_is_kept_by_nobody() -> None:
    """RFC 6749, section 5.1."""
    assert fields_of(ANSWER) == (
        (b"content-type", b"application/json"),
        (b"content-length", b"2"),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-a", b"b"),
    )


def test_what_is_public_may_be_kept() -> None:
    public = Answer(200, b"{}", fields=((b"cache-control", b"public, max-age=300"),))
    kept = [value for name, value in fields_of(public) if name == b"cache-control"]
    assert kept == [b"public, max-age=300"]


def test_a_head_has_the_fields_of_get_and_no_content() -> None:
    """RFC 9110, section 9.3.2."""
    got = write_http1(ANSWER, is_head=False, close=False)
    assert got == write_http1(ANSWER, is_head=True, close=False) + b"{}"
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection" not in got


def test_the_last_answer_says_so() -> None:
    assert b"\r\nconnection: close\r\n" in write_http1(ANSWER, is_head=False, close=True)


@pytest.mark.parametrize("status", [200, 400, 404, 405, 413, 415, 429, 500, 503])
def test_every_status_has_a_phrase(status: int) -> None:
    assert phrase(status)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ((), ""),
        (((b"content-type", b"application/json"),), "application/json"),
        (((b"content-type", b"Application/JSON; charset=utf-8"),), "application/json"),
        (((b"content-type", b"a/b"), (b"content-type", b"a/b")), ""),
        (((b"content-type", b"a/b"), (b"content-encoding", b"gzip")), ""),
        (((b"content-type", b"a/\xff"),), "a/�"),
    ],
)
def test_a_media_type_is_there_once_and_of_content_as_it_is(fields: Fields, expected: str) -> None:
    assert media_type_of(fields) == expected
