"""Answers for special-use names: given here, whoever asks, and never asked of anyone.

`rules.special` says which names these are.  Their addresses are never pinned: what a loopback
name stands for is no grant to dial it.
"""

from ipaddress import IPv4Address, IPv6Address

from proxy.refusals import Refusal
from proxy.resolver.answer import REFUSAL_TTL_S, Answer, Rcode, Record, negative, soa
from proxy.wire.question import write_name
from rules import rtype as rr
from rules.name import DomainName, is_below
from rules.special import OUR_ZONE, SpecialUse, special_use

LOCAL_TTL_S = 10800  # RFC 6303, section 3
_WHY_OCTETS = 1020  # four character-strings: fits a datagram of 1232 octets with its name

# RFC 6761, section 6.3
_LOOPBACK = {
    rr.A: (IPv4Address("127.0.0.1").packed,),
    rr.AAAA: (IPv6Address("::1").packed,),
}
# RFC 8880, section 7.1: the well-known addresses of RFC 7050, section 2.2
_IPV4ONLY = {rr.A: (IPv4Address("192.0.0.170").packed, IPv4Address("192.0.0.171").packed)}


def local_answer(name: DomainName, rtype: int, *, empty: bool = False) -> Answer:
    """Return what is said of a special-use name; SERVFAIL for a name that is none.

    `empty` is that of the decision: a configured zone lies below the name, so that it exists.
    """
    special = special_use(name)
    if special is None:  # a caller's mistake must not become a claim about someone's name
        return Answer(Rcode.SERVFAIL)
    use, apex = special
    if empty and name != apex:  # RFC 8020, section 2: NXDOMAIN would deny the zone below
        return _nodata(apex)
    if use is SpecialUse.LOOPBACK:
        return _loopback(name, rtype, apex)
    if use is SpecialUse.NONEXISTENT:
        return _nodata(apex) if empty else _nonexistent(name, apex)
    if use is SpecialUse.EMPTY_ZONE:
        return _empty_zone(name, rtype, apex)
    if use is SpecialUse.IPV4ONLY:
        return _ipv4only(name, rtype, apex)
    # RFC 9462, section 6.4: a resolver that offers no designated ones says NODATA; the
    # appliance's own names exist too, and what stands under them comes and goes.
    return _at_apex(name, rtype, apex, REFUSAL_TTL_S) or _nodata(apex, REFUSAL_TTL_S)


def why_answer(name: DomainName, rtype: int, refusal: Refusal | None) -> Answer:
    """Return what `NAME._why.sallyport.internal` says: the asker's last refusal of NAME."""
    if refusal is None or rtype != rr.TXT:
        return _nodata(OUR_ZONE, REFUSAL_TTL_S)
    text = f"sallyport {refusal.reason} {refusal.id} how: {refusal.how}"
    # TTL 0: the next refusal says something else.
    return Answer(Rcode.NOERROR, (Record(name, rr.TXT, 0, _strings(text)),))


def _strings(text: str) -> bytes:
    octets = text.encode(errors="replace")[:_WHY_OCTETS]
    parts = (octets[at : at + 255] for at in range(0, len(octets), 255))  # RFC 1035, section 3.3
    return b"".join(bytes((len(part),)) + part for part in parts)


def _loopback(name: DomainName, rtype: int, apex: DomainName) -> Answer:
    # RFC 6761, section 6.3: addresses for every name below it, NODATA for any other type.
    return _records(name, rtype, _LOOPBACK.get(rtype, ())) or _nodata(apex)


def _nonexistent(name: DomainName, apex: DomainName) -> Answer:
    if is_below(OUR_ZONE, name):  # RFC 8020, section 2: `internal` has us below it
        return _nodata(apex, REFUSAL_TTL_S)
    return negative(Rcode.NXDOMAIN, apex, LOCAL_TTL_S)


def _empty_zone(name: DomainName, rtype: int, apex: DomainName) -> Answer:
    # RFC 6303, section 3: SOA and NS at the apex, nothing below it.
    if name != apex:
        return _below(apex)
    if rtype == rr.NS:
        return _answer(Record(apex, rr.NS, LOCAL_TTL_S, write_name(apex)))
    return _at_apex(name, rtype, apex, LOCAL_TTL_S) or _nodata(apex)


def _ipv4only(name: DomainName, rtype: int, apex: DomainName) -> Answer:
    if name != apex:
        return _below(apex)
    found = _records(name, rtype, _IPV4ONLY.get(rtype, ()))
    return found or _at_apex(name, rtype, apex, LOCAL_TTL_S) or _nodata(apex)


def _at_apex(name: DomainName, rtype: int, apex: DomainName, ttl: int) -> Answer | None:
    if name != apex or rtype != rr.SOA:
        return None
    # RFC 6303, section 3: the primary is the zone itself.
    return _answer(soa(apex, ttl, primary=apex))


def _records(name: DomainName, rtype: int, rdatas: tuple[bytes, ...]) -> Answer | None:
    if not rdatas:
        return None
    return _answer(*(Record(name, rtype, LOCAL_TTL_S, rdata) for rdata in rdatas))


def _answer(*records: Record) -> Answer:
    return Answer(Rcode.NOERROR, records, ttl=min(record.ttl for record in records))


def _below(apex: DomainName) -> Answer:
    return negative(Rcode.NXDOMAIN, apex, LOCAL_TTL_S)


def _nodata(apex: DomainName, ttl: int = LOCAL_TTL_S) -> Answer:
    return negative(Rcode.NOERROR, apex, ttl)
