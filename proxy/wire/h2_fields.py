"""The fields of an HTTP/2 request: what RFC 9113, sections 8.2 and 8.3, calls malformed.

What is malformed ends its stream and is never repaired, for another reader might repair it in
another way (threats.md, "h2 pseudo-header tricks and CRLF in h2 values").
"""

import re
from collections.abc import Iterable

from msgspec import Struct

from proxy.wire.fields import Field, Fields
from proxy.wire.h2_frame import ErrorCode, H2Error

# RFC 9113, section 8.2.1: field names are lower case.  RFC 9110, section 5.6.2: a token.
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]++")
# RFC 9113, section 8.2.1: no NUL, CR or LF, no white space around; RFC 9110, section 5.5: nor any
# other control octet but HTAB inside.
_VALUE = re.compile(rb"(?![ \t])[^\x00-\x08\x0a-\x1f\x7f]*+(?<![ \t])")
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++")
_PATH = re.compile(rb"/[\x21-\x7e]*+|\*")  # RFC 9113, section 8.3.1
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,18}")  # RFC 9110, section 8.6
_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path"})
# RFC 9113, section 8.2.2.
_OF_CONNECTIONS = frozenset({
    b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade",
})  # fmt: skip
_SINGLE = frozenset({b"host", b"content-length"})


class H2Request(Struct, frozen=True):
    """The head of a request.  `path` and `scheme` are empty for CONNECT.

    `authority` is that of `:authority` or, where that is absent, of Host; None where both are.
    `octets` is what Content-Length says, None where there is none.
    """

    method: str
    scheme: bytes
    authority: bytes | None
    path: bytes
    fields: Fields
    octets: int | None


def read_fields(decoded: Iterable[Field], stream: int) -> H2Request:
    """Return the request that decoded fields make.

    Raises:
        H2Error: PROTOCOL_ERROR on `stream`, whatever RFC 9113, section 8.1.1, calls malformed.
    """
    pseudo, fields = _split(decoded, stream)
    method = pseudo.pop(b":method", b"")
    if not _METHOD.fullmatch(method):
        raise _malformed("a request has one :method", stream)
    single = {name: value for name, value in fields if name in _SINGLE}
    octets = single.get(b"content-length")
    if octets is not None and not _LENGTH.fullmatch(octets):
        raise _malformed("a content-length is a decimal number", stream)
    authority = _authority(pseudo, single.get(b"host"), stream)
    if method == b"CONNECT":  # RFC 9113, section 8.5
        if pseudo or authority is None:
            raise _malformed("CONNECT has :method and :authority alone", stream)
    elif not pseudo.get(b":scheme") or not _PATH.fullmatch(pseudo.get(b":path", b"")):
        raise _malformed("a request has one :scheme and one :path", stream)
    return H2Request(
        method.decode("ascii"),
        pseudo.get(b":scheme", b""),
        authority,
        pseudo.get(b":path", b""),
        fields,
        None if octets is None else int(octets),
    )


def check_trailers(decoded: Iterable[Field], stream: int) -> None:
    """Check the fields of a trailer section, which say nothing to us.

    Raises:
        H2Error: PROTOCOL_ERROR on `stream`, malformed; pseudo-header fields are (section 8.1).
    """
    pseudo, _ = _split(decoded, stream)
    if pseudo:
        raise _malformed("a pseudo-header field in trailers", stream)


def _split(decoded: Iterable[Field], stream: int) -> tuple[dict[bytes, bytes], Fields]:
    pseudo: dict[bytes, bytes] = {}
    fields: list[Field] = []
    seen: set[bytes] = set()
    for name, value in decoded:
        if not _VALUE.fullmatch(value):
            raise _malformed("CR, LF, NUL or outer white space in a field's value", stream)
        if name[:1] == b":":
            # RFC 9113, section 8.3: before all others, each once, no unknown one.
            if fields or name in pseudo or name not in _PSEUDO:
                raise _malformed("a pseudo-header field that has no place there", stream)
            pseudo[name] = value
            continue
        _check_field(name, value, seen, stream)
        fields.append((bytes(name), bytes(value)))
    return pseudo, tuple(fields)


def _check_field(name: bytes, value: bytes, seen: set[bytes], stream: int) -> None:
    if not _NAME.fullmatch(name):
        raise _malformed("a field name that is no token in lower case", stream)
    if name in _OF_CONNECTIONS or (name == b"te" and value.lower() != b"trailers"):
        raise _malformed("a field of connections, which HTTP/2 does not have", stream)
    if name in _SINGLE:
        if name in seen:
            raise _malformed(f"two {name.decode('ascii')} fields", stream)
        seen.add(bytes(name))


def _authority(pseudo: dict[bytes, bytes], host: bytes | None, stream: int) -> bytes | None:
    """Return the authority: RFC 9113, section 8.3.1, of two they must be one."""
    authority = pseudo.pop(b":authority", None)
    if authority is None:
        return host
    if host is not None and host != authority:
        raise _malformed(":authority and host differ", stream)
    return authority


def _malformed(text: str, stream: int) -> H2Error:
    return H2Error(ErrorCode.PROTOCOL_ERROR, text, stream)
