"""A device's own key, its request, and the certificate that it got; one folder, ours alone.

    svid.key     the device's key: made here, and it never leaves
    svid.pem     its certificate and the intermediate, for who asks for a chain
    bundle.pem   the roots of the trust domain

The key stays over renewals, so that the two files always belong together.
"""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7
from msgspec import Struct

from certs import files
from certs.errors import CertsError, KeystoreError
from certs.unreadable import UNREADABLE

KEY, CHAIN, BUNDLE = "svid.key", "svid.pem", "bundle.pem"
_MOST_CERTIFICATES = 64  # of an answer: each is tried as the issuer of each; ours has four
# What the library raises for DER that is none of what is wanted.


class AnswerError(CertsError):
    """What came back from an enrolment is not to be used; the text says why."""


class Enrolled(Struct, frozen=True):
    """A certificate that a device has; times are Unix time in seconds."""

    spiffe_id: str
    serial: str
    not_before: int
    not_after: int

    @property
    def renew_at(self) -> float:
        """When a new one is due: at half of its life, so that there is time to fail."""
        return (self.not_before + self.not_after) / 2


def make_request(folder: Path, spiffe_id: str = "") -> bytes:
    """Return a request for the device's key, DER; the key is made where there is none.

    Raises:
        KeystoreError: the folder or the key cannot be used.
    """
    names = [x509.UniformResourceIdentifier(spiffe_id)] if spiffe_id else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    request = builder.sign(_ensure_key(folder), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def read_enrolled(folder: Path) -> Enrolled | None:
    """Return what is known of the certificate in `folder`; None where there is none.

    Raises:
        KeystoreError: it cannot be read.
    """
    octets = files.read(folder, CHAIN)
    if octets is None:
        return None
    try:
        return _enrolled(x509.load_pem_x509_certificates(octets)[0])
    except (IndexError, x509.ExtensionNotFound, *UNREADABLE):
        raise KeystoreError(f"{folder / CHAIN} is no certificate: enrol again") from None


def read_message(octets: bytes) -> tuple[bytes, ...]:
    """Return the certificates of a certs-only message (RFC 7030, section 4.1.3), DER.

    Raises:
        AnswerError: it is none.
    """
    try:
        found = pkcs7.load_der_pkcs7_certificates(octets)
    except (x509.ExtensionNotFound, *UNREADABLE):
        raise AnswerError("the server's answer has no certificates: is it an EST server?") from None
    if len(found) > _MOST_CERTIFICATES:
        raise AnswerError(f"the server's answer has more than {_MOST_CERTIFICATES} certificates")
    return tuple(each.public_bytes(serialization.Encoding.DER) for each in found)


def store(folder: Path, certificates: Sequence[bytes], spiffe_id: str = "") -> Enrolled:
    """Write the chain and the roots that are among `certificates` (DER, in any order).

    `spiffe_id` is the name that was asked for, where one was.

    Raises:
        AnswerError: none of them is for the device's key or has this name, or its chain no root.
        KeystoreError: they cannot be written; what was there stands.
    """
    try:
        found = [x509.load_der_x509_certificate(each) for each in certificates]
        chain, roots = _chain(found, _ensure_key(folder).public_key())
        enrolled = _enrolled(chain[0])
    except (x509.ExtensionNotFound, *UNREADABLE):
        raise AnswerError("the server's answer has a certificate that cannot be read") from None
    if not enrolled.spiffe_id.isprintable() or spiffe_id not in {"", enrolled.spiffe_id}:
        raise AnswerError("the server's answer is a certificate of another name than was asked for")
    with files.locked(folder):
        files.write(folder, BUNDLE, _pem(roots))
        files.write(folder, CHAIN, _pem(chain))
    return enrolled


def _chain(
    found: list[x509.Certificate], key: ec.EllipticCurvePublicKey
) -> tuple[list[x509.Certificate], list[x509.Certificate]]:
    """Return the certificates from the device's up to below a root, and the roots."""
    roots = [each for each in found if _issued(each, each)]
    chain = [each for each in found if each.public_key() == key and each not in roots][-1:]
    if not chain:
        raise AnswerError("the server's answer has no certificate for this device's key")
    while not any(_issued(chain[-1], root) for root in roots):
        above = [each for each in found if each not in chain and _issued(chain[-1], each)]
        if not above:
            raise AnswerError("the server's answer has no root for the certificate in it")
        chain.append(above[0])
    return chain, roots


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _ensure_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    files.enter(folder)
    with files.locked(folder):
        octets = files.read_secret(folder, KEY)
        if octets is None:
            key = ec.generate_private_key(ec.SECP256R1())
            files.write(folder, KEY, _key_pem(key))
            return key
    try:
        found = serialization.load_pem_private_key(octets, password=None)
    except (ValueError, TypeError):  # the library's own text may quote what it read
        found = None
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise KeystoreError(f"{folder / KEY} is no key of ours: move it away, and enrol again")
    return found


def _enrolled(certificate: x509.Certificate) -> Enrolled:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return Enrolled(
        spiffe_id=uris[0] if uris else "",
        serial=f"{certificate.serial_number:x}",
        not_before=_unix(certificate.not_valid_before_utc),
        not_after=_unix(certificate.not_valid_after_utc),
    )


def _unix(at: dt.datetime) -> int:
    return int(at.timestamp())


def _pem(certificates: list[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),  # it renews unattended; the folder's mode guards it
    )
