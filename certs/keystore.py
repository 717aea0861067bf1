"""Certificates and keys on the disk: PEM texts in the folder of `certs.files`."""

from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certs import files
from certs.errors import KeystoreError
from certs.issuer import Pair, names_of
from certs.leaf import Leaf, fingerprint

_NEW = "`sallyport ca init --force` makes a new CA, which every client must be told of"


def load_root(folder: Path) -> Pair | None:
    """Return the root and its key; None where there is neither.

    Raises:
        KeystoreError: one is there without the other, they do not belong together, or one of
            them cannot be read or is open to others.
    """
    certificate, key = load_root_certificate(folder), files.read_secret(folder, files.ROOT_KEY)
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        there, missing = (files.ROOT_PEM, files.ROOT_KEY)[:: 1 if key is None else -1]
        raise KeystoreError(
            f"{folder} is half-written: {there} is there, {missing} is not; put it back, or {_NEW}"
        )
    pair = Pair(certificate, _key(folder / files.ROOT_KEY, key))
    if pair.key.public_key() != certificate.public_key():
        raise KeystoreError(
            f"{folder} is half-written: {files.ROOT_KEY} is not the key of {files.ROOT_PEM}; "
            f"put the right one back, or {_NEW}"
        )
    return pair


def load_root_certificate(folder: Path) -> x509.Certificate | None:
    """Return the root without its key; None where there is none.

    Raises:
        KeystoreError: it cannot be read.
    """
    return _load(folder, files.ROOT_PEM)


def load_leaf_certificate(folder: Path) -> x509.Certificate | None:
    """Return the leaf without its key; None where there is none.

    Raises:
        KeystoreError: it cannot be read.
    """
    return _load(folder, files.SERVER_PEM)


def is_leaf_whole(folder: Path, root: x509.Certificate) -> bool:
    """Return whether the leaf on the disk was signed by `root` and has its key beside it.

    Raises:
        KeystoreError: the key is open to others, or a file cannot be read.
    """
    leaf, key = load_leaf_certificate(folder), files.read_secret(folder, files.SERVER_KEY)
    if leaf is None or key is None:
        return False
    try:
        leaf.verify_directly_issued_by(root)
        return _key(folder / files.SERVER_KEY, key).public_key() == leaf.public_key()
    except Exception:  # noqa: BLE001 - ValueError, TypeError, InvalidSignature: a new one is made
        return False


def store_root(folder: Path, root: Pair) -> None:
    """Write a root.  The key goes first: no certificate is ever trusted whose key is lost.

    Raises:
        KeystoreError: it cannot be written.
    """
    files.write(folder, files.ROOT_KEY, _key_pem(root.key))
    files.write(folder, files.ROOT_PEM, pem(root.certificate))


def store_leaf(folder: Path, leaf: Pair) -> None:
    """Write a leaf, then what is known of it: a crash in between makes it due.

    Raises:
        KeystoreError: it cannot be written.
    """
    certificate = pem(leaf.certificate)
    files.write(folder, files.SERVER_KEY, _key_pem(leaf.key))
    files.write(folder, files.SERVER_PEM, certificate)
    known = Leaf(
        not_before=int(leaf.certificate.not_valid_before_utc.timestamp()),
        not_after=int(leaf.certificate.not_valid_after_utc.timestamp()),
        names=names_of(leaf.certificate),
        sha256=fingerprint(certificate),
    )
    files.write(folder, files.SERVER_JSON, msgspec.json.encode(known))


def pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM (RFC 7468)."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def der(certificate: x509.Certificate) -> bytes:
    """Return a certificate as DER."""
    return certificate.public_bytes(serialization.Encoding.DER)


def _load(folder: Path, name: str) -> x509.Certificate | None:
    text = files.read(folder, name)
    if text is None:
        return None
    try:
        return x509.load_pem_x509_certificate(text)
    except ValueError:
        raise KeystoreError(f"{folder / name} is no certificate: put it back, or {_NEW}") from None


def _key(path: Path, text: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(text, password=None)
    except (ValueError, TypeError):  # the library's own text may quote what it read
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeystoreError(f"{path} is none of our keys: put it back, or {_NEW}")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),  # we start unattended; the folder's mode guards it
    )
