"""What a request to the DoH listener asks for (RFC 8484, section 4.1), or why it is refused.

Pure, and of the head alone: the same octets of a head mean the same on every connection.
Whether its authority is ours depends on the connection, and is looked at there.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable

from msgspec import Struct

from proxy.agent_api.rendering import media_type_of
from proxy.wire.fields import Field, Fields
from proxy.wire.h2_reply import Reply

PATH = b"/dns-query"
MEDIA_TYPE = b"application/dns-message"
METHODS = b"GET, HEAD, POST"
MESSAGE_OCTETS = 65535  # RFC 1035, section 4.2.2

_WHY = b"/why/"
_WHY_ID = re.compile(rb"[0-9a-f]{32}")
_BASE64URL = re.compile(rb"[A-Za-z0-9_-]+")
_FITTING = frozenset({MEDIA_TYPE, b"application/*", b"*/*"})


class HttpRefusal(Struct, frozen=True):
    """A refusal that is no DNS message: the request is not one for a DNS answer."""

    status: int
    text: str
    fields: Fields = ()


class Made(Struct, frozen=True):
    """The reply that was made of a hit's octets and TTL."""

    octets: bytes
    ttl_s: int
    reply: Reply


class Call(Struct, frozen=True):
    """What is asked of the API for agents, but for the content."""

    method: str
    path: str
    media_type: str


class DohRequest(Struct):
    """A request's head.

    `wire` is the query of a GET, None where it is the content; `why` is the id whose refusal is
    asked for, `call` what is asked of the API for agents; `octets` is what Content-Length says.
    `is_usual`: nothing but `wire` is to be looked at.  `last` is what was made of the last hit, for
    the next request with this head.
    """

    authority: bytes | None
    wire: bytes | None = None
    why: str | None = None
    call: Call | None = None
    authorization: tuple[bytes, ...] = ()
    is_head: bool = False
    octets: int | None = None
    refusal: HttpRefusal | None = None
    is_usual: bool = False
    last: Made | None = None

    @property
    def is_final(self) -> bool:
        """Whether the reply is known without the content."""
        return self.refusal is not None


def no_api(_: str) -> bool:
    """Return whether a path is one of the API, where there is none."""
    return False


def read_doh(
    method: str,
    authority: bytes | None,
    target: bytes,
    fields: Fields,
    octets: int | None,
    is_call: Callable[[str], bool] = no_api,
) -> DohRequest:
    """Return what a head asks for; `target` is in origin-form, `is_call` knows the API's paths."""
    path, question_mark, query = target.partition(b"?")
    refusal = _from_a_page(fields)
    wire = why = call = None
    if refusal is None:
        if path == PATH:
            wire, refusal = _message(method, query if question_mark else None, fields, octets)
        elif path.startswith(_WHY):
            why, refusal = _why(method, path.removeprefix(_WHY))
        elif is_call(path.decode("latin-1")):
            call = Call(method, path.decode("latin-1"), media_type_of(fields))
            refusal = _over_long(octets)
        else:
            refusal = HttpRefusal(404, "there is /dns-query and /why/ID")
    authorization = tuple([value for name, value in fields if name == b"authorization"])
    is_head = method == "HEAD"
    return DohRequest(
        authority, wire, why, call, authorization, is_head, octets, refusal,
        is_usual=not (refusal or authorization or is_head or why or call),
    )  # fmt: skip


def _from_a_page(fields: Fields) -> HttpRefusal | None:
    """Refuse what a browser says that a page asks (Fetch Metadata, section 2.3).

    A page that the user's browser shows can send requests to loopback: it would ask as the user.
    """
    for name, value in fields:
        if name == b"origin" or (name == b"sec-fetch-site" and value.lower() != b"none"):
            return HttpRefusal(403, "requests of web pages are refused")
    return None


def _message(
    method: str, query: bytes | None, fields: Fields, octets: int | None
) -> tuple[bytes | None, HttpRefusal | None]:
    if method == "POST":
        return None, _unfit_content(fields, octets) or _unacceptable(fields)
    if method not in {"GET", "HEAD"}:  # RFC 9110, section 15.5.6
        return None, HttpRefusal(405, "GET, HEAD or POST", ((b"allow", METHODS),))
    wire = _parameter(query)
    if wire is None:
        text = "GET takes ?dns= with one DNS message in base64url without padding"
        return None, HttpRefusal(400, text)
    return wire, _unacceptable(fields)


def _why(method: str, unique: bytes) -> tuple[str | None, HttpRefusal | None]:
    if method not in {"GET", "HEAD"}:
        return None, HttpRefusal(405, "GET or HEAD", ((b"allow", b"GET, HEAD"),))
    if not _WHY_ID.fullmatch(unique):
        return None, HttpRefusal(404, "an id is 32 hexadecimal digits")
    return unique.decode("ascii"), None


def _parameter(query: bytes | None) -> bytes | None:
    """Return the message in `dns`; None where it is not there once, in its one spelling.

    RFC 8484, section 6: base64url without padding.  Percent-encoding has no place in it, and the
    bits after the last octet are zero (RFC 4648, section 3.5): one message has one spelling.
    """
    values = [each[4:] for each in (query or b"").split(b"&") if each[:4] == b"dns="]
    if len(values) != 1 or not _BASE64URL.fullmatch(values[0]) or len(values[0]) % 4 == 1:
        return None
    wire = urlsafe_b64decode(values[0] + b"=" * (-len(values[0]) % 4))
    return wire if urlsafe_b64encode(wire).rstrip(b"=") == values[0] else None


def _unfit_content(fields: Fields, octets: int | None) -> HttpRefusal | None:
    types = [_media_type(value) for name, value in fields if name == b"content-type"]
    if types != [MEDIA_TYPE] or any(name == b"content-encoding" for name, _ in fields):
        text = "POST takes application/dns-message"
        return HttpRefusal(415, text, ((b"accept-post", MEDIA_TYPE),))
    if octets is not None and octets > MESSAGE_OCTETS:
        return too_long()
    return None


def too_long() -> HttpRefusal:
    """Return the refusal of content that is longer than any DNS message."""
    return HttpRefusal(413, f"a DNS message has at most {MESSAGE_OCTETS} octets")


def _over_long(octets: int | None) -> HttpRefusal | None:
    """Refuse content of the API before it comes; what it takes exactly is known there."""
    if octets is None or octets <= MESSAGE_OCTETS:
        return None
    return HttpRefusal(413, f"at most {MESSAGE_OCTETS} octets of content are taken")


def _unacceptable(fields: Fields) -> HttpRefusal | None:
    """Refuse who takes no DNS message (RFC 9110, section 15.5.7): JSON is not spoken here."""
    values: list[Field] = [field for field in fields if field[0] == b"accept"]
    ranges = [_media_type(each) for _, value in values for each in value.split(b",")]
    if not ranges or any(each in _FITTING for each in ranges):
        return None
    return HttpRefusal(406, "the answer is application/dns-message")


def _media_type(value: bytes) -> bytes:
    return value.partition(b";")[0].strip(b" \t").lower()
