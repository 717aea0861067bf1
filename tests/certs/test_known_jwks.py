"""The JWT keys, read without the library for keys: the same that the library reads."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.types import Options
from msgspec import structs

from certs.domain import init_domain, load_domain, rotate
from certs.errors import KeystoreError
from certs.known_domain import Record, record_of
from certs.known_jwks import jwt_jwks
from tests.certs.identity import NOW, TD, WHO


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("state") / "identity"
    init_domain(path, TD, NOW, None)
    rotate(path, NOW, None, "jwt")
    return path


@pytest.fixture(scope="module")
def record(folder: Path) -> Record:
    return record_of(folder)


def test_they_are_those_that_the_library_reads(record: Record, folder: Path) -> None:
    found = json.loads(jwt_jwks(record))["keys"]
    known = json.loads(load_domain(folder, None).jwt_jwks())["keys"]
    assert [{**each, "use": ""} for each in found] == [{**each, "use": ""} for each in known]
    assert {each["use"] for each in found} == {"sig"}  # RFC 7517, section 4.2
    assert [each["kid"] for each in found] == [each.id for each in record.jwt_keys]


def test_a_resource_server_verifies_a_token_with_them(record: Record, folder: Path) -> None:
    token = load_domain(folder, None).jwt(WHO, ("x",), NOW, 300)
    key = jwt.PyJWKSet.from_json(jwt_jwks(record).decode())[jwt.get_unverified_header(token)["kid"]]
    options: Options = {"verify_exp": False, "verify_iat": False}
    assert jwt.decode(token, key, ["ES256"], options, audience="x")["sub"] == WHO


def pem(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey, **form: PublicFormat) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo, **form).decode()


def compressed() -> str:
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    octets = point.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    prefix = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    return armoured(prefix + octets)


def armoured(octets: bytes) -> str:
    text = base64.b64encode(octets).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"


def of_p256(*, cut: int = 0, more: bytes = b"") -> str:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return armoured(octets[: len(octets) - cut] + more)


OTHERS = {
    "another curve": pem(ec.generate_private_key(ec.SECP384R1()).public_key()),
    "another algorithm": pem(ed25519.Ed25519PrivateKey.generate().public_key()),
    "a compressed point": compressed(),
    "cut off": of_p256(cut=1),
    "more than a key": of_p256(more=b"\0"),
    "no base64": "-----BEGIN PUBLIC KEY-----\nA\n-----END PUBLIC KEY-----\n",
    "no PEM": "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE",
    "nothing": "",
}


@pytest.mark.parametrize("public", OTHERS.values(), ids=OTHERS)
def test_what_is_no_key_of_ours_is_not_published(record: Record, public: str) -> None:
    broken = structs.replace(record.jwt_keys[0], public=public)
    with pytest.raises(KeystoreError, match="is not on P-256"):
        jwt_jwks(structs.replace(record, jwt_keys=(broken,)))


def test_it_needs_no_library_for_keys() -> None:
    code = "import sys, certs.known_jwks; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
