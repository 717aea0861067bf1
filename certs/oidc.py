"""ID tokens of an OpenID provider (OpenID Connect Core 1.0, section 3.1.3.7), strictly read.

Two algorithms, each with keys of its own kind: no token chooses how it is verified (RFC 8725,
sections 3.1 and 3.2).
"""

import binascii
import warnings
from collections.abc import Mapping
from math import isfinite
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt import PyJWK

from certs.errors import CertsError

LEEWAY_S = 60  # between the provider's clock and ours; Kubernetes' API server 10, most clients 300
TOKEN_OCTETS = 16384  # with a hundred groups in it; nginx takes a header of 8 KiB
MOST_KEYS = 64  # of a provider; Google has 2, Entra 8
_LEAST_RSA_BITS = 2048  # RFC 7518, section 3.3
_ALGORITHMS = {"ES256": "EC", "RS256": "RSA"}
# The times are looked at by us: the library would read the clock.
_OPTIONS: Any = {
    "require": ["iss", "aud", "exp", "iat", "sub"],  # OpenID Connect Core, section 2
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "verify_aud": False,
}


class TokenError(CertsError):
    """An ID token that is not believed; the text says why, and has no part of it."""


def check_id_token(
    token: str, jwks: bytes, *, issuer: str, client_id: str, now: float, since: float = 0.0
) -> dict[str, Any]:
    """Return the claims of an ID token for `client_id` that a key of `jwks` signed.

    `now` is Unix time in seconds; one that was issued before `since` is old.

    Raises:
        TokenError: it is not to be believed.
    """
    if len(token) > TOKEN_OCTETS:
        raise TokenError("the provider's ID token is too long")
    try:
        header = jwt.get_unverified_header(token)
        claims = _verified(token, header, jwks, issuer)
    except TokenError:
        raise
    except (jwt.PyJWTError, ValueError, TypeError, binascii.Error):
        raise TokenError("the provider's ID token was not signed by its keys, or is none") from None
    _check_audience(claims, client_id)
    _check_times(claims, now, since)
    return claims


def check_claims(claims: Mapping[str, Any], wanted: Mapping[str, str]) -> None:
    """See that every claim that is wanted is there with its value, or with it in a list.

    Raises:
        TokenError: one is not, or nothing is wanted: nothing would be proven.
    """
    if not wanted:
        raise TokenError("no claims are configured for this app: name some in identity.oidc.apps")
    for name, value in wanted.items():
        if not _has(claims.get(name), value):
            raise TokenError(f"who approved does not have the claim {name} that opens this app")
    # OpenID Connect Core, section 5.1: an address that nobody verified is what its owner typed
    if "email" in wanted and claims.get("email_verified") is not True:
        raise TokenError("the provider has not verified the e-mail address of who approved")


def _has(found: object, value: str) -> bool:
    if isinstance(found, list):
        return any(isinstance(each, str) and each == value for each in found)
    if isinstance(found, bool):
        return value == ("true" if found else "false")
    return isinstance(found, str) and found == value


def _verified(token: str, header: dict[str, Any], jwks: bytes, issuer: str) -> dict[str, Any]:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in _ALGORITHMS:
        raise TokenError("the provider's ID token is signed by neither ES256 nor RS256")
    if "crit" in header:  # RFC 7515, section 4.1.11: we understand no extension
        raise TokenError("the provider's ID token has critical extensions")
    for key in _keys(jwks, algorithm, header.get("kid")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns of short keys, which `_keys` leaves out
                return jwt.decode(
                    token, key, algorithms=[algorithm], issuer=issuer, options=_OPTIONS
                )
        except jwt.InvalidSignatureError:
            continue
        except jwt.InvalidIssuerError:
            raise TokenError("the ID token is of another issuer") from None
    raise TokenError("the provider's ID token was signed by none of its keys")


def _keys(jwks: bytes, algorithm: str, kid: object) -> list[PyJWK]:
    """Return the keys that may have signed: of the right kind, size, use and id."""
    document = msgspec.json.decode(jwks, type=dict[str, Any])
    listed = document.get("keys")
    if not isinstance(listed, list):
        raise TokenError("the provider's keys are no JWK set")
    found = []
    for each in listed[:MOST_KEYS]:
        if not isinstance(each, dict) or each.get("kty") != _ALGORITHMS[algorithm]:
            continue
        is_fit = each.get("use", "sig") == "sig" and each.get("alg", algorithm) == algorithm
        if not is_fit or (kid is not None and each.get("kid") != kid):
            continue
        try:
            key = PyJWK(each, algorithm)
        except (jwt.PyJWTError, ValueError, TypeError, binascii.Error):
            continue
        if _is_strong(key.key):
            found.append(key)
    return found


def _is_strong(key: object) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= _LEAST_RSA_BITS
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)


def _check_audience(claims: Mapping[str, Any], client_id: str) -> None:
    audience = claims["aud"]
    audiences = audience if isinstance(audience, list) else [audience]
    if client_id not in audiences:
        raise TokenError("the ID token is for another client")
    # OpenID Connect Core, section 3.1.3.7, steps 4 and 5
    if len(audiences) > 1 and "azp" not in claims:
        raise TokenError("the ID token is for several clients and does not say which asked for it")
    if claims.get("azp", client_id) != client_id:
        raise TokenError("the ID token is for another client")


def _check_times(claims: Mapping[str, Any], now: float, since: float) -> None:
    expires, issued, begins = claims["exp"], claims["iat"], claims.get("nbf", 0)
    times = (expires, issued, begins)
    # A boolean is an int to Python, and JSON's NaN is later than no time at all.
    if not all(type(each) in {int, float} and isfinite(each) for each in times):
        raise TokenError("the times of the ID token are no numbers")
    if now >= expires + LEEWAY_S:
        raise TokenError("the ID token has expired; see that the clocks are right")
    if max(issued, begins) > now + LEEWAY_S:
        raise TokenError("the ID token is of the future; see that the clocks are right")
    if issued < since - LEEWAY_S:
        raise TokenError("the ID token is older than this enrolment")
