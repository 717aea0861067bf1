"""Evidence of who has no TPM: a signature that proves a key is there now, and nothing more."""

import hashlib
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certs.errors import EvidenceError
from certs.unreadable import UNREADABLE

SPKI_OCTETS: Final = 512  # SubjectPublicKeyInfo; 91 of one on P-256
SIGNATURE_OCTETS: Final = 128  # of DER; 72 at most with P-256
_MAKE = "`openssl ecparam -name prime256v1 -genkey` makes one"


def verify_signature(spki: bytes, signature: bytes, message: bytes) -> str:
    """Verify an ECDSA signature (P-256, SHA-256, in DER); return the SHA-256 of the key, hex.

    `spki` is a SubjectPublicKeyInfo in DER (RFC 5480), with the point uncompressed, so that one
    key has one digest.

    Raises:
        EvidenceError: the key is of another kind, or the signature is not by it.
    """
    key = _read(spki)
    if len(signature) > SIGNATURE_OCTETS:
        raise EvidenceError(f"the signature has more than {SIGNATURE_OCTETS} octets")
    try:
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise EvidenceError(
            "the signature is not by this key over the message that came with the nonce:"
            " sign that one, with ECDSA and SHA-256, and send it in DER"
        ) from None
    return hashlib.sha256(spki).hexdigest()


def _read(spki: bytes) -> ec.EllipticCurvePublicKey:
    if len(spki) > SPKI_OCTETS:
        raise EvidenceError(f"the key has more than {SPKI_OCTETS} octets: use one on P-256")
    try:
        key = serialization.load_der_public_key(spki)
    except UNREADABLE:
        raise EvidenceError(f"the key is no SubjectPublicKeyInfo in DER: {_MAKE}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise EvidenceError(f"the key is not on P-256: {_MAKE}")
    canonical = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    if canonical != spki:
        raise EvidenceError("the key is not in DER with its point uncompressed: send it so")
    return key
