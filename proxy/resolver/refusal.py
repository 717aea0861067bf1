"""Refusals on the DNS plane, worded by one table; and replies that are ours alone.

NXDOMAIN is said only where nothing of the name and nothing below it is allowed: a cache takes
it for the whole subtree (RFC 8020, section 2), so that elsewhere it would deny what is allowed.
A name that is pointed at the sinkhole, or has records of a deny list, exists: all that it has no
record of is NODATA.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from msgspec import Struct

from proxy.resolver.answer import REFUSAL_TTL_S, Rcode, Record, soa
from proxy.resolver.message import ExtendedError, Query, reply
from rules import rtype as rr
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
    Refuse.SINKHOLE: Wording.NXDOMAIN,  # where nothing listens there for who asks
    Refuse.DROP: Wording.REFUSED,  # where silence is no answer: `is_silent`
}


class Sinking(Protocol):
    """The sinkhole as this plane sees it: `proxy.sinkhole`."""

    @property
    def is_same_for_all(self) -> bool:
        """Whether `records` says the same at every listener but those of leases."""

    def records(self, rtype: int, listener: str, /) -> tuple[bytes, ...] | None:
        """Return the rdata that stands for a denied name asked for at `listener`; perhaps none.

        None: nothing listens there for who asks, so that the name is NXDOMAIN.
        """

    def told(self, app: str, name: DomainName, id: str, decision: Decision, /) -> None:  # noqa: A002 - the word of the reference
        """Remember that `app` was given our address for `name`, in the refusal `id`."""


def refusal(  # noqa: PLR0913 - the parts of a reply, each a value of its own
    query: Query,
    decision: Decision,
    id: str,  # noqa: A002 - the word of the reference
    how: str,
    apex: DomainName | None,
    limit_octets: int,
    *,
    sunk: Sequence[bytes] | None = None,
) -> bytes:
    """Return the reply that refuses `query` for the reason of `decision`.

    `id` is that of the audit line, `how` the sentence of `proxy.advice`, `apex` the name's
    registrable domain, the owner of the SOA (the name itself where it is None).  `sunk` is what
    the sinkhole has of the asked type, for a decision that `is_sunk`.
    """
    row = REFUSAL[decision.reason]
    rcode = rcode_of(decision, has_sinkhole=sunk is not None)
    answers = _answers(query, decision, sunk or ())
    authority: tuple[Record, ...] = ()
    # RFC 2308, sections 2.1 and 2.2
    if not answers and rcode in {Rcode.NOERROR, Rcode.NXDOMAIN}:
        authority = (soa(query.name if apex is None else apex, REFUSAL_TTL_S),)
    text = f"sallyport {decision.reason} {id} how: {how}"
    return reply(
        query,
        rcode,
        answers,
        authority,
        ede=ExtendedError(row.ede, text),
        limit_octets=limit_octets,
    )


def is_sunk(decision: Decision) -> bool:
    """Return whether `decision` is worded by the sinkhole's address, where there is one."""
    return _is_worded(decision, Refuse.SINKHOLE)


def is_silent(decision: Decision) -> bool:
    """Return whether `decision` is worded by no reply at all, where a transport has silence."""
    return _is_worded(decision, Refuse.DROP)


def rcode_of(decision: Decision, *, has_sinkhole: bool = False) -> Rcode:
    """Return the response code that words `decision`; NOERROR is NODATA, or comes with records."""
    wording = REFUSAL[decision.reason].wording
    if wording is Wording.AS_CONFIGURED:
        is_there = decision.local or (has_sinkhole and is_sunk(decision))
        wording = Wording.NODATA if is_there else _CONFIGURED_WORDING[decision.refuse]
    if wording is Wording.NXDOMAIN and decision.empty:  # RFC 8020, section 2
        wording = Wording.NODATA
    return _RCODE[wording]


def _is_worded(decision: Decision, refuse: Refuse) -> bool:
    is_configured = REFUSAL[decision.reason].wording is Wording.AS_CONFIGURED
    return is_configured and decision.refuse is refuse and not decision.local


def _answers(query: Query, decision: Decision, sunk: Sequence[bytes]) -> tuple[Record, ...]:
    """Return the records that stand for a refused name: a list's, or the sinkhole's.

    Their TTL is that of any refusal, whatever a list says: it is asked again soon after a reload.
    """
    if REFUSAL[decision.reason].wording is not Wording.AS_CONFIGURED:
        return ()
    found = [each.rdata for each in decision.local if each.rtype == query.rtype] or list(sunk)
    rtype = query.rtype
    if not found:  # RFC 1034, section 3.6.2: the alias stands for every type
        found = [each.rdata for each in decision.local if each.rtype == rr.CNAME][:1]
        rtype = rr.CNAME
    return tuple(Record(query.name, rtype, REFUSAL_TTL_S, rdata) for rdata in found)


def any_reply(query: Query, limit_octets: int) -> bytes:
    """Return the one HINFO record that answers ANY (RFC 8482, section 4.2)."""
    hinfo = Record(query.name, _HINFO, _ANY_TTL_S, b"\x07RFC8482\x00")
    return reply(query, Rcode.NOERROR, (hinfo,), limit_octets=limit_octets)
