"""OCSP answers, whatever is asked."""

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certs.crl import Revoked
from certs.domain import init_domain, load_domain
from certs.mint import Authority
from certs.ocsp import LIFE, MOST_NONCE_OCTETS, REQUEST_OCTETS, CertStatus, answer, serial_of

NOW = dt.datetime(2026, 11, 22, 8, tzinfo=dt.UTC)
MALFORMED = bytes.fromhex("30030a0101")  # RFC 6960, section 4.2.1
ID = "spiffe://desk.example/agent/coder"


class World:
    def __init__(self, folder: Path) -> None:
        init_domain(folder, "desk.example", NOW, None)
        domain = load_domain(folder, None)
        self.signers = domain.signers(NOW)
        self.leaf = x509.load_der_x509_certificate(domain.issue(ID, NOW, 3600).chain[0])

    def ask(
        self, *nonce: bytes, algorithm: hashes.HashAlgorithm | None = None, critical: bool = False
    ) -> bytes:
        builder = ocsp.OCSPRequestBuilder().add_certificate(
            self.leaf, self.signers[0].certificate, algorithm or hashes.SHA1()  # noqa: S303 - RFC 6960's CertID
        )  # fmt: skip
        for each in nonce:
            builder = builder.add_extension(x509.OCSPNonce(each), critical=critical)
        return builder.build().public_bytes(serialization.Encoding.DER)

    def answer(self, request: bytes, status: CertStatus = "good") -> ocsp.OCSPResponse:
        return ocsp.load_der_ocsp_response(answer(request, self.signers, status, NOW))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("ocsp") / "identity")


def is_signed(response: ocsp.OCSPResponse, authority: Authority) -> bool:
    key = authority.key.public_key()
    assert isinstance(response.signature_hash_algorithm, hashes.SHA256)
    key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
    return True


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256()])  # noqa: S303 - as above
def test_a_good_certificate_is_good_for_a_while(
    world: World, algorithm: hashes.HashAlgorithm
) -> None:
    response = world.answer(world.ask(algorithm=algorithm))
    assert response.certificate_status is ocsp.OCSPCertStatus.GOOD
    assert response.serial_number == world.leaf.serial_number
    assert response.next_update_utc == NOW + LIFE
    assert is_signed(response, world.signers[0])
    assert response.certificates == [world.signers[0].certificate]


def test_a_revoked_one_says_since_when_and_why(world: World) -> None:
    response = world.answer(world.ask(), Revoked(world.leaf.serial_number, NOW, "keyCompromise"))
    assert response.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert response.revocation_time_utc == NOW
    assert response.revocation_reason is x509.ReasonFlags.key_compromise


def test_an_unknown_one_is_unknown(world: World) -> None:
    status = world.answer(world.ask(), "unknown").certificate_status
    assert status is ocsp.OCSPCertStatus.UNKNOWN


def test_a_certificate_of_another_authority_is_unknown_whatever_its_serial(
    world: World, tmp_path: Path
) -> None:
    other = World(tmp_path / "identity")
    response = world.answer(other.ask(), "good")
    assert response.certificate_status is ocsp.OCSPCertStatus.UNKNOWN


@pytest.mark.parametrize("octets", [1, 32, MOST_NONCE_OCTETS])
def test_a_nonce_comes_back(world: World, octets: int) -> None:
    response = world.answer(world.ask(b"n" * octets))
    [nonce] = response.extensions
    assert isinstance(nonce.value, x509.OCSPNonce)
    assert nonce.value.nonce == b"n" * octets


@pytest.mark.parametrize("octets", [0, MOST_NONCE_OCTETS + 1])
def test_a_nonce_of_another_length_is_malformed(world: World, octets: int) -> None:
    """RFC 9654, section 2.1."""
    assert answer(world.ask(b"n" * octets), world.signers, "good", NOW) == MALFORMED


def test_a_critical_extension_that_we_do_not_know_is_malformed(world: World) -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\x00")
    builder = ocsp.OCSPRequestBuilder().add_certificate(
        world.leaf, world.signers[0].certificate, hashes.SHA256()
    )
    request = builder.add_extension(unknown, critical=True).build()
    der = request.public_bytes(serialization.Encoding.DER)
    assert answer(der, world.signers, "good", NOW) == MALFORMED


def test_the_serial_is_told_before_the_answer(world: World) -> None:
    assert serial_of(world.ask()) == world.leaf.serial_number
    assert serial_of(b"") is None
    assert serial_of(bytes(REQUEST_OCTETS + 1)) is None


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(octets=st.binary(max_size=300))
def test_any_octets_are_malformed(world: World, octets: bytes) -> None:
    assert answer(octets, world.signers, "good", NOW) == MALFORMED


def test_a_negative_serial_is_malformed(world: World) -> None:
    """RFC 5280, section 4.1.2.2: no certificate has one; DER says its sign in one bit."""
    request = world.ask(b"nonce")
    serial = serial_of(request)
    assert serial is not None
    octets = serial.to_bytes(serial.bit_length() // 8 + 1)
    at = request.index(bytes((2, len(octets))) + octets) + 2
    negative = bytearray(request)
    negative[at] |= 0x80
    assert answer(bytes(negative), world.signers, "good", NOW) == MALFORMED


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_request_with_a_changed_octet_never_makes_another_certificate_good(
    world: World, data: st.DataObject
) -> None:
    request = bytearray(world.ask(b"nonce"))
    at = data.draw(st.integers(0, len(request) - 1))
    request[at] ^= data.draw(st.integers(1, 255))
    octets = answer(bytes(request), world.signers, "good", NOW)
    if octets == MALFORMED:
        return
    response = ocsp.load_der_ocsp_response(octets)
    assert response.serial_number == serial_of(bytes(request))
