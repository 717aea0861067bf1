"""An attester's own key: what `sallyport attest --software` signs with; made on first use.

It proves that who attests has the file now.  Any process of the same user can read it too: that is
what the level `software` means.
"""

from pathlib import Path
from typing import override

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from certs import files
from certs.errors import KeystoreError
from certs.unreadable import UNREADABLE

_CURE = "make a new one: move this file away"


class AttesterKey:
    """A P-256 key; `spki` is its SubjectPublicKeyInfo, DER."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.spki = _spki(key.public_key())

    def sign(self, message: bytes) -> bytes:
        """Return the ECDSA signature with SHA-256 of `message`, DER (RFC 3279, section 2.2.3)."""
        return self._key.sign(message, ec.ECDSA(hashes.SHA256()))

    @override
    def __repr__(self) -> str:
        """Return what may stand in a traceback."""
        return "AttesterKey(...)"


def ensure_attester_key(path: Path) -> AttesterKey:
    """Return the key in the file `path` (PKCS#8, PEM, 0600); it is made where there is none.

    Raises:
        KeystoreError: the folder is open to others, or the file is, or holds no such key.
    """
    folder, name = path.parent, path.name
    files.enter(folder)
    with files.locked(folder):
        octets = files.read_secret(folder, name, _CURE)
        if octets is None:
            key = ec.generate_private_key(ec.SECP256R1())
            files.write(folder, name, _pem(key))
            return AttesterKey(key)
    try:
        found = serialization.load_pem_private_key(octets, password=None)
    except UNREADABLE:  # the library's own text may quote what it read
        found = None
    if isinstance(found, ec.EllipticCurvePrivateKey) and isinstance(found.curve, ec.SECP256R1):
        return AttesterKey(found)
    raise KeystoreError(f"{path} is no P-256 key without a passphrase: {_CURE}")


def spki_of(chain: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo (DER) of the first certificate of `chain`, PEM.

    Raises:
        KeystoreError: it holds none.
    """
    try:
        return _spki(x509.load_pem_x509_certificates(chain)[0].public_key())
    except (IndexError, *UNREADABLE):
        raise KeystoreError("it is no PEM file of certificates: enrol again") from None


def _spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),  # it attests unattended; the folder's mode guards it
    )
