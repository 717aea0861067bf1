"""Responses of upstreams: octets to records as values, for the walker to judge.

Nobody is trusted here: an upstream may be wrong, hostile or only relaying what is.  dnspython
decompresses and checks every rdata; whatever it, or we, cannot read fails the look-up whole.
"""

from io import BytesIO

import dns.exception
import dns.message
import dns.rdata
import dns.rdataclass
import dns.rrset
from msgspec import Struct

from proxy.errors import PeerError, UpstreamError
from proxy.limits import Limits
from proxy.resolver.answer import Rcode, Record
from proxy.wire.question import read_head
from rules import rtype as rr
from rules.decision import Reason
from rules.errors import MalformedNameError
from rules.name import DomainName, from_labels

_QR, _OPCODE, _TC, _RCODE = 0x8000, 0x7800, 0x0200, 0x000F


class Soa(Struct, frozen=True):
    """What a negative answer's SOA says of how long it holds (RFC 2308, section 5), in seconds."""

    owner: DomainName
    ttl: int
    minimum: int


class Response(Struct, frozen=True):
    """A response as it came, in values: nothing in it has been judged yet.

    `records` is the answer section in order, without records of another class or with an
    owner that is no canonical name; `servers` are the NS records of the authority section.
    """

    rcode: Rcode
    records: tuple[Record, ...]
    soa: Soa | None = None
    truncated: bool = False
    servers: tuple[Record, ...] = ()


def read_response(wire: bytes, name: DomainName, rtype: int, limits: Limits) -> Response:
    """Return the response to a question for `name` and `rtype`.

    Raises:
        UpstreamError: UPSTREAM_MALFORMED, not a well-formed response to this question, or one
            with more records than `limits.answer_records` in a section; UPSTREAM_UNREACHABLE,
            the upstream failed or refused.
    """
    _check_head(wire, limits)
    try:
        # One RRset per record keeps their order and each one's TTL.  A TTL with its top bit set
        # comes out as 0 (RFC 2181, section 8).
        message = dns.message.from_wire(wire, one_rr_per_rrset=True)
        records = tuple(map(_record, filter(_is_internet, message.answer)))
        servers = tuple(map(_record, filter(_is_server, message.authority)))
    except (dns.exception.DNSException, ValueError) as error:
        raise _malformed(f"the response cannot be read: {type(error).__name__}") from None
    if not _asks(message, name, rtype):
        raise _malformed("the response is to another question")
    return Response(
        _rcode(message.rcode()),
        tuple(record for record in records if record is not None),
        _soa(message),
        bool(message.flags & _TC),
        # All of them: a bound would leave out the one that counts.  `answer_records` is one.
        tuple(record for record in servers if record is not None),
    )


def _check_head(wire: bytes, limits: Limits) -> None:
    try:
        head = read_head(wire)
    except PeerError as error:
        raise _malformed(str(error)) from None
    if not head.flags & _QR or head.flags & _OPCODE or head.qdcount != 1:
        raise _malformed("not a response to one question")
    # Before anything is parsed: 64 KiB hold 5,000 records, each of which costs as much as a query.
    if max(head.ancount, head.nscount, head.arcount) > limits.answer_records:
        raise _malformed("too many records")


def _asks(message: dns.message.Message, name: DomainName, rtype: int) -> bool:
    question = message.question[0]
    labels = question.name.labels[:-1]
    try:
        asked = from_labels(labels)
    except MalformedNameError:
        return False
    return (asked, question.rdtype, question.rdclass) == (name, rtype, dns.rdataclass.IN)


def _rcode(rcode: int) -> Rcode:
    if rcode in {Rcode.NOERROR, Rcode.NXDOMAIN}:
        return Rcode(rcode)
    if rcode in {Rcode.SERVFAIL, Rcode.REFUSED}:
        raise UpstreamError(Reason.UPSTREAM_UNREACHABLE, f"the upstream answered rcode {rcode}")
    raise _malformed(f"the upstream answered rcode {rcode}")


def _is_internet(rrset: dns.rrset.RRset) -> bool:
    return rrset.rdclass == dns.rdataclass.IN


def _is_server(rrset: dns.rrset.RRset) -> bool:
    return rrset.rdtype == rr.NS and _is_internet(rrset)


def _record(rrset: dns.rrset.RRset) -> Record | None:
    try:
        owner = from_labels(rrset.name.labels[:-1])
    except MalformedNameError:
        return None  # no name that could have been asked for: out of any chain
    return Record(owner, int(rrset.rdtype), rrset.ttl, _octets(rrset[0]))


def _octets(rdata: dns.rdata.Rdata) -> bytes:
    out = BytesIO()  # to_wire() without a file may return None, says its type
    rdata.to_wire(out)
    return out.getvalue()


def _soa(message: dns.message.Message) -> Soa | None:
    for rrset in filter(_is_internet, message.authority):
        record = _record(rrset) if rrset.rdtype == rr.SOA else None
        if record is not None:
            minimum = int.from_bytes(record.rdata[-4:])  # RFC 1035, section 3.3.13: the last field
            return Soa(record.owner, record.ttl, minimum if minimum < 1 << 31 else 0)
    return None


def _malformed(text: str) -> UpstreamError:
    return UpstreamError(Reason.UPSTREAM_MALFORMED, text)
