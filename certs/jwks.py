"""Our own bundle written as JWKS documents (SPIFFE Trust Domain and Bundle, section 4)."""

import base64

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certs.known_domain import REFRESH_HINT_S, Generation, Record

X509_SVID, JWT_SVID = "x509-svid", "jwt-svid"  # section 4.2.2: what a key is for


def make_jwks(record: Record) -> bytes:
    """Return our bundle as a SPIFFE JWKS document: roots and JWT keys."""
    document = {
        "keys": [*map(_x509_entry, record.roots), *map(_jwt_entry, record.jwt_keys)],
        "spiffe_sequence": record.sequence,
        "spiffe_refresh_hint": REFRESH_HINT_S,
    }
    return msgspec.json.encode(document)


def make_jwt_jwks(record: Record) -> bytes:
    """Return a JWKS document of the JWT keys alone (Workload API, section 6.2.2; RFC 7517)."""
    return msgspec.json.encode({"keys": [*map(_jwt_entry, record.jwt_keys)]})


def _x509_entry(anchor: Generation) -> dict[str, object]:
    certificate = x509.load_pem_x509_certificate(anchor.public.encode())
    der = certificate.public_bytes(serialization.Encoding.DER)
    return {
        "use": X509_SVID,
        **_coordinates(certificate.public_key()),
        "x5c": [base64.b64encode(der).decode()],  # RFC 7517, section 4.7: not base64url
    }


def _jwt_entry(key: Generation) -> dict[str, object]:
    public = serialization.load_pem_public_key(key.public.encode())
    return {"use": JWT_SVID, **_coordinates(public), "kid": key.id, "alg": "ES256"}


def _coordinates(key: object) -> dict[str, str]:
    """Return a P-256 key as RFC 7518, section 6.2.1 has it."""
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("our keys are P-256")
    numbers = key.public_numbers()
    x, y = (
        base64.urlsafe_b64encode(each.to_bytes(32)).rstrip(b"=").decode()
        for each in (numbers.x, numbers.y)
    )
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y}
