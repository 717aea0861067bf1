"""Certificates of endorsement keys: that a key is in a TPM which its vendor made.

TCG EK Credential Profile for TPM Family 2.0.  Certificates of EKs are not like those of servers:
their names stand in a critical directoryName, their use is one of the TCG's, many never end, and
some have no extended key usage at all.
"""

import datetime as dt
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from msgspec import Struct

from certs.errors import EvidenceError
from certs.unreadable import UNREADABLE
from certs.vendor_chain import MOST_CERTIFICATES, Signed, is_understood, leads_to, read_signed

CERTIFICATE_OCTETS: Final = 8192  # RSA-2048 ones have 1 to 1.6 KiB: a TPM's NV memory is small
EK_USAGE = x509.ObjectIdentifier("2.23.133.8.1")  # tcg-kp-EKCertificate, section 3.2.16
_RSA_BITS = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1)
_VENDOR = tuple(x509.ObjectIdentifier(f"2.23.133.2.{last}") for last in (1, 2, 3))
_TEXT_CHARACTERS = 128  # of what a certificate says of its TPM

type EndorsementKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class Endorsement(Struct, frozen=True):
    """An endorsement key that a vendor vouches for.

    `ek_sha256` is the digest of its SubjectPublicKeyInfo (hex); `text` names the TPM as its
    certificate does (manufacturer, model, version), for people.
    """

    key: EndorsementKey
    ek_sha256: str
    text: str


def verify_endorsement(
    certificates: Sequence[bytes], roots: Sequence[bytes], now: dt.datetime
) -> Endorsement:
    """Return the key of an EK certificate, after its chain is verified at `now` (aware).

    `certificates` are DER, the EK's first, then any of those above it; `roots` are DER, and the
    path ends at the first of them, which need not be self-signed.

    Raises:
        EvidenceError: they are none, or no path from the EK to one of `roots` is good.
    """
    if not roots:
        raise EvidenceError(
            "no root for EK certificates is configured here: name the TPM vendor's in"
            " attestation.ek_roots"
        )
    anchors = _by_subject(tuple(roots))
    signed, above = _read(certificates)
    leaf = signed.certificate
    try:
        key = _key(leaf)
        _check_time(leaf, now)
        # What takes time to read is read of those alone that somebody who is trusted has signed.
        is_good = leads_to(signed, above, anchors, now) and _check_use(leaf)
        text = _text(leaf) if is_good else _named(leaf.issuer)
    except UNREADABLE:
        raise EvidenceError("a certificate of the EK's chain has a part that is none") from None
    if not is_good:
        raise EvidenceError(
            f"no chain leads from the EK's certificate (issued by {text}) to a root"
            " of attestation.ek_roots: send the certificates between, or have its root added there"
        )
    spki = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Endorsement(key, hashlib.sha256(spki).hexdigest(), text)


@lru_cache(maxsize=1)  # what is configured: the vendors' together are hundreds
def _by_subject(roots: tuple[bytes, ...]) -> dict[bytes, list[Signed]]:
    found: dict[bytes, list[Signed]] = {}
    try:
        for each in map(read_signed, roots):
            found.setdefault(each.subject, []).append(each)
    except UNREADABLE:
        raise EvidenceError(
            "a root of attestation.ek_roots is no certificate: whoever runs this has to mend it"
        ) from None
    return found


def _read(certificates: Sequence[bytes]) -> tuple[Signed, list[Signed]]:
    if not 0 < len(certificates) <= MOST_CERTIFICATES:
        raise EvidenceError(
            f"send the EK's certificate and those above it, {MOST_CERTIFICATES} at most"
        )
    if max(map(len, certificates)) > CERTIFICATE_OCTETS:
        raise EvidenceError(f"a certificate has more than {CERTIFICATE_OCTETS} octets")
    try:
        leaf, *above = map(read_signed, certificates)
        subjects = {each.subject for each in above}
    except UNREADABLE:
        raise EvidenceError("a certificate of the EK's chain is none in DER") from None
    if len(subjects) != len(above):  # so that there is one path to try, not exponentially many
        raise EvidenceError("two certificates above the EK's have one name: send a single chain")
    return leaf, above


def _key(leaf: x509.Certificate) -> EndorsementKey:
    key = leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size == _RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    raise EvidenceError("the EK is of another kind than RSA-2048, P-256 and P-384")


def _check_time(leaf: x509.Certificate, now: dt.datetime) -> None:
    if now < leaf.not_valid_before_utc:
        raise EvidenceError("the EK's certificate is not valid yet: is the clock right?")
    if now > leaf.not_valid_after_utc:
        raise EvidenceError("the EK's certificate has ended: the TPM's vendor has to renew it")


def _check_use(leaf: x509.Certificate) -> bool:
    """Return whether it has nothing critical that we do not understand."""
    for each in leaf.extensions:
        if not _is_of_ek(each.value):
            raise EvidenceError(
                f"the first certificate is no EK's: {each.oid.dotted_string} says otherwise"
            )
    return is_understood(leaf)


def _is_of_ek(value: x509.ExtensionType) -> bool:
    """Return whether an extension may stand in an EK's certificate (the profile, section 3.2)."""
    if isinstance(value, x509.BasicConstraints):
        return not value.ca
    if isinstance(value, x509.ExtendedKeyUsage):
        return EK_USAGE in value
    if isinstance(value, x509.KeyUsage):  # of RSA the first, of ECC the second; some have both
        return value.key_encipherment or value.key_agreement
    return True


def _text(leaf: x509.Certificate) -> str:
    """Return manufacturer, model and version (the profile, section 3.2.9), else the issuer."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return _named(leaf.issuer)
    names = found.get_values_for_type(x509.DirectoryName)
    texts = [
        str(each.value)
        for name in names
        for oid in _VENDOR
        for each in name.get_attributes_for_oid(oid)
    ]
    return _printable(" ".join(texts)) or _named(leaf.issuer)


def _named(name: x509.Name) -> str:
    return _printable(name.rfc4514_string()) or "nobody"


def _printable(text: str) -> str:
    return "".join(each for each in text if each.isprintable())[:_TEXT_CHARACTERS]
