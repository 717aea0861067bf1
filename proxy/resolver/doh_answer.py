"""Responses of the DoH listener: status, fields and content, whichever HTTP carries them.

A refusal of the rules is a DNS message in a 200: DNS says what it means (RFC 8484, section
4.2.1).  What is no DNS answer is a problem (RFC 9457).
"""

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from proxy.agent_api import asked
from proxy.agent_api.rendering import fields_of, phrase
from proxy.problem import Problem
from proxy.resolver.doh_request import MEDIA_TYPE, HttpRefusal
from proxy.wire.fields import Field, Fields
from proxy.wire.question import HEAD_OCTETS, read_head

_NO_STORE = (b"cache-control", b"no-store")
_PROBLEM = (b"content-type", b"application/problem+json")
_SOA = 6
_RECORD_OCTETS = 10  # RFC 1035, section 3.2.1: type, class, TTL, length
# RFC 6750, section 3; RFC 7617, section 2; a challenge a field, which every client reads.
CHALLENGES = (
    (b"www-authenticate", b'Bearer realm="sallyport", error="invalid_token"'),
    (b"www-authenticate", b'Basic realm="sallyport", charset="UTF-8"'),
)
_UNAUTHORIZED = 401
PHRASES = {
    200: b"OK",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    406: b"Not Acceptable",
    413: b"Content Too Large",
    415: b"Unsupported Media Type",
    421: b"Misdirected Request",
    431: b"Request Header Fields Too Large",
}


class Answer(Struct, frozen=True):
    """A response; `content` is empty for HEAD, whose fields are those of GET."""

    status: int
    fields: Fields
    content: bytes
    phrase: bytes = b""


class Message(Struct, frozen=True):
    """A DNS message that answers; it may be kept for `fresh_s` seconds."""

    octets: bytes
    fresh_s: int


def dns_answer(message: Message, *, is_head: bool = False) -> Answer:
    """Return the response that carries a DNS message."""
    fields = dns_fields(len(message.octets), message.fresh_s)
    return Answer(200, fields, b"" if is_head else message.octets)


def dns_fields(octets: int, fresh_s: int) -> Fields:
    """Return the fields of a DNS message of so many octets.

    RFC 8484, section 5.1: the freshness is that of the message.  `private`, because an answer is
    one app's: a cache that several share would hand it to another (RFC 9111, section 5.2.2.7).
    """
    fresh = b"private, max-age=%d" % fresh_s if fresh_s > 0 else b"no-store"
    return (
        (b"content-type", MEDIA_TYPE),
        (b"content-length", b"%d" % octets),
        (b"cache-control", fresh),
    )


def http_refusal(refusal: HttpRefusal, *, is_head: bool = False) -> Answer:
    """Return the response that refuses a request for what HTTP says of it."""
    phrase = PHRASES[refusal.status]
    content = msgspec.json.encode(
        {"title": phrase.decode("ascii"), "status": refusal.status, "detail": refusal.text}
    )
    return _problem(refusal.status, content, refusal.fields, is_head=is_head)


def turned_away(problem: Problem, refusal_id: str, *, is_head: bool = False) -> Answer:
    """Return the response to what was presented and names nobody: a 401 asks for a token."""
    reason = problem.reason
    fields = (
        *(CHALLENGES if problem.status == _UNAUTHORIZED else ()),
        (b"proxy-status", f'sallyport; error=http_request_denied; details="{reason}"'.encode()),
        (b"x-deny-reason", reason.encode()),
    )
    phrase = f"sallyport {reason} {refusal_id}".encode()
    return _problem(problem.status, msgspec.json.encode(problem), fields, phrase, is_head=is_head)


def explained(problem: Problem, *, is_head: bool = False) -> Answer:
    """Return the response to /why/ID."""
    return _problem(200, msgspec.json.encode(problem), is_head=is_head)


def of_api(answer: asked.Answer, *, is_head: bool = False) -> Answer:
    """Return the response that carries an answer of the API for agents."""
    said = phrase(answer.status).encode("ascii")
    return Answer(answer.status, fields_of(answer), b"" if is_head else answer.content, said)


def _problem(
    status: int,
    content: bytes,
    more: Iterable[Field] = (),
    phrase: bytes = b"",
    *,
    is_head: bool,
) -> Answer:
    length = (b"content-length", b"%d" % len(content))
    fields = (_PROBLEM, length, _NO_STORE, (b"x-content-type-options", b"nosniff"), *more)
    return Answer(status, fields, b"" if is_head else content, phrase)


def fresh_s(message: bytes) -> int:
    """Return for how many seconds a reply that we wrote may be kept, 0 where it may not.

    RFC 8484, section 5.1: the least TTL of the answer section; of a reply without one, what RFC
    2308, section 5, makes of the SOA.
    """
    head = read_head(message)
    at = HEAD_OCTETS
    for _ in range(head.qdcount):
        at = _after_name(message, at) + 4
    ttls = []
    for number in range(head.ancount + head.nscount):
        at = _after_name(message, at)
        end = at + _RECORD_OCTETS + int.from_bytes(message[at + 8 : at + 10])
        ttl = int.from_bytes(message[at + 4 : at + 8])
        if number < head.ancount:
            ttls.append(ttl)
        elif not head.ancount and int.from_bytes(message[at : at + 2]) == _SOA:
            ttls.append(min(ttl, int.from_bytes(message[end - 4 : end])))
        at = end
    return min(ttls, default=0)


def _after_name(message: bytes, at: int) -> int:
    while length := message[at]:
        if length >= 0xC0:  # RFC 1035, section 4.1.4: a pointer ends a name
            return at + 2
        at += 1 + length
    return at + 1
