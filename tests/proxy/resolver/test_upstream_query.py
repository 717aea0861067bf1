import os

import dns.flags
import dns.message
import dns.opcode
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.resolver.upstream_query import (
    UpstreamQuery,
    is_conclusive,
    is_truncated,
    make_query,
    write_question,
)
from rules import rtype
from rules.name import ROOT, DomainName, parse
from tests.proxy.resolver.hostile import WRONG, answer

NAME = parse("www.example.com")
LABEL = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True)
NAMES = st.lists(LABEL, max_size=6).map(lambda labels: DomainName(".".join(labels)) or ROOT)


def ones(count: int) -> bytes:
    return b"\xff" * count


def zeros(count: int) -> bytes:
    return bytes(count)


def query_for(name: DomainName = NAME, *, padded: bool = False) -> UpstreamQuery:
    return make_query(write_question(name, rtype.A), os.urandom, padded=padded)


@given(NAMES, st.integers(0, 65535), st.booleans())
def test_a_query_is_one_question_and_an_opt_of_our_own(
    name: DomainName, number: int, padded: bool
) -> None:
    """Closes "EDNS options, ECS, cookies, padding, case bits, ids, trailing bytes"."""
    query = make_query(write_question(name, number), os.urandom, padded=padded)
    read = dns.message.from_wire(query.message(b"\x12\x34"))
    (question,) = read.question
    assert read.id == 0x1234
    assert read.flags == dns.flags.RD
    assert read.opcode() is dns.opcode.QUERY
    assert question.name.to_text(omit_final_dot=True).lower() == (name if name != ROOT else ".")
    assert (question.rdtype, question.rdclass) == (number, dns.rdataclass.IN)
    assert (read.edns, read.ednsflags, read.payload) == (0, 0, 1232)
    assert [option.otype for option in read.options] == ([12] if padded else [])
    assert read.sections[1:] == [[], [], []]


@given(NAMES)
def test_padding_fills_blocks_of_128_octets(name: DomainName) -> None:
    """RFC 8467, section 4.1."""
    message = query_for(name, padded=True).message(b"id")
    assert len(message) % 128 == 0
    assert message.rstrip(b"\0") != message or len(message) == 128


def test_the_random_case_takes_letters_and_nothing_else() -> None:
    lowered = write_question(parse("a-1_z.example"), rtype.AAAA)
    assert make_query(lowered, zeros, padded=False).question == lowered
    upper = make_query(lowered, ones, padded=False).question
    assert upper == b"\x05A-1_Z\x07EXAMPLE\x00\x00\x1c\x00\x01"


def test_the_octets_of_a_type_that_look_like_letters_stay() -> None:
    lowered = write_question(ROOT, 0x6162)
    assert make_query(lowered, ones, padded=False).question == lowered


def test_both_cases_of_each_letter_are_sent() -> None:
    seen = [set(octets) for octets in zip(*(query_for().question for _ in range(64)), strict=True)]
    assert [len(octets) for octets in seen[1:4]] == [2, 2, 2]


@given(NAMES)
def test_its_answer_is_taken_and_the_question_restored(name: DomainName) -> None:
    query = query_for(name)
    message = answer(query.message(b"id"))
    assert query.is_answered_by(message)
    restored = query.restored(message)
    assert restored[12 : 12 + len(query.lowered)] == write_question(name, rtype.A)
    assert restored[:12] + query.question + restored[12 + len(query.question) :] == message


@pytest.mark.parametrize("wrong", sorted(set(WRONG) - {"id"}))
def test_anything_but_its_answer_is_none(wrong: str) -> None:
    """Closes "Upstream match: ... id, question incl. 0x20"; ids are matched by the transports."""
    query = query_for()
    assert not query.is_answered_by(WRONG[wrong](answer(query.message(b"id"))))


@given(st.binary(max_size=64))
def test_no_octets_raise(octets: bytes) -> None:
    assert not query_for().is_answered_by(octets)


def test_reads_truncation_and_rcode() -> None:
    message = query_for().message(b"id")
    assert is_truncated(answer(message, truncated=True))
    assert not is_truncated(answer(message))
    conclusive = [rcode for rcode in range(16) if is_conclusive(answer(message, rcode=rcode))]
    assert conclusive == [0, 3]
