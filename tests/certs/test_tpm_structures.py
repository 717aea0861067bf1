"""What a TPM says, and everything that is cut off, too long, or something else."""

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from certs import tpm_structures as tpm
from certs.errors import EvidenceError
from tests.certs import paper_tpm as paper
from tests.certs.paper_tpm import Vector, vector, vectors

QUOTES = vectors("quote-")
STATEMENTS = {
    "NV_Certify": 0x8014,
    "GetCommandAuditDigest": 0x8015,
    "GetSessionAuditDigest": 0x8016,
    "Certify": 0x8017,
    "GetTime": 0x8019,
    "CertifyCreation": 0x801A,
    "0x8024": 0x8024,
}


@pytest.mark.parametrize("each", QUOTES, ids=lambda each: each.name)
def test_reads_what_a_real_tpm_says(each: Vector) -> None:
    attest = tpm.read_attest(each.quote)
    assert attest.extra_data == hashlib.sha256(each.message).digest()
    assert attest.selected == (0, 7, 16)
    assert attest.reset_count == int(each.facts["resets"])
    assert attest.is_safe is (each.facts["safe"] == "yes")
    assert attest.firmware == 0x2019102300163636
    assert tpm.name_of(each.key).hex() == each.facts["name"]


def test_reads_a_public_area_of_each_kind() -> None:
    ecc, rsa = (tpm.read_public(vector(f"quote-{kind}").key) for kind in ("ecc", "rsa"))
    assert (ecc.kind, ecc.scheme, ecc.hash_alg, ecc.size) == (
        *(tpm.ECC, tpm.ECDSA, tpm.SHA256, tpm.NIST_P256),
    )
    assert [len(each) for each in ecc.unique] == [32, 32]
    assert (rsa.kind, rsa.scheme, rsa.hash_alg, rsa.size) == (
        *(tpm.RSA, tpm.RSASSA, tpm.SHA256, 2048),
    )
    assert [len(each) for each in rsa.unique] == [256]
    assert rsa.exponent == 0
    assert ecc.attributes & tpm.RESTRICTED
    assert ecc.symmetric == rsa.symmetric == tpm.NULL


def test_reads_the_details_of_schemes_and_ciphers_that_we_refuse_later() -> None:
    """Each has as many octets as the standard says, so that what follows is not misread."""
    key = paper.ecc_key()
    aes = b"\x00\x06\x00\x80\x00\x43"
    storage = tpm.read_public(paper.ecc_public(key, symmetric=aes, scheme=paper.NULL))
    assert (storage.symmetric, storage.scheme, storage.hash_alg) == (0x0006, tpm.NULL, 0)
    ecdaa = tpm.read_public(paper.ecc_public(key, scheme=b"\x00\x1a\x00\x0b\x00\x01"))
    assert (ecdaa.scheme, ecdaa.size) == (0x001A, tpm.NIST_P256)


def test_refuses_keys_of_another_kind() -> None:
    keyed_hash = b"\x00\x08" + paper.ecc_public(paper.ecc_key())[2:]
    with pytest.raises(EvidenceError, match="kind 0x0008"):
        tpm.read_public(keyed_hash)


@pytest.mark.parametrize("each", QUOTES, ids=lambda each: each.name)
def test_refuses_every_truncation(each: Vector) -> None:
    for read, octets in (
        (tpm.read_public, each.key),
        (tpm.read_attest, each.quote),
        (tpm.read_signature, each.signature),
    ):
        for end in range(len(octets)):
            with pytest.raises(EvidenceError):
                read(octets[:end])


@pytest.mark.parametrize("each", QUOTES, ids=lambda each: each.name)
def test_refuses_trailing_octets(each: Vector) -> None:
    for read, octets in (
        (tpm.read_public, each.key),
        (tpm.read_attest, each.quote),
        (tpm.read_signature, each.signature),
    ):
        with pytest.raises(EvidenceError, match="1 octets more"):
            read(octets + b"\0")


def test_refuses_what_is_too_long_before_reading_it() -> None:
    for read in (tpm.read_public, tpm.read_attest, tpm.read_signature):
        with pytest.raises(EvidenceError, match="more than 1024 octets"):
            read(bytes(1025))


def test_refuses_a_part_that_is_longer_than_a_tpm_makes_it() -> None:
    with pytest.raises(EvidenceError, match="600 octets where 512 are the most"):
        tpm.read_signature(b"\x00\x14\x00\x0b" + paper.sized(bytes(600)))


def test_refuses_what_no_tpm_generated() -> None:
    """A restricted key signs nothing from outside that begins with the magic: without it, all."""
    with pytest.raises(EvidenceError, match="magic"):
        tpm.read_attest(paper.attest(magic=0xFF544346))


@pytest.mark.parametrize("name", STATEMENTS)
def test_refuses_statements_of_another_kind(name: str) -> None:
    with pytest.raises(EvidenceError, match=name):
        tpm.read_attest(paper.attest(statement=STATEMENTS[name]))


def test_refuses_a_yes_or_no_that_is_neither() -> None:
    with pytest.raises(EvidenceError, match="2 where yes or no"):
        tpm.read_attest(paper.attest(safe=2))


@pytest.mark.parametrize(
    ("selected", "text"),
    [
        (paper.selection((0,), bank=0x0004), "SHA-256 bank"),
        (paper.selection((0,), bank=paper.SHA384), "SHA-256 bank"),
        (paper.selection((0,), count=2), "SHA-256 bank"),
        (paper.selection((0,), count=0), "SHA-256 bank"),
        (paper.selection(()), "selects no PCR"),
        (paper.selection((), octets=0), "selects no PCR"),
        (paper.selection((0,), octets=5), "5 octets where 4"),
        (b"\xff\xff\xff\xff", "SHA-256 bank|ends too early"),
    ],
)
def test_refuses_selections_that_we_do_not_appraise(selected: bytes, text: str) -> None:
    with pytest.raises(EvidenceError, match=text):
        tpm.read_attest(paper.attest(selected=selected))


def test_reads_the_selected_pcrs_in_order() -> None:
    selected = paper.selection((23, 0, 8))
    assert tpm.read_attest(paper.attest(selected=selected)).selected == (0, 8, 23)
    least = paper.selection((1,), octets=1)
    assert tpm.read_attest(paper.attest(selected=least)).selected == (1,)


def test_refuses_signatures_of_another_scheme() -> None:
    for scheme in (0x0005, 0x0010, 0x0016, 0x001A):  # HMAC, null, RSAPSS, ECDAA
        with pytest.raises(EvidenceError, match="sign with ECDSA or RSASSA"):
            tpm.read_signature(scheme.to_bytes(2) + b"\x00\x0b" + paper.sized(bytes(32)) * 2)


@given(st.binary(max_size=200), st.integers(0, 144), st.integers(0, 255))
def test_reads_or_refuses_whatever_comes(octets: bytes, where: int, value: int) -> None:
    """Nothing but an EvidenceError gets out."""
    changed = bytearray(vector("quote-ecc").quote)
    changed[where] = value
    for read in (tpm.read_public, tpm.read_attest, tpm.read_signature):
        for each in (octets, bytes(changed)):
            with contextlib.suppress(EvidenceError):
                assert isinstance(read(each), Struct)
