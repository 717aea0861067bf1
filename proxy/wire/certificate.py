"""What an X.509 certificate says (RFC 5280), of what `ssl` does not tell as it is.

Read after OpenSSL has verified the chain; a reader of our own, because Python's turns a
certificate into texts that two certificates may share, and has failed on hostile ones
(CVE-2019-5010).  DER as X.690 has it, in one pass: nothing is read twice, nothing recurses.
"""

import datetime as dt
from collections.abc import Iterator
from functools import lru_cache

from msgspec import Struct

from proxy.errors import PeerError
from rules.decision import Reason

CERTIFICATE_OCTETS = 16384  # OpenSSL takes chains of 100 KiB; usual leaves have 0.5 to 2 KiB
EXTENSIONS = 64  # of one certificate; browsers' roots and leaves have about ten
NAMES = 64  # alternative names of one certificate; an X.509-SVID has one URI
_SERIAL_OCTETS = 20  # RFC 5280, section 4.1.2.2

_BOOLEAN, _INTEGER, _BIT_STRING, _OCTET_STRING, _OID = 0x01, 0x02, 0x03, 0x04, 0x06
_UTC_TIME, _GENERALIZED_TIME, _SEQUENCE = 0x17, 0x18, 0x30
_VERSION, _ISSUER_ID, _SUBJECT_ID, _EXTENSIONS = 0xA0, 0x81, 0x82, 0xA3
_DNS, _URI = 0x82, 0x86
_NAME_TAGS = frozenset({0xA0, 0x81, _DNS, 0xA3, 0xA4, 0xA5, _URI, 0x87, 0x88})
_V1, _V3 = 0, 2

# RFC 5280, sections 4.2.1.9, 4.2.1.3, 4.2.1.12 and 4.2.1.6: id-ce 19, 15, 37 and 17
_BASIC_CONSTRAINTS, _KEY_USAGE = b"\x55\x1d\x13", b"\x55\x1d\x0f"
_EXTENDED_KEY_USAGE, _ALTERNATIVE_NAMES = b"\x55\x1d\x25", b"\x55\x1d\x11"

DIGITAL_SIGNATURE, KEY_CERT_SIGN, CRL_SIGN = 0x8000, 0x0400, 0x0200
"""Bits of `key_usage`, the first bit of RFC 5280, section 4.2.1.3, highest."""
CLIENT_AUTH, ANY_USAGE = "1.3.6.1.5.5.7.3.2", "2.5.29.37.0"
"""RFC 5280, section 4.2.1.12."""


class Certificate(Struct, frozen=True):
    """A certificate; times are Unix time in seconds.

    `key_usage` has the bits named above, None without the extension; `extended_key_usage` holds
    dotted numbers, None without the extension.  `other_names` counts the alternative names that
    are neither URI nor DNS name.  `spki` is the SubjectPublicKeyInfo, in DER as it stands there.
    """

    serial: int
    not_before: int
    not_after: int
    is_ca: bool = False
    key_usage: int | None = None
    extended_key_usage: tuple[str, ...] | None = None
    uris: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    other_names: int = 0
    spki: bytes = b""


class MalformedCertificateError(PeerError):
    """The octets are no certificate that we read."""

    def __init__(self, text: str) -> None:
        super().__init__(Reason.IDENTITY_UNKNOWN, f"no certificate: {text}")


def read_certificate(der: bytes) -> Certificate:
    """Return what a certificate says.

    Raises:
        MalformedCertificateError: it is not DER of RFC 5280, section 4.1, or beyond our bounds.
    """
    if len(der) > CERTIFICATE_OCTETS:
        raise MalformedCertificateError(f"more than {CERTIFICATE_OCTETS} octets")
    whole = _Octets(der, 0, len(der)).only(_SEQUENCE)
    signed = whole.inner(_SEQUENCE)
    whole.inner(_SEQUENCE)  # signatureAlgorithm, signatureValue: OpenSSL's to check
    whole.take(_BIT_STRING)
    whole.end()
    return _read_signed(signed)


class _Octets:
    """A part of the certificate, from which values are taken one after the other."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self._data = data
        self._at = at
        self._end = end

    @property
    def tag(self) -> int | None:
        """The tag of the next value; None at the end."""
        return self._data[self._at] if self._at < self._end else None

    def take(self, tag: int) -> bytes:
        """Return the content of the next value, which must have this tag."""
        start, end = self._next(tag)
        return self._data[start:end]

    def whole(self, tag: int) -> bytes:
        """Return the next value, which must have this tag, with its tag and length."""
        start = self._at
        _, end = self._next(tag)
        return self._data[start:end]

    def inner(self, tag: int) -> "_Octets":
        """Return the next value as what values are taken from."""
        return _Octets(self._data, *self._next(tag))

    def only(self, tag: int) -> "_Octets":
        """Return the one value that is all of this."""
        inner = self.inner(tag)
        self.end()
        return inner

    def each(self, most: int, what: str) -> Iterator[int]:
        """Return the tags of the values one by one; the caller takes each."""
        for _ in range(most):
            if self._at == self._end:
                return
            yield self._data[self._at]
        if self._at != self._end:
            raise MalformedCertificateError(f"more than {most} {what}")

    def end(self) -> None:
        """See that nothing is left."""
        if self._at != self._end:
            raise MalformedCertificateError("octets after the end of a value")

    def _next(self, tag: int) -> tuple[int, int]:
        data, at = self._data, self._at
        if at + 2 > self._end or data[at] != tag:
            raise MalformedCertificateError(f"no value of tag {tag:#04x} where one belongs")
        size, start = data[at + 1], at + 2
        if size > 0x7F:  # X.690, section 8.1.3.5; four octets and more are beyond our bound
            start += size - 0x80
            size = int.from_bytes(data[at + 2 : start]) if size in {0x81, 0x82} else -1
            # X.690, section 10.1: the least octets that hold it
            if start > self._end or size < (0x80 if start == at + 3 else 0x100):
                raise MalformedCertificateError("a length that is not DER")
        self._at = start + size
        if self._at > self._end:
            raise MalformedCertificateError("a value that is longer than what holds it")
        return start, self._at


def _read_signed(signed: _Octets) -> Certificate:
    version = _V1
    if signed.tag == _VERSION:
        version = _integer(signed.inner(_VERSION).take(_INTEGER))
        if version not in {1, _V3}:  # DER leaves the default, v1, out
            raise MalformedCertificateError("a version that is neither 2 nor 3")
    serial = _serial(signed.take(_INTEGER))
    signed.take(_SEQUENCE)  # signature
    signed.take(_SEQUENCE)  # issuer
    validity = signed.inner(_SEQUENCE)
    not_before, not_after = _time(validity), _time(validity)
    validity.end()
    signed.take(_SEQUENCE)  # subject
    spki = signed.whole(_SEQUENCE)
    for unique in (_ISSUER_ID, _SUBJECT_ID):
        if signed.tag == unique and version != _V1:
            signed.take(unique)
    found: dict[bytes, bytes] = {}
    if signed.tag == _EXTENSIONS and version == _V3:
        found = _extensions(signed.inner(_EXTENSIONS).only(_SEQUENCE))
    signed.end()
    uris, dns_names, others = _names(found.get(_ALTERNATIVE_NAMES))
    return Certificate(
        serial,
        not_before,
        not_after,
        _is_ca(found.get(_BASIC_CONSTRAINTS)),
        _key_usage(found.get(_KEY_USAGE)),
        _extended_key_usage(found.get(_EXTENDED_KEY_USAGE)),
        uris,
        dns_names,
        others,
        spki,
    )


def _integer(content: bytes) -> int:
    is_padded = len(content) > 1 and content[0] in {0, 0xFF} and (content[0] ^ content[1]) < 0x80
    if not content or is_padded:  # X.690, section 8.3.2: the least octets that hold it
        raise MalformedCertificateError("an integer that is not DER")
    return int.from_bytes(content, signed=True)


def _serial(content: bytes) -> int:
    serial = _integer(content)
    # RFC 5280, section 4.1.2.2: positive, of 20 octets at most
    if serial <= 0 or len(content) > _SERIAL_OCTETS:
        raise MalformedCertificateError("a serial number that is not positive, or too long")
    return serial


def _time(validity: _Octets) -> int:
    tag = _GENERALIZED_TIME if validity.tag == _GENERALIZED_TIME else _UTC_TIME
    return _unix_time(tag, validity.take(tag))


@lru_cache(maxsize=16)  # of a root and of an intermediate they are the same each time
def _unix_time(tag: int, content: bytes) -> int:
    """Return a time (RFC 5280, section 4.1.2.5): with seconds, in UTC, without fractions."""
    digits, size = content[:-1], 12 if tag == _UTC_TIME else 14
    if content[-1:] != b"Z" or len(digits) != size or not digits.isdigit():
        raise MalformedCertificateError("a time that is not as RFC 5280 has it")
    if tag == _UTC_TIME:  # RFC 5280, section 4.1.2.5.1: 50 to 99 are of the last century
        digits = (b"19" if digits >= b"50" else b"20") + digits
    try:
        moment = dt.datetime.strptime(digits.decode(), "%Y%m%d%H%M%S").replace(tzinfo=dt.UTC)
    except ValueError:
        raise MalformedCertificateError("a time that no calendar has") from None
    return int(moment.timestamp())


def _extensions(listed: _Octets) -> dict[bytes, bytes]:
    """Return the extensions that we read by number."""
    found: dict[bytes, bytes] = {}
    for _ in listed.each(EXTENSIONS, "extensions"):
        extension = listed.inner(_SEQUENCE)
        number = extension.take(_OID)
        if extension.tag == _BOOLEAN and extension.take(_BOOLEAN) != b"\xff":
            raise MalformedCertificateError("a boolean that is not DER")
        content = extension.take(_OCTET_STRING)
        extension.end()
        if number in found:  # RFC 5280, section 4.2: one instance of each
            raise MalformedCertificateError("an extension that stands there twice")
        found[number] = content
    return found


def _sequence(content: bytes) -> _Octets:
    return _Octets(content, 0, len(content)).only(_SEQUENCE)


def _is_ca(content: bytes | None) -> bool:
    if content is None:
        return False
    constraints = _sequence(content)
    is_ca = constraints.tag == _BOOLEAN
    if is_ca and constraints.take(_BOOLEAN) != b"\xff":
        raise MalformedCertificateError("a boolean that is not DER")
    if constraints.tag == _INTEGER:
        _integer(constraints.take(_INTEGER))
    constraints.end()
    return is_ca


def _key_usage(content: bytes | None) -> int | None:
    if content is None:
        return None
    octets = _Octets(content, 0, len(content))
    bits = octets.take(_BIT_STRING)
    octets.end()
    # X.690, section 11.2: unused bits are zero, and a list of names has no zero bits at its end.
    if not 2 <= len(bits) <= 3 or bits[0] > 7 or not bits[-1] >> bits[0] & 1:
        raise MalformedCertificateError("a key usage that is not DER")
    if bits[-1] & ((1 << bits[0]) - 1):
        raise MalformedCertificateError("a key usage that is not DER")
    return int.from_bytes(bits[1:].ljust(2, b"\0"))


def _extended_key_usage(content: bytes | None) -> tuple[str, ...] | None:
    if content is None:
        return None
    purposes = _sequence(content)
    found = tuple(_dotted(purposes.take(_OID)) for _ in purposes.each(NAMES, "purposes"))
    if not found:  # RFC 5280, section 4.2.1.12: one at least
        raise MalformedCertificateError("an extended key usage without a purpose")
    return found


def _dotted(content: bytes) -> str:
    """Return an object identifier (X.690, section 8.19)."""
    if not content or content[-1] & 0x80 or len(content) > 64:
        raise MalformedCertificateError("an object identifier that is not DER")
    numbers, value = [], 0
    for octet in content:
        if octet == 0x80 and not value:  # the least octets that hold it
            raise MalformedCertificateError("an object identifier that is not DER")
        value = value << 7 | octet & 0x7F
        if not octet & 0x80:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def _names(content: bytes | None) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Return the URIs and DNS names of a subject alternative name, and how many others."""
    if content is None:
        return (), (), 0
    listed = _sequence(content)
    texts: dict[int, list[str]] = {_URI: [], _DNS: []}
    others = 0
    for tag in listed.each(NAMES, "alternative names"):
        if tag not in _NAME_TAGS:
            raise MalformedCertificateError("an alternative name of no kind of RFC 5280")
        name = listed.take(tag)
        if tag not in texts:
            others += 1
        elif not name.isascii():  # RFC 5280, section 4.2.1.6: IA5String
            raise MalformedCertificateError("an alternative name that is not ASCII")
        else:
            texts[tag].append(name.decode("ascii"))
    return tuple(texts[_URI]), tuple(texts[_DNS]), others
