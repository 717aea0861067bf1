"""A decision as an HTTP response that tells the agent why (reference.md, "Formats").

Pure.  The code and the id stand in the status line as well, because most clients drop the
fields and the body of a refused CONNECT.
"""

import msgspec
from msgspec import Struct

from proxy.advice import advise
from rules.decision import Decision, Reason

STATUS: dict[Reason, int] = {
    Reason.RULE: 403,
    Reason.LOCAL: 403,
    Reason.HOST_NOT_LISTED: 403,
    Reason.LIST: 403,
    Reason.TYPE_NOT_ALLOWED: 403,
    Reason.ADDRESS_NOT_ALLOWED: 403,
    Reason.SPECIAL_USE: 403,
    Reason.TUNNEL_DETECTED: 403,
    Reason.BUDGET: 429,
    Reason.RATE: 429,
    Reason.QUARANTINED: 403,
    Reason.IDENTITY_UNKNOWN: 403,  # 407 comes with tokens
    Reason.IDENTITY_CONFLICT: 403,
    Reason.MTLS_REQUIRED: 403,
    Reason.ATTESTATION_REQUIRED: 403,
    Reason.REVOKED: 403,
    Reason.NAME_MALFORMED: 400,
    Reason.PORT_NOT_ALLOWED: 403,
    Reason.METHOD_NOT_ALLOWED: 403,
    Reason.PATH_NOT_ALLOWED: 403,
    Reason.LITERAL_NOT_ALLOWED: 403,
    Reason.INSPECTION_UNAVAILABLE: 403,
    Reason.APPROVAL_REQUIRED: 403,
    Reason.GENERATION_CHANGED: 403,
    Reason.REQUEST_MALFORMED: 400,
    Reason.AUTHORITY_MISMATCH: 421,
    Reason.SNI_MISMATCH: 403,  # these four cut a tunnel; nobody sees the status
    Reason.SNI_MISSING: 403,
    Reason.NOT_TLS: 403,
    Reason.ECH: 403,
    Reason.CAPACITY: 503,
    Reason.AUDIT_QUOTA: 503,
    Reason.AUDIT_UNAVAILABLE: 503,
    Reason.INTERNAL_ERROR: 503,
    Reason.UPSTREAM_UNREACHABLE: 502,
    Reason.UPSTREAM_TIMEOUT: 504,
    Reason.UPSTREAM_TLS: 502,
    Reason.UPSTREAM_MALFORMED: 502,
    Reason.NO_ADDRESS: 502,
}

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


class Problem(Struct, frozen=True):
    """The body of a refusal (RFC 9457, section 3.1), with our extension members."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    reason: str
    app: str
    target: str
    how: str


class Answer(Struct, frozen=True):
    """How the refusal goes out: whether it answers a HEAD, and whether the connection ends."""

    is_head: bool = False
    close: bool = False


def problem(reason: Reason, refusal_id: str, app: str, target: str, how: str) -> Problem:
    """Return the problem details of one refusal; `refusal_id` is 32 hex digits."""
    parts = (refusal_id[:8], refusal_id[8:12], refusal_id[12:16], refusal_id[16:20])
    return Problem(
        type=f"https://sallyport.internal/reasons/{reason}",
        title=reason.replace("-", " "),
        status=STATUS[reason],
        detail=f"{target} was refused to {app}: {reason}",
        instance=f"urn:uuid:{'-'.join(parts)}-{refusal_id[20:]}",  # RFC 9562, section 4
        reason=reason,
        app=app,
        target=target,
        how=how,
    )


def refuse(decision: Decision, refusal_id: str, app: str, target: str, answer: Answer) -> bytes:
    """Return the whole response for a DENY or FAIL; a HEAD gets the fields only."""
    reason = decision.reason
    status = STATUS[reason]
    body = msgspec.json.encode(problem(reason, refusal_id, app, target, advise(decision, app)))
    error = _PROXY_STATUS_ERROR.get(reason, _DENIED)
    lines = [
        f"HTTP/1.1 {status} sallyport {reason} {refusal_id}",
        f'Proxy-Status: sallyport; error={error}; details="{reason}"',
        f"X-Deny-Reason: {reason}",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
    ]
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
