"""The head and question of a DNS message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import PeerError
from proxy.wire.question import Head, read_head, read_question, write_name
from rules.decision import Reason
from rules.name import ROOT, DomainName, from_labels

_HEAD = bytes.fromhex("abcd 0120 0001 0000 0000 0001")
_QUESTION = b"\3wWw\7example\3com\0\0\x1c\0\1"


def test_reads_the_six_words_of_the_head() -> None:
    assert read_head(_HEAD) == Head(0xABCD, 0x0120, 1, 0, 0, 1)


def test_refuses_a_head_of_eleven_octets() -> None:
    with pytest.raises(PeerError) as refused:
        read_head(_HEAD[:11])
    assert refused.value.reason is Reason.REQUEST_MALFORMED


def test_reads_the_labels_with_their_case_and_says_where_they_end() -> None:
    question = read_question(_HEAD + _QUESTION + b"rest")
    assert question.labels == (b"wWw", b"example", b"com")
    assert (question.rtype, question.rclass) == (28, 1)
    assert question.end == len(_HEAD + _QUESTION)


def test_reads_the_root() -> None:
    assert read_question(b"\0\0\2\0\1", 0).labels == ()


def test_keeps_dots_and_nul_octets_inside_labels() -> None:
    """A label that contains a dot or a NUL byte on the wire stays one label, for its judge."""
    assert read_question(b"\4a.\0b\0\0\1\0\1", 0).labels == (b"a.\0b",)


@pytest.mark.parametrize("label_type", [0x40, 0x80, 0xC0, 0xFF])
def test_refuses_compression_and_reserved_label_types(label_type: int) -> None:
    """Compression pointers in the question."""
    with pytest.raises(PeerError) as refused:
        read_question(_HEAD + b"\1a" + bytes([label_type, 12]) + b"\0\1\0\1")
    assert refused.value.reason is Reason.REQUEST_MALFORMED


@pytest.mark.parametrize("cut", range(len(_QUESTION)))
def test_refuses_a_truncated_question(cut: int) -> None:
    with pytest.raises(PeerError) as refused:
        read_question(_HEAD + _QUESTION[:cut])
    assert refused.value.reason is Reason.REQUEST_MALFORMED


def test_takes_a_name_of_255_octets_and_refuses_256() -> None:
    """63/255 limits."""
    long = (b"\x3f" + b"a" * 63) * 3
    assert read_question(long + b"\x3d" + b"b" * 61 + b"\0\0\1\0\1", 0).end == 255 + 4
    with pytest.raises(PeerError) as refused:
        read_question(long + b"\x3e" + b"b" * 62 + b"\0\0\1\0\1", 0)
    assert refused.value.reason is Reason.NAME_MALFORMED


def test_writes_names() -> None:
    assert write_name(ROOT) == b"\0"
    assert write_name(DomainName("www.example.com")) == b"\3www\7example\3com\0"


@given(st.lists(st.from_regex(rb"[a-z0-9]{1,20}", fullmatch=True), max_size=6))
def test_a_written_name_reads_back(labels: list[bytes]) -> None:
    wire = write_name(from_labels(labels)) + b"\0\1\0\1"
    question = read_question(wire, 0)
    assert list(question.labels) == labels
    assert question.end == len(wire)


@given(st.binary(max_size=300))
def test_any_octets_give_a_question_or_a_peer_error(wire: bytes) -> None:
    try:
        question = read_question(wire, 0)
    except PeerError:
        return
    assert question.end <= len(wire)
    assert all(0 < len(label) <= 63 for label in question.labels)
