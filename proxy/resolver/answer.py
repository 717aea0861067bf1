"""What a name is answered with: records as values, every name canonical, every rdata uncompressed.

Nothing of an upstream's message survives in them but parsed values; the encoder of
`proxy.resolver.message` is the only way back to octets.
"""

from enum import IntEnum
from struct import Struct as Layout

from msgspec import Struct

from proxy.wire.question import write_name
from rules import rtype as rr
from rules.address import Address
from rules.errors import MalformedNameError
from rules.name import DomainName, from_labels
from rules.special import OUR_ZONE

REFUSAL_TTL_S = 5  # reference.md, Formats: what policy denies is asked again soon after a reload
_RESPONSIBLE = DomainName("nobody.invalid")  # RFC 6303, section 3
_TIMERS = Layout("!5I")
_SERIAL, _REFRESH_S, _RETRY_S, _EXPIRE_S = 1, 3600, 1200, 604800  # RFC 6303, section 3


class Rcode(IntEnum):
    """Response codes that we send (RFC 1035, section 4.1.1; RFC 6891, section 9)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Record(Struct, frozen=True):
    """One resource record of class IN; `rdata` holds no compression pointers."""

    owner: DomainName
    rtype: int
    ttl: int  # seconds
    rdata: bytes


class Answer(Struct, frozen=True):
    """What may be given to the asker, and for how many seconds it may be kept (0: not at all).

    `addresses` are those of `records` that were decided on and may be pinned; `chain` the names
    that the asked name was followed through.
    """

    rcode: int
    records: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    ttl: int = 0
    addresses: tuple[Address, ...] = ()
    chain: tuple[DomainName, ...] = ()

    @property
    def is_negative(self) -> bool:
        """Whether this says that something does not exist (RFC 2308, section 1)."""
        return self.rcode != Rcode.NOERROR or bool(self.authority) or not self.records


def soa(owner: DomainName, ttl: int, primary: DomainName = OUR_ZONE) -> Record:
    """Return our own SOA for `owner`; its minimum is `ttl` seconds too (RFC 2308, section 5)."""
    timers = _TIMERS.pack(_SERIAL, _REFRESH_S, _RETRY_S, _EXPIRE_S, ttl)
    rdata = write_name(primary) + write_name(_RESPONSIBLE) + timers
    return Record(owner, rr.SOA, ttl, rdata)


def negative(rcode: Rcode, apex: DomainName, ttl: int) -> Answer:
    """Return NXDOMAIN or NODATA under our own SOA, to be kept for `ttl` seconds."""
    return Answer(rcode, authority=(soa(apex, ttl),), ttl=ttl)


def read_name(rdata: bytes, offset: int = 0) -> tuple[DomainName, int]:
    """Return the name at `offset` of uncompressed `rdata`, and where it ends.

    Raises:
        MalformedNameError: a name cut short, a compression pointer, or octets outside the
            canonical alphabet.
    """
    labels: list[bytes] = []
    while offset < len(rdata):
        length = rdata[offset]
        offset += 1
        if length == 0:
            return from_labels(labels), offset
        if length > 63:  # RFC 1035, section 4.1.4: a pointer, which uncompressed rdata never holds
            break
        labels.append(rdata[offset : offset + length])
        offset += length
    raise MalformedNameError("a name in rdata is cut short or compressed")
