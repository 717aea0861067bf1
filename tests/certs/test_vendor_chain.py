"""Certificates with default values written out, as Intel's are; and issuers of every kind."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from certs.endorsement import verify_endorsement
from certs.unreadable import UNREADABLE
from certs.vendor_chain import is_understood, leads_to, read_signed
from tests.authority import named
from tests.swtpm import DAY, Changes, Vendor, key_usage

NOW = dt.datetime.now(dt.UTC)
KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
DER = serialization.Encoding.DER
NAME = named("vendor")
FALSE = b"\x01\x01\x00"
NO_CA = x509.UnrecognizedExtension(
    x509.ObjectIdentifier("2.5.29.19"), b"\x30\x03" + FALSE
)  # what Intel writes: basicConstraints with cA FALSE
type Issuer = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes(2 if size > 0xFF else 1)
    return bytes((tag, 0x80 + len(octets))) + octets + content


def parts(content: bytes) -> list[bytes]:
    """Return the values in a value, whole."""
    found = []
    while content:
        octets = content[1] - 0x80 if content[1] > 0x80 else 0
        size = int.from_bytes(content[2 : 2 + octets]) if octets else content[1]
        end = 2 + octets + size
        found.append(content[:end])
        content = content[end:]
    return found


def inside(value: bytes) -> bytes:
    return value[2 + (value[1] - 0x80 if value[1] > 0x80 else 0) :]


def written_out(
    certificate: bytes, signer: ec.EllipticCurvePrivateKey, serial: bytes = b""
) -> bytes:
    """Return a certificate with `critical FALSE` in it, or another serial number, signed so."""
    signed, how, _signature = parts(inside(certificate))
    *fields, last = parts(inside(signed))
    fields[1] = serial or fields[1]
    each = []
    for extension in parts(inside(inside(last))):
        oid, *rest = parts(inside(extension))
        each.append(der(0x30, b"".join((oid, *([FALSE] if len(rest) == 1 else []), *rest))))
    listed = der(0xA3, der(0x30, b"".join(each)))
    octets = der(0x30, b"".join((*fields, listed)))
    signature = signer.sign(octets, ec.ECDSA(hashes.SHA256()))
    return der(0x30, octets + how + der(0x03, b"\0" + signature))


def like_intel(vendor: Vendor) -> bytes:
    changes: Changes = {x509.BasicConstraints: None, x509.UnrecognizedExtension: NO_CA}
    return written_out(vendor.endorse(KEY, changes=changes), vendor.key)


def issued(issuer: Issuer, how: padding.PSS | None = None) -> bytes:
    """Return the certificate of an EK that this key signed."""
    hashed = None if isinstance(issuer, ed25519.Ed25519PrivateKey) else hashes.SHA384()
    builder = x509.CertificateBuilder(NAME, x509.Name([]), KEY, 5)
    builder = builder.not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
    return builder.sign(issuer, hashed, rsa_padding=how).public_bytes(DER)


def authority(issuer: Issuer, *extensions: tuple[x509.ExtensionType, bool]) -> bytes:
    """Return its own certificate."""
    hashed = None if isinstance(issuer, ed25519.Ed25519PrivateKey) else hashes.SHA384()
    builder = x509.CertificateBuilder(NAME, NAME, issuer.public_key(), 6)
    builder = builder.not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
    for value, is_critical in extensions:
        builder = builder.add_extension(value, is_critical)
    return builder.sign(issuer, hashed).public_bytes(DER)


def leads(certificate: bytes, root: bytes) -> bool:
    leaf, anchor = read_signed(certificate), read_signed(root)
    return leads_to(leaf, [], {anchor.certificate.subject.public_bytes(): [anchor]}, NOW)


CA = (x509.BasicConstraints(ca=True, path_length=0), True)


def test_takes_certificates_with_their_defaults_written_out() -> None:
    vendor = Vendor()
    ek = like_intel(vendor)
    assert FALSE in ek
    with pytest.raises(ValueError, match="EncodedDefault"):
        x509.load_der_x509_certificate(ek)
    assert verify_endorsement((ek, *vendor.above), (vendor.root,), NOW).key == KEY


def test_takes_authorities_with_their_defaults_written_out() -> None:
    vendor = Vendor()
    above = tuple(written_out(each, vendor.root_key) for each in vendor.above)
    root = written_out(vendor.root, vendor.root_key)
    assert FALSE in above[0]
    assert verify_endorsement((vendor.endorse(KEY), *above), (root,), NOW).key == KEY


def test_says_nothing_of_serial_numbers_that_are_not_positive() -> None:
    """The library warns on stderr, which whoever attests could write to."""
    vendor = Vendor()
    for serial in (b"\x02\x01\x00", b"\x02\x01\xff"):
        ek = written_out(vendor.endorse(KEY), vendor.key, serial)
        assert leads(ek, vendor.above[0])


def test_believes_the_octets_that_were_signed_and_no_others() -> None:
    """Neither may a default be left out on the way, nor be written into it."""
    vendor = Vendor()
    root = vendor.above[0]
    ek, plain = like_intel(vendor), vendor.endorse(KEY)
    assert leads(ek, root)
    signed, how, signature = parts(inside(ek))
    for octets in (inside(parts(inside(plain))[0]), inside(signed)[:-1] + b"\x07"):
        forged = der(0x30, der(0x30, octets) + how + signature)
        assert not leads(forged, root)


def test_refuses_every_truncation_and_what_is_no_der() -> None:
    ek = like_intel(Vendor())
    for octets in (
        *(ek[:end] for end in range(len(ek))),
        ek + b"\0",
        b"\x30\x80",
        b"\x30\x83\0\0\1",
    ):
        with pytest.raises(UNREADABLE):
            read_signed(octets)


def test_takes_a_certificate_without_extensions() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    assert leads(issued(key), authority(key, CA))


@pytest.mark.parametrize("how", [None, padding.PSS(padding.MGF1(hashes.SHA384()), 48)])
def test_takes_issuers_with_rsa(how: padding.PSS | None) -> None:
    key = rsa.generate_private_key(65537, 2048)
    other = rsa.generate_private_key(65537, 2048)
    assert leads(issued(key, how), authority(key, CA))
    assert not leads(issued(other, how), authority(key, CA))


def test_refuses_issuers_with_keys_that_no_vendor_should_have() -> None:
    for key in (
        rsa.generate_private_key(65537, 1024),  # noqa: S505 - what is to be refused
        ed25519.Ed25519PrivateKey.generate(),
    ):
        assert not leads(issued(key), authority(key, CA))


def test_refuses_a_signature_of_another_kind_than_the_key() -> None:
    ecc, other = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
    assert not leads(issued(ecc), authority(other, CA))
    assert not leads(issued(other), authority(ecc, CA))


def test_refuses_an_authority_that_is_none_or_has_critical_extensions_we_do_not_ask() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    constraints = x509.NameConstraints([x509.DNSName("example")], None)
    assert not leads(issued(key), authority(key))
    assert not leads(issued(key), authority(key, CA, (key_usage(crl_sign=True), True)))
    assert not leads(issued(key), authority(key, CA, (constraints, True)))
    assert leads(issued(key), authority(key, CA, (constraints, False)))
    assert not is_understood(read_signed(authority(key, (constraints, True))).certificate)


def test_refuses_a_root_of_another_name() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf, root = read_signed(issued(key)), read_signed(authority(key, CA))
    subject = root.certificate.subject.public_bytes()
    assert leads_to(leaf, [], {subject: [root]}, NOW)
    assert not leads_to(leaf, [], {b"": [root]}, NOW)
    assert not leads_to(leaf, [], {}, NOW)


def test_goes_up_no_further_than_the_bound() -> None:
    """One that issued itself, and no root: a loop."""
    key = ec.generate_private_key(ec.SECP256R1())
    forever = (x509.BasicConstraints(ca=True, path_length=None), True)
    assert not leads_to(read_signed(issued(key)), [read_signed(authority(key, forever))], {}, NOW)
