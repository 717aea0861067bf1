"""Keys at rest: unreadable without the secret, and never quoted."""

import os
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certs import files
from certs.errors import KeystoreError
from certs.sealed import (
    CREDENTIAL,
    MOST_SECRET_OCTETS,
    find_secret,
    is_sealed,
    load_key,
    read_secret_file,
    store_key,
)

SECRET = b"correct horse"
NAME = "x.key"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "identity"
    files.enter(path)
    return path


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def secret_file(folder: Path, octets: bytes = SECRET, mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_bytes(octets)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("secret", [None, SECRET], ids=["plain", "sealed"])
def test_a_key_comes_back(
    folder: Path, key: ec.EllipticCurvePrivateKey, secret: bytes | None
) -> None:
    store_key(folder, NAME, key, secret)
    assert load_key(folder, NAME, secret).private_numbers() == key.private_numbers()
    assert is_sealed(folder, NAME) is (secret is not None)
    assert (folder / NAME).stat().st_mode & 0o777 == 0o600


def test_a_sealed_key_is_unreadable_without_the_secret(
    folder: Path, key: ec.EllipticCurvePrivateKey
) -> None:
    store_key(folder, NAME, key, SECRET)
    text = (folder / NAME).read_bytes()
    assert text.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    plain = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    assert not set(plain.splitlines()[1:-1]) & set(text.splitlines())
    with pytest.raises(KeystoreError, match=r"is encrypted: .*identity\.key_file"):
        load_key(folder, NAME, None)
    with pytest.raises(KeystoreError, match=r"does not open .*ca seal --from") as caught:
        load_key(folder, NAME, b"wrong horse")
    assert "horse" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_plain_key_is_taken_whatever_the_secret(
    folder: Path, key: ec.EllipticCurvePrivateKey
) -> None:
    store_key(folder, NAME, key, None)
    assert load_key(folder, NAME, SECRET).private_numbers() == key.private_numbers()


def test_a_missing_key_is_said(folder: Path) -> None:
    with pytest.raises(KeystoreError, match=r"x\.key is missing"):
        load_key(folder, NAME, None)
    assert not is_sealed(folder, NAME)


def test_a_key_of_another_kind_is_none_of_ours(folder: Path) -> None:
    other = rsa.generate_private_key(65537, 2048)
    octets = other.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for content in (octets, b"rubbish", octets[:200]):
        files.write(folder, NAME, content)
        with pytest.raises(KeystoreError, match="none of our keys") as caught:
            load_key(folder, NAME, SECRET)
        assert octets.splitlines()[1].decode() not in str(caught.value)


def test_a_key_that_others_may_read_is_refused(
    folder: Path, key: ec.EllipticCurvePrivateKey
) -> None:
    store_key(folder, NAME, key, None)
    (folder / NAME).chmod(0o640)
    with pytest.raises(KeystoreError, match="chmod 600"):
        load_key(folder, NAME, None)


@pytest.mark.parametrize(
    ("octets", "secret"),
    [
        (b"abc", b"abc"),
        (b"abc\n", b"abc"),
        (b"abc\n\n", b"abc\n"),
        (b" a b ", b" a b "),
        (b"\xff\x00\n", b"\xff\x00"),
        (b"x" * MOST_SECRET_OCTETS + b"\n", b"x" * MOST_SECRET_OCTETS),
    ],
)
def test_a_secret_is_the_file_without_its_last_newline(
    tmp_path: Path, octets: bytes, secret: bytes
) -> None:
    assert read_secret_file(secret_file(tmp_path, octets)) == secret


@pytest.mark.parametrize("octets", [b"", b"\n", b"x" * (MOST_SECRET_OCTETS + 1)])
def test_a_secret_of_no_good_length_is_refused(tmp_path: Path, octets: bytes) -> None:
    with pytest.raises(KeystoreError, match="holds no passphrase"):
        read_secret_file(secret_file(tmp_path, octets))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = secret_file(tmp_path, mode=mode)
    with pytest.raises(KeystoreError, match=f"chmod 600 {re.escape(str(path))}"):
        read_secret_file(path)


def test_a_secret_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = secret_file(tmp_path)
    status = os.fstat
    monkeypatch.setattr(os, "fstat", lambda fd: _owned_by(status(fd), 4321))
    with pytest.raises(KeystoreError, match="belongs to uid 4321"):
        read_secret_file(path)


def _owned_by(found: os.stat_result, uid: int) -> os.stat_result:
    return os.stat_result([uid if at == 4 else value for at, value in enumerate(found[:10])])


def test_a_secret_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(KeystoreError, match="is no file"):
        read_secret_file(tmp_path / "fifo")
    with pytest.raises(KeystoreError, match=r"cannot read the passphrase .*key_file"):
        read_secret_file(tmp_path / "missing")


def test_the_configured_file_comes_before_the_credential(tmp_path: Path) -> None:
    configured = secret_file(tmp_path, b"configured")
    handed = tmp_path / "credentials"
    handed.mkdir()
    environ = {"CREDENTIALS_DIRECTORY": str(handed)}
    assert find_secret(None, {}) is None
    assert find_secret(None, environ) is None
    (handed / CREDENTIAL).write_bytes(b"of systemd\n")
    (handed / CREDENTIAL).chmod(0o440)  # as systemd has it where an access list is in play
    assert find_secret(None, environ) == b"of systemd"
    assert find_secret(str(configured), environ) == b"configured"
    (handed / CREDENTIAL).chmod(0o444)
    with pytest.raises(KeystoreError, match="open to other users"):
        find_secret(None, environ)
