"""Fuzz the readers of DNS messages: queries of agents, responses of upstreams, and the walker.

`read_query` may raise QueryError, `read_response` UpstreamError; `walk` raises nothing.  What is
handed out is encoded and must be a message that fits where it goes.
"""

from pathlib import Path

from proxy.errors import UpstreamError
from proxy.limits import Limits
from proxy.resolver.answer import Rcode
from proxy.resolver.message import UDP_OCTETS, Query, QueryError, encode_answer, read_query, reply
from proxy.resolver.response import read_response
from proxy.resolver.walk import walk
from rules.address import special_purpose
from rules.decision import Decision, Reason, Verdict
from rules.facts import Endpoint, Facts, Principal, Question
from rules.name import parse

_VECTORS = Path(__file__).parent.parent / "vectors" / "dns"
_LIMITS = Limits()
_NAME = parse("www.example.com")
_ALLOW = Decision(Verdict.ALLOW, Reason.RULE)
_DENY = Decision(Verdict.DENY, Reason.ADDRESS_NOT_ALLOWED)


def _octets(path: Path) -> bytes:
    _about, _expect, _blank, *lines = path.read_text("ascii").splitlines()
    return bytes.fromhex("".join(lines))


SEEDS: tuple[bytes, ...] = tuple(_octets(path) for path in sorted(_VECTORS.glob("*.hex")))


def target(data: bytes) -> None:
    """Read `data` both ways."""
    _as_query(data)
    _as_response(data)


def _as_query(data: bytes) -> None:
    query = _read(data)
    if isinstance(query, QueryError):
        assert query.reply is None or query.reply[:2] == data[:2]
        return
    assert len(reply(query, Rcode.NOERROR, limit_octets=UDP_OCTETS)) <= UDP_OCTETS


def _read(data: bytes) -> Query | QueryError:
    try:
        return read_query(data)
    except QueryError as error:
        return error


def _as_response(data: bytes) -> None:
    rtype = int.from_bytes(data[29:31])  # where the type of a question for _NAME stands
    try:
        response = read_response(data, _NAME, rtype, _LIMITS)
    except UpstreamError:
        return
    walked = walk(Question(Principal("fuzz"), _NAME, rtype), response, _judge, _LIMITS)
    if walked.answer is None:
        assert walked.refusal is not None
        return
    assert not any(special_purpose(address) for address in walked.answer.addresses)
    query = Query(1, 0, _NAME, data[12:33], rtype)
    assert len(encode_answer(query, walked.answer, 0, UDP_OCTETS)) <= UDP_OCTETS


def _judge(facts: Facts) -> Decision:
    if isinstance(facts, Endpoint):
        is_denied = special_purpose(facts.address) is not None
        return _DENY if is_denied else _ALLOW
    return _ALLOW
