"""A decision as an HTTP response that tells the agent why (reference.md, "Formats").

Pure.  The code and the id stand in the status line as well, because most clients drop the
fields and the body of a refused CONNECT.
"""

import msgspec
from msgspec import Struct, structs

from proxy.advice import advise
from proxy.problem import STATUS, problem
from rules.decision import Decision, Reason, Verdict

RETRY_AFTER_S: dict[Reason, int] = {
    Reason.RATE: 1,
    Reason.BUDGET: 60,
    Reason.CAPACITY: 1,
    Reason.AUDIT_QUOTA: 60,  # the quota is per minute
}

# RFC 9209, section 2.3: a failure of the other side is no denial, and has types of its own.
_PROXY_STATUS_ERROR: dict[Reason, str] = {
    Reason.UPSTREAM_UNREACHABLE: "destination_unavailable",
    Reason.UPSTREAM_TIMEOUT: "connection_timeout",
    Reason.UPSTREAM_TLS: "tls_protocol_error",
    Reason.UPSTREAM_MALFORMED: "http_protocol_error",
    Reason.NO_ADDRESS: "dns_error",
    Reason.INTERNAL_ERROR: "proxy_internal_error",
}
_DENIED = "http_request_denied"


CHALLENGED = 407  # RFC 9110, section 15.5.8
_DENIED_STATUS = 403
# RFC 9110, section 11.7.1; RFC 7617, section 2.1; RFC 6750, section 3
_CHALLENGES = (
    'Proxy-Authenticate: Basic realm="sallyport", charset="UTF-8"',
    'Proxy-Authenticate: Bearer realm="sallyport"',
)


class Answer(Struct, frozen=True):
    """How the refusal goes out: whether it answers a HEAD, and whether the connection ends.

    `challenge`: a token could change the answer, so that a 403 becomes a 407 that asks for one.
    `is_request`: it answers a plain request, of which the Connect may be what was refused.
    """

    is_head: bool = False
    close: bool = False
    challenge: bool = False
    is_request: bool = False


def may_challenge(decision: Decision) -> bool:
    """Return whether another principal could be told something else than this refusal."""
    return decision.verdict is Verdict.DENY and STATUS[decision.reason] == _DENIED_STATUS


def refuse(decision: Decision, refusal_id: str, app: str, target: str, answer: Answer) -> bytes:
    """Return the whole response for a DENY or FAIL; a HEAD gets the fields only."""
    reason = decision.reason
    said = problem(reason, refusal_id, app, target, advise(decision, app))
    if answer.challenge:
        how = f"{said.how}; or send a token with Proxy-Authorization"
        said = structs.replace(said, status=CHALLENGED, how=how)
    body = msgspec.json.encode(said)
    error = _PROXY_STATUS_ERROR.get(reason, _DENIED)
    lines = [
        f"HTTP/1.1 {said.status} sallyport {reason} {refusal_id}",
        f'Proxy-Status: sallyport; error={error}; details="{reason}"',
        f"X-Deny-Reason: {reason}",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
    ]
    if answer.challenge:
        lines += _CHALLENGES
    if reason in RETRY_AFTER_S:  # RFC 6585, section 4; RFC 9110, section 15.6.4
        lines.append(f"Retry-After: {RETRY_AFTER_S[reason]}")
    if answer.close:
        lines.append("Connection: close")
    head = "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"
    return head if answer.is_head else head + body


def printable(octets: bytes, limit: int = 256) -> str:
    """Return a text of what a peer sent that is safe in a terminal, a log and JSON."""
    text = octets[:limit].decode("ascii", "backslashreplace")
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)
