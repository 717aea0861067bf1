"""ID tokens: those of the provider, and everything that only looks like one."""

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from certs.oidc import LEEWAY_S, TOKEN_OCTETS, TokenError, check_claims, check_id_token

NOW = 1_795_334_400.0
ISSUER, CLIENT = "https://op.example", "sallyport"
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
SHORT_KEY = rsa.generate_private_key(65537, 1024)  # noqa: S505 - to be refused
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": CLIENT,
    "sub": "alice",
    "iat": int(NOW) - 5,
    "exp": int(NOW) + 300,
    "email": "alice@desk.example",
    "email_verified": True,
    "groups": ["people", "admins"],
}


def public(key: Any, **more: str) -> dict[str, Any]:
    kind = ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else RSAAlgorithm
    return {**kind.to_jwk(key.public_key(), as_dict=True), **more}


def jwks(*keys: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"keys": keys})


BOTH = jwks(public(EC_KEY, kid="e", use="sig"), public(RSA_KEY, kid="r"))


def token(
    key: Any = EC_KEY, algorithm: str = "ES256", kid: str | None = "e", **changed: Any
) -> str:
    claims = {**CLAIMS, **changed}
    kept = {name: value for name, value in claims.items() if value is not None}
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(kept, key, algorithm, headers)


def check(text: str, keys: bytes = BOTH, **changed: Any) -> dict[str, Any]:
    given_: dict[str, Any] = {"issuer": ISSUER, "client_id": CLIENT, "now": NOW, **changed}
    return check_id_token(text, keys, **given_)


@pytest.mark.parametrize(
    "text",
    [
        token(),
        token(RSA_KEY, "RS256", "r"),
        token(kid=None),
        token(aud=[CLIENT]),
        token(aud=[CLIENT, "other"], azp=CLIENT),
        token(exp=int(NOW) - LEEWAY_S + 1),
        token(iat=int(NOW) + LEEWAY_S),
    ],
    ids=["es256", "rs256", "no-kid", "list", "azp", "just-expired", "clock-behind"],
)
def test_the_providers_tokens_are_believed(text: str) -> None:
    assert check(text)["sub"] == "alice"


def unsigned(header: dict[str, Any], signature: bytes = b"") -> str:
    parts = (msgspec.json.encode(header), msgspec.json.encode(CLAIMS), signature)
    return ".".join(base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in parts)


def signed_with_the_public_key() -> str:
    """The public key as the secret of an HMAC (CVE-2016-10555)."""
    pem = EC_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    start = unsigned({"alg": "HS256", "kid": "e"}).rpartition(".")[0]
    signature = hmac.digest(pem, start.encode(), hashlib.sha256)
    return f"{start}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (token(aud="other"), "another client"),
        (token(aud=["other"]), "another client"),
        (token(aud=[CLIENT, "other"]), "several clients"),
        (token(aud=[CLIENT, "other"], azp="other"), "another client"),
        (token(azp="other"), "another client"),
        (token(iss="https://other.example"), "another issuer"),
        (token(iss=ISSUER + "/"), "another issuer"),
        (token(exp=int(NOW) - LEEWAY_S), "has expired"),
        (token(iat=int(NOW) + LEEWAY_S + 1), "of the future"),
        (token(nbf=int(NOW) + LEEWAY_S + 1), "of the future"),
        (token(exp="never"), "no numbers"),
        (token(exp=True), "no numbers"),
        (token(exp=float("inf")), "no numbers"),
        (token(exp=float("nan")), "no numbers"),
        (token(exp=None), "not signed"),
        (token(iat=None), "not signed"),
        (token(sub=None), "not signed"),
        (token(iss=None), "not signed"),
        (token(aud=None), "not signed"),
        (token(ec.generate_private_key(ec.SECP256R1())), "none of its keys"),
        (token(kid="r"), "none of its keys"),
        (token(RSA_KEY, "RS512", "r"), "neither ES256 nor RS256"),
        (token(RSA_KEY, "PS256", "r"), "neither ES256 nor RS256"),
        (unsigned({"alg": "none"}), "neither ES256 nor RS256"),
        (unsigned({"alg": "None", "kid": "e"}), "neither ES256 nor RS256"),
        (unsigned({"alg": "ES256", "kid": "e"}), "none of its keys"),
        (unsigned({"alg": "ES256", "kid": "e"}, bytes(64)), "none of its keys"),
        (signed_with_the_public_key(), "neither ES256 nor RS256"),
        (unsigned({"alg": ["ES256"]}), "neither|not signed"),
        ("a.b.c", "not signed"),
        ("", "not signed"),
        ("x" * (TOKEN_OCTETS + 1), "too long"),
    ],
)
def test_others_are_not(text: str, why: str) -> None:
    """ID tokens of another client, issuer or algorithm."""
    with pytest.raises(TokenError, match=why):
        check(text)


def test_a_token_cannot_bring_its_own_key_or_extensions() -> None:
    mine = ec.generate_private_key(ec.SECP256R1())
    with_key = jwt.encode(CLAIMS, mine, "ES256", {"jwk": public(mine), "kid": "mine"})
    with pytest.raises(TokenError, match="none of its keys"):
        check(with_key)
    critical = jwt.encode(CLAIMS, EC_KEY, "ES256", {"kid": "e", "crit": ["exp"], "exp": 1})
    with pytest.raises(TokenError, match=r"critical|not signed"):
        check(critical)


def test_a_token_from_before_the_enrolment_is_old() -> None:
    with pytest.raises(TokenError, match="older"):
        check(token(iat=int(NOW) - 3600), since=NOW)
    assert check(token(iat=int(NOW) - LEEWAY_S), since=NOW)


@pytest.mark.parametrize(
    "keys",
    [
        jwks(),
        jwks(public(EC_KEY, kid="e", use="enc")),
        jwks(public(EC_KEY, kid="e", alg="ES384")),
        jwks({"kty": "EC", "kid": "e"}),
        jwks({"kty": "oct", "kid": "e", "k": "AAAA"}),
        b'{"keys": [1, "a", null]}',
        b'{"keys": {}}',
        b"[]",
        b"{",
    ],
)
def test_keys_that_may_not_have_signed_verify_nothing(keys: bytes) -> None:
    with pytest.raises(TokenError):
        check(token(), keys)


def test_short_keys_verify_nothing() -> None:
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        text = token(SHORT_KEY, "RS256", "s")
    with pytest.raises(TokenError, match="none of its keys"):
        check(text, jwks(public(SHORT_KEY, kid="s")))


@given(st.text(max_size=400))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(TokenError):
        check(text)


@given(st.binary(max_size=200))
def test_any_keys_are_refused(octets: bytes) -> None:
    with pytest.raises(TokenError):
        check(token(), octets)


@pytest.mark.parametrize(
    "wanted",
    [
        {"email": "alice@desk.example"},
        {"groups": "admins"},
        {"email_verified": "true"},
        {"sub": "alice", "groups": "people"},
    ],
)
def test_claims_that_are_there_open_the_app(wanted: dict[str, str]) -> None:
    check_claims(CLAIMS, wanted)


@pytest.mark.parametrize(
    ("claims", "wanted"),
    [
        (CLAIMS, {}),
        (CLAIMS, {"email": "bob@desk.example"}),
        (CLAIMS, {"email": "Alice@desk.example"}),
        (CLAIMS, {"groups": "admin"}),
        (CLAIMS, {"groups": "['people', 'admins']"}),
        (CLAIMS, {"role": ""}),
        (CLAIMS, {"email_verified": "True"}),
        (CLAIMS, {"exp": str(CLAIMS["exp"])}),
        ({**CLAIMS, "email_verified": False}, {"email": "alice@desk.example"}),
        ({**CLAIMS, "email_verified": "true"}, {"email": "alice@desk.example"}),
        ({"email": "alice@desk.example"}, {"email": "alice@desk.example"}),
    ],
)
def test_others_do_not(claims: dict[str, Any], wanted: dict[str, str]) -> None:
    with pytest.raises(TokenError):
        check_claims(claims, wanted)


def test_no_text_has_a_part_of_the_token() -> None:
    text = token(aud="other")
    with pytest.raises(TokenError) as caught:
        check(text)
    assert not any(part in str(caught.value) for part in text.split("."))
    assert json.dumps(CLAIMS["sub"]) not in str(caught.value)
