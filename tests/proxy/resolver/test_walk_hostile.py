"""Ten thousand answers made to slip an address or a name past the walker: none comes through.

The upstream here writes octets, not records: what dnspython reads of them is part of the test.
The rules are the real ones, and what is handed out is read back from the reply's octets.
"""

import random
from collections.abc import Iterator

import dns.message
import dns.rdtypes.svcbbase
import dns.rrset

from proxy.errors import UpstreamError
from proxy.limits import Limits
from proxy.resolver.message import STREAM_OCTETS, Query, encode_answer
from proxy.resolver.response import read_response
from proxy.resolver.walk import Walked, walk
from proxy.wire.question import write_name
from rules import rtype as rr
from rules.address import embedded, parse_address, special_purpose
from rules.decide import decide
from rules.facts import Principal, Question
from rules.match import index_rules
from rules.name import DomainName, parse
from rules.pattern import HostPattern, PatternKind
from rules.ruleset import AllowRule, App, DenyRule, Ruleset
from rules.special import special_use

ANSWERS = 10_000
SEED = 20_240_601
LIMITS = Limits(answer_records=12)
NAME = parse("www.example.com")
TYPES = (rr.A, rr.AAAA, rr.HTTPS, rr.CNAME, rr.TXT, rr.DNAME)
EVIL = HostPattern(PatternKind.BELOW, parse("evil.example"))
APP = App(
    "coder",
    allows=(
        AllowRule(
            "www", (HostPattern(PatternKind.EXACT, NAME),), frozenset({443}), frozenset(TYPES)
        ),
    ),
    denies=(DenyRule("evil", (EVIL,)),),
)
INDEX = index_rules(Ruleset(1, {"coder": APP}))

NAMES = tuple(
    map(
        parse,
        (
            *("www.example.com", "www.example.com", "www.example.com", "example.com", "a.cdn.net"),
            *("b.cdn.net", "www.cdn.net", "cdn.net", "a.evil.example", "www.a.evil.example"),
            *("localhost", "x.local", "sallyport.internal", "com", "x.www.example.com"),
        ),
    )
)
ADDRESSES = tuple(
    parse_address(text).packed
    for text in (
        *("1.1.1.1", "9.9.9.9", "0.0.0.0", "10.0.0.1", "127.0.0.1", "169.254.169.254"),
        *("168.63.129.16", "192.0.0.192", "224.0.0.1", "255.255.255.255", "100.64.0.1"),
        *("2606:4700::1111", "2620:fe::fe", "::", "::1", "::ffff:127.0.0.1", "::10.0.0.1"),
        *("64:ff9b::a00:1", "64:ff9b::808:808", "2002:a00:1::", "2001:0:a00:1::", "fe80::1"),
        *("fd00:ec2::254", "ff02::1", "4000::1"),
    )
)
IPV4 = tuple(address for address in ADDRESSES if len(address) == 4)
IPV6 = tuple(address for address in ADDRESSES if len(address) == 16)


class Upstream:
    """An upstream that answers with whatever may do harm."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - reproducible, not secret

    def answer(self, name: DomainName, rtype: int) -> bytes:
        chance = self._chance
        counts = [chance.choice((0, 1, 1, 2, 2, 3, 5)), chance.randrange(2), chance.randrange(2)]
        records = [self._record(rtype) for _ in range(sum(counts))]
        if chance.random() < 0.3:
            target = chance.choice(NAMES)
            records[:2] = [
                self._framed(write_name(name), rr.CNAME, write_name(target)),
                self._framed(write_name(target), rtype, self._rdata(rtype)),
            ]
            counts[0] = max(counts[0], 2)
            counts[1:] = [0, len(records) - counts[0]] if len(records) > counts[0] else [0, 0]
        flags = 0x8180 | chance.choice((0,) * 20 + (0x400, 0x200, 2, 3, 3))
        head = (chance.getrandbits(16), flags, 1, *counts)
        question = write_name(name) + rtype.to_bytes(2) + b"\0\1"
        wire = b"".join(number.to_bytes(2) for number in head) + question + b"".join(records)
        return self._damaged(wire) if chance.random() < 0.05 else wire

    def _record(self, asked: int) -> bytes:
        rtype = self._chance.choice((asked, asked, asked, rr.CNAME, rr.DNAME, *TYPES, rr.SOA))
        owner = b"\xc0\x0c" if self._chance.random() < 0.6 else self._name()
        return self._framed(owner, rtype, self._rdata(rtype))

    def _framed(self, owner: bytes, rtype: int, rdata: bytes) -> bytes:
        rclass = self._chance.choice((1,) * 12 + (3, 254, 255))
        ttl = self._chance.choice((0, 1, 60, 3600, 1 << 31, (1 << 32) - 1))
        fixed = rtype.to_bytes(2) + rclass.to_bytes(2) + ttl.to_bytes(4)
        return owner + fixed + len(rdata).to_bytes(2) + rdata

    def _rdata(self, rtype: int) -> bytes:
        if rtype in {rr.A, rr.AAAA}:
            return self._chance.choice(IPV4 if rtype == rr.A else IPV6)
        if rtype in {rr.CNAME, rr.DNAME}:
            return self._name()
        if rtype == rr.HTTPS:
            return self._binding()
        return b"\1a" if rtype == rr.TXT else self._name() * 2 + bytes(16) + b"\0\0\1\0"

    def _binding(self) -> bytes:
        chance = self._chance
        target = b"\0" if chance.random() < 0.6 else self._name()
        params = {
            0: b"\0\4",
            1: chance.choice((b"\2h2", b"\2h3", b"\2h3\2h2")),
            2: b"",
            3: b"\1\xbb",
            4: b"".join(chance.sample(IPV4, 3)),
            5: b"\0\4\xfe\x0d\0\0",
            6: b"".join(chance.sample(IPV6, 3)),
            7: b"/q{?dns}",
            99: chance.choice(IPV4),
        }
        keys = sorted(chance.sample(list(params), chance.randrange(7)))
        if (0 in keys and 4 not in keys) or (2 in keys and 1 not in keys):
            keys = []
        fields = (key.to_bytes(2) + len(params[key]).to_bytes(2) + params[key] for key in keys)
        return chance.choice((0, 1, 1, 1)).to_bytes(2) + target + b"".join(fields)

    def _name(self) -> bytes:
        wire = write_name(self._chance.choice(NAMES))
        return wire.upper() if self._chance.random() < 0.1 else wire

    def _damaged(self, wire: bytes) -> bytes:
        octets = bytearray(wire)
        octets[self._chance.randrange(12, len(octets))] ^= 1 << self._chance.randrange(8)
        return bytes(octets)


def walked(upstream: Upstream, question: Question) -> Walked | None:
    wire = upstream.answer(question.name, question.rtype)
    try:
        response = read_response(wire, question.name, question.rtype, LIMITS)
    except UpstreamError:
        return None
    return walk(question, response, lambda facts: decide(INDEX, facts), LIMITS)


def read_back(question: Question, outcome: Walked) -> list[dns.rrset.RRset]:
    """Return the reply's records as a client reads them; only an answer has any."""
    if outcome.answer is None:
        return []
    section = write_name(question.name) + question.rtype.to_bytes(2) + b"\0\1"
    query = Query(1, 0x0100, question.name, section, question.rtype)
    wire = encode_answer(query, outcome.answer, 0, STREAM_OCTETS)
    message = dns.message.from_wire(wire, one_rr_per_rrset=True)
    assert message.additional == []
    soas = [(rrset.rdtype, rrset[0].to_text().split()[0]) for rrset in message.authority]
    assert soas in ([], [(rr.SOA, "sallyport.internal.")])
    assert all(rrset.ttl <= LIMITS.cache_ttl_s for rrset in message.answer)
    return list(message.answer)


def addresses(rrset: dns.rrset.RRset) -> Iterator[str]:
    if rrset.rdtype in {rr.A, rr.AAAA}:
        yield rrset[0].to_text()
    if rrset.rdtype == rr.HTTPS:
        record = rrset[0]
        assert isinstance(record, dns.rdtypes.svcbbase.SVCBBase)
        assert {int(key) for key in record.params} <= {0, 1, 2, 3, 4, 6}
        assert "h3" not in record.to_text()
        assert record.target.to_text() in {".", rrset.name.to_text()}
        for key, hint in record.params.items():
            if int(key) in {4, 6} and hint is not None:
                yield from hint.to_text().strip('"').split(",")


def is_public(text: str) -> bool:
    address = parse_address(text)
    return not any(special_purpose(one) for one in (address, *embedded(address)))


def is_foreign(name: DomainName) -> bool:
    return EVIL.matches(name) or special_use(name) is not None


def test_lets_no_special_purpose_address_and_no_foreign_name_through() -> None:
    """Closes the lines of `Between name and address` that an upstream's answer can try."""
    upstream = Upstream(SEED)
    chance = random.Random(SEED)  # noqa: S311 - reproducible, not secret
    given = refused = 0
    for _ in range(ANSWERS):
        question = Question(Principal("coder"), NAME, chance.choice(TYPES))
        outcome = walked(upstream, question)
        if outcome is None or outcome.answer is None:
            refused += 1
            continue
        reached = NAME
        for rrset in read_back(question, outcome):
            given += 1
            assert parse(rrset.name.to_text()) == reached
            assert all(is_public(text) for text in addresses(rrset))
            if rrset.rdtype in {rr.CNAME, rr.DNAME}:
                reached = parse(rrset[0].to_text())
                assert not is_foreign(reached)
            else:
                assert rrset.rdtype == question.rtype
    # The generator must not pass by never being heard.
    assert given > ANSWERS // 10
    assert refused > ANSWERS // 10
