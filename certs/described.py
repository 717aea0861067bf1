"""Our trust domain as a person looks at it; no key is read."""

import datetime as dt
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from msgspec import Struct

from certs.generation import key_name
from certs.jwks import make_jwks
from certs.known_domain import Generation, pem_of, read_record, record_of
from certs.rotation import signing
from certs.sealed import is_sealed


class DescribedKey(Struct, frozen=True):
    """One generation: `signs` now, is `prepared` for later, or `retired` and still believed.

    `sha256` is of the certificate, and empty for a JWT key, which has none; `id` is its kid.
    """

    id: str
    state: Literal["signs", "prepared", "retired"]
    sha256: str
    signs_from: dt.datetime
    not_before: dt.datetime
    not_after: dt.datetime


class DescribedDomain(Struct, frozen=True):
    """The public side of the folder; keys stand oldest first."""

    trust_domain: str
    sequence: int
    is_encrypted: bool
    roots: tuple[DescribedKey, ...]
    intermediates: tuple[DescribedKey, ...]
    jwt_keys: tuple[DescribedKey, ...]


def describe_domain(folder: Path, now: dt.datetime) -> DescribedDomain | None:
    """Return what there is to be known of the trust domain; None where there is none.

    Raises:
        KeystoreError: a file cannot be read.
    """
    record = read_record(folder)
    if record is None:
        return None
    return DescribedDomain(
        trust_domain=record.trust_domain,
        sequence=record.sequence,
        is_encrypted=all(is_sealed(folder, key_name(each.id)) for each in record.all),
        roots=_described(record.roots, now),
        intermediates=_described(record.intermediates, now),
        jwt_keys=_described(record.jwt_keys, now),
    )


def export_bundle(folder: Path, *, as_jwks: bool = False) -> bytes:
    """Return whom to believe for our trust domain: its roots as PEM, or a SPIFFE JWKS document.

    Raises:
        KeystoreError: there is no trust domain, or it cannot be read.
    """
    record = record_of(folder)
    if as_jwks:
        return make_jwks(record)
    return pem_of(record.roots).encode()


def _described(generations: tuple[Generation, ...], now: dt.datetime) -> tuple[DescribedKey, ...]:
    signs = signing(generations, now.timestamp())
    return tuple(
        DescribedKey(
            id=each.id,
            state=_state(each, signs),
            sha256=_sha256(each.public),
            signs_from=dt.datetime.fromtimestamp(each.signs_from, dt.UTC),
            not_before=dt.datetime.fromtimestamp(each.not_before, dt.UTC),
            not_after=dt.datetime.fromtimestamp(each.not_after, dt.UTC),
        )
        for each in generations
    )


def _state(each: Generation, signs: Generation | None) -> Literal["signs", "prepared", "retired"]:
    if signs is None or each.signs_from < signs.signs_from:
        return "retired"
    return "signs" if each is signs else "prepared"


def _sha256(public: str) -> str:
    if "CERTIFICATE" not in public:
        return ""
    return x509.load_pem_x509_certificate(public.encode()).fingerprint(hashes.SHA256()).hex()
