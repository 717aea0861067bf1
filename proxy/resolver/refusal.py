"""Refusals on the DNS plane, worded by one table; and replies that are ours alone.

NXDOMAIN is said only where nothing of the name and nothing below it is allowed: a cache takes
it for the whole subtree (RFC 8020, section 2), so that elsewhere it would deny what is allowed.
"""

from enum import Enum

from msgspec import Struct

from proxy.resolver.answer import REFUSAL_TTL_S, Rcode, Record, soa
from proxy.resolver.message import ExtendedError, Query, reply
from rules.decision import Decision, Reason, Refuse
from rules.name import DomainName

_HINFO = 13
_ANY_TTL_S = 3600  # RFC 8482, section 4.2: long enough to suppress the next ANY


class Wording(Enum):
    """How a refusal is said."""

    AS_CONFIGURED = "as the app's `refuse` says"
    NXDOMAIN = "nxdomain"
    NODATA = "nodata"
    REFUSED = "refused"
    FORMERR = "formerr"
    SERVFAIL = "servfail"


class Refusal(Struct, frozen=True):
    """A row: the wording, and the code of the extended DNS error (RFC 8914, section 4)."""

    wording: Wording
    ede: int


_OTHER, _BLOCKED, _FILTERED, _PROHIBITED = 0, 15, 17, 18
_NO_REACHABLE_AUTHORITY, _NETWORK_ERROR = 22, 23
_CONFIGURED = Refusal(Wording.AS_CONFIGURED, _BLOCKED)
_BLOCKED_NODATA = Refusal(Wording.NODATA, _BLOCKED)
_FILTERED_NAME = Refusal(Wording.NXDOMAIN, _FILTERED)
_NOT_YOU = Refusal(Wording.REFUSED, _PROHIBITED)
_MALFORMED = Refusal(Wording.FORMERR, _OTHER)
_OUR_FAULT = Refusal(Wording.SERVFAIL, _OTHER)
_UNREACHABLE = Refusal(Wording.SERVFAIL, _NO_REACHABLE_AUTHORITY)
_BROKEN = Refusal(Wording.SERVFAIL, _NETWORK_ERROR)
_NOT_OF_THIS_PLANE = _OUR_FAULT

REFUSAL: dict[Reason, Refusal] = {
    Reason.RULE: _CONFIGURED,
    Reason.LOCAL: _NOT_OF_THIS_PLANE,
    Reason.HOST_NOT_LISTED: _CONFIGURED,
    Reason.LIST: _CONFIGURED,
    Reason.TYPE_NOT_ALLOWED: _BLOCKED_NODATA,
    Reason.ADDRESS_NOT_ALLOWED: _BLOCKED_NODATA,
    Reason.SPECIAL_USE: Refusal(Wording.NXDOMAIN, _BLOCKED),
    Reason.TUNNEL_DETECTED: _FILTERED_NAME,
    Reason.BUDGET: _FILTERED_NAME,
    Reason.RATE: Refusal(Wording.REFUSED, _FILTERED),
    Reason.QUARANTINED: _FILTERED_NAME,
    Reason.IDENTITY_UNKNOWN: _NOT_YOU,
    Reason.IDENTITY_CONFLICT: _NOT_YOU,
    Reason.MTLS_REQUIRED: _NOT_YOU,
    Reason.ATTESTATION_REQUIRED: _NOT_YOU,
    Reason.REVOKED: _NOT_YOU,
    Reason.NAME_MALFORMED: _MALFORMED,
    Reason.PORT_NOT_ALLOWED: _NOT_OF_THIS_PLANE,
    Reason.METHOD_NOT_ALLOWED: _NOT_OF_THIS_PLANE,
    Reason.PATH_NOT_ALLOWED: _NOT_OF_THIS_PLANE,
    Reason.LITERAL_NOT_ALLOWED: _NOT_OF_THIS_PLANE,
    Reason.INSPECTION_UNAVAILABLE: _NOT_OF_THIS_PLANE,
    Reason.APPROVAL_REQUIRED: _NOT_OF_THIS_PLANE,
    Reason.GENERATION_CHANGED: _NOT_OF_THIS_PLANE,
    Reason.REQUEST_MALFORMED: _MALFORMED,
    Reason.AUTHORITY_MISMATCH: _NOT_OF_THIS_PLANE,
    Reason.SNI_MISMATCH: _NOT_OF_THIS_PLANE,
    Reason.SNI_MISSING: _NOT_OF_THIS_PLANE,
    Reason.NOT_TLS: _NOT_OF_THIS_PLANE,
    Reason.ECH: _NOT_OF_THIS_PLANE,
    Reason.CAPACITY: _OUR_FAULT,
    Reason.AUDIT_QUOTA: _OUR_FAULT,
    Reason.AUDIT_UNAVAILABLE: _OUR_FAULT,
    Reason.INTERNAL_ERROR: _OUR_FAULT,
    Reason.UPSTREAM_UNREACHABLE: _UNREACHABLE,
    Reason.UPSTREAM_TIMEOUT: _UNREACHABLE,
    Reason.UPSTREAM_TLS: _BROKEN,
    Reason.UPSTREAM_MALFORMED: _BROKEN,
    Reason.NO_ADDRESS: Refusal(Wording.NODATA, _OTHER),
}

_RCODE = {
    Wording.AS_CONFIGURED: Rcode.NXDOMAIN,
    Wording.NXDOMAIN: Rcode.NXDOMAIN,
    Wording.NODATA: Rcode.NOERROR,
    Wording.REFUSED: Rcode.REFUSED,
    Wording.FORMERR: Rcode.FORMERR,
    Wording.SERVFAIL: Rcode.SERVFAIL,
}
_CONFIGURED_WORDING = {
    Refuse.NXDOMAIN: Wording.NXDOMAIN,
    Refuse.NODATA: Wording.NODATA,
    Refuse.REFUSED: Wording.REFUSED,
    Refuse.SINKHOLE: Wording.NXDOMAIN,  # not in this version; `check` warns
}


def refusal(
    query: Query,
    decision: Decision,
    id: str,  # noqa: A002 - the word of the reference
    how: str,
    apex: DomainName | None,
    limit_octets: int,
) -> bytes:
    """Return the reply that refuses `query` for the reason of `decision`.

    `id` is that of the audit line, `how` the sentence of `proxy.advice`, `apex` the name's
    registrable domain, the owner of the SOA (the name itself where it is None).
    """
    row = REFUSAL[decision.reason]
    rcode = rcode_of(decision)
    authority: tuple[Record, ...] = ()
    if rcode in {Rcode.NOERROR, Rcode.NXDOMAIN}:  # RFC 2308, sections 2.1 and 2.2
        authority = (soa(query.name if apex is None else apex, REFUSAL_TTL_S),)
    text = f"sallyport {decision.reason} {id} how: {how}"
    return reply(
        query,
        rcode,
        authority=authority,
        ede=ExtendedError(row.ede, text),
        limit_octets=limit_octets,
    )


def rcode_of(decision: Decision) -> Rcode:
    """Return the response code that words `decision`; NOERROR is NODATA."""
    wording = REFUSAL[decision.reason].wording
    if wording is Wording.AS_CONFIGURED:
        wording = _CONFIGURED_WORDING[decision.refuse]
    if wording is Wording.NXDOMAIN and decision.empty:  # RFC 8020, section 2
        wording = Wording.NODATA
    return _RCODE[wording]


def any_reply(query: Query, limit_octets: int) -> bytes:
    """Return the one HINFO record that answers ANY (RFC 8482, section 4.2)."""
    hinfo = Record(query.name, _HINFO, _ANY_TTL_S, b"\x07RFC8482\x00")
    return reply(query, Rcode.NOERROR, (hinfo,), limit_octets=limit_octets)
