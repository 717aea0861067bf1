"""An attester's key: made once, ours alone, and never shown."""

from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from certs.attester_key import ensure_attester_key, spki_of
from certs.errors import CertsError, KeystoreError
from tests.authority import PrivateAuthority


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent" / "attester.key"


def write(path: Path, key: ec.EllipticCurvePrivateKey, passphrase: bytes = b"") -> None:
    sealed = serialization.BestAvailableEncryption(passphrase) if passphrase else None
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            sealed or serialization.NoEncryption(),
        )
    )
    path.chmod(0o600)


def test_the_key_is_made_once_and_is_ours_alone(path: Path) -> None:
    first = ensure_attester_key(path)
    assert ensure_attester_key(path).spki == first.spki
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_signature_verifies_with_what_is_published(path: Path) -> None:
    key = ensure_attester_key(path)
    public = serialization.load_der_public_key(key.spki)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(key.sign(b"message"), b"message", ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        public.verify(key.sign(b"message"), b"another", ec.ECDSA(hashes.SHA256()))


def test_no_repr_shows_the_key(path: Path) -> None:
    assert repr(ensure_attester_key(path)) == "AttesterKey(...)"


def test_a_key_of_openssl_is_taken(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    write(path, key)
    assert ensure_attester_key(path).spki == key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_a_key_that_others_may_read_is_refused(path: Path) -> None:
    ensure_attester_key(path)
    path.chmod(0o640)
    with pytest.raises(KeystoreError, match="open to other users"):
        ensure_attester_key(path)


def test_a_folder_that_others_may_read_is_refused(path: Path) -> None:
    path.parent.mkdir(mode=0o755)
    path.parent.chmod(0o755)
    with pytest.raises(KeystoreError, match="chmod 700"):
        ensure_attester_key(path)
    assert not path.exists()


def test_another_curve_is_refused(path: Path) -> None:
    write(path, ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(KeystoreError, match="no P-256 key"):
        ensure_attester_key(path)


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(path: Path) -> None:
    write(path, ec.generate_private_key(ec.SECP256R1()), b"word")
    with pytest.raises(KeystoreError, match="without a passphrase"):
        ensure_attester_key(path)


def test_an_error_shows_nothing_of_what_was_read(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text("-----BEGIN PRIVATE KEY-----\nMC5SECRET\n-----END PRIVATE KEY-----\n")
    path.chmod(0o600)
    with pytest.raises(KeystoreError) as caught:
        ensure_attester_key(path)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_key_of_a_certificate_is_that_of_the_leaf(tmp_path: Path) -> None:
    chain, key = PrivateAuthority(tmp_path).issue(["localhost"])
    found = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(found, ec.EllipticCurvePrivateKey)
    both = chain.read_bytes() + (tmp_path / "ca.pem").read_bytes()
    assert spki_of(both) == found.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@given(st.binary(max_size=100), st.booleans())
def test_what_is_no_certificate_is_an_error_with_a_text(octets: bytes, framed: bool) -> None:
    if framed:
        octets = b"-----BEGIN CERTIFICATE-----\n" + octets + b"\n-----END CERTIFICATE-----\n"
    with pytest.raises(CertsError):
        spki_of(octets)
