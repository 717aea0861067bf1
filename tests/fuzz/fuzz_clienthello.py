"""ClientHellos, first and second: `PeerError` and `UpstreamError` are allowed."""

from proxy.errors import PeerError, UpstreamError
from proxy.wire.clienthello import Hello, read_hello
from proxy.wire.hellowatch import HelloWatch, is_hello_retry
from tests.proxy.wire.vectors import conversation, conversations

SEEDS: tuple[bytes, ...] = tuple(
    octets for each in conversations() for _side, octets in each.turns if len(octets) < 2048
)
_LIMIT = 4096
_RETRY = conversation("retry")
_FIRST = read_hello(_RETRY.hello, _LIMIT)


def target(data: bytes) -> None:
    """A hello is found at its last octet and not before; a second one never slips through."""
    hello = _read(data)
    if hello is not None:
        assert _read(data[: hello.octets]) == hello
        assert read_hello(data[: hello.octets - 1], _LIMIT) is None
    is_hello_retry(data)
    for size in (3, 50, len(data) + 1):
        _watch(data, size)


def _read(data: bytes) -> Hello | None:
    try:
        return read_hello(data, _LIMIT)
    except PeerError:
        return None


def _watch(data: bytes, size: int) -> None:
    assert _FIRST is not None
    watch = HelloWatch(_FIRST, _LIMIT)
    watch.feed_server(_RETRY.turns[1][1])
    passed = b""
    try:
        for at in range(0, len(data), size):
            passed += watch.feed_client(data[at : at + size])
    except (PeerError, UpstreamError):
        return
    assert data.startswith(passed)
    if watch.done:
        assert passed == data
