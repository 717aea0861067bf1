"""New generations of the keys of our trust domain: made, written, and entered in the record.

A key is written before any record names it.
"""

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from certs.errors import IssueError, KeystoreError
from certs.intermediate import make_intermediate, make_root
from certs.known_domain import Generation, Record
from certs.mint import Authority
from certs.profile import ROOT
from certs.rotation import (
    JWT_KEY_LIFE_S,
    JWT_PREPARED_S,
    MOST_GENERATIONS,
    ROOT_PREPARED_S,
    What,
    signing,
)
from certs.sealed import load_key, store_key


def key_name(generation_id: str) -> str:
    """Return the name of the file with the key of a generation."""
    return f"{generation_id}.key"


def generations_of(record: Record, what: What) -> tuple[Generation, ...]:
    """Return the generations of one kind of key, oldest first."""
    if what == "root":
        return record.roots
    return record.intermediates if what == "intermediate" else record.jwt_keys


def next_generation(
    folder: Path, record: Record, what: What, now: dt.datetime, secret: bytes | None
) -> Record:
    """Return the record with one generation more, whose key has been written.

    Raises:
        KeystoreError: too many are published, or a file cannot be used.
        IssueError: the root is not valid at `now`.
    """
    before = generations_of(record, what)
    if len(before) >= MOST_GENERATIONS:
        raise KeystoreError(
            f"{MOST_GENERATIONS} generations of {what} are published: wait until older ones end"
        )
    is_first = signing(before, now.timestamp()) is None
    if what == "root":
        made, key = _new_root(record, now, 0 if is_first else ROOT_PREPARED_S)
    elif what == "intermediate":
        made, key = _new_intermediate(folder, record, now, secret)
    else:
        made, key = _new_jwt_key(now, 0 if is_first else JWT_PREPARED_S)
    store_key(folder, key_name(made.id), key, secret)
    return _with(record, what, (*before, made))


def alone(record: Record, what: What) -> Record:
    """Return the record without what is not to be believed any more once `what` is replaced.

    Raises:
        IssueError: `what` is an intermediate.
    """
    if what == "intermediate":
        raise IssueError(
            "an intermediate is believed because its root signed it: to forget one, forget the root"
        )
    if what == "jwt":
        return replace(record, jwt_keys=())
    return replace(record, roots=(), intermediates=())


def authority_of(folder: Path, which: Generation, secret: bytes | None) -> Authority:
    """Return the certificate of a generation with its key.

    Raises:
        KeystoreError: the key is missing, is another's, or the secret does not open it.
    """
    key = load_key(folder, key_name(which.id), secret)
    certificate = x509.load_pem_x509_certificate(which.public.encode())
    if key.public_key() != certificate.public_key():
        path = folder / key_name(which.id)
        raise KeystoreError(f"{path} is not the key of its certificate: put the right one back")
    return Authority(certificate, key)


def _new_root(
    record: Record, now: dt.datetime, wait_s: int
) -> tuple[Generation, ec.EllipticCurvePrivateKey]:
    made = make_root(record.trust_domain, now)
    return _generation(made, int(now.timestamp()) + wait_s), made.key


def _new_intermediate(
    folder: Path, record: Record, now: dt.datetime, secret: bytes | None
) -> tuple[Generation, ec.EllipticCurvePrivateKey]:
    root = signing(record.roots, now.timestamp())
    if root is None:
        raise IssueError(
            f"no root of the trust domain is valid at {now:%Y-%m-%d}: correct the clock; if it is "
            "right, `sallyport ca rotate root --forget`, which everybody must be told of"
        )
    made = make_intermediate(authority_of(folder, root, secret), record.trust_domain, now)
    return _generation(made, int(now.timestamp()), root.id), made.key


def _new_jwt_key(now: dt.datetime, wait_s: int) -> tuple[Generation, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    at = int(now.timestamp())
    made = Generation(
        id=_id(key),
        not_before=at - ROOT.skew_s,
        not_after=at + JWT_KEY_LIFE_S,
        signs_from=at + wait_s,
        public=public.decode(),
    )
    return made, key


def _generation(made: Authority, signs_from: int, issuer: str = "") -> Generation:
    certificate = made.certificate
    return Generation(
        id=_id(made.key),
        not_before=int(certificate.not_valid_before_utc.timestamp()),
        not_after=int(certificate.not_valid_after_utc.timestamp()),
        signs_from=signs_from,
        public=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        issuer=issuer,
    )


def _id(key: ec.EllipticCurvePrivateKey) -> str:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()


def _with(record: Record, what: What, generations: tuple[Generation, ...]) -> Record:
    if what == "root":
        return replace(record, roots=generations)
    if what == "intermediate":
        return replace(record, intermediates=generations)
    return replace(record, jwt_keys=generations)
