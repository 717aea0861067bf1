"""DNS messages of the agent: a query is read strictly, a reply is written anew.

What a query may hold is one question, class IN, and at most one OPT record.  Everything else
is an error with a reply of its own: nothing is skipped, so nothing can be smuggled.  No octet
of a query but its id, RD, CD and the question is copied into the reply, and none goes upstream.
dnspython is not used here: this is the hot path, and its reader takes several times as long.
"""

from collections.abc import Iterable
from struct import Struct as Layout

from msgspec import Struct

from proxy.errors import PeerError
from proxy.resolver.answer import Answer, Rcode, Record
from proxy.wire.question import Head, read_head, read_question, write_name
from rules import rtype as rr
from rules.decision import Reason
from rules.errors import MalformedNameError
from rules.name import ROOT, DomainName, from_labels

STREAM_OCTETS = 65535  # RFC 1035, section 4.2.2: what the length prefix can say
UDP_OCTETS = 1232  # what our OPT says that we take; DNS flag day 2020
PLAIN_UDP_OCTETS = 512  # RFC 1035, section 4.2.1, and RFC 6891, section 6.2.3
EDNS_OPTIONS = 32  # in one query; kdig with every option it has sends 9 (Unbound CVE-2026-41292)
EXTRA_TEXT_OCTETS = 200  # reference.md, Formats

_HEAD_OCTETS = 12
_QR, _OPCODE, _TC, _RD, _RA, _AD, _CD = 0x8000, 0x7800, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
_IN = 1
_EDE = 15  # RFC 8914, section 2
_PADDING = 12  # RFC 7830, section 3
_BLOCK_OCTETS = 468  # RFC 8467, section 4.1: what responses are padded to a multiple of
_DO = 0x8000  # RFC 3225, section 3
_QUESTION_AT = b"\xc0\x0c"  # RFC 1035, section 4.1.4: a pointer to the question's name
_POINTER_REACH = 0x4000
_HEAD = Layout("!6H")
_OPT = Layout("!BHHBBHH")  # RFC 6891, section 6.1.2: root, type, payload, rcode, version, flags
_OPTION = Layout("!HH")
_RECORD = Layout("!HHIH")
_POINTER = Layout("!H")
_OPT_OCTETS = _OPT.size
_UNFIT = _OPCODE | _TC

type _Names = dict[DomainName | bytes, bytes]
# Pointers to what stands in the message: owners by name, the targets of CNAMEs by their octets.


class Edns(Struct, frozen=True):
    """What a query's OPT record says that we obey; its other options are read and ignored.

    `padded`: it asks for a padded reply (RFC 7830).  `others`: it has such other options, which
    seldom come twice.
    """

    payload_octets: int
    do: bool = False
    padded: bool = False
    others: bool = False


class Query(Struct, frozen=True):
    """One question.  `question` is its section octet by octet, so that 0x20 case is echoed."""

    id: int
    flags: int
    name: DomainName
    question: bytes
    rtype: int
    edns: Edns | None = None

    @property
    def rd(self) -> bool:
        """Recursion desired."""
        return bool(self.flags & _RD)

    @property
    def ad(self) -> bool:
        """Interest in authenticated data (RFC 6840, section 5.7)."""
        return bool(self.flags & _AD)

    @property
    def cd(self) -> bool:
        """Checking disabled (RFC 4035, section 3.2.2)."""
        return bool(self.flags & _CD)


class ExtendedError(Struct, frozen=True):
    """An extended DNS error (RFC 8914): a code of its registry and text for people."""

    code: int
    text: str = ""


class Sections(Struct, frozen=True):
    """The answer and authority sections in octets, and how many records each holds."""

    octets: bytes
    answers: int
    authority: int


class QueryError(PeerError):
    """A query that is not answered as asked.

    `reply` is ready to send; None means silence.  `query` is there where the question could be
    read (its `name` is the root where that is what is wrong), to word a refusal of one's own.
    """

    def __init__(
        self,
        rcode: Rcode,
        reason: Reason,
        text: str,
        reply: bytes | None,
        query: Query | None = None,
    ) -> None:
        super().__init__(reason, text)
        self.rcode = rcode
        self.reply = reply
        self.query = query


class _FlawError(Exception):
    def __init__(self, rcode: Rcode, reason: Reason, text: str, edns: Edns | None = None) -> None:
        super().__init__(text)
        self.rcode = rcode
        self.reason = reason
        self.edns = edns


def read_query(wire: bytes, *, encrypted: bool = False) -> Query:
    """Return the query that `wire` holds, which came over an `encrypted` transport or not.

    Raises:
        QueryError: anything but one question of class IN with at most one OPT record.
    """
    if len(wire) < _HEAD_OCTETS:
        raise QueryError(Rcode.FORMERR, Reason.REQUEST_MALFORMED, "no whole header", None)
    head = read_head(wire)
    if head.flags & _QR:  # a response to a response would be a loop between two servers
        raise QueryError(Rcode.FORMERR, Reason.REQUEST_MALFORMED, "a response, not a query", None)
    if head.flags & _UNFIT or head.qdcount != 1 or head.ancount or head.nscount:
        raise _unfit(head)
    try:
        question = read_question(wire)
    except PeerError as error:
        raise _bare(head, Rcode.FORMERR, error.reason, str(error)) from None
    end, rtype, edns = question.end, question.rtype, None
    try:
        if head.arcount or end != len(wire):
            edns = _read_opt(wire, end, head.arcount, encrypted=encrypted)
        name = from_labels(question.labels)
        if question.rclass != _IN or rtype in _NOT_ASKED:
            _check_kind(question.rclass, rtype)
    except (_FlawError, MalformedNameError) as error:
        flaw = error if isinstance(error, _FlawError) else _misnamed(error)
        query = Query(head.id, head.flags, ROOT, wire[_HEAD_OCTETS:end], rtype, flaw.edns or edns)
        answer = reply(query, flaw.rcode)
        raise QueryError(flaw.rcode, flaw.reason, str(flaw), answer, query) from None
    return Query(head.id, head.flags, name, wire[_HEAD_OCTETS:end], rtype, edns)


def reply(  # noqa: PLR0913 - the sections of a message, each a value of its own
    query: Query,
    rcode: int,
    answers: Iterable[Record] = (),
    authority: Iterable[Record] = (),
    *,
    ede: ExtendedError | None = None,
    limit_octets: int = STREAM_OCTETS,
    age_s: int = 0,
) -> bytes:
    """Return the reply to `query`, or one with TC=1 and no record when it does not fit.

    `limit_octets` is what the transport carries; below `STREAM_OCTETS` it is a datagram, and
    what the query's OPT offers bounds it too.  TTLs are shortened by `age_s` seconds.
    """
    sections = write_sections(query.name, len(query.question), answers, authority, age_s)
    return assemble(query, rcode, sections, ede=ede, limit_octets=limit_octets)


def write_sections(
    name: DomainName,
    question_octets: int,
    answers: Iterable[Record],
    authority: Iterable[Record],
    age_s: int = 0,
) -> Sections:
    """Return both sections as they stand behind a question for `name` of so many octets."""
    start = _HEAD_OCTETS + question_octets
    out = bytearray(start)
    names: _Names = {name: _QUESTION_AT}
    answer_count = _write_records(out, answers, names, age_s)
    authority_count = _write_records(out, authority, names, age_s)
    return Sections(bytes(out[start:]), answer_count, authority_count)


def assemble(
    query: Query,
    rcode: int,
    sections: Sections,
    *,
    ede: ExtendedError | None = None,
    limit_octets: int = STREAM_OCTETS,
) -> bytes:
    """Return the reply to `query` with `sections`, which were written for its question."""
    question, octets = query.question, sections.octets
    room = room_octets(query, limit_octets) - _HEAD_OCTETS - len(question) - len(octets)
    # RFC 8914, section 3: text for people must not cost the answer; the code alone may fit.
    for said in (ede, ExtendedError(ede.code)) if ede else (None,):
        opt = _write_opt(query.edns, rcode, said, limit_octets)
        if len(opt) <= room:
            head = _write_head(query, rcode, sections.answers, sections.authority)
            whole = b"".join((head, question, octets, opt))
            return _padded(whole, len(opt)) if query.edns and query.edns.padded else whole
    return truncated(query, rcode, limit_octets)


def truncated(query: Query, rcode: int = Rcode.NOERROR, limit_octets: int = UDP_OCTETS) -> bytes:
    """Return a reply with TC=1 and no record: ask again over TCP (RFC 2181, section 9)."""
    head = _write_head(query, rcode | _TC, 0, 0)
    return head + query.question + _write_opt(query.edns, rcode, None, limit_octets)


def encode_answer(query: Query, answer: Answer, age_s: int, limit_octets: int) -> bytes:
    """Return the reply that gives `answer`, which has been kept for `age_s` seconds."""
    return reply(
        query,
        answer.rcode,
        answer.records,
        answer.authority,
        limit_octets=limit_octets,
        age_s=age_s,
    )


# Neither can be the type of a record (RFC 6895, section 3.1): 0 is reserved, OPT is EDNS' own,
# and 128 to 254 are meta types: transfers, TKEY, TSIG.  ANY (255) has a reply of its own.
_NOT_ASKED = frozenset({0, rr.OPT, *range(128, 255)})


def _unfit(head: Head) -> QueryError:
    if head.flags & _OPCODE:
        return _bare(head, Rcode.NOTIMP, Reason.REQUEST_MALFORMED, "an opcode other than QUERY")
    if head.qdcount != 1:  # RFC 9619, section 4; a bare cookie query (RFC 7873, 5.4) too
        return _bare(head, Rcode.FORMERR, Reason.REQUEST_MALFORMED, "not exactly one question")
    if head.flags & _TC:  # RFC 1035, section 4.1.1: what was cut off is unknown
        return _bare(head, Rcode.FORMERR, Reason.REQUEST_MALFORMED, "a truncated query")
    return _bare(head, Rcode.FORMERR, Reason.REQUEST_MALFORMED, "records in a query")


def _check_kind(rclass: int, rtype: int) -> None:
    if rclass != _IN:
        # RFC 1035, section 4.1.1: refused for policy; CH and HS hold nothing that agents need.
        raise _FlawError(Rcode.REFUSED, Reason.TYPE_NOT_ALLOWED, "a class other than IN")
    if rtype in {0, rr.OPT}:
        raise _FlawError(Rcode.FORMERR, Reason.REQUEST_MALFORMED, "no type of a question")
    raise _FlawError(Rcode.NOTIMP, Reason.TYPE_NOT_ALLOWED, "a meta type: transfers, keys")


def _read_opt(wire: bytes, at: int, arcount: int, *, encrypted: bool) -> Edns:
    if arcount == 0 or len(wire) < at + _OPT_OCTETS:
        raise _FlawError(Rcode.FORMERR, Reason.REQUEST_MALFORMED, "octets after the message")
    owner, rtype, payload_octets, _, version, flags, length = _OPT.unpack_from(wire, at)
    # TSIG and SIG(0) are refused too: taken off unread, the asker would believe them checked,
    # and we hold no key to check them with (RFC 8945, section 5.2; RFC 2931, section 3.1).
    if owner != 0 or rtype != rr.OPT:  # RFC 6891, section 6.1.2: the owner is the root
        raise _FlawError(Rcode.FORMERR, Reason.REQUEST_MALFORMED, "no OPT record of the root")
    # RFC 6891, section 7: from here on the error carries an OPT record as well.
    edns = Edns(max(payload_octets, PLAIN_UDP_OCTETS), bool(flags & _DO))
    if arcount != 1:  # RFC 6891, section 6.1.1
        raise _FlawError(
            Rcode.FORMERR, Reason.REQUEST_MALFORMED, "more than one additional record", edns
        )
    if at + _OPT_OCTETS + length != len(wire):
        raise _FlawError(Rcode.FORMERR, Reason.REQUEST_MALFORMED, "octets after OPT", edns)
    if version:  # RFC 6891, section 6.1.3: before its options, whose shape may be another
        raise _FlawError(Rcode.BADVERS, Reason.REQUEST_MALFORMED, "EDNS version over 0", edns)
    if not length:
        return edns
    codes = _read_options(wire, at + _OPT_OCTETS, edns)
    # RFC 7830, section 6: padding is for encrypted transports.
    padded = encrypted and _PADDING in codes
    return Edns(edns.payload_octets, edns.do, padded, bool(codes - {_PADDING}))


def _read_options(wire: bytes, at: int, edns: Edns) -> set[int]:
    end, codes = len(wire), set()
    for _ in range(EDNS_OPTIONS):
        if at + _OPTION.size > end:
            break
        code, length = _OPTION.unpack_from(wire, at)
        codes.add(code)
        at += _OPTION.size + length
        if at == end:
            return codes
    raise _FlawError(Rcode.FORMERR, Reason.REQUEST_MALFORMED, "options cut or too many", edns)


def _misnamed(error: MalformedNameError) -> _FlawError:
    return _FlawError(Rcode.FORMERR, Reason.NAME_MALFORMED, str(error))


def _bare(head: Head, rcode: Rcode, reason: Reason, text: str) -> QueryError:
    flags = _QR | _RA | head.flags & (_OPCODE | _RD | _CD) | rcode
    return QueryError(rcode, reason, text, _HEAD.pack(head.id, flags, 0, 0, 0, 0))


def _write_head(query: Query, rcode: int, answers: int, authority: int) -> bytes:
    # AA stays 0, for local answers too: we are no name server of any zone.  AD stays 0: we do
    # not validate (RFC 6840, section 5.8).  The upper bits of `rcode` stand in the OPT record.
    flags = _QR | _RA | query.flags & (_RD | _CD) | rcode & (_TC | 0xF)
    additional = 0 if query.edns is None else 1
    return _HEAD.pack(query.id, flags, 1, answers, authority, additional)


def _write_records(out: bytearray, records: Iterable[Record], names: _Names, age_s: int) -> int:
    count = 0
    for record in records:
        owner, rdata = record.owner, record.rdata
        pointer = names.get(owner)
        if pointer is None:
            pointer = _write_owner(out, owner, names)
        ttl = record.ttl - age_s
        out += pointer + _RECORD.pack(record.rtype, _IN, max(ttl, 0), len(rdata))
        if record.rtype == rr.CNAME and len(out) < _POINTER_REACH:
            names.setdefault(rdata, _POINTER.pack(0xC000 | len(out)))
        out += rdata
        count += 1
    return count


def _write_owner(out: bytearray, owner: DomainName, names: _Names) -> bytes:
    """Return a pointer to `owner` where a CNAME named it, else its octets; remember where."""
    wire = write_name(owner)
    pointer = names.get(wire)
    if pointer is not None:
        names[owner] = pointer
        return pointer
    if len(out) < _POINTER_REACH:
        names[owner] = _POINTER.pack(0xC000 | len(out))
    return wire


def _write_opt(
    edns: Edns | None, rcode: int, ede: ExtendedError | None, limit_octets: int
) -> bytes:
    if edns is None:  # RFC 6891, section 7: none in the reply to a query without
        return b""
    option = b""
    if ede is not None:
        text = cut_text(ede.text, EXTRA_TEXT_OCTETS)
        option = _OPTION.pack(_EDE, 2 + len(text)) + ede.code.to_bytes(2) + text
    payload_octets = min(limit_octets, UDP_OCTETS)
    flags = _DO if edns.do else 0  # RFC 3225, section 3: copied
    return _OPT.pack(0, rr.OPT, payload_octets, rcode >> 4 & 0xFF, 0, flags, len(option)) + option


def _padded(reply: bytes, opt_octets: int) -> bytes:
    """Return `reply`, whose end is its OPT record, with a padding option (RFC 7830, section 3).

    Its length tells less then which name was asked.  What is too long for a block stays as it is.
    """
    wanted = len(reply) + _OPTION.size
    whole = wanted + -wanted % _BLOCK_OCTETS
    if whole > STREAM_OCTETS:
        return reply
    option = _OPTION.pack(_PADDING, whole - wanted) + bytes(whole - wanted)
    at = len(reply) - opt_octets + _OPT_OCTETS - 2  # where the length of the OPT record stands
    length = int.from_bytes(reply[at : at + 2]) + len(option)
    return b"".join((reply[:at], length.to_bytes(2), reply[at + 2 :], option))


def cut_text(text: str, limit_octets: int) -> bytes:
    """Return `text` in UTF-8, cut between characters to at most `limit_octets`."""
    octets = text.encode(errors="replace")
    return octets[:limit_octets].decode(errors="ignore").encode()


def room_octets(query: Query, limit_octets: int) -> int:
    """Return how long a reply to `query` may be where the transport carries `limit_octets`."""
    if limit_octets >= STREAM_OCTETS:
        return STREAM_OCTETS
    offered = PLAIN_UDP_OCTETS if query.edns is None else query.edns.payload_octets
    return min(limit_octets, offered)
