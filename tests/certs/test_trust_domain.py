"""A trust domain in memory: what it tells, and what it never shows."""

import contextlib
import datetime as dt
import json
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from certs.bundle import Bundle, parse_bundle
from certs.domain import init_domain, load_domain, rotate
from certs.errors import CertsError, IssueError, SpiffeError
from certs.known_domain import DOMAIN_JSON
from certs.trust_domain import TrustDomain, stamp_of
from tests.certs.identity import NOW, TD, WHO


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "identity"
    init_domain(path, TD, NOW, None)
    return path


@pytest.fixture
def domain(folder: Path) -> TrustDomain:
    return load_domain(folder, None)


def test_it_tells_who_it_is_and_whom_to_believe(domain: TrustDomain) -> None:
    assert (domain.name, domain.sequence) == (TD, 1)
    (root,) = domain.anchors
    pem = x509.load_pem_x509_certificate(domain.anchors_pem.encode())
    assert pem.public_bytes(Encoding.DER) == root
    assert domain.bundle is domain.bundle
    assert domain.bundle.anchors == domain.anchors
    assert parse_bundle(domain.jwks(), TD) == domain.bundle
    (key,) = json.loads(domain.jwt_jwks())["keys"]
    assert domain.bundle.jwt_key(key["kid"]) is not None


def test_profiles_and_lives_are_asked_for(domain: TrustDomain) -> None:
    svid = domain.issue(WHO, NOW)
    assert svid.not_after == int(NOW.timestamp()) + 3600
    admin = domain.issue(WHO, NOW, 600, profile="admin")
    leaf = x509.load_der_x509_certificate(admin.chain[0])
    (purpose,) = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert purpose.dotted_string == "1.3.6.1.5.5.7.3.2"
    with pytest.raises(IssueError, match="svid or admin"):
        domain.issue(WHO, NOW, profile="intermediate")


def test_tokens_are_made_for_workloads_of_our_own_alone(domain: TrustDomain) -> None:
    token = domain.jwt(WHO, ("x",), NOW, 300)
    assert domain.check_jwt(token, "x", NOW, {}).spiffe_id == WHO
    for other in ("spiffe://other.example/x", f"spiffe://{TD}", "coder"):
        with pytest.raises(SpiffeError):
            domain.jwt(other, ("x",), NOW, 300)


def test_nobody_elses_bundle_takes_the_place_of_ours(domain: TrustDomain) -> None:
    token = domain.jwt(WHO, ("x",), NOW, 300)
    assert domain.check_jwt(token, "x", NOW, {TD: Bundle(TD, ())}).spiffe_id == WHO


def test_it_notices_that_the_folder_has_changed(folder: Path, domain: TrustDomain) -> None:
    assert not domain.is_stale()
    rotate(folder, NOW, None, "jwt")
    assert domain.is_stale()
    assert not load_domain(folder, None).is_stale()
    (folder / DOMAIN_JSON).unlink()
    assert domain.is_stale()
    assert stamp_of(folder) == (0, 0, 0)


def test_an_svid_of_a_forgotten_root_is_not_vouched_for(folder: Path, domain: TrustDomain) -> None:
    svid = domain.issue(WHO, NOW)
    assert domain.vouches_for(svid)
    rotate(folder, NOW, None, "intermediate")
    assert load_domain(folder, None).vouches_for(svid)
    rotate(folder, NOW, None, "root", forget=True)
    assert not load_domain(folder, None).vouches_for(svid)


def test_signers_are_authorities_and_the_first_one_signs(folder: Path, domain: TrustDomain) -> None:
    rotate(folder, NOW + dt.timedelta(seconds=1), None, "intermediate")
    later = NOW + dt.timedelta(seconds=2)
    signers = load_domain(folder, None).signers(later)
    assert len(signers) == 2
    svid = load_domain(folder, None).issue(WHO, later)
    leaf = x509.load_der_x509_certificate(svid.chain[0])
    leaf.verify_directly_issued_by(signers[0].certificate)
    assert signers[1].certificate == domain.signers(NOW)[0].certificate
    with pytest.raises(IssueError):
        domain.signers(NOW + dt.timedelta(days=4000))


def test_no_private_key_is_in_any_repr_or_error(folder: Path, domain: TrustDomain) -> None:
    keys = [load_pem_private_key(path.read_bytes(), None) for path in folder.glob("*.key")]
    ders = [each.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) for each in keys]
    svid = domain.issue(WHO, NOW)
    assert svid.key is not None
    said = [repr(domain), str(domain), repr(vars(domain)), repr(domain.signers(NOW)), repr(svid)]
    for wrong in (
        lambda: domain.issue("x", NOW),
        lambda: domain.issue(WHO, NOW, 1),
        lambda: domain.issue(WHO, NOW, spki=svid.key),
        lambda: domain.check_jwt(domain.jwt(WHO, ("x",), NOW, 300), "y", NOW, {}),
    ):
        with pytest.raises(CertsError) as caught:
            wrong()
        said.append(repr(caught.value))
    for text in said:
        assert "PRIVATE" not in text
        for der in (*ders, svid.key):
            assert der.hex() not in text
            assert repr(der)[2:-1] not in text
            assert repr(der[36:68])[2:-1] not in text  # the number itself (RFC 5915)


def context(domain: TrustDomain, folder: Path, side: int, name: str) -> ssl.SSLContext:
    """Return a context of a workload that shows its SVID and asks for the other's."""
    svid = domain.issue(f"spiffe://{TD}/{name}", dt.datetime.now(dt.UTC))
    (folder / name).write_text(svid.key_pem + svid.chain_pem)
    made = ssl.SSLContext(side)
    made.load_cert_chain(folder / name)
    made.load_verify_locations(cadata=domain.anchors_pem)
    made.check_hostname = False  # SPIFFE: the name is in the URI
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    return made


def test_two_workloads_speak_tls_and_each_knows_the_other(tmp_path: Path) -> None:
    folder = tmp_path / "identity"
    init_domain(folder, TD, dt.datetime.now(dt.UTC), b"secret")
    domain = load_domain(folder, b"secret")
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context(domain, tmp_path, ssl.PROTOCOL_TLS_CLIENT, "client").wrap_bio(down, up)
    server = context(domain, tmp_path, ssl.PROTOCOL_TLS_SERVER, "server").wrap_bio(
        up, down, server_side=True
    )
    for side in (client, server, client, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    for side, other in ((client, "server"), (server, "client")):
        shown = side.getpeercert()
        assert shown is not None
        assert shown["subjectAltName"] == (("URI", f"spiffe://{TD}/{other}"),)
