"""Certificates and keys on the disk: what belongs together, and what does not."""

import datetime as dt
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from certs import files
from certs.errors import KeystoreError
from certs.issuer import LEAF_LIFE, LEAF_SKEW, Pair, make_leaf, make_root
from certs.keystore import (
    der,
    is_leaf_whole,
    load_leaf_certificate,
    load_root,
    load_root_certificate,
    pem,
    store_leaf,
    store_root,
)
from certs.leaf import read_leaf
from certs.names import server_names

NOW = dt.datetime(2026, 11, 22, 1, 2, 3, 456789, tzinfo=dt.UTC)
NAMES = server_names(["127.0.0.1"])
ROOT = make_root(NAMES, NOW)
OTHER = make_root(NAMES, NOW)
LEAF = make_leaf(ROOT, NAMES, NOW)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store_root(tmp_path, ROOT)
    store_leaf(tmp_path, LEAF)
    return tmp_path


def replace(path: Path, octets: bytes) -> None:
    path.write_bytes(octets)
    path.chmod(0o600)


def test_what_was_stored_is_loaded(folder: Path) -> None:
    loaded = load_root(folder)
    assert loaded is not None
    assert loaded.certificate == load_root_certificate(folder) == ROOT.certificate
    assert loaded.key.private_numbers() == ROOT.key.private_numbers()
    assert load_leaf_certificate(folder) == LEAF.certificate
    assert is_leaf_whole(folder, ROOT.certificate)


def test_what_is_known_of_the_leaf_stands_beside_it(folder: Path) -> None:
    known = read_leaf(folder)
    assert known is not None
    assert known.names == NAMES
    now = int(NOW.timestamp())  # X.509 has whole seconds
    assert known.not_before == now - LEAF_SKEW.total_seconds()
    assert known.not_after == now + LEAF_LIFE.total_seconds()


def test_an_empty_folder_has_no_root(tmp_path: Path) -> None:
    assert load_root(tmp_path) is None
    assert load_leaf_certificate(tmp_path) is None
    assert not is_leaf_whole(tmp_path, ROOT.certificate)


@pytest.mark.parametrize("missing", [files.ROOT_KEY, files.ROOT_PEM])
def test_a_root_without_its_other_half_is_said_with_the_cure(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(KeystoreError, match=rf"half-written: .* {missing} is not; .*--force"):
        load_root(folder)


def test_a_key_of_another_root_is_said_with_the_cure(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    store_root(other, OTHER)
    (other / files.ROOT_KEY).rename(folder / files.ROOT_KEY)
    with pytest.raises(KeystoreError, match=r"is not the key of root\.pem; .*--force"):
        load_root(folder)


def other_key(encryption: bytes | None = None) -> bytes:
    kind = BestAvailableEncryption(encryption) if encryption else NoEncryption()
    key = OTHER.key if encryption else ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, kind)


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END", id="cut"),
        pytest.param(b"\x00\xff" * 50, id="binary"),
        pytest.param(other_key(), id="of another kind"),
        pytest.param(other_key(b"password"), id="encrypted"),
    ],
)
def test_what_is_no_key_of_ours_is_named_and_not_shown(folder: Path, octets: bytes) -> None:
    replace(folder / files.ROOT_KEY, octets)
    with pytest.raises(KeystoreError, match=r"root\.key is none of our keys") as caught:
        load_root(folder)
    assert "c2VjcmV0" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("octets", [b"", b"-----BEGIN CERTIFICATE-----\n", b"\x00" * 20])
def test_what_is_no_certificate_is_named(folder: Path, octets: bytes) -> None:
    replace(folder / files.ROOT_PEM, octets)
    with pytest.raises(KeystoreError, match=r"root\.pem is no certificate"):
        load_root(folder)


def test_a_leaf_of_another_root_is_not_whole(folder: Path) -> None:
    assert not is_leaf_whole(folder, OTHER.certificate)


@pytest.mark.parametrize(
    "key", [None, make_leaf(ROOT, NAMES, NOW).key, b"no key"], ids=["none", "another", "broken"]
)
def test_a_leaf_without_its_key_is_not_whole(
    folder: Path, key: ec.EllipticCurvePrivateKey | bytes | None
) -> None:
    path = folder / files.SERVER_KEY
    if key is None:
        path.unlink()
    elif isinstance(key, bytes):
        replace(path, key)
    else:
        replace(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert not is_leaf_whole(folder, ROOT.certificate)


def test_a_leafs_key_that_is_open_to_others_is_an_error(folder: Path) -> None:
    (folder / files.SERVER_KEY).chmod(0o644)
    with pytest.raises(KeystoreError, match="chmod 600"):
        is_leaf_whole(folder, ROOT.certificate)


def test_keys_are_in_key_files_only(folder: Path) -> None:
    private = [path.name for path in folder.iterdir() if b"PRIVATE KEY" in path.read_bytes()]
    assert sorted(private) == [files.ROOT_KEY, files.SERVER_KEY]


def test_pem_and_der_are_of_the_same_certificate() -> None:
    assert pem(ROOT.certificate).startswith(b"-----BEGIN CERTIFICATE-----\n")
    assert der(ROOT.certificate)[:1] == b"\x30"  # SEQUENCE


def test_a_pair_is_a_certificate_with_its_key() -> None:
    assert Pair(ROOT.certificate, ROOT.key) == ROOT
