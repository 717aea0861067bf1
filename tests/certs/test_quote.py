"""Quotes of real TPMs, and what an attacker makes of them."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from certs.errors import EvidenceError
from certs.quote import verify_quote
from tests.certs import paper_tpm as paper
from tests.certs.paper_tpm import MESSAGE, PCRS, Vector, vectors


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return paper.ecc_key()


def verify(
    key: ec.EllipticCurvePrivateKey,
    quote: bytes,
    message: bytes = MESSAGE,
    pcrs: dict[str, str] | None = None,
) -> dict[str, str]:
    """Verify a quote that `key` signed."""
    signature = paper.ecc_signed(key, quote)
    given = PCRS if pcrs is None else pcrs
    return verify_quote(paper.ecc_public(key), quote, signature, message, given).pcrs


@pytest.mark.parametrize("each", vectors("quote-"), ids=lambda each: each.name)
def test_verifies_what_a_real_tpm_quotes(each: Vector) -> None:
    quoted = verify_quote(each.key, each.quote, each.signature, each.message, each.pcrs)
    assert quoted.name == each.facts["name"]
    assert quoted.pcrs == each.pcrs
    assert quoted.reset_count == int(each.facts["resets"])
    assert quoted.is_safe
    assert quoted.firmware == 0x2019102300163636
    assert len(quoted.key_sha256) == 64


@pytest.mark.parametrize("each", vectors("refused-"), ids=lambda each: each.name)
def test_refuses_what_a_real_tpm_signs_besides(each: Vector) -> None:
    """Time, certified keys, other banks; and a made-up quote that an unrestricted key signed."""
    with pytest.raises(EvidenceError, match=each.expect.removeprefix("refused ")):
        verify_quote(each.key, each.quote, each.signature, each.message, each.pcrs)


def test_says_what_the_quote_says(key: ec.EllipticCurvePrivateKey) -> None:
    quote = paper.attest(safe=0)
    public, signature = paper.ecc_public(key), paper.ecc_signed(key, quote)
    quoted = verify_quote(public, quote, signature, MESSAGE, PCRS)
    assert quoted.name == "000b" + hashlib.sha256(public).hexdigest()
    assert (quoted.clock_ms, quoted.reset_count, quoted.restart_count) == (4711, 5, 6)
    assert (quoted.is_safe, quoted.firmware) == (False, 0x1122)


def test_refuses_the_quote_of_another_nonce_or_connection(
    key: ec.EllipticCurvePrivateKey,
) -> None:
    """An attestation token copied to another process: a relayed quote is over another TLS key."""
    with pytest.raises(EvidenceError, match="another message"):
        verify(key, paper.attest(b"nonce and the attacker's key"), b"nonce and the victim's key")


@pytest.mark.parametrize("digest", [b"", bytes(31), bytes(32), bytes(64)])
def test_refuses_extra_data_of_another_length(
    key: ec.EllipticCurvePrivateKey, digest: bytes
) -> None:
    quote = paper.attest()
    wanted = paper.sized(hashlib.sha256(MESSAGE).digest())
    with pytest.raises(EvidenceError, match="another message"):
        verify(key, quote.replace(wanted, paper.sized(digest)))


def test_refuses_pcr_values_that_are_not_the_quoted(key: ec.EllipticCurvePrivateKey) -> None:
    for pcrs in ({**PCRS, "7": "cc" * 32}, {"0": PCRS["7"], "7": PCRS["0"]}):
        with pytest.raises(EvidenceError, match="not those of the quote"):
            verify(key, paper.attest(), pcrs=pcrs)


def test_refuses_a_quote_whose_digest_is_not_of_the_values(
    key: ec.EllipticCurvePrivateKey,
) -> None:
    for digest in (b"", bytes(32), hashlib.sha256(b"").digest()):
        with pytest.raises(EvidenceError, match="not those of the quote"):
            verify(key, paper.attest(digest=digest))


def test_refuses_a_value_too_few_or_too_many(key: ec.EllipticCurvePrivateKey) -> None:
    """Neither is a PCR believed that the quote does not cover, nor is one left out."""
    for pcrs in ({"0": PCRS["0"]}, {**PCRS, "16": "00" * 32}, {}):
        with pytest.raises(EvidenceError, match="covers the PCRs 0, 7: send"):
            verify(key, paper.attest(), pcrs=pcrs)


@pytest.mark.parametrize("index", ["24", "-1", "00", "+7", " 7", "7\n", "\u0667", "0x7", ""])
def test_refuses_an_index_that_is_not_0_to_23(key: ec.EllipticCurvePrivateKey, index: str) -> None:
    with pytest.raises(EvidenceError, match="not by their index"):
        verify(key, paper.attest(), pcrs={"0": PCRS["0"], index: PCRS["7"]})


def test_refuses_more_values_than_there_are_pcrs(key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(EvidenceError, match="not by their index"):
        verify(key, paper.attest(), pcrs={str(each): "00" * 32 for each in range(25)})


def test_refuses_a_pcr_of_a_fourth_octet(key: ec.EllipticCurvePrivateKey) -> None:
    selected = paper.selection((0, 7, 24), octets=4)
    with pytest.raises(EvidenceError, match="covers the PCRs 0, 7, 24"):
        verify(key, paper.attest(selected=selected))


@pytest.mark.parametrize("value", ["", "aa" * 31, "aa" * 33, "gg" * 32, " " + "a" * 63])
def test_refuses_values_that_are_no_digest(key: ec.EllipticCurvePrivateKey, value: str) -> None:
    with pytest.raises(EvidenceError, match="64 hexadecimal digits"):
        verify(key, paper.attest(), pcrs={**PCRS, "7": value})


def test_takes_the_values_in_any_order_and_case(key: ec.EllipticCurvePrivateKey) -> None:
    assert verify(key, paper.attest(), pcrs={"7": "BB" * 32, "0": "aA" * 32}) == PCRS


def test_believes_nothing_before_the_signature(key: ec.EllipticCurvePrivateKey) -> None:
    quote = paper.attest()
    other = paper.ecc_signed(paper.ecc_key(), quote)
    with pytest.raises(EvidenceError, match="not by this AK"):
        verify_quote(paper.ecc_public(key), quote, other, b"another message", {})


def test_refuses_one_flipped_bit_anywhere(key: ec.EllipticCurvePrivateKey) -> None:
    quote = paper.attest()
    public, signature = paper.ecc_public(key), paper.ecc_signed(key, quote)
    for at in range(len(quote)):
        changed = bytearray(quote)
        changed[at] ^= 1
        with pytest.raises(EvidenceError):
            verify_quote(public, bytes(changed), signature, MESSAGE, PCRS)
