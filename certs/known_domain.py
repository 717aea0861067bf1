"""The public facts of our trust domain, as those see them who have no need of a key, or of X.509.

`domain.json` is the one file that says which keys count, certificates included: replacing it is
the moment at which a rotation happens.  The appliance reads this and no certificate: the library
for those would be a quarter of its memory.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from certs import files
from certs.errors import KeystoreError

DOMAIN_JSON, BUNDLE_PEM = "domain.json", "bundle.pem"
REFRESH_HINT_S = 300
"""How often others are to fetch our bundle; SPIRE's default (Trust Domain and Bundle, 4.1.2)."""


class Generation(Struct, frozen=True, forbid_unknown_fields=True):
    """One root, intermediate or JWT key; times are Unix time in seconds.

    `id` names its key file, and is the `kid` of a JWT key.  It is published from `not_before` on
    and signs from `signs_from` on, until a later one does.  `public` is PEM: the certificate, or
    the public key of a JWT key.  `issuer` is the root's id where there is one above.
    """

    id: str
    not_before: int
    not_after: int
    signs_from: int
    public: str
    issuer: str = ""

    @property
    def renew_at(self) -> float:
        """When the next one is due: at two thirds of its life."""
        return self.not_before + (self.not_after - self.not_before) * 2 / 3


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """All of `domain.json`; generations stand oldest first, `sequence` grows with each change."""

    trust_domain: str
    sequence: int
    roots: tuple[Generation, ...]
    intermediates: tuple[Generation, ...]
    jwt_keys: tuple[Generation, ...]
    version: int = 1

    @property
    def all(self) -> tuple[Generation, ...]:
        """Every generation whose key is in the folder."""
        return (*self.roots, *self.intermediates, *self.jwt_keys)


class KnownDomain(Struct, frozen=True):
    """What to believe of our own trust domain; `anchors` is PEM, `not_after` when the last ends.

    `intermediates` is PEM too: they complete the chain of a client that sends its leaf alone.
    """

    trust_domain: str
    sequence: int
    anchors: str
    not_after: int
    intermediates: str = ""
    refresh_hint_s: int = REFRESH_HINT_S


def read_domain(folder: Path) -> KnownDomain | None:
    """Return what is known of the trust domain in `folder`; None where there is none.

    Raises:
        KeystoreError: `domain.json` cannot be read.
    """
    record = read_record(folder)
    if record is None:
        return None
    return KnownDomain(
        trust_domain=record.trust_domain,
        sequence=record.sequence,
        anchors=pem_of(record.roots),
        not_after=max(each.not_after for each in record.roots),
        intermediates=pem_of(record.intermediates),
    )


def read_record(folder: Path) -> Record | None:
    """Return what `domain.json` says; None where there is none.

    Raises:
        KeystoreError: it cannot be read, or is none of ours.
    """
    text = files.read(folder, DOMAIN_JSON)
    if text is None:
        return None
    try:
        record = msgspec.json.decode(text, type=Record)
    except msgspec.MsgspecError:
        record = None
    whole = record is not None and record.roots and record.intermediates and record.jwt_keys
    if record is None or record.version != 1 or not whole:
        raise KeystoreError(
            f"{folder / DOMAIN_JSON} is none of our files: put it back from a backup, or move "
            f"{folder} away: a new trust domain is made, which everybody must be told of"
        )
    return record


def record_of(folder: Path) -> Record:
    """Return what the folder's record says.

    Raises:
        KeystoreError: there is no trust domain, or it cannot be read.
    """
    record = read_record(folder)
    if record is None:
        raise KeystoreError(f"{folder} has no trust domain: `sallyport up` makes it")
    return record


def pem_of(generations: Iterable[Generation]) -> str:
    """Return certificates one after another (RFC 7468)."""
    return "".join(each.public for each in generations)
