"""The head and the question of a DNS message, without a DNS library (RFC 1035, section 4.1).

What stands here is what a look at every query costs; whole messages are `resolver.message`.
"""

import struct

from msgspec import Struct

from proxy.errors import PeerError
from rules.decision import Reason
from rules.name import ROOT, DomainName

HEAD_OCTETS = 12  # RFC 1035, section 4.1.1
NAME_OCTETS = 255  # RFC 1035, section 2.3.4

_HEAD = struct.Struct("!6H")
_TYPE_AND_CLASS = struct.Struct("!2H")


class Head(Struct, frozen=True):
    """The six 16-bit words that begin a message; `flags` holds QR to RCODE."""

    id: int
    flags: int
    qdcount: int
    ancount: int
    nscount: int
    arcount: int


class RawQuestion(Struct, frozen=True):
    """A question as it stands on the wire: any octets in its labels, their case kept.

    `labels` are without the root's empty one; `end` is the offset of what follows.
    """

    labels: tuple[bytes, ...]
    rtype: int
    rclass: int
    end: int


def read_head(wire: bytes) -> Head:
    """Return the head of a message.

    Raises:
        PeerError: REQUEST_MALFORMED, fewer than twelve octets.
    """
    if len(wire) < HEAD_OCTETS:
        raise PeerError(Reason.REQUEST_MALFORMED, "a DNS message has at least 12 octets")
    return Head(*_HEAD.unpack_from(wire))


def read_question(wire: bytes, offset: int = HEAD_OCTETS) -> RawQuestion:
    """Return the question that begins at `offset`.

    There is nothing before a first question that a pointer could name, so that compression
    (RFC 1035, section 4.1.4) is an error here, and so are the two reserved label types.

    Raises:
        PeerError: REQUEST_MALFORMED, truncated or with a label type other than 00;
            NAME_MALFORMED, a name of more than 255 octets.
    """
    labels = []
    at = offset
    while length := _octet(wire, at):
        if length > 63:  # RFC 1035, section 4.1.4: 11 is a pointer, 01 and 10 are reserved
            raise PeerError(Reason.REQUEST_MALFORMED, "compression in the question's name")
        labels.append(wire[at + 1 : at + 1 + length])
        at += 1 + length
        if at - offset >= NAME_OCTETS:  # the root's octet is still to come
            raise PeerError(Reason.NAME_MALFORMED, "a name is longer than 255 octets")
    if len(wire) < at + 5:
        raise PeerError(Reason.REQUEST_MALFORMED, "the question is truncated")
    rtype, rclass = _TYPE_AND_CLASS.unpack_from(wire, at + 1)
    return RawQuestion(tuple(labels), rtype, rclass, at + 5)


def write_name(name: DomainName) -> bytes:
    """Return the wire form of a canonical name, uncompressed (RFC 1035, section 3.1)."""
    if name == ROOT:
        return b"\0"
    labels = name.encode("ascii").split(b".")
    return b"".join([bytes((len(label),)) + label for label in labels]) + b"\0"


def _octet(wire: bytes, at: int) -> int:
    if at >= len(wire):
        raise PeerError(Reason.REQUEST_MALFORMED, "the question is truncated")
    return wire[at]
