"""Chains of EK certificates: those of vendors, and those of everybody else."""

import datetime as dt
import hashlib
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.endorsement import EK_USAGE, verify_endorsement
from certs.errors import EvidenceError
from tests.authority import named
from tests.swtpm import DAY, Changes, PublicKey, Vendor, key_usage

NOW = dt.datetime.now(dt.UTC)
KEY = ec.generate_private_key(ec.SECP384R1()).public_key()
DER, SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
SHA256 = hashes.SHA256()


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return Vendor()


def refused(text: str, certificates: tuple[bytes, ...], *roots: bytes) -> None:
    with pytest.raises(EvidenceError, match=text):
        verify_endorsement(certificates, roots, NOW)


def authority(
    vendor: Vendor, *extensions: x509.ExtensionType, lasts: dt.timedelta = DAY
) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """Return another CA below the vendor's, with just these extensions."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(vendor.name, named("between"), key.public_key(), 7)
    builder = builder.not_valid_before(NOW - 2 * DAY).not_valid_after(NOW + lasts)
    for each in extensions:
        builder = builder.add_extension(each, critical=True)
    return key, builder.sign(vendor.key, SHA256).public_bytes(DER)


def below(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the certificate of an EK that the CA `between` issued."""
    issuer = Vendor()
    issuer.name, issuer.key = named("between"), key
    return issuer.endorse(KEY)


@pytest.mark.parametrize(
    "make",
    [
        lambda: rsa.generate_private_key(65537, 2048),
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP384R1()),
    ],
    ids=["RSA-2048", "P-256", "P-384"],
)
def test_takes_the_eks_that_vendors_make(
    vendor: Vendor, make: Callable[[], rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey]
) -> None:
    key: PublicKey = make().public_key()
    found = verify_endorsement((vendor.endorse(key), *vendor.above), (vendor.root,), NOW)
    assert found.key == key
    assert found.ek_sha256 == hashlib.sha256(key.public_bytes(DER, SPKI)).hexdigest()
    assert found.text == "id:54455354 paper id:00010002"


def test_takes_an_issuing_ca_as_a_root(vendor: Vendor) -> None:
    """Vendors publish those too; what stands above it need not be known, and may be sent."""
    issuing, ek = vendor.above[0], vendor.endorse(KEY)
    assert verify_endorsement((ek,), (issuing,), NOW).key == KEY
    assert verify_endorsement((ek, issuing, vendor.root), (issuing,), NOW).key == KEY


def test_takes_the_root_among_what_is_sent(vendor: Vendor) -> None:
    sent = (vendor.endorse(KEY), *vendor.above, vendor.root)
    assert verify_endorsement(sent, (Vendor("other").root, vendor.root), NOW).key == KEY


def test_takes_certificates_that_never_end(vendor: Vendor) -> None:
    forever = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC) - NOW
    ek = vendor.endorse(KEY, lasts=(-DAY, forever - DAY))
    assert verify_endorsement((ek, *vendor.above), (vendor.root,), NOW).key == KEY


def test_takes_a_time_of_any_zone(vendor: Vendor) -> None:
    ek = vendor.endorse(KEY, lasts=(-DAY, dt.timedelta(hours=1)))
    for hours in (-12, 14):
        now = NOW.astimezone(dt.timezone(dt.timedelta(hours=hours)))
        assert verify_endorsement((ek, *vendor.above), (vendor.root,), now).key == KEY


def test_takes_an_ek_without_the_extensions_that_some_vendors_leave_out(vendor: Vendor) -> None:
    left_out: Changes = {
        x509.ExtendedKeyUsage: None,
        x509.SubjectAlternativeName: None,
        x509.BasicConstraints: None,
        x509.KeyUsage: None,
    }
    ek = vendor.endorse(KEY, changes=left_out)
    found = verify_endorsement((ek, *vendor.above), (vendor.root,), NOW)
    assert found.text == "CN=TPMs of a test: EK CA"


def test_names_the_issuer_where_the_certificate_names_no_tpm(vendor: Vendor) -> None:
    other = x509.SubjectAlternativeName([x509.DNSName("tpm.example")])
    ek = vendor.endorse(KEY, changes={x509.SubjectAlternativeName: other})
    found = verify_endorsement((ek, *vendor.above), (vendor.root,), NOW)
    assert found.text == "CN=TPMs of a test: EK CA"


def test_says_nothing_that_a_terminal_obeys(vendor: Vendor) -> None:
    text = x509.NameAttribute(x509.ObjectIdentifier("2.23.133.2.2"), "\x1b[2J" + "m" * 200)
    names = x509.SubjectAlternativeName([x509.DirectoryName(x509.Name([text]))])
    ek = vendor.endorse(KEY, changes={x509.SubjectAlternativeName: names})
    found = verify_endorsement((ek, *vendor.above), (vendor.root,), NOW)
    assert found.text == "[2J" + "m" * 125


def test_refuses_everything_while_no_root_is_configured(vendor: Vendor) -> None:
    refused("attestation.ek_roots", (vendor.endorse(KEY), *vendor.above))


def test_says_when_a_root_is_none(vendor: Vendor) -> None:
    refused("a root of attestation.ek_roots is no", (vendor.endorse(KEY),), vendor.root, b"\x30\0")


def test_refuses_the_chain_of_another_root(vendor: Vendor) -> None:
    """Of the same name, too."""
    ek = vendor.endorse(KEY)
    for other in (Vendor("other"), Vendor()):
        refused("no chain leads", (ek, *vendor.above), other.root)
        refused("no chain leads", (ek, *other.above, other.root), vendor.root)


def test_refuses_an_ek_that_another_key_signed(vendor: Vendor) -> None:
    forged = vendor.endorse(KEY, signer=ec.generate_private_key(ec.SECP256R1()))
    refused("no chain leads", (forged, *vendor.above), vendor.root)


def test_refuses_a_chain_with_a_gap_and_says_what_to_send(vendor: Vendor) -> None:
    refused(
        "issued by CN=TPMs of a test: EK CA.*send the cert", (vendor.endorse(KEY),), vendor.root
    )


def test_refuses_an_ek_before_and_after_its_time(vendor: Vendor) -> None:
    early = vendor.endorse(KEY, lasts=(DAY, 2 * DAY))
    late = vendor.endorse(KEY, lasts=(-2 * DAY, -DAY))
    refused("not valid yet", (early, *vendor.above), vendor.root)
    refused("has ended", (late, *vendor.above), vendor.root)


def test_refuses_a_ca_or_a_root_that_has_ended(vendor: Vendor) -> None:
    ca = x509.BasicConstraints(ca=True, path_length=None)
    key, between = authority(vendor, ca, lasts=-DAY)
    refused("no chain leads", (below(key), between, *vendor.above), vendor.root)
    later = NOW + 366 * DAY
    ek = vendor.endorse(KEY, lasts=(-DAY, 400 * DAY))
    with pytest.raises(EvidenceError, match="no chain leads"):
        verify_endorsement((ek, *vendor.above), (vendor.root,), later)


def test_refuses_a_leaf_that_is_a_ca(vendor: Vendor) -> None:
    ca = x509.BasicConstraints(ca=True, path_length=None)
    ek = vendor.endorse(KEY, changes={x509.BasicConstraints: ca})
    refused("no EK's: 2.5.29.19", (ek, *vendor.above), vendor.root)
    refused("no EK's", vendor.above, vendor.root)


@pytest.mark.parametrize(
    "usages",
    [
        [ExtendedKeyUsageOID.CLIENT_AUTH],
        [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE],
        [x509.ObjectIdentifier("2.23.133.8.2")],  # a platform certificate
        [x509.ObjectIdentifier("2.23.133.8.3")],  # an AK's
    ],
)
def test_refuses_a_certificate_for_another_use(
    vendor: Vendor, usages: list[x509.ObjectIdentifier]
) -> None:
    changes: Changes = {x509.ExtendedKeyUsage: x509.ExtendedKeyUsage(usages)}
    ek = vendor.endorse(KEY, changes=changes)
    refused("no EK's: 2.5.29.37", (ek, *vendor.above), vendor.root)


def test_takes_the_tcgs_use_beside_others(vendor: Vendor) -> None:
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, EK_USAGE])
    ek = vendor.endorse(KEY, changes={x509.ExtendedKeyUsage: both})
    assert verify_endorsement((ek, *vendor.above), (vendor.root,), NOW).key == KEY


def test_refuses_a_key_that_is_for_signing(vendor: Vendor) -> None:
    signs = key_usage(digital_signature=True)
    ek = vendor.endorse(KEY, changes={x509.KeyUsage: signs})
    refused("no EK's: 2.5.29.15", (ek, *vendor.above), vendor.root)


@pytest.mark.parametrize(
    "extensions",
    [
        (),
        (x509.BasicConstraints(ca=False, path_length=None),),
        (x509.BasicConstraints(ca=True, path_length=None), key_usage(crl_sign=True)),
    ],
    ids=["no basicConstraints", "no CA", "no keyCertSign"],
)
def test_refuses_an_issuer_that_is_no_authority(
    vendor: Vendor, extensions: tuple[x509.ExtensionType, ...]
) -> None:
    """An EK's own key, for one, issues nothing."""
    key, between = authority(vendor, *extensions)
    refused("no chain leads", (below(key), between, *vendor.above), vendor.root)


def test_takes_an_issuer_without_a_key_usage(vendor: Vendor) -> None:
    key, between = authority(vendor, x509.BasicConstraints(ca=True, path_length=0))
    sent = (below(key), between, *vendor.above)
    assert verify_endorsement(sent, (vendor.root,), NOW).key == KEY


def test_refuses_more_authorities_than_one_allows_below_it(vendor: Vendor) -> None:
    first, above = authority(vendor, x509.BasicConstraints(ca=True, path_length=0))
    between = Vendor()
    between.name, between.key = named("between"), first
    key = ec.generate_private_key(ec.SECP256R1())
    last = named("last")
    issuing = Vendor.authority(last, between.name, key, first).public_bytes(DER)
    between.name, between.key = last, key
    ek = between.endorse(KEY)
    refused("no chain leads", (ek, issuing, above, *vendor.above), vendor.root)


def test_refuses_critical_extensions_that_nobody_understands(vendor: Vendor) -> None:
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    ek = vendor.endorse(KEY, changes={x509.UnrecognizedExtension: odd})
    refused("no chain leads", (ek, *vendor.above), vendor.root)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP521R1()).public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        ed25519.Ed25519PrivateKey.generate().public_key(),
        rsa.generate_private_key(65537, 3072).public_key(),
    ],
    ids=["P-521", "secp256k1", "Ed25519", "RSA-3072"],
)
def test_refuses_other_kinds_of_keys(vendor: Vendor, key: PublicKey) -> None:
    refused("another kind than", (vendor.endorse(key), *vendor.above), vendor.root)


def test_refuses_what_is_no_certificate(vendor: Vendor) -> None:
    ek = vendor.endorse(KEY)
    for certificates in ((b"",), (ek[:-1], *vendor.above), (ek, b"\x30\x00"), (ek + b"\0",)):
        refused("none in DER", certificates, vendor.root)


def test_refuses_too_many_and_too_large_certificates(vendor: Vendor) -> None:
    ek = vendor.endorse(KEY)
    for certificates in ((), (ek,) * 9):
        refused("8 at most", certificates, vendor.root)
    refused("more than 8192 octets", (ek, bytes(8193)), vendor.root)


def test_refuses_two_certificates_of_one_name(vendor: Vendor) -> None:
    """Else seven that each might have issued each other are 7! paths to try."""
    refused(
        "two certificates above", (vendor.endorse(KEY), *vendor.above, *vendor.above), vendor.root
    )


def test_refuses_a_loop_of_authorities(vendor: Vendor) -> None:
    names = [named(f"loop {index}") for index in range(7)]
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in names]
    loop = [
        Vendor.authority(names[at], names[at - 1], keys[at], keys[at - 1]).public_bytes(DER)
        for at in range(7)
    ]
    last = Vendor()
    last.name, last.key = names[-1], keys[-1]
    refused("no chain leads", (last.endorse(KEY), *loop), vendor.root)


def test_refuses_extensions_that_cannot_be_read(vendor: Vendor) -> None:
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x04\x01\x00")
    changes: Changes = {x509.SubjectAlternativeName: None, x509.UnrecognizedExtension: odd}
    ek = vendor.endorse(KEY, changes=changes)
    refused("has a part that is none", (ek, *vendor.above), vendor.root)


def test_reads_nothing_of_certificates_that_no_root_vouches_for(vendor: Vendor) -> None:
    """Agents choose what they send; extensions and keys may take long to read and to use."""
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x04\x01\x00")
    changes: Changes = {x509.SubjectAlternativeName: None, x509.UnrecognizedExtension: odd}
    stranger = Vendor()
    refused("no chain leads", (stranger.endorse(KEY, changes=changes),), vendor.root)
    key, between = authority(stranger, odd)
    refused("no chain leads", (below(key), between, *stranger.above), vendor.root)
    key, between = authority(vendor, odd)
    refused("has a part that is none", (below(key), between, *vendor.above), vendor.root)


def test_refuses_an_issuer_whose_name_is_none(vendor: Vendor) -> None:
    ek = vendor.endorse(KEY).replace(b"\x55\x04\x03\x0c", b"\x55\x04\x03\x05", 1)
    refused("has a part that is none", (ek, *vendor.above), vendor.root)
