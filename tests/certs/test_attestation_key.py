"""Which keys may attest, and what they signed."""

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certs import tpm_structures as tpm
from certs.attestation_key import check_signed, read_ak
from certs.errors import EvidenceError
from tests.certs import paper_tpm as paper
from tests.certs.paper_tpm import Vector, vectors

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
OCTETS = b"statement"


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return paper.ecc_key()


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize("each", vectors("quote-"), ids=lambda each: each.name)
def test_takes_the_aks_of_a_real_tpm(each: Vector) -> None:
    ak = read_ak(each.key)
    assert ak.name.hex() == each.facts["name"]
    check_signed(ak, each.signature, each.quote)


def test_takes_the_digest_of_the_key_as_a_certificate_would_have_it(
    key: ec.EllipticCurvePrivateKey,
) -> None:
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert read_ak(paper.ecc_public(key)).key_sha256 == hashlib.sha256(spki).hexdigest()


@pytest.mark.parametrize(
    ("bit", "text"),
    [
        (tpm.RESTRICTED, "not restricted"),
        (tpm.FIXED_TPM, "not fixedTPM"),
        (tpm.FIXED_PARENT, "not fixedParent"),
        (tpm.SENSITIVE_DATA_ORIGIN, "not sensitiveDataOrigin"),
        (tpm.SIGN, "not sign"),
    ],
)
def test_refuses_an_ak_without(key: ec.EllipticCurvePrivateKey, bit: int, text: str) -> None:
    with pytest.raises(EvidenceError, match=text):
        read_ak(paper.ecc_public(key, attributes=paper.ATTESTS & ~bit))


@pytest.mark.parametrize(("bit", "text"), [(tpm.DECRYPT, "decrypt"), (tpm.X509_SIGN, "x509sign")])
def test_refuses_an_ak_that_does_more(key: ec.EllipticCurvePrivateKey, bit: int, text: str) -> None:
    with pytest.raises(EvidenceError, match=text):
        read_ak(paper.ecc_public(key, attributes=paper.ATTESTS | bit))


def test_refuses_other_names_ciphers_schemes_and_curves(key: ec.EllipticCurvePrivateKey) -> None:
    aes = b"\x00\x06\x00\x80\x00\x43"
    for public, text in (
        (paper.ecc_public(key, name_alg=paper.SHA384), "Name"),
        (paper.ecc_public(key, symmetric=aes), "symmetric"),
        (paper.ecc_public(key, scheme=paper.NULL), "ECDSA on P-256"),
        (paper.ecc_public(key, scheme=b"\x00\x18\x00\x0c"), "ECDSA on P-256"),
        (paper.ecc_public(key, scheme=b"\x00\x1c\x00\x0b"), "ECDSA on P-256"),
        (paper.ecc_public(ec.generate_private_key(ec.SECP384R1()), curve=4), "ECDSA on P-256"),
    ):
        with pytest.raises(EvidenceError, match=text):
            read_ak(public)


def test_refuses_points_that_are_none(key: ec.EllipticCurvePrivateKey) -> None:
    good = key.public_key().public_numbers().x.to_bytes(32)
    for point, text in (
        ((good, bytes(32)), "not on P-256"),
        ((b"", b""), "not on P-256"),
        ((b"\xff" * 32, b"\xff" * 32), "not on P-256"),
        ((bytes(1) + good, good), "more octets"),
    ):
        with pytest.raises(EvidenceError, match=text):
            read_ak(paper.ecc_public(key, point=point))


def test_takes_rsa_keys_with_the_exponent_said_or_not(rsa_key: rsa.RSAPrivateKey) -> None:
    for exponent in (0, 65537):
        ak = read_ak(paper.rsa_public(rsa_key, exponent=exponent))
        check_signed(ak, paper.rsa_signed(rsa_key, OCTETS), OCTETS)


def test_refuses_other_rsa_keys(rsa_key: rsa.RSAPrivateKey) -> None:
    for public, text in (
        (paper.rsa_public(rsa_key, exponent=3), "65537"),
        (paper.rsa_public(rsa_key, bits=1024), "RSA-2048"),
        (paper.rsa_public(rsa_key, scheme=b"\x00\x16\x00\x0b"), "RSASSA"),  # RSAPSS
        (paper.rsa_public(rsa_key, scheme=b"\x00\x15"), "RSASSA"),  # RSAES has no hash
        (paper.rsa_public(rsa_key, modulus=b"\x7f" + b"\xff" * 255), "none of RSA-2048"),
        (paper.rsa_public(rsa_key, modulus=b"\x01" + bytes(255)), "none of RSA-2048"),
        (paper.rsa_public(rsa_key, modulus=b"\x80" + bytes(255)), "none of RSA-2048"),
    ):
        with pytest.raises(EvidenceError, match=text):
            read_ak(public)


def test_refuses_the_signature_of_another_key(
    key: ec.EllipticCurvePrivateKey, rsa_key: rsa.RSAPrivateKey
) -> None:
    ak = read_ak(paper.ecc_public(key))
    with pytest.raises(EvidenceError, match="not by this AK"):
        check_signed(ak, paper.ecc_signed(paper.ecc_key(), OCTETS), OCTETS)
    other = rsa.generate_private_key(65537, 2048)
    with pytest.raises(EvidenceError, match="not by this AK"):
        check_signed(read_ak(paper.rsa_public(rsa_key)), paper.rsa_signed(other, OCTETS), OCTETS)


def test_refuses_a_signature_over_something_else(key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(EvidenceError, match="not by this AK"):
        check_signed(read_ak(paper.ecc_public(key)), paper.ecc_signed(key, OCTETS), OCTETS + b"!")


def test_refuses_a_signature_with_another_hash_or_scheme(
    key: ec.EllipticCurvePrivateKey, rsa_key: rsa.RSAPrivateKey
) -> None:
    ak = read_ak(paper.ecc_public(key))
    sha384 = hashes.SHA384()
    for signature in (
        paper.ecc_signed(key, OCTETS, hashed=sha384, hash_alg=paper.SHA384),
        paper.ecc_signed(key, OCTETS, hash_alg=0x0004),
        paper.rsa_signed(rsa_key, OCTETS),
    ):
        with pytest.raises(EvidenceError, match="own scheme and SHA-256"):
            check_signed(ak, signature, OCTETS)
    with pytest.raises(EvidenceError, match="not by this AK"):  # says SHA-256, and is not
        check_signed(ak, paper.ecc_signed(key, OCTETS, hashed=sha384), OCTETS)


def test_refuses_r_and_s_that_are_none(key: ec.EllipticCurvePrivateKey) -> None:
    """Zero, the order of the group, more than it, and more octets than it has."""
    ak = read_ak(paper.ecc_public(key))
    good = paper.ecc_signed(key, OCTETS)
    r, s = good[6:38], good[40:72]
    check_signed(ak, paper.ecc_signature(r, s), OCTETS)
    order, most = ORDER.to_bytes(32), b"\xff" * 32
    for bad in (b"", bytes(32), b"\x01", order, most, bytes(1) + r, r + bytes(32)):
        for pair in ((bad, s), (r, bad), (bad, bad)):
            with pytest.raises(EvidenceError, match="not by this AK"):
                check_signed(ak, paper.ecc_signature(*pair), OCTETS)


def test_refuses_rsa_signatures_of_another_size(rsa_key: rsa.RSAPrivateKey) -> None:
    ak = read_ak(paper.rsa_public(rsa_key))
    for octets in (0, 1, 255, 257, 512):
        with pytest.raises(EvidenceError, match="not by this AK"):
            check_signed(ak, b"\x00\x14\x00\x0b" + paper.sized(b"\x01" * octets), OCTETS)
