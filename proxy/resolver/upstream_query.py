"""What we send to an upstream, and what counts as its answer.  Pure.

A query is built new (RFC 5452, section 9): header, one question in class IN whose letters are in
random case (0x20), and an OPT of our own.  Nothing that a client sent goes out: no option, case,
padding, flag or trailing octet.
"""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from proxy.errors import UpstreamError
from proxy.wire.question import HEAD_OCTETS, write_name
from rules.name import DomainName

ID_OCTETS = 2

_NOERROR_AND_NXDOMAIN = (0, 3)  # RFC 1035, section 4.1.1
_CLASS_IN = b"\x00\x01"
# RFC 1035, section 4.1.1: QUERY with RD; one question, and one additional record, the OPT.
_FLAGS_AND_COUNTS = b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01"
# RFC 6891, section 6.1.2: the root, OPT, payload 1232 (DNS flag day 2020), version 0, no flags.
_OPT = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00"
_NO_OPTIONS = b"\x00\x00"
_PADDING = b"\x00\x0c"  # RFC 7830, section 3
_PADDING_BLOCK_OCTETS = 128  # RFC 8467, section 4.1
_PADDED_OVERHEAD = HEAD_OCTETS + len(_OPT) + len(_NO_OPTIONS) + 4
_CASE_BIT = bytes(0x20 if 0x61 <= octet <= 0x7A else 0 for octet in range(256))

type Entropy = Callable[[int], bytes]
"""Returns that many unpredictable octets (`os.urandom`)."""

type Outcome = bytes | UpstreamError
type Settle = Callable[[Outcome], None]
"""Takes the outcome of an attempt, once, and never from within the call that started it."""


class Attempt(Protocol):
    """One query to one upstream that is under way; over when settled, cancelled or expired."""

    def cancel(self) -> None:
        """Give up; nothing is settled any more, and no socket of its own stays open."""

    def expire(self) -> UpstreamError:
        """Give up because the time is over; return what was wrong."""


class Upstream(Protocol):
    """One upstream over one transport."""

    def start(self, lowered: bytes, settle: Settle) -> Attempt:
        """Ask the question that `write_question` wrote.

        Raises:
            UpstreamError: it could not even be sent.
        """

    async def close(self) -> None:
        """Close every connection; attempts are not settled any more."""


class Forwarder(Protocol):
    """Whoever an allowed question is handed to (RFC 9499, section 6, "forwarding")."""

    async def ask(self, name: DomainName, rtype: int) -> bytes:
        """Return a response to the question, as it came.

        Raises:
            UpstreamError: there is none; the reason and the text say why.
        """

    async def close(self) -> None:
        """Fail what is under way and all that is asked later, and close every socket."""


def write_question(name: DomainName, rtype: int) -> bytes:
    """Return the question section in lower case: name, type, class IN."""
    return write_name(name) + rtype.to_bytes(2) + _CLASS_IN


class UpstreamQuery(Struct, frozen=True):
    """One query as it leaves, but for its id, which the transport chooses.

    `question` is in random case; `lowered` is the same in lower case; `tail` holds the OPT.
    """

    question: bytes
    lowered: bytes
    tail: bytes

    def message(self, query_id: bytes) -> bytes:
        """Return the octets to send under an id of two octets."""
        return query_id + _FLAGS_AND_COUNTS + self.question + self.tail

    def is_answered_by(self, message: bytes) -> bool:
        """Return whether `message` answers this question; ids and sources are not looked at.

        RFC 5452, section 9.1: a response, to a QUERY, with exactly the question that was asked,
        octet by octet, so that the random case counts; RFC 9619: exactly one question.
        """
        end = HEAD_OCTETS + len(self.question)
        return (
            message[HEAD_OCTETS:end] == self.question
            and message[2] & 0xF8 == 0x80
            and message[4:6] == b"\x00\x01"
        )

    def restored(self, message: bytes) -> bytes:
        """Return an answer with its question in lower case, as the canonical name has it."""
        return message[:HEAD_OCTETS] + self.lowered + message[HEAD_OCTETS + len(self.lowered) :]


def make_query(lowered: bytes, entropy: Entropy, *, padded: bool) -> UpstreamQuery:
    """Return a query for a question of `write_question`, its letters in random case.

    With `padded` the message fills a multiple of 128 octets, which only encryption makes useful
    (RFC 8467, section 4.1; RFC 7830, section 6).
    """
    length = len(lowered) - 4  # neither type nor class has letters
    letters = int.from_bytes(lowered[:length].translate(_CASE_BIT))
    flipped = int.from_bytes(lowered[:length]) ^ letters & int.from_bytes(entropy(length))
    question = flipped.to_bytes(length) + lowered[length:]
    if not padded:
        return UpstreamQuery(question, lowered, _OPT + _NO_OPTIONS)
    padding = -(_PADDED_OVERHEAD + len(lowered)) % _PADDING_BLOCK_OCTETS
    options = _PADDING + padding.to_bytes(2) + bytes(padding)
    return UpstreamQuery(question, lowered, _OPT + len(options).to_bytes(2) + options)


def is_truncated(message: bytes) -> bool:
    """Return whether TC is set (RFC 2181, section 9: then nothing of the answer is used)."""
    return bool(message[2] & 0x02)


def is_conclusive(message: bytes) -> bool:
    """Return whether the rcode is NOERROR or NXDOMAIN; with others another upstream is asked."""
    return message[3] & 0x0F in _NOERROR_AND_NXDOMAIN
