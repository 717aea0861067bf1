"""The second hello: what may pass, what waits, and what ends the tunnel."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import PeerError, UpstreamError
from proxy.wire.clienthello import NotTlsError, read_hello
from proxy.wire.hellowatch import RETRY_RANDOM, HelloWatch, is_hello_retry
from rules.decision import Reason
from tests.proxy.wire.vectors import (
    Conversation,
    conversation,
    extension,
    handshake,
    records,
    server_name,
    vector,
)

_LIMIT = 65536
_FIRST = records(handshake(server_name(b"api.example.com")))
_RETRY = records(b"\2" + vector(b"\3\3" + RETRY_RANDOM + bytes(40), 3))
_SERVER_HELLO = records(b"\2" + vector(b"\3\3" + bytes(72), 3))
_SPEC = b"\x14\3\3\0\1\1"
_EARLY = b"\x17\3\3\0\5early"
_WARNING = b"\x15\3\3\0\2\1\x70"


def watch(first: bytes = _FIRST, *, retry: bool = True) -> HelloWatch:
    hello = read_hello(first, _LIMIT)
    assert hello is not None
    watching = HelloWatch(hello, _LIMIT)
    if retry:
        watching.feed_server(_RETRY)
    return watching


def replay(vector: Conversation, size: int) -> tuple[HelloWatch, bytes, bytes]:
    """Play a conversation in pieces; return the watch, what was fed of the client, what passed."""
    hello = read_hello(vector.hello, _LIMIT)
    assert hello is not None
    watching = HelloWatch(hello, _LIMIT)
    turns = [("C", vector.hello[hello.octets :]), *vector.turns[1:]]
    fed = passed = b""
    for side, octets in turns:
        for at in range(0, len(octets), size):
            piece = octets[at : at + size]
            if side == "S":
                watching.feed_server(piece)
            else:
                fed += piece
                passed += watching.feed_client(piece)
    return watching, fed, passed


@pytest.mark.parametrize("size", [1, 7, 100000])
@pytest.mark.parametrize("name", ["retry", "retry-early-data", "retry-without-change-cipher-spec",
                                  "no-retry", "no-retry-tls12"])  # fmt: skip
def test_real_handshakes_pass_unchanged(name: str, size: int) -> None:
    watching, fed, passed = replay(conversation(name), size)
    assert watching.done
    assert passed == fed


@pytest.mark.parametrize("size", [1, 7, 100000])
def test_refuses_another_name_after_a_retry(size: int) -> None:
    """A second ClientHello after HelloRetryRequest with another SNI."""
    with pytest.raises(PeerError) as refused:
        replay(conversation("retry-refused-other-name"), size)
    assert refused.value.reason is Reason.SNI_MISMATCH


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (handshake(), Reason.SNI_MISSING),
        (handshake(server_name(b"evil.example.net")), Reason.SNI_MISMATCH),
        (handshake(server_name(b"api.example.com"), extension(0xFE0D, b"x")), Reason.ECH),
        (handshake(server_name(b"a\0b.example")), Reason.SNI_MISMATCH),
        (handshake(kind=2), Reason.NOT_TLS),
    ],
)
def test_refuses_a_second_hello_that_is_not_the_first(second: bytes, reason: Reason) -> None:
    watching = watch()
    assert watching.feed_client(_SPEC) == _SPEC
    with pytest.raises(PeerError) as refused:
        watching.feed_client(records(second))
    assert refused.value.reason is reason
    assert not watching.done


def test_a_second_hello_may_hide_its_name_where_the_first_did() -> None:
    both = records(handshake(server_name(b"api.example.com"), extension(0xFE0D, b"x")))
    watching = watch(both)
    assert watching.feed_client(both) == both
    assert watching.done


def test_holds_the_second_hello_back_until_it_is_whole() -> None:
    watching = watch()
    assert watching.feed_client(_EARLY + _FIRST[:20]) == _EARLY
    assert watching.feed_client(_FIRST[20:-1]) == b""
    assert watching.feed_client(_FIRST[-1:] + b"more") == _FIRST + b"more"
    assert watching.done
    assert watching.feed_client(b"anything") == b"anything"


def test_bounds_the_second_hello() -> None:
    hello = read_hello(_FIRST, _LIMIT)
    assert hello is not None
    watching = HelloWatch(hello, 50)
    watching.feed_server(_RETRY)
    with pytest.raises(NotTlsError, match="more than 50 octets"):
        watching.feed_client(_FIRST)


def test_refuses_a_second_hello_before_the_server_spoke() -> None:
    """A hello sent blindly after the first would be the one that a retrying server reads."""
    with pytest.raises(NotTlsError, match="before the server's hello"):
        watch(retry=False).feed_client(_SPEC + _FIRST)


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.1", b"\0", b"\x18\3\3\0\1x"])
def test_refuses_what_is_no_tls_between_the_hellos(octets: bytes) -> None:
    with pytest.raises(NotTlsError, match="stopped speaking TLS"):
        watch().feed_client(octets)


def test_early_data_passes_before_the_server_spoke() -> None:
    watching = watch(retry=False)
    for octet in _SPEC + _EARLY:
        assert watching.feed_client(bytes([octet])) == bytes([octet])
    watching.feed_server(_SERVER_HELLO)
    assert watching.done
    watching.feed_server(b"anything")


def test_looks_past_warnings_to_the_servers_hello() -> None:
    assert is_hello_retry(_WARNING + _RETRY) is True
    assert is_hello_retry(_WARNING + _SERVER_HELLO) is False
    assert is_hello_retry(_WARNING) is None


def test_sees_a_retry_however_it_is_cut() -> None:
    whole = records(b"\2" + vector(b"\3\3" + RETRY_RANDOM + bytes(40), 3), 3)
    answers = [is_hello_retry(whole[:cut]) for cut in range(len(whole) + 1)]
    assert answers[-1] is True
    assert set(answers) == {None, True}


def test_a_retry_of_the_drafts_is_one() -> None:
    assert is_hello_retry(records(b"\6\0\0\0")) is True


@pytest.mark.parametrize(
    "octets", [b"HTTP/1.1 400 Bad Request", b"\x17\3\3\0\1x", records(b"\0\0\0\0"), _SERVER_HELLO]
)
def test_what_is_no_retry_is_harmless(octets: bytes) -> None:
    assert is_hello_retry(octets) is False


def test_a_retry_is_not_asked_for_twice() -> None:
    watching = watch()
    watching.feed_server(_SERVER_HELLO)
    assert not watching.done


def test_gives_up_on_a_server_that_never_sends_its_hello() -> None:
    watching = watch(retry=False)
    watching.feed_server(_WARNING * 585)
    with pytest.raises(UpstreamError, match="never") as refused:
        watching.feed_server(_WARNING)
    assert refused.value.reason is Reason.UPSTREAM_MALFORMED


@given(st.lists(st.sampled_from([_SPEC, _EARLY, _WARNING]), max_size=6), st.integers(1, 30))
def test_passes_every_octet_once_and_in_order(between: list[bytes], size: int) -> None:
    stream = b"".join(between) + _FIRST + b"tail"
    watching = watch()
    passed = b"".join(
        watching.feed_client(stream[at : at + size]) for at in range(0, len(stream), size)
    )
    assert watching.done
    assert passed == stream
