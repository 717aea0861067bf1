"""Bundles: whom to believe for a trust domain, read from SPIFFE JWKS or from PEM.

A bundle of somebody else is read with bounds, and an anchor that says of itself that it is another
trust domain's is refused.  What the standard tells readers to ignore is ignored.
"""

import base64
import binascii
from typing import override

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError
from msgspec import Struct

from certs.errors import SpiffeError
from certs.jwks import JWT_SVID, X509_SVID
from certs.spiffe import SCHEME, check_trust_domain, shown
from certs.unreadable import UNREADABLE

MOST_OCTETS = 1 << 20  # of a bundle; go-spiffe has no bound, SPIRE's own is a few KiB
MOST_KEYS = 64  # in a bundle; each anchor is one more for OpenSSL to try
MOST_HINT_S = 86400  # a larger hint is taken as this: a withdrawn key must go within a day

type VerifyingKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class JwtKey(Struct, frozen=True):
    """A key that verifies JWT-SVIDs of its trust domain."""

    kid: str
    key: VerifyingKey


class Bundle(Struct, frozen=True):
    """Whom to believe for a trust domain: `anchors` are DER; 0 where a number was not given."""

    trust_domain: str
    anchors: tuple[bytes, ...]
    jwt_keys: tuple[JwtKey, ...] = ()
    refresh_hint_s: int = 0
    sequence: int = 0

    @property
    def pem(self) -> str:
        """The anchors one after another, as the appliance takes them."""
        return "".join(map(ssl_pem, self.anchors))

    def jwt_key(self, kid: str) -> VerifyingKey | None:
        """Return the key of this id; None: there is none."""
        return next((each.key for each in self.jwt_keys if each.kid == kid), None)

    @override
    def __repr__(self) -> str:
        """Show how much there is of what."""
        counts = f"{len(self.anchors)} anchors, {len(self.jwt_keys)} jwt keys"
        return f"Bundle({self.trust_domain}, {counts}, sequence={self.sequence})"


# RFC 7518, section 6.1, without secrets.  The key's own `alg` is not asked: its kind says more.
_TYPES: dict[str, type[ECAlgorithm | RSAAlgorithm]] = {"EC": ECAlgorithm, "RSA": RSAAlgorithm}
_NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Jwk(Struct):
    """What we read of a JSON Web Key (RFC 7517); the library reads the rest."""

    kty: str
    use: str = ""
    kid: str = ""
    x5c: list[str] = []


class _Jwks(Struct):
    keys: list[msgspec.Raw]
    spiffe_sequence: int = 0
    spiffe_refresh_hint: int = 0


def parse_bundle(octets: bytes, trust_domain: str) -> Bundle:
    """Return the bundle of `trust_domain` in a SPIFFE JWKS document, or in PEM certificates.

    Raises:
        SpiffeError: it is none, is too large, or holds what is not of this trust domain.
    """
    check_trust_domain(trust_domain)
    if len(octets) > MOST_OCTETS:
        raise SpiffeError(f"the bundle of {trust_domain} has more than {MOST_OCTETS} octets")
    if octets.lstrip()[:1] == b"{":
        return _parse_jwks(octets, trust_domain)
    try:
        certificates = x509.load_pem_x509_certificates(octets)
    except UNREADABLE:
        raise SpiffeError(
            f"the bundle of {trust_domain} is neither a SPIFFE bundle (JSON) nor PEM certificates"
        ) from None
    _check_count(len(certificates), trust_domain)
    return Bundle(trust_domain, tuple(_anchor(each, trust_domain) for each in certificates))


def ssl_pem(der: bytes) -> str:
    """Return a certificate as PEM (RFC 7468)."""
    certificate = x509.load_der_x509_certificate(der)
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _parse_jwks(octets: bytes, trust_domain: str) -> Bundle:
    try:
        document = msgspec.json.decode(octets, type=_Jwks)
    except _NOT_JSON:
        raise SpiffeError(
            f"the bundle of {trust_domain} is no SPIFFE bundle: it is to be a JWKS document"
        ) from None
    _check_count(len(document.keys), trust_domain)
    anchors: list[bytes] = []
    keys: list[JwtKey] = []
    for raw in document.keys:
        try:
            jwk = msgspec.json.decode(raw, type=_Jwk)
        except _NOT_JSON:
            raise SpiffeError(f"the bundle of {trust_domain} has a key that is none") from None
        # Trust Domain and Bundle, section 4.1.3: unknown types and uses MUST be ignored;
        # X509-SVID, section 6.2: so MUST what has no x5c
        if jwk.kty not in _TYPES:
            continue
        if jwk.use == X509_SVID and jwk.x5c:
            anchors.append(_x5c_anchor(jwk, trust_domain))
        elif jwk.use == JWT_SVID:
            keys.append(_jwt_key(jwk, bytes(raw), trust_domain))
    if len({each.kid for each in keys}) < len(keys):
        raise SpiffeError(f"the bundle of {trust_domain} has two JWT keys of one kid")
    return Bundle(
        trust_domain,
        tuple(anchors),
        tuple(keys),
        refresh_hint_s=min(max(document.spiffe_refresh_hint, 0), MOST_HINT_S),
        sequence=max(document.spiffe_sequence, 0),
    )


def _check_count(count: int, trust_domain: str) -> None:
    if count > MOST_KEYS:
        raise SpiffeError(f"the bundle of {trust_domain} has {count} keys: {MOST_KEYS} at most")


def _x5c_anchor(jwk: _Jwk, trust_domain: str) -> bytes:
    try:
        # X509-SVID, section 6.2: the first counts, the others MUST be ignored
        der = base64.b64decode(jwk.x5c[0], validate=True)  # RFC 7517, section 4.7: not base64url
        certificate = x509.load_der_x509_certificate(der)
    except (binascii.Error, *UNREADABLE):
        raise SpiffeError(
            f"the bundle of {trust_domain} has an x5c that is no certificate"
        ) from None
    return _anchor(certificate, trust_domain)


def _anchor(certificate: x509.Certificate, trust_domain: str) -> bytes:
    """Return the DER of an anchor that may stand for the trust domain."""
    try:
        found = certificate.extensions
        basic = found.get_extension_for_class(x509.BasicConstraints).value
        uris = _uris(found)
    except (x509.ExtensionNotFound, *UNREADABLE):
        basic, uris = None, []
    if basic is None or not basic.ca:
        raise SpiffeError(
            f"the bundle of {trust_domain} has a certificate that is no authority: give its roots"
        )
    foreign = [uri for uri in uris if uri != f"{SCHEME}{trust_domain}"]
    if foreign:  # X509-SVID, section 3.2: the URI of an authority is its trust domain
        raise SpiffeError(f"the bundle of {trust_domain} has the root of {shown(foreign[0])}")
    return certificate.public_bytes(serialization.Encoding.DER)


def _uris(extensions: x509.Extensions) -> list[str]:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _jwt_key(jwk: _Jwk, raw: bytes, trust_domain: str) -> JwtKey:
    if not jwk.kid:  # JWT-SVID, section 6.1
        raise SpiffeError(f"the bundle of {trust_domain} has a jwt-svid key without a kid")
    try:
        key = _TYPES[jwk.kty].from_jwk(raw.decode())
    except (PyJWTError, ValueError, TypeError, KeyError):
        key = None
    # What holds a private part, or a secret, is not a key that anybody publishes
    if isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        return JwtKey(jwk.kid, key)
    raise SpiffeError(f"the bundle of {trust_domain} has a jwt-svid key that cannot be used")
