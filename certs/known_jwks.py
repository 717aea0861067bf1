"""The JWT keys of our trust domain as those see them who verify tokens: a JWK Set (RFC 7517).

It is made from `domain.json` without the library for keys, which the appliance has no room for: a
SubjectPublicKeyInfo of P-256 with its point uncompressed differs from another in 64 octets alone.
"""

import base64
import binascii

import msgspec

from certs.errors import KeystoreError
from certs.known_domain import Generation, Record

MEDIA_TYPE = "application/jwk-set+json"  # RFC 7517, section 8.5.2

_BEGIN, _END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"  # RFC 7468, section 13
# RFC 5480, section 2: id-ecPublicKey and secp256r1, a bit string of 65 octets, and 04 of section
# 2.2: uncompressed.
_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
_COORDINATE_OCTETS = 32


def jwt_jwks(record: Record) -> bytes:
    """Return the JWT keys, those that sign soon among them.

    Raises:
        KeystoreError: one of them is no key of ours.
    """
    return msgspec.json.encode({"keys": [_entry(each) for each in record.jwt_keys]})


def _entry(key: Generation) -> dict[str, str]:
    spki = _der(key.public)
    point = spki.removeprefix(_PREFIX)
    if not spki.startswith(_PREFIX) or len(point) != 2 * _COORDINATE_OCTETS:
        raise KeystoreError(f"the JWT key {key.id} is not on P-256: put back domain.json")
    x, y = point[:_COORDINATE_OCTETS], point[_COORDINATE_OCTETS:]
    return {
        "kty": "EC",
        "crv": "P-256",  # RFC 7518, section 6.2.1
        "x": _base64url(x),
        "y": _base64url(y),
        "kid": key.id,
        "alg": "ES256",
        "use": "sig",
    }


def _der(pem: str) -> bytes:
    text = pem.strip()
    if not (text.startswith(_BEGIN) and text.endswith(_END)):
        return b""
    try:
        return binascii.a2b_base64(text[len(_BEGIN) : -len(_END)])
    except binascii.Error:
        return b""


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
