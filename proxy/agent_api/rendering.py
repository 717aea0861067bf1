"""Between the fields of HTTP and the agent-facing API; the planes write the octets."""

from http import HTTPStatus

from proxy.agent_api.asked import Answer
from proxy.wire.fields import Field, Fields
from proxy.wire.head import write_response

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"  # RFC 9110, section 15.2.1

_CACHE = b"cache-control"
_NO_STORE: Field = (_CACHE, b"no-store")  # RFC 6749, section 5.1: answers hold tokens
_NO_SNIFF: Field = (b"x-content-type-options", b"nosniff")


def phrase(status: int) -> str:
    """Return the reason phrase of a status."""
    return HTTPStatus(status).phrase


def fields_of(answer: Answer) -> Fields:
    """Return the fields of a response, as GET and HEAD have them (RFC 9110, section 9.3.2).

    It may be kept by nobody, unless it says itself that it may.
    """
    type_: Field = (b"content-type", answer.media_type.encode("ascii"))
    length: Field = (b"content-length", b"%d" % len(answer.content))
    is_public = any(name == _CACHE for name, _ in answer.fields)
    kept = () if is_public else (_NO_STORE,)
    return (type_, length, *kept, _NO_SNIFF, *answer.fields)


def write_http1(answer: Answer, *, is_head: bool, close: bool) -> bytes:
    """Return the whole HTTP/1.1 response."""
    more: Fields = ((b"connection", b"close"),) if close else ()
    said = phrase(answer.status).encode("ascii")
    head = write_response(answer.status, said, (*fields_of(answer), *more))
    return head if is_head else head + answer.content


def media_type_of(fields: Fields) -> str:
    """Return the media type of a request's content, in lower case without its parameters.

    It is empty where there is none, more than one, or where the content is encoded: no route
    takes such content.
    """
    types = [value for name, value in fields if name == b"content-type"]
    if len(types) != 1 or any(name == b"content-encoding" for name, _ in fields):
        return ""
    return types[0].partition(b";")[0].strip(b" \t").lower().decode("ascii", "replace")
