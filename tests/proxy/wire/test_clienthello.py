"""ClientHellos of real clients, and those that no client sends."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import PeerError
from proxy.wire import clienthello
from proxy.wire.clienthello import Hello, Likeness, NotTlsError, likeness, read_hello
from rules.decision import Reason
from tests.proxy.egress.hellos import hello, split
from tests.proxy.wire.vectors import (
    Conversation,
    conversation,
    conversations,
    extension,
    handshake,
    records,
    server_name,
    vector,
)

_LIMIT = 65536
_ALL = conversations()
_TAKEN = [each for each in _ALL if not each.expect.startswith("refused")]
_REFUSED = conversations("refused-")


def names(vectors: Iterable[Conversation]) -> list[str]:
    return [each.name for each in vectors]


def described(hello: Hello) -> str:
    name = "-" if hello.server_name is None else str(hello.server_name)
    ech, early = ("yes" if flag else "no" for flag in (hello.has_ech, hello.has_early_data))
    return f"name={name} ech={ech} early={early} alpn={b','.join(hello.alpn).decode()}"


def read(octets: bytes) -> Hello:
    hello = read_hello(octets, _LIMIT)
    assert hello is not None
    return hello


@pytest.mark.parametrize("vector", _TAKEN, ids=names(_TAKEN))
def test_reads_the_hellos_of_real_clients(vector: Conversation) -> None:
    """Hellos over several records; absent SNI; ECH; early data."""
    assert described(read(vector.hello)) == vector.expect


@pytest.mark.parametrize("vector", _REFUSED, ids=names(_REFUSED))
def test_refuses_what_no_tls_client_sends(vector: Conversation) -> None:
    with pytest.raises(PeerError) as refused:
        read_hello(vector.hello, _LIMIT)
    assert vector.expect == f"refused {refused.value.reason}"
    assert isinstance(refused.value, NotTlsError) == (refused.value.reason is Reason.NOT_TLS)


@pytest.mark.parametrize("vector", _TAKEN, ids=names(_TAKEN))
def test_asks_for_more_until_the_last_octet(vector: Conversation) -> None:
    """Slow loris on a TLS hello."""
    end = read(vector.hello).octets
    step = max(1, end // 80)
    assert all(read_hello(vector.hello[:cut], _LIMIT) is None for cut in range(0, end, step))
    assert read_hello(vector.hello[: end - 1], _LIMIT) is None
    assert read(vector.hello[:end]).octets == end


def test_takes_a_buffer_that_may_grow_and_says_what_follows() -> None:
    hello = conversation("curl").hello
    assert read(bytes(bytearray(hello + b"\x17\3\3"))).octets == len(hello)
    assert read_hello(bytearray(hello), _LIMIT) == read(hello)


@pytest.mark.parametrize("beginning", [b"\0", b"\x80", b"G", b"\x15", b"\x16\2", b"\x16\x03\1\0\0",
                                       b"\x16\3\1\0\5\2"])  # fmt: skip
def test_refuses_other_protocols_with_their_first_octets(beginning: bytes) -> None:
    with pytest.raises(NotTlsError):
        read_hello(beginning, _LIMIT)


def test_bounds_the_octets_of_a_hello() -> None:
    """Hellos are put together up to 64 KiB."""
    hello = conversation("curl").hello
    assert read_hello(hello, len(hello)) is not None
    with pytest.raises(NotTlsError, match="more than"):
        read_hello(hello, len(hello) - 1)
    assert read_hello(hello[:100], len(hello) - 1) is None


def test_takes_a_hello_of_sixty_thousand_octets() -> None:
    large = handshake(server_name(b"a.example"), extension(21, bytes(60000)))
    assert read(records(large)).server_name == "a.example"


@pytest.mark.parametrize("number", [0xFE0D, 0xFE08, 0xFF02, 0xFFCE])
def test_sees_every_kind_of_hidden_name(number: int) -> None:
    """ECH with a configured key hides the inner name behind an honest SNI."""
    assert read(records(handshake(extension(number, b"x")))).has_ech


def test_takes_no_grease_for_a_hidden_name() -> None:
    assert not read(records(handshake(extension(0xFAFA), extension(0xFF01, b"\0")))).has_ech


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0", b"\0\1\0", b"\0\4\1h\0\0"])
def test_refuses_malformed_protocol_names(data: bytes) -> None:
    with pytest.raises(NotTlsError):
        read_hello(records(handshake(extension(16, data))), _LIMIT)


def test_reads_the_name_in_the_form_of_every_plane() -> None:
    """Trailing dot and case (CVE-2022-24825)."""
    assert read(records(handshake(server_name(b"EXAMPLE.com.")))).server_name == "example.com"


@given(st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=20)), max_size=5),
       st.integers(4, 70))  # fmt: skip
def test_a_hello_does_not_depend_on_how_it_is_cut(
    extensions: list[tuple[int, bytes]], size: int
) -> None:
    message = handshake(*[extension(number, data) for number, data in extensions])
    try:
        whole = read(records(message))
    except PeerError as refused:
        with pytest.raises(type(refused)):
            read_hello(records(message, size), _LIMIT)
        return
    cut = read(records(message, size))
    assert described(cut) == described(whole)


@given(st.binary(max_size=60), st.data())
def test_any_octets_give_a_hello_or_a_peer_error(noise: bytes, data: st.DataObject) -> None:
    hello = conversation("curl").hello
    at = data.draw(st.integers(0, len(hello)))
    for buffer in (noise, b"\x16\3\1" + vector(noise, 2), hello[:at] + noise + hello[at:]):
        try:
            found = read_hello(buffer, _LIMIT)
        except PeerError:
            continue
        assert found is None or found.octets <= len(buffer)


def outcome(octets: bytes) -> Hello | str | None:
    """Return what `octets` are read as, or the reason why not."""
    try:
        return read_hello(octets, _LIMIT)
    except PeerError as error:
        return error.reason


@given(
    st.sampled_from([each.hello for each in _ALL if each.hello]),
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=3),
    st.integers(0, 3),
)
def test_the_quick_reader_says_what_the_careful_one_says(
    octets: bytes, changes: list[tuple[int, int]], short: int
) -> None:
    """One look at a usual hello takes nothing that the careful reader would refuse."""
    changed = bytearray(octets[: len(octets) - short])
    for at, value in changes:
        if at < len(changed):
            changed[at] = value
    with pytest.MonkeyPatch.context() as patch:
        quick = outcome(bytes(changed))
        patch.setattr(clienthello, "_read_usual", lambda _: None)
        assert outcome(bytes(changed)) == quick


def test_a_usual_hello_is_read_at_once() -> None:
    octets = _TAKEN[0].hello
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clienthello, "_assemble", None)
        assert read_hello(octets, _LIMIT) is not None


def test_a_session_id_of_33_octets_is_refused() -> None:
    octets = bytearray(conversation("curl").hello)
    assert octets[43] == 32
    octets[43:44] = b"\x21\x00"
    for at in (3, 7):  # of the record, of the message
        octets[at : at + 2] = (int.from_bytes(octets[at : at + 2]) + 1).to_bytes(2)
    assert outcome(bytes(octets)) == Reason.NOT_TLS


def alike(octets: bytes) -> Likeness:
    found = likeness(octets, read(octets))
    assert found is not None
    return found


def test_a_hello_of_the_same_client_is_known_again() -> None:
    first, again = hello("example.com"), hello("example.com")
    assert first != again
    assert alike(first).find(again) == read(again)


@pytest.mark.parametrize("name", ["example.org", "www.example.com", None])
def test_a_hello_for_another_name_is_not_alike(name: str | None) -> None:
    """threats.md, "Between name and address": "SNI, Host/:authority and CONNECT target"."""
    assert alike(hello("example.com")).find(hello(name)) is None


@pytest.mark.parametrize("vector", _TAKEN, ids=names(_TAKEN))
def test_what_is_alike_reads_the_same(vector: Conversation) -> None:
    """Whichever octet differs: a hello that is known again says what reading it would say."""
    octets = vector.hello
    known = likeness(octets, read(octets))
    if known is None:
        assert int.from_bytes(octets[3:5]) + 5 != len(octets)
        return
    for at in range(len(octets)):
        other = octets[:at] + bytes([octets[at] ^ 1]) + octets[at + 1 :]
        found = known.find(other)
        assert found is None or found == outcome(other)
    assert known.find(octets[:-1]) is None
    assert known.find(octets + b"\0") is None


def test_nothing_is_alike_that_is_not_one_record_alone() -> None:
    octets = hello("example.com")
    parts = split(octets, 100)
    assert likeness(parts, read(parts)) is None
    assert likeness(octets + b"\0", read(octets)) is None


def test_a_hello_without_key_shares_is_compared_whole() -> None:
    octets = records(handshake(server_name(b"example.com")))
    known = alike(octets)
    assert known.find(octets) == read(octets)
    assert known.find(octets[:-1] + b"\0") is None
