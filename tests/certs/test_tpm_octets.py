"""Reading octets from front to back, and no further."""

import pytest

from certs.errors import EvidenceError
from certs.tpm_octets import Octets


def test_reads_from_front_to_back() -> None:
    octets = Octets("TPM_THING", b"\x01\x02\x03\x00\x02ab\x00\x00", 9)
    assert octets.take(1) == b"\x01"
    assert octets.number(2) == 0x0203
    assert octets.sized(2) == b"ab"
    assert octets.sized(0) == b""
    octets.end()


def test_refuses_to_begin_with_too_many() -> None:
    with pytest.raises(EvidenceError, match="the TPM_THING has more than 1 octets"):
        Octets("TPM_THING", b"ab", 1)


def test_refuses_to_read_beyond_the_end() -> None:
    octets = Octets("TPM_THING", b"\x00\x02a", 3)
    for read in (lambda: octets.take(4), lambda: octets.number(4), lambda: octets.sized(2)):
        with pytest.raises(EvidenceError, match="ends too early"):
            read()


def test_refuses_a_part_that_is_too_long_before_it_is_read() -> None:
    with pytest.raises(EvidenceError, match="a part of 65535 octets where 64 are the most"):
        Octets("TPM_THING", b"\xff\xff", 2).sized(64)


def test_refuses_what_is_left_over() -> None:
    octets = Octets("TPM_THING", b"ab", 2)
    octets.take(1)
    with pytest.raises(EvidenceError, match="has 1 octets more"):
        octets.end()


def test_refuses_in_the_words_of_the_caller() -> None:
    with pytest.raises(EvidenceError, match="the TPM_THING is odd"):
        Octets("TPM_THING", b"", 0).refuse("is odd")
