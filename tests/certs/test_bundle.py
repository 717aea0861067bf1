"""Bundles of others: what is believed of them, what is ignored, and what is refused."""

import base64
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from certs.bundle import MOST_HINT_S, MOST_KEYS, MOST_OCTETS, Bundle, parse_bundle
from certs.domain import init_domain, load_domain
from certs.errors import SpiffeError
from certs.intermediate import make_root
from certs.known_domain import BUNDLE_PEM, REFRESH_HINT_S
from certs.trust_domain import TrustDomain
from tests.certs.forgery import Forger

NOW = dt.datetime(2026, 11, 22, 1, 2, 3, tzinfo=dt.UTC)
TD, OTHER = "desk.example", "other.example"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("state") / "identity"
    init_domain(path, TD, NOW, None)
    return path


@pytest.fixture(scope="module")
def domain(folder: Path) -> TrustDomain:
    return load_domain(folder, None)


def changed(domain: TrustDomain, **more: Any) -> bytes:
    return json.dumps(json.loads(domain.jwks()) | more).encode()


def keys_of(domain: TrustDomain) -> tuple[dict[str, Any], dict[str, Any]]:
    anchor, jwt_key = json.loads(domain.jwks())["keys"]
    return anchor, jwt_key


def test_our_own_bundle_is_read_back(domain: TrustDomain) -> None:
    found = parse_bundle(domain.jwks(), TD)
    assert found == domain.bundle
    assert found.anchors == domain.anchors
    assert (found.sequence, found.refresh_hint_s) == (1, REFRESH_HINT_S)
    (key,) = found.jwt_keys
    assert found.jwt_key(key.kid) == key.key
    assert found.jwt_key("x") is None


def test_pem_has_the_same_anchors_and_no_jwt_keys(domain: TrustDomain, folder: Path) -> None:
    found = parse_bundle((folder / BUNDLE_PEM).read_bytes(), TD)
    assert found == Bundle(TD, domain.anchors)
    assert found.pem == domain.anchors_pem
    several = parse_bundle((domain.anchors_pem * 3).encode(), TD)
    assert len(several.anchors) == 3


def test_the_anchor_of_another_trust_domain_is_refused(domain: TrustDomain) -> None:
    """threats.md, "Identity": who federates with us must not speak for somebody else."""
    for octets in (domain.jwks(), domain.anchors_pem.encode()):
        with pytest.raises(SpiffeError, match=r"has the root of 'spiffe://desk\.example'"):
            parse_bundle(octets, OTHER)


def test_an_anchor_that_names_no_trust_domain_is_taken() -> None:
    """X509-SVID, section 3.2: an authority SHOULD have an ID."""
    loose = Forger.loose(OTHER, NOW)
    assert len(parse_bundle(loose.anchors.encode(), OTHER).anchors) == 1


def test_a_leaf_is_no_anchor(domain: TrustDomain) -> None:
    svid = domain.issue(f"spiffe://{TD}/x", NOW)
    anchor, _ = keys_of(domain)
    leaf = base64.b64encode(svid.chain[0]).decode()
    for octets in (svid.chain_pem.encode(), changed(domain, keys=[anchor | {"x5c": [leaf]}])):
        with pytest.raises(SpiffeError, match="no authority: give its roots"):
            parse_bundle(octets, TD)


def test_what_the_standard_ignores_is_ignored(domain: TrustDomain) -> None:
    """Trust Domain and Bundle, section 4.1.3; X509-SVID, section 6.2."""
    anchor, jwt_key = keys_of(domain)
    ignored: list[dict[str, Any]] = [
        {"kty": "EC", "use": "wit-svid"},
        {"kty": "EC"},
        {"kty": "EC", "use": "X509-SVID", "x5c": anchor["x5c"]},
        {"kty": "AKP", "use": "jwt-svid", "kid": "x"},
        {"kty": "oct", "use": "jwt-svid", "kid": "x", "k": "c2VjcmV0"},
        {"kty": "EC", "use": "x509-svid"},
        {"kty": "EC", "use": "x509-svid", "x5c": []},
    ]
    first_counts = anchor | {"x5c": [*anchor["x5c"], "rubbish"]}
    octets = changed(domain, keys=[*ignored, first_counts, jwt_key], more={"a": 1})
    assert parse_bundle(octets, TD) == domain.bundle


def test_numbers_are_bounded_and_may_be_absent(domain: TrustDomain) -> None:
    bare = parse_bundle(b'{"keys": []}', TD)
    assert bare == Bundle(TD, ())
    found = parse_bundle(changed(domain, spiffe_refresh_hint=10**15, spiffe_sequence=-3), TD)
    assert (found.refresh_hint_s, found.sequence) == (MOST_HINT_S, 0)
    assert parse_bundle(changed(domain, spiffe_refresh_hint=-1), TD).refresh_hint_s == 0
    assert parse_bundle(changed(domain, spiffe_sequence=2**60), TD).sequence == 2**60


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"rubbish",
        b"{",
        b"{}",
        b"[]",
        b'{"keys": 1}',
        b'{"keys": [1]}',
        b'{"keys": [{"use": "x509-svid"}]}',
        b'{"keys": [{"kty": 1}]}',
        b'{"keys": [], "spiffe_sequence": "1"}',
        b'{"keys": [], "spiffe_refresh_hint": 1.5}',
        b'{"keys":' + b"[" * 5000,
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ],
)
def test_what_is_no_bundle_is_refused(octets: bytes) -> None:
    with pytest.raises(SpiffeError, match=r"the bundle of desk\.example"):
        parse_bundle(octets, TD)


def test_bundles_are_bounded(domain: TrustDomain) -> None:
    anchor, _ = keys_of(domain)
    assert len(parse_bundle(changed(domain, keys=[anchor] * MOST_KEYS), TD).anchors) == MOST_KEYS
    many = (changed(domain, keys=[anchor] * (MOST_KEYS + 1)), domain.anchors_pem.encode() * 65)
    for octets in many:
        with pytest.raises(SpiffeError, match="64 at most"):
            parse_bundle(octets, TD)
    with pytest.raises(SpiffeError, match="1048576 octets"):
        parse_bundle(b" " * (MOST_OCTETS + 1), TD)


@pytest.mark.parametrize("x5c", ["", "!", "AAAA", "MIIB", "-_-_"])
def test_an_x5c_that_is_no_certificate_is_refused(domain: TrustDomain, x5c: str) -> None:
    anchor, _ = keys_of(domain)
    with pytest.raises(SpiffeError, match="no certificate"):
        parse_bundle(changed(domain, keys=[anchor | {"x5c": [x5c]}]), TD)


def test_jwt_keys_that_cannot_be_used_are_refused(domain: TrustDomain) -> None:
    _, good = keys_of(domain)
    private = ec.generate_private_key(ec.SECP256R1())
    bad: list[dict[str, Any]] = [
        good | {"kid": ""},
        {name: value for name, value in good.items() if name != "kid"},
        good | {"x": "AAAA"},
        good | {"y": good["x"]},
        good | {"crv": "P-999"},
        {"kty": "RSA", "use": "jwt-svid", "kid": "r"},
        {"kty": "RSA", "use": "jwt-svid", "kid": "r", "n": "", "e": "AQAB"},
        json.loads(ECAlgorithm.to_jwk(private)) | {"use": "jwt-svid", "kid": "p"},
    ]
    for each in bad:
        with pytest.raises(SpiffeError, match="jwt-svid key"):
            parse_bundle(changed(domain, keys=[each]), TD)
    with pytest.raises(SpiffeError, match="two JWT keys of one kid"):
        parse_bundle(changed(domain, keys=[good, good]), TD)


def test_rsa_keys_of_others_are_read(domain: TrustDomain) -> None:
    key = rsa.generate_private_key(65537, 2048).public_key()
    entry = json.loads(RSAAlgorithm.to_jwk(key)) | {"use": "jwt-svid", "kid": "r"}
    entry.pop("key_ops", None)
    assert parse_bundle(changed(domain, keys=[entry]), TD).jwt_key("r") == key


@pytest.mark.parametrize("alg", ["HS256", "none", "RS256", "ES384", 5])
def test_what_algorithm_a_key_claims_does_not_matter(domain: TrustDomain, alg: object) -> None:
    _, good = keys_of(domain)
    found = parse_bundle(changed(domain, keys=[good | {"alg": alg}]), TD)
    assert found.jwt_keys == domain.bundle.jwt_keys


def test_no_private_key_is_ever_quoted(domain: TrustDomain) -> None:
    key = load_pem_private_key(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ),
        None,
    )
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    entry = json.loads(ECAlgorithm.to_jwk(key)) | {"use": "jwt-svid", "kid": "p"}
    with pytest.raises(SpiffeError) as caught:
        parse_bundle(changed(domain, keys=[entry]), TD)
    assert entry["d"] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_bundle_shows_counts(domain: TrustDomain) -> None:
    assert repr(domain.bundle) == "Bundle(desk.example, 1 anchors, 1 jwt keys, sequence=1)"


def test_a_root_without_readable_extensions_is_no_authority() -> None:
    root = make_root(TD, NOW).certificate.public_bytes(Encoding.DER)
    broken = root.replace(b"spiffe://desk", b"spiffe:/\xffdesk", 1)
    entry = {"kty": "EC", "use": "x509-svid", "x5c": [base64.b64encode(broken).decode()]}
    with pytest.raises(SpiffeError, match="no authority"):
        parse_bundle(json.dumps({"keys": [entry]}).encode(), TD)


@given(st.data())
def test_any_octets_are_a_bundle_or_an_error_of_ours(
    domain: TrustDomain, data: st.DataObject
) -> None:
    octets = bytearray(domain.jwks() if data.draw(st.booleans()) else domain.anchors_pem.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = parse_bundle(bytes(octets), TD)
    except SpiffeError as error:
        assert str(error).isprintable()  # noqa: PT017 - one of two right ends
    else:
        for der in found.anchors:
            x509.load_der_x509_certificate(der)


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["keys", "kty", "use", "kid", "x5c", "spiffe_sequence", "crv", "x", "y"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ).map(lambda tree: json.dumps(tree).encode())
)
def test_any_json_is_a_bundle_or_an_error_of_ours(octets: bytes) -> None:
    try:
        assert parse_bundle(octets, TD).trust_domain == TD
    except SpiffeError as error:
        assert TD in str(error)  # noqa: PT017 - one of two right ends
