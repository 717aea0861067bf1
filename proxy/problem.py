"""A refusal as the problem details that an agent reads (RFC 9457), whichever listener says it."""

from msgspec import Struct

from rules.decision import Reason

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
