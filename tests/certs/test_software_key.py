"""Signatures of keys in software: proof that a key is there, and nothing more."""

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, utils
from hypothesis import given
from hypothesis import strategies as st

from certs.errors import EvidenceError
from certs.software_key import verify_signature

MESSAGE = b"what came with the nonce"
KEY = ec.generate_private_key(ec.SECP256R1())
DER, SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
PUBLIC = KEY.public_key().public_bytes(DER, SPKI)


def signed(key: ec.EllipticCurvePrivateKey = KEY, message: bytes = MESSAGE) -> bytes:
    return key.sign(message, ec.ECDSA(hashes.SHA256()))


def test_names_the_key_that_signed() -> None:
    assert verify_signature(PUBLIC, signed(), MESSAGE) == hashlib.sha256(PUBLIC).hexdigest()


def test_refuses_another_key_or_message() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    for signature, message in (
        (signed(other), MESSAGE),
        (signed(), MESSAGE + b"!"),
        (signed(message=b"the message of another connection"), MESSAGE),
    ):
        with pytest.raises(EvidenceError, match="not by this key"):
            verify_signature(PUBLIC, signature, message)


def test_refuses_another_hash() -> None:
    for hashed in (hashes.SHA384(), hashes.SHA1()):  # noqa: S303 - what is to be refused
        with pytest.raises(EvidenceError, match="not by this key"):
            verify_signature(PUBLIC, KEY.sign(MESSAGE, ec.ECDSA(hashed)), MESSAGE)


def test_refuses_r_and_s_of_zero_and_of_the_order() -> None:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    r, s = utils.decode_dss_signature(signed())
    for pair in ((0, 0), (0, s), (r, 0), (order, s), (r, order), (r + order, s), (1, 1)):
        with pytest.raises(EvidenceError, match="not by this key"):
            verify_signature(PUBLIC, utils.encode_dss_signature(*pair), MESSAGE)


def test_refuses_signatures_that_are_none_or_too_long() -> None:
    for signature in (b"", b"\x30", signed()[:-1], signed() + b"\0", bytes(128)):
        with pytest.raises(EvidenceError, match="not by this key"):
            verify_signature(PUBLIC, signature, MESSAGE)
    with pytest.raises(EvidenceError, match="more than 128 octets"):
        verify_signature(PUBLIC, bytes(129), MESSAGE)


def test_refuses_other_kinds_of_keys() -> None:
    for key in (
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256K1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ):
        with pytest.raises(EvidenceError, match="not on P-256"):
            verify_signature(key.public_key().public_bytes(DER, SPKI), signed(), MESSAGE)


def test_refuses_keys_that_are_none_or_too_long() -> None:
    for spki in (b"", b"\x30", PUBLIC[:-1], PUBLIC + b"\0", PUBLIC[:-32] + bytes(32)):
        with pytest.raises(EvidenceError, match="no SubjectPublicKeyInfo"):
            verify_signature(spki, signed(), MESSAGE)
    with pytest.raises(EvidenceError, match="more than 512 octets"):
        verify_signature(bytes(513), signed(), MESSAGE)


def test_refuses_a_second_spelling_of_one_key() -> None:
    """One key has one digest: reference values name keys by it."""
    point = serialization.PublicFormat.CompressedPoint
    compressed = KEY.public_key().public_bytes(serialization.Encoding.X962, point)
    head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    with pytest.raises(EvidenceError, match="uncompressed"):
        verify_signature(head + compressed, signed(), MESSAGE)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_refuses_whatever_comes(spki: bytes, signature: bytes) -> None:
    for key, octets in ((spki, signature), (PUBLIC, signature)):
        with pytest.raises(EvidenceError):
            verify_signature(key, octets, MESSAGE)
