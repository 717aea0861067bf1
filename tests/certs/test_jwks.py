"""Our bundle as others read it: the standard's shape, and a real client."""

import base64
import datetime as dt
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec.structs import replace
from spiffe import TrustDomain as ClientTrustDomain
from spiffe.bundle.jwt_bundle.jwt_bundle import JwtBundle
from spiffe.bundle.x509_bundle.x509_bundle import X509Bundle

from certs.domain import init_domain, load_domain, rotate
from certs.jwks import make_jwks, make_jwt_jwks
from certs.known_domain import Record, pem_of, record_of

NOW = dt.datetime(2026, 11, 22, 1, 2, 3, tzinfo=dt.UTC)
TD = "desk.example"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("state") / "identity"
    init_domain(path, TD, NOW, None)
    rotate(path, NOW, None, "root")
    rotate(path, NOW, None, "jwt")
    return path


@pytest.fixture(scope="module")
def record(folder: Path) -> Record:
    return record_of(folder)


def test_the_document_is_what_the_standard_says(record: Record, folder: Path) -> None:
    """Trust Domain and Bundle, section 4; X509-SVID and JWT-SVID, section 6.1."""
    document = json.loads(make_jwks(record))
    assert document.keys() == {"keys", "spiffe_sequence", "spiffe_refresh_hint"}
    assert document["spiffe_sequence"] == 3
    assert document["spiffe_refresh_hint"] == 300
    uses = [each["use"] for each in document["keys"]]
    assert uses == ["x509-svid", "x509-svid", "jwt-svid", "jwt-svid"]
    for each in document["keys"]:
        assert (each["kty"], each["crv"]) == ("EC", "P-256")
        assert all(len(each[name]) == 43 for name in "xy")  # RFC 7518, section 6.2.1.2
        assert "d" not in each
        assert ("kid" in each) is (each["use"] == "jwt-svid")
    anchors = [base64.b64decode(each["x5c"][0]) for each in document["keys"][:2]]
    assert tuple(anchors) == load_domain(folder, None).anchors
    assert [each["kid"] for each in document["keys"][2:]] == [each.id for each in record.jwt_keys]


def test_the_real_client_reads_the_jwt_keys(record: Record) -> None:
    bundle = JwtBundle.parse(ClientTrustDomain(TD), make_jwt_jwks(record))
    assert set(bundle.jwt_authorities) == {each.id for each in record.jwt_keys}


def test_a_key_that_is_none_of_ours_is_not_published(record: Record) -> None:
    key = rsa.generate_private_key(65537, 2048).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    (first, *_) = record.jwt_keys
    with pytest.raises(TypeError, match="P-256"):
        make_jwt_jwks(replace(record, jwt_keys=(replace(first, public=pem),)))


def test_the_real_client_reads_the_anchors(record: Record) -> None:
    bundle = X509Bundle.parse(ClientTrustDomain(TD), pem_of(record.roots).encode())
    assert len(bundle.x509_authorities) == 2
