"""JWTs that are no JWT-SVIDs: attestation results and access tokens, signed with ES256.

Their `typ` is explicit, so that none can be taken for another, nor for a JWT-SVID (RFC 8725,
section 3.11), which has JWT or JOSE there, or nothing.
"""

import base64
import datetime as dt
from typing import Final

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from msgspec import Struct

from certs.errors import IssueError
from certs.profile import MOST_JWT_TTL_S

TYPES: Final = ("eat+jwt", "at+jwt")  # RFC 9782; RFC 9068, section 2.1
_P256_OCTETS = 32


class _Ends(Struct, frozen=True):
    exp: int


def sign_claims(
    claims: bytes, typ: str, now: dt.datetime, kid: str, key: ec.EllipticCurvePrivateKey
) -> str:
    """Return a JWT of `claims`, a JSON object, as its octets are.

    Raises:
        IssueError: `typ` is another, or the claims are none, or end when the key may be forgotten.
    """
    if typ not in TYPES:
        raise IssueError(f"the typ is to be one of {', '.join(TYPES)}")
    try:
        ends = msgspec.json.decode(claims, type=_Ends)
    except msgspec.MsgspecError:
        raise IssueError("the claims are to be a JSON object with exp, an integer") from None
    left_s = ends.exp - now.timestamp()
    # The key stays published for so long after its last signature (`certs.rotation`).
    if not 0 < left_s <= MOST_JWT_TTL_S:
        raise IssueError(f"exp is to be within {MOST_JWT_TTL_S} s from now: see the clock")
    header = msgspec.json.encode({"alg": "ES256", "kid": kid, "typ": typ})
    signed = b".".join((_base64url(header), _base64url(claims)))
    signature = _signature(key, signed)
    return b".".join((signed, _base64url(signature))).decode()


def _signature(key: ec.EllipticCurvePrivateKey, octets: bytes) -> bytes:
    """Return r and s as RFC 7518, section 3.4 has them."""
    pair = decode_dss_signature(key.sign(octets, ec.ECDSA(hashes.SHA256())))
    return b"".join(each.to_bytes(_P256_OCTETS) for each in pair)


def _base64url(octets: bytes) -> bytes:
    return base64.urlsafe_b64encode(octets).rstrip(b"=")
