"""OCSP (RFC 6960): the status of one of our certificates, signed by the CA that issued it."""

import datetime as dt
from collections.abc import Sequence
from typing import Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from cryptography.x509.ocsp import OCSPCertStatus, OCSPRequest, OCSPResponseStatus
from cryptography.x509.oid import OCSPExtensionOID

from certs.crl import SKEW, Revoked, reason_flag
from certs.mint import Authority

_EXTENSIONS = x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType
LIFE = dt.timedelta(minutes=5)  # of an answer without a nonce; the shortest SVID lives so long
MOST_NONCE_OCTETS = 128  # RFC 9654, section 2.1
REQUEST_OCTETS = 4096  # openssl's with a nonce has 120; RFC 6960, appendix A.1: GET below 255

type CertStatus = Literal["good", "unknown"] | Revoked
"""What a serial of ours is worth."""


def serial_of(request: bytes) -> int | None:
    """Return the serial that a DER request asks about; None where it is answered without."""
    asked = _read(request)
    return None if asked is None else asked.serial_number


def answer(
    request: bytes, signers: Sequence[Authority], status: CertStatus, now: dt.datetime
) -> bytes:
    """Return the DER of the response to a DER request about one certificate.

    `status` is that of the serial; `signers` are our CAs (`TrustDomain.signers`), the one that
    issues now first.  A certificate of another CA is unknown; what is no such request, or asks
    for several certificates, is answered malformedRequest.
    """
    asked = _read(request)
    if asked is None:
        refusal = ocsp.OCSPResponseBuilder.build_unsuccessful(OCSPResponseStatus.MALFORMED_REQUEST)
        return refusal.public_bytes(serialization.Encoding.DER)
    signer = next((each for each in signers if _is_of(asked, each.certificate)), None)
    found: CertStatus = "unknown" if signer is None else status
    signer = signer or signers[0]
    builder = (
        _single(asked, found, now)
        .responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
        # Readers that know the root alone need it: RFC 6960, section 4.2.1, certs.
        .certificates([signer.certificate])
    )
    for each in asked.extensions:
        if each.oid == OCSPExtensionOID.NONCE:  # RFC 9654, section 2.1: the same value
            builder = builder.add_extension(each.value, critical=False)
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _read(request: bytes) -> OCSPRequest | None:
    """Return a request that can be answered, with what is lazily read in it looked at."""
    if len(request) > REQUEST_OCTETS:
        return None
    try:
        asked = ocsp.load_der_ocsp_request(request)
        _ = asked.serial_number, asked.hash_algorithm, asked.issuer_key_hash
        extensions = list(asked.extensions)
    # RuntimeError: more than one request in it, which the library does not read
    except (ValueError, UnsupportedAlgorithm, RuntimeError, *_EXTENSIONS):
        return None
    if asked.serial_number < 0:  # RFC 5280, section 4.1.2.2: no certificate has such a one
        return None
    for each in extensions:
        if isinstance(each.value, x509.OCSPNonce):
            # RFC 9654, section 2.1: other lengths MUST be refused as malformedRequest
            if not 1 <= len(each.value.nonce) <= MOST_NONCE_OCTETS:
                return None
        elif each.critical:
            return None
    return asked


def _is_of(asked: OCSPRequest, issuer: x509.Certificate) -> bool:
    """Return whether the request is about a certificate of `issuer` (RFC 6960, section 4.1.1)."""
    key = issuer.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    algorithm = asked.hash_algorithm
    name_hash = _digest(algorithm, issuer.subject.public_bytes())
    return (name_hash, _digest(algorithm, key)) == (asked.issuer_name_hash, asked.issuer_key_hash)


def _digest(algorithm: hashes.HashAlgorithm, octets: bytes) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(octets)
    return digest.finalize()


def _single(asked: OCSPRequest, found: CertStatus, now: dt.datetime) -> ocsp.OCSPResponseBuilder:
    kind, at, reason = OCSPCertStatus.UNKNOWN, None, None
    if isinstance(found, Revoked):
        kind, at, reason = OCSPCertStatus.REVOKED, found.at, reason_flag(found.reason)
    elif found == "good":
        kind = OCSPCertStatus.GOOD
    return ocsp.OCSPResponseBuilder().add_response_by_hash(
        asked.issuer_name_hash,
        asked.issuer_key_hash,
        asked.serial_number,
        asked.hash_algorithm,
        kind,
        now - SKEW,
        now + LIFE,
        at,
        reason,
    )
