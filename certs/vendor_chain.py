"""Paths from an EK's certificate to a root (RFC 5280, section 6.1), of vendors that are not exact.

The library's own verification takes no certificate that writes a default value out, as Intel's do
(`critical FALSE`, `cA FALSE`; X.690, section 11.5): it does not even read it.  So the defaults are
left out for reading, and the signature is verified over the octets as they came.  What is not asked
here, name constraints above all, is refused where it is critical.
"""

import datetime as dt
import warnings
from collections.abc import Mapping, Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtensionOID
from msgspec import Struct

MOST_CERTIFICATES: Final = 8  # the EK's and those above; Intel's longest chain has six
_RSA_BITS = 2048
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_UNDERSTOOD = {
    *(ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE),
    *(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ExtensionOID.SUBJECT_DIRECTORY_ATTRIBUTES),
    ExtensionOID.CERTIFICATE_POLICIES,  # no policy is asked for: each is as good
}
_SEQUENCE, _VERSION, _EXTENSIONS = 0x30, 0xA0, 0xA3
_FALSE = b"\x01\x01\x00"
_NO_CA = (b"\x04\x05\x30\x03" + _FALSE, b"\x04\x02\x30\x00")  # cA FALSE written out, and left out
_BASIC_CONSTRAINTS = b"\x06\x03\x55\x1d\x13"


class Signed(Struct, frozen=True):
    """A certificate, and the octets of it that its issuer signed.

    `issuer` and `subject` are the DER of its names, which are compared as they are (RFC 5280,
    section 4.1.2.6): a name of a thousand parts takes milliseconds to read.
    """

    certificate: x509.Certificate
    octets: bytes
    issuer: bytes
    subject: bytes


def read_signed(der: bytes) -> Signed:
    """Return a certificate, with or without its default values.

    Raises:
        ValueError: it is none; or another of `certs.unreadable.UNREADABLE`.
    """
    ((_, content, _whole),) = _values(der)
    (_, signed, octets), *rest = _values(content)
    *fields, (tag, last, _whole) = _values(signed)
    # RFC 5280, section 4.1: serialNumber, signature, issuer, validity and subject after the version
    *_, issuer, _validity, subject = (whole for *_, whole in fields[: 5 + _has_version(fields)])
    if tag == _EXTENSIONS:
        ((_, listed, _whole),) = _values(last)
        each = b"".join(_strict(extension) for _, extension, _whole in _values(listed))
        strict = b"".join(whole for *_, whole in fields) + _value(tag, _value(_SEQUENCE, each))
        der = _value(_SEQUENCE, _value(_SEQUENCE, strict) + b"".join(whole for *_, whole in rest))
    with warnings.catch_warnings():
        # The library warns on stderr of serial numbers that are not positive: the sender's choice
        warnings.simplefilter("ignore")
        return Signed(x509.load_der_x509_certificate(der), octets, issuer, subject)


def leads_to(
    leaf: Signed,
    above: Sequence[Signed],
    roots: Mapping[bytes, Sequence[Signed]],
    now: dt.datetime,
) -> bool:
    """Return whether a path leads from `leaf` through `above` to one of `roots`, good at `now`.

    `roots` are by their subject (DER).  Names in `above` differ, so that there is one path.
    """
    path = _path(leaf, above)
    return any(
        _holds((*path[: below + 1], root), now)
        for below, each in enumerate(path)
        for root in roots.get(each.issuer, ())
    )


def _path(leaf: Signed, above: Sequence[Signed]) -> list[Signed]:
    """Return `leaf` and what is above it, by its names alone."""
    named = {each.subject: each for each in above}
    path = [leaf]
    while len(path) < MOST_CERTIFICATES:
        parent = named.get(path[-1].issuer)
        if parent is None:
            break
        path.append(parent)
    return path


def _holds(path: Sequence[Signed], now: dt.datetime) -> bool:
    """Return whether each of `path` was issued by the next, the last of which is a root.

    From above: who sends a chain chooses its keys and extensions, and some take a hundred times as
    long as others.  None of them is used before somebody who is trusted has signed it.
    """
    return all(
        _issued(path[below], path[below + 1], below, now)
        for below in reversed(range(len(path) - 1))
    )


def is_understood(certificate: x509.Certificate) -> bool:
    """Return whether we know every critical extension (RFC 5280, section 4.2)."""
    return all(each.oid in _UNDERSTOOD for each in certificate.extensions if each.critical)


def _issued(child: Signed, parent: Signed, below: int, now: dt.datetime) -> bool:
    """Return whether `parent`, with `below` authorities between it and the EK, issued `child`."""
    issuer = parent.certificate
    return (
        parent.subject == child.issuer
        and issuer.not_valid_before_utc <= now <= issuer.not_valid_after_utc
        and is_understood(issuer)
        and _may_issue(issuer.extensions, below)
        and _is_signed(child, issuer)
    )


def _may_issue(extensions: x509.Extensions, below: int) -> bool:
    """RFC 5280, sections 4.2.1.9 and 4.2.1.3."""
    values = [each.value for each in extensions]
    is_authority = False
    for value in values:
        if isinstance(value, x509.BasicConstraints):
            is_authority = value.ca and (value.path_length is None or value.path_length >= below)
        if isinstance(value, x509.KeyUsage) and not value.key_cert_sign:
            return False
    return is_authority


def _is_signed(child: Signed, issuer: x509.Certificate) -> bool:
    key, certificate = issuer.public_key(), child.certificate
    how, hashed = certificate.signature_algorithm_parameters, certificate.signature_hash_algorithm
    if not isinstance(hashed, _HASHES):
        return False
    try:
        if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _RSA_BITS:
            if isinstance(how, padding.PKCS1v15 | padding.PSS):
                key.verify(certificate.signature, child.octets, how, hashed)
                return True
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(how, ec.ECDSA):
            key.verify(certificate.signature, child.octets, how)
            return True
    except InvalidSignature:
        return False
    return False


def _strict(extension: bytes) -> bytes:
    """Return an extension without default values."""
    wholes = [whole for *_, whole in _values(extension) if whole != _FALSE]
    if wholes[:1] == [_BASIC_CONSTRAINTS] and wholes[-1] == _NO_CA[0]:
        wholes[-1] = _NO_CA[1]
    return _value(_SEQUENCE, b"".join(wholes))


def _has_version(fields: Sequence[tuple[int, bytes, bytes]]) -> bool:
    return fields[0][0] == _VERSION if fields else False


def _values(octets: bytes) -> list[tuple[int, bytes, bytes]]:
    """Return the DER values in `octets`: tag, content, and both with the length between."""
    found, at = [], 0
    while at < len(octets):
        head = octets[at : at + 4]
        size, start = head[1] if len(head) > 1 else -1, at + 2
        if size in {0x81, 0x82}:  # X.690, section 8.1.3.5; three octets are beyond our bound
            start += size - 0x80
            size = int.from_bytes(octets[at + 2 : start])
        elif size >= 0x80:
            size = -1
        end = start + size
        if not 0 <= size <= len(octets) - start:
            raise ValueError("no DER")
        found.append((octets[at], octets[start:end], octets[at:end]))
        at = end
    return found


def _value(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = (size.bit_length() + 7) // 8
    return bytes((tag, 0x80 + octets)) + size.to_bytes(octets) + content
