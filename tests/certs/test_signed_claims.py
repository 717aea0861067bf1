"""Signed claims: a real library verifies them, and none can be taken for something else."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwt.types import Options

from certs.domain import init_domain, load_domain, rotate
from certs.errors import CertsError, IssueError, SpiffeError
from certs.trust_domain import TrustDomain
from tests.certs.identity import NOW, TD, WHO

AT = int(NOW.timestamp())
RESULT, ACCESS = "eat+jwt", "at+jwt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("state") / "identity"
    init_domain(path, TD, NOW, None)
    return path


@pytest.fixture(scope="module")
def domain(folder: Path) -> TrustDomain:
    return load_domain(folder, None)


def claims(ttl_s: int = 300, **more: Any) -> bytes:
    return json.dumps({"sub": WHO, "aud": "x", "iat": AT, "exp": AT + ttl_s, **more}).encode()


@pytest.mark.parametrize("typ", [RESULT, ACCESS])
def test_the_real_library_verifies_them(domain: TrustDomain, typ: str) -> None:
    token = domain.sign_claims(claims(level="tpm"), typ, NOW)
    header = jwt.get_unverified_header(token)
    assert (header["typ"], header["alg"]) == (typ, "ES256")
    key = jwt.PyJWKSet.from_json(domain.jwt_jwks().decode())[header["kid"]]
    options: Options = {
        "verify_exp": False,
        "verify_iat": False,
    }  # the clock of the test is another
    found = jwt.decode(token, key, ["ES256"], options, audience="x")
    assert found == json.loads(claims(level="tpm"))


def test_the_octets_of_the_claims_are_those_that_were_given(domain: TrustDomain) -> None:
    given_claims = b'{ "exp" : %d , "b":1,"a":2 }' % (AT + 60)
    token = domain.sign_claims(given_claims, RESULT, NOW)
    assert jwt.utils.base64url_decode(token.split(".")[1]) == given_claims


def test_none_of_them_passes_for_a_jwt_svid(domain: TrustDomain) -> None:
    """RFC 8725, section 3.11: one kind of token in the place of another."""
    for typ in (RESULT, ACCESS):
        token = domain.sign_claims(claims(), typ, NOW)
        with pytest.raises(SpiffeError, match="none of a JWT-SVID"):
            domain.check_jwt(token, "x", NOW, {})


@pytest.mark.parametrize("typ", ["JWT", "", "JOSE", "at+JWT", "dpop+jwt"])
def test_no_other_kind_is_signed(domain: TrustDomain, typ: str) -> None:
    with pytest.raises(IssueError, match="typ is to be one of"):
        domain.sign_claims(claims(), typ, NOW)


@pytest.mark.parametrize("ttl_s", [0, -1, 3601, 1 << 60])
def test_none_outlives_the_key_that_verifies_it(domain: TrustDomain, ttl_s: int) -> None:
    with pytest.raises(IssueError, match="within 3600 s"):
        domain.sign_claims(claims(ttl_s), RESULT, NOW)
    assert domain.sign_claims(claims(3600), RESULT, NOW)


@given(st.binary(max_size=40) | st.sampled_from([b"{}", b"[]", b'{"exp":"1"}', b'{"exp":1.5}']))
def test_what_is_no_object_with_an_end_is_not_signed(domain: TrustDomain, octets: bytes) -> None:
    with pytest.raises(IssueError, match="JSON object with exp"):
        domain.sign_claims(octets, RESULT, NOW)


def test_the_key_that_signs_now_is_named(folder: Path, domain: TrustDomain) -> None:
    rotate(folder, NOW, None, "jwt")
    rotated = load_domain(folder, None)
    before, after = (
        jwt.get_unverified_header(rotated.sign_claims(claims_at(at), RESULT, at))["kid"]
        for at in (NOW, NOW + dt.timedelta(hours=2))
    )
    assert before != after
    assert jwt.get_unverified_header(domain.sign_claims(claims(), RESULT, NOW))["kid"] == before
    with pytest.raises(CertsError, match="no JWT key"):
        rotated.sign_claims(claims(), RESULT, NOW - dt.timedelta(days=400))


def claims_at(at: dt.datetime) -> bytes:
    return json.dumps({"exp": int(at.timestamp()) + 60}).encode()
