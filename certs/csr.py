"""Certification requests of devices (PKCS #10, RFC 2986), and the answer to them (RFC 5652).

A request proves that its sender has the private key, and may name the SPIFFE ID it is for.  It
chooses nothing else: one that asks for more is refused, so that nobody believes to have got it.
"""

import datetime as dt
import hashlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import AttributeOID, ExtensionOID
from msgspec import Struct

from certs.errors import CertsError
from certs.trust_domain import TrustDomain
from certs.unreadable import UNREADABLE

CSR_OCTETS = 8192  # one of P-256 has 300; Let's Encrypt's Boulder takes 64 KiB for 100 names
_CURVES = (ec.SECP256R1, ec.SECP384R1)
_KEYS = "use a key on P-256 or P-384, or Ed25519"
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
# RFC 2985, sections 5.4.1 and 5.4.2: what else devices put in; the first is RFC 7030's, section 3.5
_ATTRIBUTES = {AttributeOID.CHALLENGE_PASSWORD, x509.ObjectIdentifier("1.2.840.113549.1.9.14")}


class RequestError(CertsError):
    """A certification request that is refused; the text says why."""


class Csr(Struct, frozen=True):
    """A request whose signature was verified with its own key.

    `spki` is the DER of its public key, `spki_sha256` the lower-case hex digest of that;
    `uris` are the names it asks for, one at most.
    """

    spki: bytes
    spki_sha256: str
    uris: tuple[str, ...]


def read_request(der: bytes) -> Csr:
    """Return what a DER request asks for.

    Raises:
        RequestError: it is none, its key is of another kind than we issue for, its signature is
            not by that key, or it asks for other names or extensions than a SPIFFE ID.
    """
    if len(der) > CSR_OCTETS:
        raise RequestError(f"the request has more than {CSR_OCTETS} octets; {_KEYS}")
    try:
        return _read(x509.load_der_x509_csr(der))
    except UNREADABLE:
        text = "this is no PKCS #10 request in DER: `openssl req -new -outform DER` makes one"
        raise RequestError(text) from None


def certs_only(chain: Sequence[bytes]) -> bytes:
    """Return DER certificates as a certs-only CMS message (RFC 7030, section 4.1.3).

    DER sorts them: who reads it finds the leaf by its key.
    """
    certificates = [x509.load_der_x509_certificate(each) for each in chain]
    return pkcs7.serialize_certificates(certificates, serialization.Encoding.DER)


def authorities(domain: TrustDomain, now: dt.datetime) -> tuple[bytes, ...]:
    """Return the roots of a trust domain and what stands between them and a leaf, as DER.

    RFC 7030, section 4.1.3: a device needs all of them to build a chain.

    Raises:
        IssueError: no intermediate is good at `now`.
    """
    between = domain.signers(now)
    ders = (each.certificate.public_bytes(serialization.Encoding.DER) for each in between)
    return (*domain.anchors, *ders)


def _read(request: x509.CertificateSigningRequest) -> Csr:
    key = request.public_key()
    is_ec = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)
    if not is_ec and not isinstance(key, ed25519.Ed25519PublicKey):
        raise RequestError(f"no certificate is issued for this kind of key: {_KEYS}")
    if is_ec and not isinstance(request.signature_hash_algorithm, _HASHES):
        raise RequestError("the request is signed with an old hash: use SHA-256")
    if not request.is_signature_valid:
        raise RequestError("the request is not signed by its own key: send the one that is yours")
    others = {each.oid for each in request.attributes} - _ATTRIBUTES
    if others:
        raise RequestError("the request has attributes that nobody reads here: leave them out")
    spki = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Csr(spki, hashlib.sha256(spki).hexdigest(), _uris(request.extensions))


def _uris(extensions: x509.Extensions) -> tuple[str, ...]:
    text = "the request asks for more than one SPIFFE ID: leave out every extension, and all names"
    for each in extensions:
        if each.oid != ExtensionOID.SUBJECT_ALTERNATIVE_NAME:
            raise RequestError(f"{text} but one URI (it asks for {each.oid.dotted_string})")
    if not len(extensions):
        return ()
    names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    if len(names) > 1 or not all(
        isinstance(each, x509.UniformResourceIdentifier) for each in names
    ):
        raise RequestError(f"{text} but one URI")
    return tuple(str(each.value) for each in names)
