"""What is done with our trust domain on the disk: make it, rotate it, seal it, load it.

    domain.json    which generations of which key count, certificates included: the one truth
    bundle.pem     its roots, for people and programs that want PEM
    ID.key         one private key each

Each step is whole under the folder's lock.  New keys are written first, then `domain.json`, which
is the step's one moment; then `bundle.pem`, and what nobody needs any more is removed.  After a
crash the old state stands or the new one, and the next step removes what was left over.
"""

import contextlib
import datetime as dt
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID
from msgspec import Struct
from msgspec.structs import replace

from certs import files
from certs.errors import KeystoreError
from certs.generation import alone, authority_of, generations_of, key_name, next_generation
from certs.known_domain import (
    BUNDLE_PEM,
    DOMAIN_JSON,
    Generation,
    Record,
    pem_of,
    read_record,
    record_of,
)
from certs.rotation import What, due, pruned, signing
from certs.sealed import is_sealed, load_key, store_key
from certs.spiffe import check_own_trust_domain
from certs.svid import SvidIssuer
from certs.trust_domain import TrustDomain, stamp_of


class Rotated(Struct, frozen=True):
    """What a step made: a whole trust domain, next generations, or sealed keys.

    `lacks_root`: an intermediate is due, and the root's key is kept elsewhere.
    """

    is_new: bool = False
    made: tuple[What, ...] = ()
    sealed: bool = False
    lacks_root: bool = False


class Distribution(Struct, frozen=True):
    """Where verifiers ask about revocation: URLs that SVIDs name; an empty one is left out."""

    crl: str = ""
    ocsp: str = ""


def init_domain(folder: Path, trust_domain: str, now: dt.datetime, secret: bytes | None) -> None:
    """Make the keys of a trust domain.

    Raises:
        KeystoreError: there are some, or the folder cannot be used.
        SpiffeError: the name cannot be that of our trust domain.
    """
    check_own_trust_domain(trust_domain)
    files.enter(folder)
    with files.locked(folder):
        if read_record(folder) is not None:
            raise KeystoreError(f"{folder} has a trust domain already: `sallyport ca show`")
        _begin(folder, trust_domain, now, secret)


def ensure_domain(
    folder: Path, trust_domain: str, now: dt.datetime, secret: bytes | None
) -> Rotated:
    """Make what is missing or due, remove what has ended, and encrypt keys that are not yet.

    Raises:
        KeystoreError: the folder cannot be used, the secret is not its own, or it is the folder
            of another trust domain.
        SpiffeError: the name cannot be that of our trust domain.
        IssueError: the root is not valid at `now`.
    """
    check_own_trust_domain(trust_domain)
    files.enter(folder)
    with files.locked(folder):
        record = read_record(folder)
        if record is None:
            _begin(folder, trust_domain, now, secret)
            return Rotated(is_new=True)
        if record.trust_domain != trust_domain:
            raise KeystoreError(
                f"{folder} is of the trust domain {record.trust_domain}, `identity.trust_domain` "
                f"is {trust_domain}: set it back, or move {folder} away to begin a new one, which "
                "everybody must be told of"
            )
        has_sealed = _seal(folder, record, secret, secret)  # or says that the secret is wrong
        lacks_root = _lacks_root(folder, record, now)
        made: list[What] = []
        changed = record
        for what in due(record, now.timestamp()):
            if what == "intermediate" and lacks_root:
                continue  # the one that signs is good for weeks: time to put the key back
            changed = next_generation(folder, changed, what, now, secret)
            made.append(what)
        _commit(folder, record, pruned(changed, now.timestamp()))
    return Rotated(made=tuple(made), sealed=has_sealed, lacks_root=lacks_root)


def rotate(
    folder: Path, now: dt.datetime, secret: bytes | None, what: What, *, forget: bool = False
) -> Generation:
    """Make the next generation of a key; it is published at once and signs when its time comes.

    `forget` is for keys that were stolen: the new one signs at once, and those before are not
    believed any more.  A root takes its intermediates along.

    Raises:
        KeystoreError: there is no trust domain of ours, too many generations are published, or the
            secret is not its own.
        IssueError: the root is not valid at `now`, or an intermediate is to be forgotten.
    """
    files.check(folder)  # root would write what its owner could not read any more
    with files.locked(folder):
        record = record_of(folder)
        changed = alone(record, what) if forget else record
        changed = next_generation(folder, changed, what, now, secret)
        if not changed.intermediates:
            changed = next_generation(folder, changed, "intermediate", now, secret)
        changed = pruned(changed, now.timestamp())
        _commit(folder, record, changed)
    return generations_of(changed, what)[-1]


def reseal(folder: Path, old: bytes | None, new: bytes | None) -> bool:
    """Encrypt every key with `new` (None: not at all); `old` opens those that `new` does not.

    Returns whether anything changed.  What a crash cut short is finished by doing it again.

    Raises:
        KeystoreError: there is no trust domain of ours, or neither secret opens a key.
    """
    files.check(folder)
    with files.locked(folder):
        return _seal(folder, record_of(folder), old, new)


def load_domain(
    folder: Path, secret: bytes | None, distribution: Distribution | None = None
) -> TrustDomain:
    """Return the trust domain, ready to issue.

    Raises:
        KeystoreError: there is none, the secret is not its own, or a file is missing.
    """
    more = _extensions(distribution or Distribution())
    with files.locked(folder):
        stamp = stamp_of(folder)
        record = record_of(folder)
        issuers = {
            each.id: SvidIssuer(record.trust_domain, authority_of(folder, each, secret), more)
            for each in record.intermediates
        }
        keys = {each.id: load_key(folder, key_name(each.id), secret) for each in record.jwt_keys}
    return TrustDomain(folder, record, stamp, issuers, keys)


def _lacks_root(folder: Path, record: Record, now: dt.datetime) -> bool:
    """Return whether an intermediate is due that can wait, and whose root's key is not there."""
    at = now.timestamp()
    root = signing(record.roots, at)
    if root is None or "intermediate" not in due(record, at):
        return False
    can_wait = signing(record.intermediates, at) is not None
    return can_wait and not (folder / key_name(root.id)).exists()


def _begin(folder: Path, trust_domain: str, now: dt.datetime, secret: bytes | None) -> None:
    if files.read(folder, BUNDLE_PEM) is not None:  # it comes after the record: that one was lost
        raise KeystoreError(
            f"{folder / DOMAIN_JSON} is missing, and keys are there: put it back from a backup, or "
            f"move {folder} away: a new trust domain is made, which everybody must be told of"
        )
    empty = record = Record(trust_domain, 0, (), (), ())
    whats: tuple[What, ...] = ("root", "intermediate", "jwt")
    for what in whats:
        record = next_generation(folder, record, what, now, secret)
    _commit(folder, empty, record)


def _commit(folder: Path, before: Record, after: Record) -> None:
    """Let `after` count from now on; the keys that it names have been written."""
    if after != before:
        after = replace(after, sequence=before.sequence + 1)
        files.write(folder, DOMAIN_JSON, msgspec.json.encode(after))
    bundle = pem_of(after.roots).encode()
    if files.read(folder, BUNDLE_PEM) != bundle:  # also after a crash between the two
        files.write(folder, BUNDLE_PEM, bundle)
    _sweep(folder, {key_name(each.id) for each in after.all})


def _sweep(folder: Path, kept: set[str]) -> None:
    """Remove keys that do not count, and what a process that was killed left beside them."""
    with contextlib.suppress(OSError):  # the next step tries again
        for path in folder.iterdir():
            if path.suffix in {".key", ".new"} and path.name not in kept:
                path.unlink()


def _seal(folder: Path, record: Record, old: bytes | None, new: bytes | None) -> bool:
    """Bring every key to `new`; those that it opens already are left."""
    names = [key_name(each.id) for each in record.all]
    # The root's key may be kept elsewhere until an intermediate is due.
    there = [name for name in names if (folder / name).exists()]
    wanted = [name for name in there if not _is_under(folder, name, new)]
    opened = [(name, load_key(folder, name, old)) for name in wanted]  # all, before any is written
    for name, key in opened:
        store_key(folder, name, key, new)
    return bool(opened)


def _is_under(folder: Path, name: str, secret: bytes | None) -> bool:
    if not is_sealed(folder, name) or secret is None:
        return is_sealed(folder, name) is (secret is not None)
    try:
        load_key(folder, name, secret)
    except KeystoreError:
        return False
    return True


def _extensions(where: Distribution) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    more: list[tuple[x509.ExtensionType, bool]] = []
    if where.crl:  # RFC 5280, section 4.2.1.13
        url = x509.UniformResourceIdentifier(where.crl)
        point = x509.DistributionPoint([url], None, None, None)
        more.append((x509.CRLDistributionPoints([point]), False))
    if where.ocsp:  # RFC 5280, section 4.2.2.1
        url = x509.UniformResourceIdentifier(where.ocsp)
        access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, url)
        more.append((x509.AuthorityInformationAccess([access]), False))
    return tuple(more)
