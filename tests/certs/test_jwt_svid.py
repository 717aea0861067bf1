"""JWT-SVIDs: each trick with header, key and claims is refused."""

import base64
import datetime as dt
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from spiffe import JwtSvid
from spiffe import TrustDomain as ClientTrustDomain
from spiffe.bundle.jwt_bundle.jwt_bundle import JwtBundle

from certs.bundle import Bundle, JwtKey
from certs.errors import IssueError, SpiffeError
from certs.jwt_svid import MOST_AUDIENCES, MOST_TOKEN_OCTETS, check_jwt, make_jwt
from certs.profile import LEAST_JWT_TTL_S, MOST_JWT_TTL_S
from certs.spiffe import SpiffeId

NOW = dt.datetime(2026, 11, 22, 1, 2, 3, 500_000, tzinfo=dt.UTC)
AT = int(NOW.timestamp())
TD = "desk.example"
WHO = SpiffeId(TD, "/agent/coder")
KEY = ec.generate_private_key(ec.SECP256R1())
BUNDLE = Bundle(TD, (), (JwtKey("one", KEY.public_key()),))
BUNDLES = {TD: BUNDLE}
GOOD: dict[str, Any] = {"sub": str(WHO), "aud": ["x"], "exp": AT + 300, "iat": AT}


def signed(
    claims: dict[str, Any], header: dict[str, Any] | None = None, key: Any = KEY, alg: str = "ES256"
) -> str:
    return jwt.encode(claims, key, algorithm=alg, headers={"kid": "one"} | (header or {}))


def b64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def refused(token: str, match: str, audience: str = "x", now: dt.datetime = NOW) -> None:
    with pytest.raises(SpiffeError, match=match) as caught:
        check_jwt(token, audience, now, BUNDLES)
    assert token not in str(caught.value)
    assert str(caught.value).isprintable()


def test_what_is_made_is_believed_until_it_ends() -> None:
    token = make_jwt(WHO, ("x", "y"), NOW, 300, "one", KEY)
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": "one", "typ": "JWT"}
    for audience in ("x", "y"):
        found = check_jwt(token, audience, NOW, BUNDLES)
        assert found.spiffe_id == str(WHO)
        assert found.audience == ("x", "y")
        assert (found.issued_at, found.expires_at) == (AT, AT + 300)
        assert found.all == {"sub": str(WHO), "aud": ["x", "y"], "exp": AT + 300, "iat": AT}
    check_jwt(token, "x", NOW + dt.timedelta(seconds=299), BUNDLES)
    refused(token, "has ended", now=NOW + dt.timedelta(seconds=300))


def test_the_real_client_believes_it() -> None:
    now = dt.datetime.now(dt.UTC)
    token = make_jwt(WHO, ("x",), now, 300, "one", KEY)
    bundle = JwtBundle(ClientTrustDomain(TD), {"one": KEY.public_key()})
    svid = JwtSvid.parse_and_validate(token, bundle, {"x"})
    assert str(svid.spiffe_id) == str(WHO)


@pytest.mark.parametrize("ttl_s", [0, -5, LEAST_JWT_TTL_S - 1, MOST_JWT_TTL_S + 1])
def test_a_life_out_of_bounds_is_not_made(ttl_s: int) -> None:
    with pytest.raises(IssueError, match="out of bounds"):
        make_jwt(WHO, ("x",), NOW, ttl_s, "one", KEY)


@pytest.mark.parametrize(
    "audience", [(), ("",), ("x", ""), ("x",) * (MOST_AUDIENCES + 1), ("x" * 2049,)]
)
def test_an_audience_out_of_bounds_is_not_made(audience: tuple[str, ...]) -> None:
    with pytest.raises(IssueError, match="1 to 16 audiences"):
        make_jwt(WHO, audience, NOW, 300, "one", KEY)


def test_no_algorithm_but_the_keys_own_is_believed() -> None:
    """RFC 8725, sections 2.1 and 3.1: `none`, and HS256 with the public key for a secret."""
    body = b64(json.dumps(GOOD).encode())
    for alg in ("none", "None", "NONE", ""):
        head = b64(json.dumps({"alg": alg, "kid": "one"}).encode())
        refused(f"{head}.{body}.", "no JWT-SVID|not signed by")
        refused(f"{head}.{body}.{b64(b'x' * 64)}", "no JWT-SVID|not signed by")
    head = b64(b'{"alg": "HS256", "kid": "one"}')
    public = KEY.public_key()
    for secret in (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
    ):
        mac = hmac.digest(secret, f"{head}.{body}".encode(), "sha256")
        refused(f"{head}.{body}.{b64(mac)}", "not signed by")
    genuine = signed(GOOD)
    for alg in ("ES384", "ES512", "RS256", "PS256", "EdDSA", "ES256K", "es256"):
        swapped = b64(json.dumps({"alg": alg, "kid": "one"}).encode())
        refused(f"{swapped}.{genuine.partition('.')[2]}", "not signed by|no JWT-SVID")


def test_a_signature_by_another_key_is_refused() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    refused(signed(GOOD, key=other), f"not signed by {TD}")
    token = signed(GOOD)
    refused(token[:-4] + "AAAA", "not signed by")
    head, body, signature = token.split(".")
    refused(f"{head}.{body}.{b64(bytes(64))}", "not signed by")
    claims = b64(json.dumps(GOOD | {"sub": f"spiffe://{TD}/agent/other"}).encode())
    refused(f"{head}.{claims}.{signature}", "not signed by")


def test_a_key_in_the_header_is_no_key() -> None:
    """RFC 8725, section 2.11: jwk, jku, x5u and x5c of the token itself."""
    other = ec.generate_private_key(ec.SECP256R1())
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(other.public_key()))
    for header in ({"jwk": jwk}, {"jku": "http://127.0.0.1/jwks"}, {"x5u": "http://127.0.0.1/"}):
        refused(signed(GOOD, header, key=other), "not signed by")


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ({"kid": None}, "no kid|no JWT-SVID"),
        ({"kid": ""}, "no kid"),
        ({"kid": "two"}, "has no key 'two'"),
        ({"kid": "../one"}, "has no key"),
        ({"kid": "a\x1b[31m"}, "has no key"),
        ({"typ": "at+jwt"}, "header"),
        ({"typ": "jwt"}, "header"),
        ({"typ": ["JWT"]}, "header"),
        ({"kid": ["one"]}, "no kid|no JWT-SVID"),
        ({"crit": ["exp"]}, "header|no JWT-SVID"),
    ],
)
def test_a_header_that_is_not_of_a_jwt_svid_is_refused(header: dict[str, Any], match: str) -> None:
    head = b64(json.dumps({"alg": "ES256", "kid": "one", "typ": "JWT"} | header).encode())
    refused(f"{head}.{signed(GOOD).partition('.')[2]}", match)


@pytest.mark.parametrize("typ", ["JWT", "JOSE", None])
def test_both_types_of_the_standard_are_taken(typ: str | None) -> None:
    assert check_jwt(signed(GOOD, {"typ": typ}), "x", NOW, BUNDLES).spiffe_id == str(WHO)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"sub": None}, "no sub|no JWT-SVID"),
        ({"sub": 5}, "no sub|no JWT-SVID"),
        ({"sub": "coder"}, "no SPIFFE ID"),
        ({"sub": f"spiffe://{TD}"}, "has a path"),
        ({"sub": "spiffe://other.example/agent/coder"}, "not known here"),
        ({"sub": f"spiffe://{TD.upper()}/agent/coder"}, "no trust domain"),
        ({"sub": f"spiffe://{TD}/agent/../coder"}, "no SPIFFE ID"),
        ({"aud": None}, "no aud"),
        ({"aud": []}, "somebody else"),
        ({"aud": ["y"]}, "somebody else"),
        ({"aud": "xx"}, "somebody else"),
        ({"aud": {"x": 1}}, "no aud"),
        ({"aud": ["x", 1]}, "no aud"),
        ({"exp": None}, "no exp"),
        ({"exp": AT}, "has ended"),
        ({"exp": -1}, "has ended"),
        ({"exp": str(AT + 300)}, "exp is no time"),
        ({"exp": True}, "exp is no time"),
        ({"exp": float("inf")}, "exp is no time"),
        ({"exp": float("nan")}, "exp is no time"),
        ({"exp": 10**400}, "exp is no time"),
        ({"exp": 1e300}, "exp is no time"),
        ({"exp": [AT + 300]}, "exp is no time"),
        ({"iat": AT + 3600}, "begins later"),
        ({"nbf": AT + 3600}, "begins later"),
        ({"nbf": "x"}, "nbf is no time"),
        ({"iat": "x"}, "iat is no time"),
    ],
)
def test_claims_that_do_not_hold_are_refused(changed: dict[str, Any], match: str) -> None:
    claims = {name: value for name, value in (GOOD | changed).items() if value is not None}
    refused(_raw(claims), match)


def _raw(claims: dict[str, Any]) -> str:
    """Sign claims that the library would not: what they say must not matter to it."""
    return jwt.api_jws.encode(
        json.dumps(claims).encode(), KEY, algorithm="ES256", headers={"kid": "one"}
    )


def test_an_absent_iat_is_no_fault_and_skew_is_borne() -> None:
    claims = {name: value for name, value in GOOD.items() if name != "iat"}
    assert check_jwt(signed(claims), "x", NOW, BUNDLES).issued_at is None
    check_jwt(signed(GOOD | {"iat": AT + 59, "nbf": AT + 59}), "x", NOW, BUNDLES)
    assert check_jwt(signed(GOOD | {"aud": "x"}), "x", NOW, BUNDLES).audience == ("x",)


def test_an_empty_audience_is_never_asked_for() -> None:
    refused(_raw(GOOD | {"aud": [""]}), "somebody else", audience="")


def test_one_trust_domain_does_not_vouch_for_another() -> None:
    """threats.md, "Identity": a federated bundle signs in the name of our workloads."""
    other = ec.generate_private_key(ec.SECP256R1())
    bundles = {
        **BUNDLES,
        "other.example": Bundle("other.example", (), (JwtKey("two", other.public_key()),)),
    }
    for header in ({"kid": "two"}, {"kid": "one"}):
        with pytest.raises(SpiffeError, match=f"has no key|not signed by {TD}"):
            check_jwt(signed(GOOD, header, key=other), "x", NOW, bundles)
    theirs = GOOD | {"sub": "spiffe://other.example/x"}
    found = check_jwt(signed(theirs, {"kid": "two"}, key=other), "x", NOW, bundles)
    assert found.spiffe_id == "spiffe://other.example/x"


@pytest.mark.parametrize("alg", ["RS256", "RS512", "PS256", "PS384"])
def test_rsa_of_a_foreign_trust_domain_is_verified(alg: str) -> None:
    bundles = {TD: Bundle(TD, (), (JwtKey("one", _RSA.public_key()),))}
    token = signed(GOOD, key=_RSA, alg=alg)
    assert check_jwt(token, "x", NOW, bundles).spiffe_id == str(WHO)
    with pytest.raises(SpiffeError, match="not signed by"):
        check_jwt(signed(GOOD), "x", NOW, bundles)


_RSA = rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize(
    ("curve", "alg"), [(ec.SECP384R1(), "ES384"), (ec.SECP521R1(), "ES512")], ids=["P-384", "P-521"]
)
def test_other_curves_of_a_foreign_trust_domain_are_verified(
    curve: ec.EllipticCurve, alg: str
) -> None:
    key = ec.generate_private_key(curve)
    bundles = {TD: Bundle(TD, (), (JwtKey("one", key.public_key()),))}
    assert check_jwt(signed(GOOD, key=key, alg=alg), "x", NOW, bundles).spiffe_id == str(WHO)


def test_weak_and_strange_keys_verify_nothing() -> None:
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that is what is refused
    strange = ec.generate_private_key(ec.SECP256K1())
    for key in (weak.public_key(), strange.public_key()):
        bundles = {TD: Bundle(TD, (), (JwtKey("one", key),))}
        for token in (signed(GOOD), signed(GOOD, key=_RSA, alg="RS256")):
            with pytest.raises(SpiffeError, match="not signed by"):
                check_jwt(token, "x", NOW, bundles)


def test_tokens_are_bounded() -> None:
    refused("x" * (MOST_TOKEN_OCTETS + 1), "more than 16384 octets")


@given(
    st.text(max_size=80)
    | st.lists(st.binary(max_size=40), min_size=3, max_size=3).map(
        lambda parts: ".".join(map(b64, parts))
    )
)
def test_any_text_is_refused_in_words_of_ours(token: str) -> None:
    with pytest.raises(SpiffeError):
        check_jwt(token, "x", NOW, BUNDLES)


@given(st.data())
def test_no_octet_of_a_token_may_change(data: st.DataObject) -> None:
    token = signed(GOOD)
    at = data.draw(st.integers(0, len(token) - 3))
    other = data.draw(st.sampled_from("ABCabc012-_.").filter(lambda each: each != token[at]))
    refused(token[:at] + other + token[at + 1 :], ".")


def test_the_signature_is_of_the_form_of_jose() -> None:
    """RFC 7518, section 3.4: two numbers of 32 octets, never DER."""
    signature = make_jwt(WHO, ("x",), NOW, 300, "one", KEY).rpartition(".")[2]
    assert len(base64.urlsafe_b64decode(signature + "==")) == 64


_TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@given(
    st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "zip"]), _TREES),
    st.dictionaries(st.sampled_from(["sub", "aud", "exp", "iat", "nbf", "jti"]), _TREES),
)
def test_whatever_stands_in_header_and_claims_is_refused_in_words_of_ours(
    header: dict[str, Any], claims: dict[str, Any]
) -> None:
    whole = {"alg": "ES256", "kid": "one"} | header, GOOD | claims
    head, body = (b64(json.dumps(each).encode()) for each in whole)
    signature = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256).sign(
        f"{head}.{body}".encode(), KEY
    )
    try:
        found = check_jwt(f"{head}.{body}.{b64(signature)}", "x", NOW, BUNDLES)
    except SpiffeError as error:
        assert str(error).isprintable()  # noqa: PT017 - one of two right ends
    else:
        assert found.spiffe_id == str(WHO)
        assert "x" in found.audience
        assert found.expires_at > AT
        assert header.get("alg", "ES256") == "ES256"
