"""What a visitor says first, read strictly and never beyond a bound."""

import asyncio
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.limits import Limits
from proxy.sinkhole.heard import MALFORMED, SILENT, TOO_LONG, Heard, hear_http, hear_tls
from rules.name import parse
from tests.proxy.egress.hellos import hello, split
from tests.proxy.sinkhole.stand import get

BAD = parse("bad.example.com")
LIMITS = Limits(head_octets=2048, hello_octets=2048)


async def fed(octets: bytes, *, tls: bool = False, at_once: int = 65536) -> Heard:
    """Return what is heard of `octets`, after which the peer says nothing more."""
    reader = asyncio.StreamReader()
    hearing = asyncio.ensure_future((hear_tls if tls else hear_http)(reader, LIMITS))
    for at in range(0, len(octets), at_once):
        reader.feed_data(octets[at : at + at_once])
        await asyncio.sleep(0)
    reader.feed_eof()
    return await hearing


async def test_hears_the_name_of_a_request() -> None:
    assert await fed(get("Bad.Example.com")) == Heard("http", BAD)
    assert await fed(get("bad.example.com:80"), at_once=7) == Heard("http", BAD)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", True),
        ("application/json, Text/HTML;q=0.5", True),
        ("*/*", False),
        ("application/problem+json", False),
    ],
)
async def test_a_browser_wants_html(accept: str, *, wanted: bool) -> None:
    heard = await fed(get("bad.example.com", f"Accept: {accept}"))
    assert heard.wants_html is wanted


async def test_hears_that_a_request_wants_the_head_alone() -> None:
    assert (await fed(get("bad.example.com", method="HEAD"))).is_head


async def test_a_literal_is_no_name() -> None:
    assert (await fed(get("127.53.53.53"))).host == IPv4Address("127.53.53.53")


async def test_an_old_request_may_name_nobody() -> None:
    assert await fed(get(None, version="1.0")) == Heard("http", None)


@pytest.mark.parametrize(
    "octets",
    [
        get(None),
        get("bad example"),
        get("user@bad.example.com"),
        get("a.example", "Host: b.example"),
        b"\x16\x03\x01\x02\x00",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_malformed(octets: bytes) -> None:
    assert await fed(octets) == MALFORMED


@pytest.mark.parametrize(
    "octets",
    [get("a.example", f"X: {'x' * 3000}"), b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000],
)
async def test_no_head_is_read_beyond_the_bound(octets: bytes) -> None:
    assert await fed(octets, at_once=500) == TOO_LONG


async def test_no_hello_is_read_beyond_the_bound() -> None:
    octets = b"\x16\x03\x01\x10\x00\x01\x00\x0f\xfc" + bytes(3000)
    assert await fed(octets, tls=True, at_once=500) == TOO_LONG


async def test_hears_the_name_of_a_hello() -> None:
    octets = hello("bad.example.com")
    assert await fed(octets, tls=True) == Heard("tls", BAD)
    assert await fed(split(octets, 50), tls=True, at_once=33) == Heard("tls", BAD)


async def test_a_hello_may_name_nobody() -> None:
    assert await fed(hello(None), tls=True) == Heard("tls", None)


@pytest.mark.parametrize("octets", [get("bad.example.com"), b"\x16\x03\x01\x40\x01"])
async def test_what_is_no_hello_is_malformed(octets: bytes) -> None:
    assert await fed(octets, tls=True) == MALFORMED


@pytest.mark.parametrize("octets", [b"", b"GET / HTTP/1.1\r\nHost:"])
async def test_who_ends_before_a_head_is_whole_said_nothing(octets: bytes) -> None:
    assert await fed(octets) == SILENT
    assert await fed(hello("bad.example.com")[:-1], tls=True) == SILENT


@given(st.binary(max_size=300), st.booleans(), st.integers(1, 300))
def test_whatever_comes_is_heard_as_something(octets: bytes, is_tls: bool, at_once: int) -> None:
    """No octets of a visitor end in anything but one of the outcomes."""
    heard = asyncio.run(fed(octets, tls=is_tls, at_once=at_once))
    assert heard.outcome in {"http", "tls", "malformed", "silent"}
