"""What is done with the local CA: make it, sign with it, look at it.

Each of these is one whole step under the folder's lock.  Whatever an earlier one left half done,
the next one mends where it can: a leaf is made anew, a root never without being told to.
"""

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from msgspec import Struct

from certs import files
from certs.errors import KeystoreError
from certs.issuer import check, constraints_of, make_leaf, make_root, names_of
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


class Made(Struct, frozen=True):
    """What a step made; nothing where everything was there and good."""

    root: bool = False
    leaf: bool = False


class Shown(Struct, frozen=True):
    """A certificate as a person compares it; `names` are a leaf's, or what a root is held to."""

    subject: str
    names: tuple[str, ...]
    sha256: str
    not_before: dt.datetime
    not_after: dt.datetime


class Described(Struct, frozen=True):
    """The public side of the folder."""

    root: Shown
    server: Shown | None


def init(folder: Path, names: tuple[str, ...], now: dt.datetime, *, force: bool = False) -> Made:
    """Make a root for a server of `names`, and its leaf; only `force` replaces a root.

    Raises:
        KeystoreError: there is one, or the folder cannot be used.
    """
    files.enter(folder)
    with files.locked(folder):
        if not force and load_root(folder) is not None:
            raise KeystoreError(
                f"{folder} has a CA already: `sallyport ca show` shows it; `--force` makes a new "
                "one, which every client must be told of"
            )
        root = make_root(names, now)
        leaf = make_leaf(root, names, now)
        store_root(folder, root)
        store_leaf(folder, leaf)
    return Made(root=True, leaf=True)


def ensure(folder: Path, names: tuple[str, ...], now: dt.datetime) -> Made:
    """Make what is missing of root and leaf; a leaf that is not good for `names` is made anew.

    Raises:
        KeystoreError: the folder cannot be used, or is half-written.
        IssueError: the root does not permit a name, or is not valid at `now`.
    """
    files.enter(folder)
    with files.locked(folder):
        root = load_root(folder)
        made_root = root is None
        if root is None:
            root = make_root(names, now)
            store_root(folder, root)
        # Before the leaf is looked at: one that outlives its root would hide the cure.
        check(root.certificate, names, now)
        if _is_leaf_good(folder, root.certificate, names, now):
            return Made()
        store_leaf(folder, make_leaf(root, names, now))
    return Made(root=made_root, leaf=True)


def renew(folder: Path, names: tuple[str, ...], now: dt.datetime) -> None:
    """Make a new leaf for `names`.

    Raises:
        KeystoreError: there is no root, or the folder cannot be used.
        IssueError: the root does not permit a name, or is not valid at `now`.
    """
    with files.locked(folder):
        root = load_root(folder)
        if root is None:
            raise KeystoreError(f"{folder} has no CA: make one with `sallyport ca init`")
        store_leaf(folder, make_leaf(root, names, now))


def describe(folder: Path) -> Described:
    """Return what there is to be known of root and leaf; reads no key.

    Raises:
        KeystoreError: there is no root, or a certificate cannot be read.
    """
    root, leaf = _public_root(folder), load_leaf_certificate(folder)
    subtrees, networks = constraints_of(root)
    return Described(
        root=_shown(root, (*subtrees, *map(str, networks))),
        server=None if leaf is None else _shown(leaf, names_of(leaf)),
    )


def export(folder: Path, *, as_der: bool = False) -> bytes:
    """Return the root's certificate, PEM or DER; reads no key.

    Raises:
        KeystoreError: there is none, or it cannot be read.
    """
    root = _public_root(folder)
    return der(root) if as_der else pem(root)


def _public_root(folder: Path) -> x509.Certificate:
    root = load_root_certificate(folder)
    if root is None:
        raise KeystoreError(f"{folder} has no CA: make one with `sallyport ca init`")
    return root


def _is_leaf_good(
    folder: Path, root: x509.Certificate, names: tuple[str, ...], now: dt.datetime
) -> bool:
    known = read_leaf(folder)
    whole = is_leaf_whole(folder, root)
    return whole and known is not None and known.is_good(names, now.timestamp())


def _shown(certificate: x509.Certificate, names: tuple[str, ...]) -> Shown:
    return Shown(
        subject=certificate.subject.rfc4514_string(),
        names=names,
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )
