"""Certificates of each profile: what is in them, by OpenSSL's reading and by ours."""

import datetime as dt
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certs.mint import Authority, Signer, Wanted
from certs.profile import PROFILES, Profile

NOW = dt.datetime(2026, 11, 22, 1, 2, 3, tzinfo=dt.UTC)
SUBJECT = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "x")])


def minted(profile: Profile, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    wanted = Wanted(
        profile=profile,
        subject=SUBJECT,
        public_key=key.public_key(),
        names=(x509.DNSName("host.example"),),
        not_before=NOW,
        not_after=NOW + dt.timedelta(seconds=profile.life_s),
    )
    return Signer(SUBJECT, key).sign(wanted)


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_the_certificate_says_what_the_profile_says(
    key: ec.EllipticCurvePrivateKey, name: str
) -> None:
    profile = PROFILES[name]
    found = minted(profile, key).extensions
    basic = found.get_extension_for_class(x509.BasicConstraints)
    usage = found.get_extension_for_class(x509.KeyUsage)
    purposes = found.get_extension_for_class(x509.ExtendedKeyUsage)
    assert (basic.critical, usage.critical, purposes.critical) == (True, True, False)
    assert basic.value.ca is (profile.path_length is not None)
    assert basic.value.path_length == profile.path_length
    said = {
        "digital_signature": usage.value.digital_signature,
        "key_cert_sign": usage.value.key_cert_sign,
        "crl_sign": usage.value.crl_sign,
    }
    assert {each for each, is_set in said.items() if is_set} == set(profile.usages)
    assert not usage.value.key_encipherment
    assert not usage.value.key_agreement
    assert len(list(purposes.value)) == len(profile.purposes)


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_openssl_reads_the_usages(key: ec.EllipticCurvePrivateKey, name: str) -> None:
    pem = minted(PROFILES[name], key).public_bytes(Encoding.PEM)
    command = ("openssl", "x509", "-noout", "-ext", "keyUsage,extendedKeyUsage")
    said = subprocess.run(command, input=pem, capture_output=True, check=True).stdout.decode()
    signs = "key_cert_sign" in PROFILES[name].usages
    assert ("Certificate Sign, CRL Sign" in said) is signs
    assert ("Digital Signature" in said) is not signs
    assert ("TLS Web Client Authentication" in said) is ("client_auth" in PROFILES[name].purposes)
    assert ("TLS Web Server Authentication" in said) is ("server_auth" in PROFILES[name].purposes)


def test_serial_numbers_are_random_positive_and_of_one_length(
    key: ec.EllipticCurvePrivateKey,
) -> None:
    """RFC 5280, section 4.1.2.2: positive, 20 octets at most; ours always have 32 hex digits."""
    serials = {minted(PROFILES["svid"], key).serial_number for _ in range(50)}
    assert len(serials) == 50
    assert {len(f"{serial:x}") for serial in serials} == {32}
    assert {serial.bit_length() for serial in serials} == {127}


def test_more_extensions_come_along(key: ec.EllipticCurvePrivateKey) -> None:
    wanted = Wanted(
        profile=PROFILES["svid"],
        subject=SUBJECT,
        public_key=key.public_key(),
        names=(x509.DNSName("host.example"),),
        not_before=NOW,
        not_after=NOW + dt.timedelta(hours=1),
        more=((x509.OCSPNoCheck(), False),),
    )
    found = Signer(SUBJECT, key).sign(wanted).extensions
    assert not found.get_extension_for_class(x509.OCSPNoCheck).critical


def test_what_holds_a_key_shows_none(key: ec.EllipticCurvePrivateKey) -> None:
    secret = key.private_numbers().private_value
    for each in (Signer(SUBJECT, key), Authority(minted(PROFILES["root"], key), key)):
        for text in (repr(each), str(each), f"{each}"):
            assert "O=x" in text
            assert str(secret) not in text
            assert f"{secret:x}" not in text
            assert "PrivateKey" not in text
