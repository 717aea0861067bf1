"""What goes wrong with a request to the agent-facing API, as an answer.

Problems are those of `proxy.problem` (RFC 9457), without the id of a refusal by the rules; OAuth
endpoints have a form of their own (RFC 6749, section 5.2).
"""

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from proxy.agent_api.asked import JSON, PROBLEM, Answer, Asked, OAuthError, ProblemError
from proxy.agent_api.rendering import phrase
from proxy.wire.fields import Field, Fields
from rules.decision import Reason
from rules.special import OUR_ZONE

_RETRY = ((b"retry-after", b"1"),)  # RFC 9110, section 10.2.3: seconds
# RFC 9110, section 15.5.2: a 401 asks for something.
_CHALLENGE: Field = (b"www-authenticate", b'Bearer realm="sallyport"')
_UNAUTHORIZED = 401


class ApiProblem(Struct, frozen=True, omit_defaults=True):
    """The content of a refusal (RFC 9457, section 3.1), with our extension members."""

    type: str
    title: str
    status: int
    detail: str
    reason: str = ""
    app: str = ""
    target: str = ""
    how: str = ""


class OAuthProblem(Struct, frozen=True):
    """The content of a refusal of an OAuth endpoint (RFC 6749, section 5.2)."""

    error: str
    error_description: str


def refused(asked: Asked, error: ProblemError, fields: Fields = ()) -> Answer:
    """Return a refusal with its reason, which the content and X-Deny-Reason name."""
    reason = error.reason
    content = ApiProblem(
        type=f"https://{OUR_ZONE}/reasons/{reason}",
        title=reason.replace("-", " "),
        status=error.status,
        detail=str(error),
        reason=reason,
        app=asked.caller.principal.app,
        target=f"{asked.method} {asked.path}",
        how=error.how,
    )
    said: Field = (b"x-deny-reason", reason.encode())
    return _problem(content, (said, *_challenge(error.status), *fields))


def oauth(error: OAuthError) -> Answer:
    """Return a refusal of an OAuth endpoint."""
    text = "".join(each if _is_description(each) else "'" for each in str(error))
    content = msgspec.json.encode(OAuthProblem(error.error, text))
    return Answer(error.status, content, JSON, _challenge(error.status))


def not_found(asked: Asked) -> Answer:
    """Return a 404."""
    return _of_http(404, f"there is no {asked.path}; GET /openapi.json lists what there is")


def method_not_allowed(asked: Asked, methods: Iterable[str]) -> Answer:
    """Return a 405 (RFC 9110, section 15.5.6)."""
    allowed = [*methods]
    if "GET" in allowed:
        allowed.append("HEAD")
    allow = ", ".join(sorted(allowed))
    fields = ((b"allow", allow.encode("ascii")),)
    return _of_http(405, f"{asked.path} takes {allow}", fields)


def unfit_media(asked: Asked, wanted: str) -> Answer:
    """Return a 415 (RFC 9110, section 15.5.16)."""
    fields = ((b"accept-post", wanted.encode("ascii")),)
    return _of_http(415, f"{asked.path} takes {wanted}, once and not encoded", fields)


def too_long(asked: Asked, most_octets: int) -> Answer:
    """Return a 413."""
    return _of_http(413, f"{asked.path} takes at most {most_octets} octets of content")


def busy(asked: Asked, bound: str) -> Answer:
    """Return a 503, or a 429 where it is the app's own calls that there are too many of."""
    status = 503 if bound == "agent_api_calls" else 429
    error = ProblemError(status, Reason.CAPACITY, f"{bound} is met", "try again in a second")
    return refused(asked, error, _RETRY)


def too_slow(asked: Asked) -> Answer:
    """Return a 503 for what took too long."""
    error = ProblemError(503, Reason.CAPACITY, "no answer in time", "try again in a second")
    return refused(asked, error, _RETRY)


def _of_http(status: int, text: str, fields: Fields = ()) -> Answer:
    """RFC 9457, section 4.2.1: `about:blank` says no more than the status does."""
    content = ApiProblem("about:blank", phrase(status), status, text)
    return _problem(content, fields)


def _problem(content: ApiProblem, fields: Fields) -> Answer:
    return Answer(content.status, msgspec.json.encode(content), PROBLEM, fields)


def _challenge(status: int) -> Fields:
    return (_CHALLENGE,) if status == _UNAUTHORIZED else ()


def _is_description(character: str) -> bool:
    r"""RFC 6749, section 5.2: %x20-21 / %x23-5B / %x5D-7E, which is without `"` and `\`."""
    return character.isascii() and character.isprintable() and character not in '"\\'
