"""Fields of HTTP messages: heads and trailers are read by the same eyes.

Field names are lower case from here on (RFC 9110, section 5.1).  `Blame` makes the error for
whoever sent the octets: an agent gets a `PeerError`, an origin an `UpstreamError`.
"""

import re
from collections.abc import Callable, Iterable

from proxy.errors import PeerError, ProxyError, UpstreamError
from rules.decision import Reason

type Field = tuple[bytes, bytes]
type Fields = tuple[Field, ...]
type Blame = Callable[[str], ProxyError]

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"  # RFC 9110, section 5.6.2
# RFC 9112, section 5: no space before the colon; section 5.2: no line folding.
# RFC 9110, section 5.5: neither CR, LF, NUL nor any other control octet but HTAB in a value.
# Possessive quantifiers: nothing is ever tried twice, whatever the peer sends.
FIELD_LINES = rb"(?:\r\n" + TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*+)*+"

# RFC 9110, section 7.6.1 names connection, proxy-connection, keep-alive, te, transfer-encoding
# and upgrade.  Trailer is not among them: it stays, as trailers do.  RFC 9110, section 11.7 ends
# proxy-* at this proxy; http2-settings belongs to an upgrade (RFC 7540, section 3.2.1).
HOP_BY_HOP = frozenset({
    b"connection", b"proxy-connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade",
    b"proxy-authenticate", b"proxy-authorization", b"proxy-authentication-info",
    b"http2-settings",
})  # fmt: skip

# RFC 9110, section 7.6.1: "MUST NOT send a connection option corresponding to a field that is
# intended for all recipients".  Listing one would have us strip what the origin decides by.
_END_TO_END = frozenset({
    b"host", b"authorization", b"cookie", b"set-cookie", b"cache-control", b"pragma", b"date",
    b"expect", b"range", b"origin", b"referer", b"user-agent", b"location", b"vary", b"etag",
    b"age", b"expires", b"last-modified", b"allow", b"retry-after", b"server", b"via", b"trailer",
    b"forwarded", b"max-forwards", b"www-authenticate", b"authentication-info",
    b"strict-transport-security", b"idempotency-key",
})  # fmt: skip
_END_TO_END_BEGINNINGS = (b"content-", b"if-", b"accept", b"sec-", b"x-", b"access-control-")

# RFC 9110, section 6.5.1: no framing, routing, authentication, request modifiers, response
# control or content processing in trailers.  Dropping a trailer is always allowed.
_NOT_IN_TRAILERS = HOP_BY_HOP | _END_TO_END
_NOT_IN_TRAILERS_BEGINNINGS = (b"content-", b"if-", b"accept", b"sec-", b"x-forwarded-")

_TRAILER_SECTION = re.compile(FIELD_LINES)
_LINE = re.compile(TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*+")
_SHOWN_OCTETS = 40

NO_OPTIONS: frozenset[bytes] = frozenset()
_KEEP_ALIVE, _CLOSE = frozenset({b"keep-alive"}), frozenset({b"close"})
_USUAL_OPTIONS = {  # what nearly all messages say
    b"keep-alive": _KEEP_ALIVE, b"Keep-Alive": _KEEP_ALIVE, b"close": _CLOSE, b"Close": _CLOSE,
}  # fmt: skip


def request_malformed(text: str) -> PeerError:
    """Blame the agent."""
    return PeerError(Reason.REQUEST_MALFORMED, text)


def upstream_malformed(text: str) -> UpstreamError:
    """Blame the origin."""
    return UpstreamError(Reason.UPSTREAM_MALFORMED, text)


def show(octets: bytes) -> str:
    """Return the beginning of what a peer sent, in ASCII, without userinfo or a query: secrets."""
    visible = octets.partition(b"?")[0].rpartition(b"@")[2]
    return ascii(visible[:_SHOWN_OCTETS].decode("latin-1"))


def split_lines(lines: list[bytes]) -> Fields:
    """Return the fields of lines that `FIELD_LINES` matched."""
    return tuple(
        [
            (name.lower(), value.strip())  # of white space, FIELD_LINES lets SP and HTAB in
            for name, _, value in [line.partition(b":") for line in lines]
        ]
    )


def connection_options(value: bytes | None, blame: Blame) -> frozenset[bytes]:
    """Return the options of a message's Connection field, lower case; none where there is none.

    Raises:
        ProxyError: an option names a field that is meant for the origin.
    """
    if value is None:
        return NO_OPTIONS
    if known := _USUAL_OPTIONS.get(value):
        return known
    options = _split_options(value)
    for option in options:
        if option in _END_TO_END or option.startswith(_END_TO_END_BEGINNINGS):
            raise blame(f"Connection lists {option.decode('latin-1')!a}, an end-to-end field")
    return options


def end_to_end(fields: Iterable[Field]) -> list[Field]:
    """Return the fields that a proxy sends on (RFC 9110, section 7.6.1).

    Hop-by-hop fields and those that Connection lists are gone.  Content-Length stays: it is
    canonical once a head was read.  Expect stays: a proxy forwards it (section 10.1.1).
    """
    kept = [field for field in fields if field[0] not in HOP_BY_HOP]
    options = [value for name, value in fields if name == b"connection"]
    if not options:
        return kept
    if len(options) == 1 and options[0] in _USUAL_OPTIONS:  # they name hop-by-hop fields only
        return kept
    listed = _split_options(b",".join(options))
    return [field for field in kept if field[0] not in listed]


def read_trailers(section: bytes, most: int, blame: Blame) -> Fields:
    """Return the trailer fields of `section`, each line of which ends in CRLF.

    Fields that have no place in a trailer section are dropped (RFC 9110, section 6.5.1).

    Raises:
        ProxyError: a line that is no field, or more than `most` fields.
    """
    lines = section.split(b"\r\n")[:-1]
    if len(lines) > most:
        raise blame(f"more than {most} trailer fields")
    if not _TRAILER_SECTION.fullmatch(b"\r\n" + section[:-2]):
        raise blame(blame_line(lines))
    return tuple(field for field in split_lines(lines) if _may_trail(field[0]))


def write_fields(fields: Iterable[Field]) -> bytes:
    """Return field lines, each with its CRLF, none of which can hold another.

    Raises:
        ValueError: a field holds CR, LF or NUL; no head that was read does (CVE-2025-57804).
    """
    lines = [b"%b: %b\r\n" % field for field in fields]
    block = b"".join(lines)
    if not block.count(b"\n") == block.count(b"\r") == len(lines) or b"\0" in block:
        raise ValueError("a field to be written holds CR, LF or NUL")
    return block


def blame_line(lines: Iterable[bytes]) -> str:
    """Return what is wrong with the first line that is no field, without its value: a secret."""
    bad = next((line for line in lines if not _LINE.fullmatch(line)), b"")
    if bad[:1] in {b" ", b"\t"}:
        return "a folded line (RFC 9112, section 5.2)"
    name = bad.partition(b":")[0]
    shown = show(name)
    if b"\n" in bad or b"\r" in bad:
        return f"{shown}: a bare CR or LF (RFC 9112, section 2.2)"
    return f"{shown}: no field line; name:value, no space before the colon, no control octets"


def _may_trail(name: bytes) -> bool:
    return name not in _NOT_IN_TRAILERS and not name.startswith(_NOT_IN_TRAILERS_BEGINNINGS)


def _split_options(value: bytes) -> frozenset[bytes]:
    # RFC 9110, section 5.6.1.2: empty members of a list are ignored.
    return frozenset([member.strip(b" \t") for member in value.lower().split(b",")]) - {b""}
