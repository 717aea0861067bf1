"""X.509-SVIDs: the standard's shape, the bounds of life and key, and nothing of the key shown."""

import datetime as dt
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.errors import CertsError, IssueError, SpiffeError
from certs.intermediate import make_intermediate, make_root
from certs.profile import ADMIN, LEAST_TTL_S, MOST_TTL_S, SKEW_S, SVID
from certs.svid import IssuedSvid, SvidIssuer, svid_profile
from tests.certs.test_spiffe import paths

NOW = dt.datetime(2026, 11, 22, 1, 2, 3, tzinfo=dt.UTC)
TD = "desk.example"
WHO = f"spiffe://{TD}/agent/coder"
SECOND = dt.timedelta(seconds=1)


@pytest.fixture(scope="module")
def issuer() -> SvidIssuer:
    return SvidIssuer(TD, make_intermediate(make_root(TD, NOW), TD, NOW))


def issued(issuer: SvidIssuer, **more: Any) -> IssuedSvid:
    wanted: dict[str, Any] = {"spiffe_id": WHO, "now": NOW, "ttl_s": 3600, "profile": SVID}
    return issuer.issue(**wanted | {"spki": None} | more)


def leaf_of(svid: IssuedSvid) -> x509.Certificate:
    return x509.load_der_x509_certificate(svid.chain[0])


def test_an_svid_has_exactly_one_uri_and_no_other_name(issuer: SvidIssuer) -> None:
    """X509-SVID, section 2."""
    names = leaf_of(issued(issuer)).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert [(type(each), each.value) for each in names.value] == [
        (x509.UniformResourceIdentifier, WHO)
    ]


def test_an_svid_is_a_leaf_that_signs_for_itself_alone(issuer: SvidIssuer) -> None:
    """X509-SVID, sections 4.1, 4.3 and 4.4."""
    found = leaf_of(issued(issuer)).extensions
    usage = found.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not usage.value.crl_sign
    assert not found.get_extension_for_class(x509.BasicConstraints).value.ca
    purposes = found.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [each.dotted_string for each in purposes] == ["1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"]


def test_the_chain_is_leaf_and_intermediate_and_the_key_fits(issuer: SvidIssuer) -> None:
    svid = issued(issuer)
    leaf, above = map(x509.load_der_x509_certificate, svid.chain)
    leaf.verify_directly_issued_by(above)
    assert above == issuer.authority.certificate
    assert svid.key is not None
    key = load_der_private_key(svid.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == leaf.public_key()
    assert svid.serial == f"{leaf.serial_number:x}"
    assert svid.not_before == leaf.not_valid_before_utc.timestamp()
    assert svid.not_after == leaf.not_valid_after_utc.timestamp()


def test_pem_is_the_same_as_der(issuer: SvidIssuer) -> None:
    svid = issued(issuer)
    read = x509.load_pem_x509_certificates(svid.chain_pem.encode())
    assert tuple(each.public_bytes(Encoding.DER) for each in read) == svid.chain
    key = load_pem_private_key(svid.key_pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == read[0].public_key()


def test_two_svids_share_neither_key_nor_serial(issuer: SvidIssuer) -> None:
    one, two = issued(issuer), issued(issuer)
    assert one.serial != two.serial
    assert leaf_of(one).public_key() != leaf_of(two).public_key()


def test_nothing_of_the_key_is_shown(issuer: SvidIssuer) -> None:
    svid = issued(issuer)
    assert svid.key is not None
    for text in (repr(svid), str(svid), f"{svid}", repr((svid,)), repr(issuer)):
        assert svid.key.hex() not in text
        assert repr(svid.key)[2:-1] not in text
        assert "PRIVATE" not in text
    assert WHO in repr(svid)


def public(
    key: ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | x25519.X25519PrivateKey,
) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-256", "P-384", "Ed25519"],
)
def test_a_workload_may_keep_its_own_key(
    issuer: SvidIssuer, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
) -> None:
    svid = issued(issuer, spki=public(key))
    assert (svid.key, svid.key_pem) == (None, "")
    assert leaf_of(svid).public_key() == key.public_key()


def test_other_keys_are_refused(issuer: SvidIssuer) -> None:
    others = [
        public(rsa.generate_private_key(65537, 2048)),
        public(ec.generate_private_key(ec.SECP256K1())),
        public(x25519.X25519PrivateKey.generate()),
        b"",
        b"\x30\x00",
        b"rubbish" * 100,
    ]
    for spki in others:
        with pytest.raises(IssueError, match="P-256"):
            issued(issuer, spki=spki)


@pytest.mark.parametrize("ttl_s", [-1, 0, LEAST_TTL_S - 1, MOST_TTL_S + 1, 10**12])
def test_a_life_out_of_bounds_is_refused(issuer: SvidIssuer, ttl_s: int) -> None:
    with pytest.raises(IssueError, match="out of bounds: ask for 300 to 86400 s"):
        issued(issuer, ttl_s=ttl_s)


@pytest.mark.parametrize(
    "spiffe_id",
    [
        "spiffe://other.example/x",
        f"spiffe://{TD}",
        f"spiffe://{TD}/",
        f"spiffe://sub.{TD}/x",
        f"spiffe://{TD}.other/x",
        f"spiffe://{TD}/x\x00",
        f"https://{TD}/x",
        "",
    ],
)
def test_nobody_but_a_workload_of_our_own_is_certified(issuer: SvidIssuer, spiffe_id: str) -> None:
    with pytest.raises(SpiffeError):
        issued(issuer, spiffe_id=spiffe_id)


def test_an_svid_never_outlives_the_intermediate(issuer: SvidIssuer) -> None:
    end = issuer.authority.certificate.not_valid_after_utc
    svid = issued(issuer, now=end - 100 * SECOND)
    assert svid.not_after == end.timestamp()
    for now in (end, end + SECOND, NOW - dt.timedelta(days=2)):
        with pytest.raises(IssueError, match=r"correct the clock, or `sallyport ca rotate`"):
            issued(issuer, now=now)


@settings(max_examples=60, deadline=None)
@given(
    paths.filter(bool),
    st.integers(LEAST_TTL_S - 5, MOST_TTL_S + 5),
    st.integers(-2 * 86400, 92 * 86400),
    st.sampled_from([SVID, ADMIN]),
)
def test_whatever_is_issued_keeps_every_bound(
    issuer: SvidIssuer, path: str, ttl_s: int, later_s: int, profile: object
) -> None:
    now = NOW + dt.timedelta(seconds=later_s, microseconds=123456)
    authority = issuer.authority.certificate
    wanted = {"spiffe_id": f"spiffe://{TD}{path}", "now": now, "ttl_s": ttl_s, "profile": profile}
    try:
        leaf = leaf_of(issued(issuer, **wanted))
    except CertsError:
        is_good = LEAST_TTL_S <= ttl_s <= MOST_TTL_S
        assert not (is_good and 0 <= later_s < 89 * 86400)
        return
    assert LEAST_TTL_S <= ttl_s <= MOST_TTL_S
    assert leaf.not_valid_before_utc >= authority.not_valid_before_utc
    assert leaf.not_valid_after_utc <= authority.not_valid_after_utc
    assert leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc
    assert leaf.not_valid_after_utc - now <= dt.timedelta(seconds=ttl_s)
    assert now - leaf.not_valid_before_utc <= dt.timedelta(seconds=SKEW_S + 1)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [each.value for each in names] == [f"spiffe://{TD}{path}"]


@pytest.mark.parametrize("name", ["root", "intermediate", "server", "inspection", "x", "SVID", ""])
def test_no_svid_has_another_profile(name: str) -> None:
    with pytest.raises(IssueError, match="svid or admin"):
        svid_profile(name)
    assert svid_profile("admin") is ADMIN
