"""Private keys at rest: PKCS#8 in PEM, encrypted where there is a secret.

The secret is a passphrase in a file, or a credential that systemd hands over.  Nothing of a key or
of the secret is in an error: the library's own texts are dropped.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certs import files
from certs.errors import KeystoreError

CREDENTIAL = "sallyport.identity"
"""The name of the systemd credential: `LoadCredentialEncrypted=sallyport.identity:FILE`."""
MOST_SECRET_OCTETS = 1023  # what OpenSSL takes as a passphrase (PEM_BUFSIZE less one)
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not hold us up


def find_secret(key_file: str | None, environ: Mapping[str, str]) -> bytes | None:
    """Return the passphrase of the keys: from `key_file`, or from systemd; None where none is set.

    Raises:
        KeystoreError: it is set, and cannot be read.
    """
    if key_file:
        return read_secret_file(Path(key_file))
    folder = environ.get("CREDENTIALS_DIRECTORY")
    path = None if folder is None else Path(folder) / CREDENTIAL
    return None if path is None or not path.exists() else read_secret_file(path, shared=True)


def read_secret_file(path: Path, *, shared: bool = False) -> bytes:
    """Return the passphrase in a file, without the newline at its end.

    The file is ours or root's, and nobody else may read it.  `shared`: in a folder that systemd
    guards, where the bits for the group stand for the mask of an access control list.

    Raises:
        KeystoreError: it cannot be read, is open to others, is empty or too long.
    """
    try:
        fd = os.open(path, _READ)
    except OSError as error:
        raise KeystoreError(
            f"cannot read the passphrase in {path}: {error.strerror}; correct `identity.key_file`"
        ) from None
    try:
        found = os.fstat(fd)
        _check(path, found, 0o007 if shared else 0o077)
        text = os.read(fd, MOST_SECRET_OCTETS + 2)
    finally:
        os.close(fd)
    secret = text.removesuffix(b"\n")
    if not 0 < len(secret) <= MOST_SECRET_OCTETS:
        raise KeystoreError(
            f"{path} holds no passphrase: it is to have 1 to {MOST_SECRET_OCTETS} octets"
        )
    return secret


def store_key(
    folder: Path, name: str, key: ec.EllipticCurvePrivateKey, secret: bytes | None
) -> None:
    """Write a key, encrypted where there is a secret.

    Raises:
        KeystoreError: it cannot be written.
    """
    encryption = (
        serialization.NoEncryption()  # the folder's mode guards it
        if secret is None
        else serialization.BestAvailableEncryption(secret)
    )
    octets = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    files.write(folder, name, octets)


_NEW_KEYS = "make new keys with `sallyport ca rotate root --forget` (`jwt --forget`)"


def load_key(folder: Path, name: str, secret: bytes | None) -> ec.EllipticCurvePrivateKey:
    """Return a key.  One that is not encrypted is taken whatever the secret; see `is_sealed`.

    Raises:
        KeystoreError: it is missing, open to others, or the secret is not its own.
    """
    path, text = folder / name, files.read_secret(folder, name, _NEW_KEYS)
    if text is None:
        raise KeystoreError(
            f"{path} is missing: put it back from a backup; without one, {_NEW_KEYS}"
        )
    if not _is_sealed(text):
        secret = None
    elif secret is None:
        raise KeystoreError(
            f"{path} is encrypted: name the file with its passphrase in `identity.key_file`; to "
            "encrypt no longer, `sallyport ca seal --from FILE`"
        )
    try:
        key = serialization.load_pem_private_key(text, secret)
    except (ValueError, TypeError):  # the library's own text may quote what it read
        key = None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key
    if secret is None:
        raise KeystoreError(f"{path} is none of our keys: put it back from a backup")
    raise KeystoreError(
        f"the passphrase does not open {path}: correct the one in `identity.key_file`; where it "
        "was changed, `sallyport ca seal --from FILE` with the old one"
    )


def is_sealed(folder: Path, name: str) -> bool:
    """Return whether a key is encrypted.

    Raises:
        KeystoreError: it cannot be read.
    """
    return _is_sealed(files.read_secret(folder, name, _NEW_KEYS) or b"")


def _is_sealed(text: bytes) -> bool:
    return text.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")  # RFC 7468, section 11


def _check(path: Path, found: os.stat_result, others: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise KeystoreError(f"{path} is no file: correct `identity.key_file`")
    if found.st_uid not in {0, os.geteuid()}:
        raise KeystoreError(f"{path} belongs to uid {found.st_uid}: chown it to us, or to root")
    if found.st_mode & others:
        raise KeystoreError(
            f"{path} is open to other users: chmod 600 {path}; if one of them may have read it, "
            "write another passphrase and run `sallyport ca seal --from` with the old one"
        )
