"""Heads of HTTP/1 messages, read strictly and written new (RFC 9112, RFC 9110).

A head that two implementations could read in two ways is an error here, both ways: what we
decided about is what the other side sees.  Nothing is relayed as it came; `write_request` and
`write_response` make new octets from the values.
"""

import re
from collections.abc import Iterable
from enum import Enum

from msgspec import Struct

from proxy.limits import Limits
from proxy.wire.fields import (
    TOKEN,
    Blame,
    Field,
    Fields,
    end_to_end,
    request_malformed,
    show,
    upstream_malformed,
    write_fields,
)
from proxy.wire.section import Section, SectionMemory, read_section

__all__ = [
    "Body",
    "BodyKind",
    "RequestHead",
    "ResponseHead",
    "coding_fields",
    "end_to_end",
    "read_request",
    "read_response",
    "write_request",
    "write_response",
]

_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]++) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([^\x00-\x08\x0a-\x1f\x7f]*+))?")
# What a first line must look like when it is whole, and its first octets while it is not.
_REQUEST_BEGINNING = re.compile(
    _REQUEST_LINE.pattern + rb"\r\n|(?:" + TOKEN + rb"(?: [\x20-\x7e]*\r?)?)?"
)
_RESPONSE_BEGINNING = re.compile(
    _STATUS_LINE.pattern + rb"\r\n|HTTP/1\.[^\n]*|H?|HTT?|HTTP/?|HTTP/1"
)
_BEGINNING_OCTETS = 16
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,18}")  # RFC 9110, section 8.6; no list, no leading zero
_MOST_OCTETS = 2**63 - 1
ALT_SVC = b"alt-svc"


class BodyKind(Enum):
    """How the end of a message's content is told (RFC 9112, section 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until-close"


class Body(Struct, frozen=True):
    """What follows a head; `octets` counts for LENGTH only, and is over zero there."""

    kind: BodyKind
    octets: int = 0


NO_BODY = Body(BodyKind.NONE)
_CHUNKED = Body(BodyKind.CHUNKED)
_UNTIL_CLOSE = Body(BodyKind.UNTIL_CLOSE)


class RequestHead(Struct, frozen=True):
    """A request's head; field names are lower case, values without outer white space.

    `host` is the Host field's value, None where HTTP/1.0 sent none.  `options` are those of
    Connection, lower case.  `expect_continue`: the client waits for a 100 (RFC 9110, 10.1.1).
    `kept` is what a proxy sends on, as octets (`proxy.wire.section`), without Host.
    """

    method: str
    target: bytes
    minor: int
    fields: Fields
    body: Body = NO_BODY
    host: bytes | None = None
    options: frozenset[bytes] = frozenset()
    expect_continue: bool = False
    kept: bytes = b""

    @property
    def persistent(self) -> bool:
        """Whether the connection may carry another request (RFC 9112, section 9.3)."""
        return _persistent(self.minor, self.options)


class ResponseHead(Struct, frozen=True):
    """A response's head; see `RequestHead`.  `kept` is without Alt-Svc."""

    minor: int
    status: int
    phrase: bytes
    fields: Fields
    body: Body = NO_BODY
    options: frozenset[bytes] = frozenset()
    kept: bytes = b""

    @property
    def persistent(self) -> bool:
        """Whether the connection may carry another response (RFC 9112, section 9.3)."""
        return self.body.kind is not BodyKind.UNTIL_CLOSE and _persistent(self.minor, self.options)


def read_request(
    buffer: bytes | bytearray, limits: Limits, memory: SectionMemory | None = None
) -> tuple[RequestHead, int] | None:
    """Return the request head that begins `buffer`, and its octets; None while it is incomplete.

    What can be no head is refused with its first line, without waiting for more.  `memory` is
    that of the connection (with Host dropped), where there may be more requests on it.

    Raises:
        PeerError: REQUEST_MALFORMED, anything that RFC 9112 forbids or that is over a limit.
    """
    end = buffer.find(b"\r\n\r\n", 0, limits.head_octets)
    if end < 0:
        _check_beginning(buffer, limits, _REQUEST_BEGINNING, request_malformed)
        return None
    line, rest = _cut(buffer, end)
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        shown = show(line)
        raise request_malformed(
            f"{shown} is no request line: METHOD target HTTP/1.1, with one space between"
        )
    section = _section(rest, limits, request_malformed, memory, b"host")
    method, minor, bearing = match[1].decode("ascii"), int(match[3]), section.bearing
    body = _framed_body(minor, bearing, request_malformed) or NO_BODY
    _check_request(method, minor, body, bearing)
    fields, kept, expects = section.fields, section.kept, b"expect" in bearing
    if expects and not minor:  # RFC 9110, section 10.1.1: ignored in HTTP/1.0
        expects, fields = False, tuple([field for field in fields if field[0] != b"expect"])
        kept = write_fields([field for field in end_to_end(fields) if field[0] != b"host"])
    host = bearing.get(b"host")
    head = RequestHead(method, match[2], minor, fields, body, host, section.options, expects, kept)
    return head, end + 4


def read_response(
    buffer: bytes | bytearray,
    request_method: str,
    limits: Limits,
    memory: SectionMemory | None = None,
) -> tuple[ResponseHead, int] | None:
    """Return the response head that begins `buffer`, and its octets; None while incomplete.

    `request_method` is that of the request which it answers.  Interim responses (1xx) are
    heads of their own; 101 is one too, and what follows it is no HTTP.  `memory` is that of the
    connection (with Alt-Svc dropped).

    Raises:
        UpstreamError: UPSTREAM_MALFORMED, what RFC 9112 forbids or what is over a limit.
    """
    end = buffer.find(b"\r\n\r\n", 0, limits.head_octets)
    if end < 0:
        _check_beginning(buffer, limits, _RESPONSE_BEGINNING, upstream_malformed)
        return None
    line, rest = _cut(buffer, end)
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise upstream_malformed(f"{show(line)} is no status line")
    section = _section(rest, limits, upstream_malformed, memory, ALT_SVC)
    minor, status, phrase = int(match[1]), int(match[2]), match[3] or b""
    body = _response_body(request_method, minor, status, section.bearing)
    head = ResponseHead(minor, status, phrase, section.fields, body, section.options, section.kept)
    return head, end + 4


def write_request(method: str, target: bytes, fields: Iterable[Field], kept: bytes = b"") -> bytes:
    """Return an HTTP/1.1 request head; `kept` is that of a head which was read."""
    line = b"%b %b HTTP/1.1\r\n" % (method.encode("ascii"), target)
    return line + write_fields(fields) + kept + b"\r\n"


def write_response(status: int, phrase: bytes, fields: Iterable[Field], kept: bytes = b"") -> bytes:
    """Return an HTTP/1.1 response head; `kept` is that of a head which was read."""
    return b"HTTP/1.1 %d %b\r\n" % (status, phrase) + kept + write_fields(fields) + b"\r\n"


def coding_fields(body: Body) -> list[Field]:
    """Return the field that tells a body's coding; its length is told by a field kept."""
    return [(b"transfer-encoding", b"chunked")] if body.kind is BodyKind.CHUNKED else []


def _cut(buffer: bytes | bytearray, end: int) -> tuple[bytes, bytes]:
    """Return the first line, and the rest of the head with the CRLF that ended the line."""
    line_end = buffer.find(b"\r\n", 0, end)
    line_end = end if line_end < 0 else line_end
    return bytes(buffer[:line_end]), bytes(buffer[line_end:end])


def _section(
    octets: bytes, limits: Limits, blame: Blame, memory: SectionMemory | None, dropped: bytes
) -> Section:
    if memory is not None:
        return memory.read(octets, limits.head_fields, blame)
    return read_section(octets, limits.head_fields, blame, dropped)


def _check_request(method: str, minor: int, body: Body, bearing: dict[bytes, bytes]) -> None:
    if minor and b"host" not in bearing:  # RFC 9112, section 3.2
        raise request_malformed("send one host field")
    if method != method.upper():  # RFC 9110, section 9.1: they differ by case, not to everyone
        raise request_malformed("a method is written in capitals")
    if method == "PRI":  # RFC 9113, section 3.4: reserved, so that HTTP/1 readers stop there
        raise request_malformed("PRI begins HTTP/2; speak HTTP/1.1")
    if method == "CONNECT" and body is not NO_BODY:  # RFC 9110, section 9.3.6
        raise request_malformed("a CONNECT request has no content")
    if bearing.get(b"expect", b"100-continue").lower() != b"100-continue":
        raise request_malformed("the only expectation understood is `100-continue`")


def _framed_body(minor: int, bearing: dict[bytes, bytes], blame: Blame) -> Body | None:
    """Return the body that the framing fields tell; None when there are none."""
    length, coding = bearing.get(b"content-length"), bearing.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:  # RFC 9112, section 6.1: the mark of request smuggling
            raise blame("both Content-Length and Transfer-Encoding")
        if not minor:  # RFC 9112, section 6.1: framing is faulty
            raise blame("Transfer-Encoding in HTTP/1.0")
        if coding.lower() != b"chunked":
            raise blame("the only transfer coding understood is `chunked`")
        return _CHUNKED
    if length is None:
        return None
    if not _LENGTH.fullmatch(length):
        raise blame("a Content-Length is a decimal number without sign or leading zero")
    octets = int(length)
    if octets > _MOST_OCTETS:
        raise blame(f"a Content-Length over {_MOST_OCTETS}")
    return Body(BodyKind.LENGTH, octets) if octets else NO_BODY


def _response_body(
    request_method: str, minor: int, status: int, bearing: dict[bytes, bytes]
) -> Body:
    body = _framed_body(minor, bearing, upstream_malformed)
    if status < 200 or status == 204:  # RFC 9112, section 6.1; RFC 9110, section 8.6
        if body not in {None, NO_BODY}:
            raise upstream_malformed(f"a response {status} has no content")
        return NO_BODY
    # RFC 9112, section 6.3, items 1 and 2: the framing fields tell of another message.
    if request_method == "HEAD" or status == 304 or (request_method == "CONNECT" and status < 300):
        return NO_BODY
    return body or _UNTIL_CLOSE


def _persistent(minor: int, options: frozenset[bytes]) -> bool:
    return b"close" not in options and (minor == 1 or b"keep-alive" in options)


def _check_beginning(
    buffer: bytes | bytearray, limits: Limits, beginning: re.Pattern[bytes], blame: Blame
) -> None:
    """Refuse what is no head by its first line, and heads that are over the limit."""
    if len(buffer) >= limits.head_octets:
        raise blame(f"a head of more than {limits.head_octets} octets")
    line_end = buffer.find(b"\n")
    first = bytes(buffer[: line_end + 1 if line_end >= 0 else _BEGINNING_OCTETS])
    if not beginning.fullmatch(first):
        raise blame(f"{show(first)} does not begin an HTTP/1.1 head")
