"""What a certificate says, beside what `cryptography` reads of the same octets."""

import datetime as dt
from collections.abc import Callable
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from proxy.errors import PeerError
from proxy.wire.certificate import (
    CERTIFICATE_OCTETS,
    CLIENT_AUTH,
    CRL_SIGN,
    DIGITAL_SIGNATURE,
    KEY_CERT_SIGN,
    NAMES,
    Certificate,
    MalformedCertificateError,
    read_certificate,
)
from rules.decision import Reason

BEGINS = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
ENDS = dt.datetime(2051, 1, 2, 3, 4, 5, tzinfo=dt.UTC)  # a GeneralizedTime
PLAIN = Certificate(77, int(BEGINS.timestamp()), int(ENDS.timestamp()))
EVERY_BIT = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)

type Extension = tuple[x509.ExtensionType, bool]


@cache
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public_key() -> bytes:
    return (
        key()
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def made(
    *extensions: Extension,
    begins: dt.datetime = BEGINS,
    ends: dt.datetime = ENDS,
    serial: int = 77,
) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "who")])
    builder = (
        x509.CertificateBuilder(name, name, key().public_key(), serial)
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key(), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def usage(*bits: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{bit: bit in bits for bit in EVERY_BIT})


def names(*given: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(given)


# Certificates by hand, for what `cryptography` would not write


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    if len(content) < 0x80:
        return bytes((tag, len(content))) + content
    size = len(content).to_bytes(1 if len(content) < 0x100 else 2)
    return bytes((tag, 0x80 | len(size))) + size + content


SEQUENCE, INTEGER, OID, OCTETS, BITS, BOOLEAN = 0x30, 2, 6, 4, 3, 1
EMPTY = der(SEQUENCE)
UTC = der(0x17, b"260102030405Z")
V3 = der(0xA0, der(INTEGER, b"\x02"))
OIDS = {"basic": b"\x55\x1d\x13", "usage": b"\x55\x1d\x0f", "purposes": b"\x55\x1d\x25"}
OIDS["names"] = b"\x55\x1d\x11"
TRUE = der(BOOLEAN, b"\xff")


def extension(number: bytes, content: bytes, *, critical: bytes = b"") -> bytes:
    return der(SEQUENCE, der(OID, number), critical, der(OCTETS, content))


def by_hand(
    *extensions: bytes,
    version: bytes = V3,
    serial: bytes = der(INTEGER, b"\x4d"),
    validity: bytes = der(SEQUENCE, UTC, UTC),
    more: bytes = b"",
    last: bytes = b"",
) -> bytes:
    tail = der(0xA3, der(SEQUENCE, *extensions)) if extensions else b""
    signed = (version, serial, EMPTY, EMPTY, validity, EMPTY, EMPTY, more, tail, last)
    return der(SEQUENCE, der(SEQUENCE, *signed), EMPTY, der(BITS, b"\0sig"))


def test_reads_what_identifies_a_workload() -> None:
    uri = "spiffe://desk.example/agent/coder"
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, x509.ObjectIdentifier("2.999.3.1024")]
    octets = made(
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (usage("digital_signature"), True),
        (x509.ExtendedKeyUsage(purposes), False),
        (names(x509.UniformResourceIdentifier(uri), x509.DNSName("a.example")), False),
        (x509.SubjectKeyIdentifier.from_public_key(key().public_key()), False),
    )
    assert without_key(read_certificate(octets)) == Certificate(
        77, PLAIN.not_before, PLAIN.not_after,
        key_usage=DIGITAL_SIGNATURE,
        extended_key_usage=(CLIENT_AUTH, "2.999.3.1024"),
        uris=(uri,),
        dns_names=("a.example",),
    )  # fmt: skip


def test_reads_an_authority() -> None:
    octets = made(
        (x509.BasicConstraints(ca=True, path_length=1), True),
        (usage("key_cert_sign", "crl_sign"), True),
    )
    found = read_certificate(octets)
    assert found.is_ca
    assert found.key_usage == KEY_CERT_SIGN | CRL_SIGN


def test_a_certificate_without_extensions_says_nothing() -> None:
    assert read_certificate(made()) == structs.replace(PLAIN, spki=public_key())
    assert read_certificate(by_hand(version=b"")).uris == ()
    second = by_hand(version=der(0xA0, der(INTEGER, b"\x01")), more=der(0x81, b"\0") + der(0x82))
    assert read_certificate(second).key_usage is None


def test_counts_names_of_other_kinds() -> None:
    others = names(x509.RFC822Name("a@a.example"), x509.RegisteredID(x509.ObjectIdentifier("1.2")))
    assert read_certificate(made((others, False))).other_names == 2


def test_as_many_names_as_the_bound_are_read() -> None:
    most = by_hand(extension(OIDS["names"], der(SEQUENCE, der(0x82, b"a") * NAMES)))
    assert read_certificate(most).dns_names == ("a",) * NAMES


@pytest.mark.parametrize("bit", EVERY_BIT[:7])
def test_each_bit_of_the_key_usage_stands_in_its_place(bit: str) -> None:
    found = read_certificate(made((usage(bit), True))).key_usage
    assert found == 0x8000 >> EVERY_BIT.index(bit)


def test_the_ninth_bit_of_the_key_usage_is_in_a_second_octet() -> None:
    both = usage("key_agreement", "decipher_only")
    assert read_certificate(made((both, True))).key_usage == 0x0880


@pytest.mark.parametrize(
    ("text", "year"), [(b"491231235959Z", 2049), (b"500101000000Z", 1950), (b"991231235959Z", 1999)]
)
def test_two_digits_of_a_year_are_of_1950_to_2049(text: bytes, year: int) -> None:
    """RFC 5280, section 4.1.2.5.1."""
    time = der(0x17, text)
    found = read_certificate(by_hand(validity=der(SEQUENCE, time, time)))
    assert dt.datetime.fromtimestamp(found.not_before, dt.UTC).year == year


BOTH_AT_ONCE = extension(OIDS["basic"], EMPTY)
MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "one octet": b"\x30",
    "another tag": b"\x31\x00",
    "longer than it is": b"\x30\x05\x00",
    "octets after it": by_hand() + b"\0",
    "octets after the signature": der(SEQUENCE, EMPTY, EMPTY, der(BITS, b"\0"), EMPTY),
    "a length of no octets": b"\x30\x80\0\0",
    "a length in more octets than needed": b"\x30\x81\x7f" + bytes(127),
    "a length in two octets that fits in one": b"\x30\x82\x00\xff" + bytes(255),
    "a length of three octets": b"\x30\x83\x01\x00\x00" + bytes(16),
    "a length that is cut off": b"\x30\x82\x01",
    "too long": der(SEQUENCE, bytes(CERTIFICATE_OCTETS)),
    "the default version": by_hand(version=der(0xA0, der(INTEGER, b"\0"))),
    "version 4": by_hand(version=der(0xA0, der(INTEGER, b"\x03"))),
    "no serial number": by_hand(serial=der(INTEGER)),
    "a serial number of zero": by_hand(serial=der(INTEGER, b"\0")),
    "a negative serial number": by_hand(serial=der(INTEGER, b"\x80")),
    "a padded serial number": by_hand(serial=der(INTEGER, b"\0\x7f")),
    "a serial number of 21 octets": by_hand(serial=der(INTEGER, b"\x01" * 21)),
    "one time": by_hand(validity=der(SEQUENCE, UTC)),
    "three times": by_hand(validity=der(SEQUENCE, UTC, UTC, UTC)),
    "a time without seconds": by_hand(validity=der(SEQUENCE, UTC, der(0x17, b"2601020304Z"))),
    "a time of another zone": by_hand(validity=der(SEQUENCE, UTC, der(0x17, b"260102030405+01"))),
    "a time with a sign": by_hand(validity=der(SEQUENCE, UTC, der(0x17, b"26010203040+Z"))),
    "a time with fractions": by_hand(validity=der(SEQUENCE, UTC, der(0x18, b"20260102030405.5Z"))),
    "the 30th of February": by_hand(validity=der(SEQUENCE, UTC, der(0x17, b"260230030405Z"))),
    "the year 0": by_hand(validity=der(SEQUENCE, UTC, der(0x18, b"00000102030405Z"))),
    "a second of 61": by_hand(validity=der(SEQUENCE, UTC, der(0x17, b"260102030461Z"))),
    "extensions in version 1": by_hand(BOTH_AT_ONCE, version=b""),
    "an extension twice": by_hand(BOTH_AT_ONCE, BOTH_AT_ONCE),
    "many extensions": by_hand(*(extension(b"\x2a" + bytes((n,)), b"") for n in range(65))),
    "an extension that goes on": by_hand(der(SEQUENCE, der(OID, b"*"), der(OCTETS), EMPTY)),
    "a critical that is false": by_hand(extension(b"*", b"", critical=der(BOOLEAN, b"\0"))),
    "a critical that is odd": by_hand(extension(b"*", b"", critical=der(BOOLEAN, b"\x01"))),
    "octets after the extensions": by_hand(BOTH_AT_ONCE, last=EMPTY),
    "constraints that are no sequence": by_hand(extension(OIDS["basic"], TRUE)),
    "an authority that is 1": by_hand(
        extension(OIDS["basic"], der(SEQUENCE, der(BOOLEAN, b"\x01")))
    ),
    "constraints that go on": by_hand(extension(OIDS["basic"], der(SEQUENCE, TRUE, TRUE))),
    "a path length that is padded": by_hand(
        extension(OIDS["basic"], der(SEQUENCE, TRUE, der(INTEGER, b"\xff\xff")))
    ),
    "no bits of usage": by_hand(extension(OIDS["usage"], der(BITS, b"\0"))),
    "a usage of zeros": by_hand(extension(OIDS["usage"], der(BITS, b"\x07\0"))),
    "nine unused bits": by_hand(extension(OIDS["usage"], der(BITS, b"\x09\x80"))),
    "unused bits that are set": by_hand(extension(OIDS["usage"], der(BITS, b"\x01\x83"))),
    "bits of usage at length": by_hand(extension(OIDS["usage"], der(BITS, b"\0\xff\xff\xff"))),
    "a usage that goes on": by_hand(extension(OIDS["usage"], der(BITS, b"\x07\x80") + EMPTY)),
    "no purpose": by_hand(extension(OIDS["purposes"], EMPTY)),
    "an empty purpose": by_hand(extension(OIDS["purposes"], der(SEQUENCE, der(OID)))),
    "a purpose that is cut off": by_hand(
        extension(OIDS["purposes"], der(SEQUENCE, der(OID, b"\x2a\x81")))
    ),
    "a padded purpose": by_hand(
        extension(OIDS["purposes"], der(SEQUENCE, der(OID, b"\x2a\x80\x01")))
    ),
    "a purpose at length": by_hand(
        extension(OIDS["purposes"], der(SEQUENCE, der(OID, b"\x2a" * 65)))
    ),
    "many purposes": by_hand(extension(OIDS["purposes"], der(SEQUENCE, der(OID, b"*") * 65))),
    "a name of no kind": by_hand(extension(OIDS["names"], der(SEQUENCE, der(0x89)))),
    "a name that is not ASCII": by_hand(
        extension(OIDS["names"], der(SEQUENCE, der(0x86, "spiffe://\u00e4/a".encode())))
    ),
    "many names": by_hand(extension(OIDS["names"], der(SEQUENCE, der(0x82, b"a") * (NAMES + 1)))),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_not_der_of_rfc_5280_is_malformed(what: str) -> None:
    with pytest.raises(MalformedCertificateError) as caught:
        read_certificate(MALFORMED[what])
    assert isinstance(caught.value, PeerError)
    assert caught.value.reason is Reason.IDENTITY_UNKNOWN


def test_the_certificate_by_hand_is_one_when_nothing_is_wrong_with_it() -> None:
    bits = extension(OIDS["usage"], der(BITS, b"\x07\x80"), critical=TRUE)
    path = der(SEQUENCE, TRUE, der(INTEGER, b"\x01"))
    found = read_certificate(by_hand(bits, extension(OIDS["basic"], path)))
    assert (found.serial, found.is_ca, found.key_usage) == (77, True, DIGITAL_SIGNATURE)


# The oracle


def as_told(octets: bytes) -> Certificate:
    """Return what `cryptography` reads of a certificate."""
    told = x509.load_der_x509_certificate(octets)

    def value(kind: Callable[..., object]) -> object | None:
        try:
            return told.extensions.get_extension_for_class(kind).value  # type: ignore[type-var, arg-type]  # any
        except x509.ExtensionNotFound:
            return None

    basic, bits = value(x509.BasicConstraints), value(x509.KeyUsage)
    purposes, listed = value(x509.ExtendedKeyUsage), value(x509.SubjectAlternativeName)
    found = list(listed) if isinstance(listed, x509.SubjectAlternativeName) else []
    uris = [each.value for each in found if isinstance(each, x509.UniformResourceIdentifier)]
    dns_names = [each.value for each in found if isinstance(each, x509.DNSName)]
    is_ca = isinstance(basic, x509.BasicConstraints) and basic.ca
    return Certificate(
        told.serial_number,
        int(told.not_valid_before_utc.timestamp()),
        int(told.not_valid_after_utc.timestamp()),
        is_ca,
        _bits(bits) if isinstance(bits, x509.KeyUsage) else None,
        tuple(each.dotted_string for each in purposes)
        if isinstance(purposes, x509.ExtendedKeyUsage)
        else None,
        tuple(uris),
        tuple(dns_names),
        len(found) - len(uris) - len(dns_names),
    )


def without_key(certificate: Certificate) -> Certificate:
    """The other reader tells of a key what it means, not its octets."""
    return structs.replace(certificate, spki=b"")


def _bits(usage: x509.KeyUsage) -> int:
    """RFC 5280, section 4.2.1.3: encipherOnly and decipherOnly are asked of keyAgreement only."""
    asked = [getattr(usage, f"_{bit}") for bit in EVERY_BIT]
    return sum(0x8000 >> at for at, is_set in enumerate(asked) if is_set)


_LABELS = st.text("abz09-", min_size=1, max_size=12)
_NAMES = st.one_of(
    _LABELS.map(x509.DNSName),
    _LABELS.map(lambda text: x509.UniformResourceIdentifier(f"spiffe://{text}/a")),
    _LABELS.map(lambda text: x509.RFC822Name(f"{text}@a.example")),
)
_MOMENTS = st.datetimes(dt.datetime(1950, 1, 1), dt.datetime(9990, 1, 1)).map(  # noqa: DTZ001 - a zone follows
    lambda moment: moment.replace(microsecond=0, tzinfo=dt.UTC)
)
_USAGES = st.sets(st.sampled_from(EVERY_BIT), min_size=1).map(
    lambda bits: usage(*bits, *(("key_agreement",) if bits & {*EVERY_BIT[7:]} else ()))
)
_EXTENSIONS = st.tuples(
    st.none() | st.booleans().map(lambda ca: x509.BasicConstraints(ca, 3 if ca else None)),
    st.none() | _USAGES,
    st.none() | st.just(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])),
    st.none() | st.lists(_NAMES, min_size=1, max_size=5).map(x509.SubjectAlternativeName),
)


@given(_EXTENSIONS, _MOMENTS, st.integers(1, 2**159 - 1), st.data())
@settings(max_examples=60, deadline=None)
def test_reads_what_the_other_reader_reads(
    extensions: tuple[x509.ExtensionType | None, ...],
    begins: dt.datetime,
    serial: int,
    data: st.DataObject,
) -> None:
    ends = begins + dt.timedelta(seconds=data.draw(st.integers(0, 10**8)))
    there = [(each, data.draw(st.booleans())) for each in extensions if each is not None]
    octets = made(*there, begins=begins, ends=ends, serial=serial)
    found = read_certificate(octets)
    assert without_key(found) == as_told(octets)
    assert found.spki == public_key()


@cache
def usual() -> bytes:
    return made(
        (x509.BasicConstraints(ca=True, path_length=2), True),
        (usage("digital_signature", "crl_sign"), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        (names(x509.UniformResourceIdentifier("spiffe://a.example/b"), x509.DNSName("a")), True),
    )


@given(st.integers(0, len(usual()) - 1), st.integers(1, 255), st.integers(0, 3))
@settings(max_examples=400, deadline=None)
def test_an_octet_that_differs_is_refused_or_read_alike(at: int, change: int, cut: int) -> None:
    """threats.md, "Identity": no certificate says one thing to us and another to others."""
    octets = bytearray(usual())
    octets[at] ^= change
    octets = octets[: len(octets) - cut]
    try:
        found = read_certificate(bytes(octets))
    except MalformedCertificateError:
        return
    try:
        told = as_told(bytes(octets))
    except (ValueError, x509.DuplicateExtension):
        return  # what only the other reader looks at: names, keys, algorithms
    assert without_key(found) == told
    assert found.spki in octets


@given(st.binary(max_size=600))
def test_octets_at_random_are_read_or_malformed(octets: bytes) -> None:
    for each in (octets, der(SEQUENCE, der(SEQUENCE, V3, octets), EMPTY, der(BITS))):
        try:
            read_certificate(each)
        except MalformedCertificateError:
            continue


def test_reading_takes_no_more_than_its_octets_are_worth() -> None:
    """Nested as deep as it goes, nothing recurses; no bound is reached by way of another."""
    nested = b""
    while len(nested) < CERTIFICATE_OCTETS - 600:
        nested = der(SEQUENCE, nested)
    assert read_certificate(by_hand(extension(b"*", nested))).uris == ()
