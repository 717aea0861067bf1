"""JWT-SVIDs: made with ES256, and verified against the bundles of their trust domains.

The algorithm is one that the bundle's key can have, never what the token says alone: no `none`,
and no HS256 with a public key for a secret (JWT-SVID, section 2.1; RFC 8725, section 3.1).
"""

import datetime as dt
from collections.abc import Mapping

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.types import Options
from msgspec import Struct

from certs.bundle import Bundle, VerifyingKey
from certs.errors import IssueError, SpiffeError
from certs.profile import LEAST_JWT_TTL_S, MOST_JWT_TTL_S, SKEW_S
from certs.spiffe import SpiffeId, parse_id, shown, workload_id

MOST_TOKEN_OCTETS = 16384  # a header line of ours has 16 KiB at most
MOST_AUDIENCES = 16
_MOST_AUDIENCE_OCTETS = 2048  # as a SPIFFE ID, which many audiences are
_CURVES: dict[str, tuple[str, ...]] = {  # RFC 7518, section 3.4
    "secp256r1": ("ES256",),
    "secp384r1": ("ES384",),
    "secp521r1": ("ES512",),
}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")  # JWT-SVID, section 2.1
_EVER = 1 << 53  # seconds; what every implementation of JSON can tell apart (RFC 8259, section 6)
_LEAST_RSA_BITS = 2048  # RFC 7518, section 3.3


class Claims(Struct, frozen=True):
    """What a JWT-SVID says, once it is believed; times are Unix time in seconds."""

    spiffe_id: str
    audience: tuple[str, ...]
    expires_at: float
    issued_at: float | None
    all: dict[str, object]


def make_jwt(
    who: SpiffeId,
    audience: tuple[str, ...],
    now: dt.datetime,
    ttl_s: int,
    kid: str,
    key: ec.EllipticCurvePrivateKey,
) -> str:
    """Return a JWT-SVID.

    Raises:
        IssueError: the audience or the life is out of bounds.
    """
    if not LEAST_JWT_TTL_S <= ttl_s <= MOST_JWT_TTL_S:
        raise IssueError(
            f"a life of {ttl_s} s is out of bounds: ask for {LEAST_JWT_TTL_S} to {MOST_JWT_TTL_S} s"
        )
    # JWT-SVID, section 3.2: at least one, and none that is empty
    if not 0 < len(audience) <= MOST_AUDIENCES or not all(
        0 < len(each) <= _MOST_AUDIENCE_OCTETS for each in audience
    ):
        raise IssueError(f"name 1 to {MOST_AUDIENCES} audiences of up to 2048 characters")
    at = int(now.timestamp())
    claims = {"sub": str(who), "aud": list(audience), "exp": at + ttl_s, "iat": at}
    return jwt.encode(claims, key, algorithm="ES256", headers={"kid": kid})


def check_jwt(token: str, audience: str, now: dt.datetime, bundles: Mapping[str, Bundle]) -> Claims:
    """Return what a JWT-SVID for `audience` says.

    Raises:
        SpiffeError: it is none, is for somebody else, has ended, or nobody here vouches for it.
    """
    if len(token) > MOST_TOKEN_OCTETS:
        raise SpiffeError(f"the token has more than {MOST_TOKEN_OCTETS} octets")
    try:
        header = jwt.get_unverified_header(token)
        claimed = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise SpiffeError("the token is no JWT-SVID in compact form") from None
    who = _subject(claimed)
    key = _key(header, bundles.get(who.trust_domain), who.trust_domain)
    try:
        claims = jwt.decode(token, key, algorithms=list(_algorithms(key)), options=_SIGNATURE_ALONE)
    except (jwt.PyJWTError, ValueError, TypeError):
        raise SpiffeError(f"the token of {who} is not signed by {who.trust_domain}") from None
    return _checked(who, claims, audience, now.timestamp())


# The library reads the clock for these; we were given `now`, and look ourselves
_SIGNATURE_ALONE: Options = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


def _subject(claims: Mapping[str, object]) -> SpiffeId:
    subject = claims.get("sub")
    if not isinstance(subject, str):
        raise SpiffeError("the token has no sub: it is to be a SPIFFE ID")
    return workload_id(subject, parse_id(subject).trust_domain)


def _key(header: Mapping[str, object], bundle: Bundle | None, trust_domain: str) -> VerifyingKey:
    if bundle is None:
        raise SpiffeError(f"the trust domain {trust_domain} is not known here")
    # JWT-SVID, section 2.3; RFC 7515, section 4.1.11: what is critical must be understood
    if header.get("typ", "JWT") not in ("JWT", "JOSE") or "crit" in header:
        raise SpiffeError("the token's header is none of a JWT-SVID")
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid:
        raise SpiffeError("the token has no kid")
    key = bundle.jwt_key(kid)
    if key is None:
        raise SpiffeError(f"the bundle of {trust_domain} has no key {shown(kid)}")
    return key


def _algorithms(key: VerifyingKey) -> tuple[str, ...]:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _CURVES.get(key.curve.name, ())
    return _RSA if key.key_size >= _LEAST_RSA_BITS else ()


def _checked(who: SpiffeId, claims: Mapping[str, object], audience: str, now: float) -> Claims:
    raw = claims.get("aud")
    audiences = [raw] if isinstance(raw, str) else raw
    if not isinstance(audiences, list) or not all(isinstance(each, str) for each in audiences):
        raise SpiffeError(f"the token of {who} has no aud")
    if not audience or audience not in audiences:
        raise SpiffeError(f"the token of {who} is for somebody else than {shown(audience)}")
    ends = _time(claims, "exp")
    if ends is None:  # JWT-SVID, section 3.3
        raise SpiffeError(f"the token of {who} has no exp")
    if now >= ends:  # RFC 7519, section 4.1.4
        raise SpiffeError(f"the token of {who} has ended: fetch a new one")
    issued = _time(claims, "iat")
    for begin in (issued, _time(claims, "nbf")):
        if begin is not None and begin > now + SKEW_S:
            raise SpiffeError(f"the token of {who} begins later: correct the clocks")
    return Claims(str(who), tuple(audiences), ends, issued, dict(claims))


def _time(claims: Mapping[str, object], name: str) -> float | None:
    """Return a NumericDate (RFC 7519, section 2)."""
    value = claims.get(name)
    if value is None:
        return None
    # Also false for NaN and the infinities, which Python's JSON has
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_EVER < value < _EVER:
        raise SpiffeError(f"the token's {name} is no time")
    return float(value)
