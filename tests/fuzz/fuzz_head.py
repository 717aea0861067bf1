"""HTTP/1 heads: `PeerError` from requests and `UpstreamError` from responses are allowed."""

import httptools

from proxy.errors import PeerError, UpstreamError
from proxy.limits import Limits
from proxy.wire.head import (
    RequestHead,
    coding_fields,
    end_to_end,
    read_request,
    read_response,
    write_request,
    write_response,
)
from proxy.wire.target import absolute_form, authority_form, check_host
from tests.proxy.wire.vectors import messages

SEEDS: tuple[bytes, ...] = tuple(
    message
    for kind in ("request", "response")
    for message in (messages(f"{kind}-") | messages(f"refused-{kind}-")).values()
)
_LIMITS = Limits()


class _Reader:
    """What another parser reads."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        """Collect the target; it may come in parts."""
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field."""
        self.fields.append((name, value))


def target(data: bytes) -> None:
    """What we write of a head reads back as itself, and llhttp reads the same."""
    _request(data)
    for method in ("GET", "HEAD", "CONNECT"):
        _response(data, method)


def _request(data: bytes) -> None:
    try:
        read = read_request(data, _LIMITS)
    except PeerError:
        return
    if read is None:
        return
    head, end = read
    assert data[:end].endswith(b"\r\n\r\n")
    fields = [*end_to_end(head.fields), *coding_fields(head.body)]
    if head.host is None:  # HTTP/1.0 may come without; what we write is HTTP/1.1
        fields.append((b"host", b"example.com"))
    written = write_request(head.method, head.target, fields)
    again = read_request(written, _LIMITS)
    assert again is not None
    assert list(again[0].fields) == fields
    assert again[0].body == head.body
    _compare(head, fields, written)
    _split(head)


def _compare(head: RequestHead, fields: list[tuple[bytes, bytes]], written: bytes) -> None:
    reader = _Reader()
    parser = httptools.HttpRequestParser(reader)
    try:
        parser.feed_data(written)
    except httptools.HttpParserUpgrade:  # CONNECT: what follows is no HTTP
        pass
    except (httptools.HttpParserInvalidMethodError, httptools.HttpParserInvalidURLError):
        return  # llhttp knows a list of methods, and the form of target that goes with each
    assert reader.target == head.target
    assert [(name.lower(), value.strip(b" \t")) for name, value in reader.fields] == fields


def _split(head: RequestHead) -> None:
    try:
        if head.method == "CONNECT":
            check_host(head, *authority_form(head.target))
        else:
            host, port, path = absolute_form(head.target, head.method)
            assert path.startswith(b"/") or path == b"*"
            check_host(head, host, port)
    except PeerError:
        return


def _response(data: bytes, method: str) -> None:
    try:
        read = read_response(data, method, _LIMITS)
    except UpstreamError:
        return
    if read is None:
        return
    head, _end = read
    fields = [*end_to_end(head.fields), *coding_fields(head.body)]
    again = read_response(write_response(head.status, head.phrase, fields), method, _LIMITS)
    assert again is not None
    assert (again[0].status, again[0].phrase, list(again[0].fields)) == (
        head.status,
        head.phrase,
        fields,
    )
    assert again[0].body == head.body
