"""Revocation lists, as verifiers read them."""

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from certs.crl import LIFE, Revoked, make_crl, reason_flag
from certs.domain import init_domain, load_domain
from certs.mint import Authority

NOW = dt.datetime(2026, 11, 22, 8, tzinfo=dt.UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    init_domain(tmp_path / "identity", "desk.example", NOW, None)
    return load_domain(tmp_path / "identity", None).signers(NOW)[0]


def key_of(authority: Authority) -> ec.EllipticCurvePublicKey:
    return authority.key.public_key()


def test_a_list_is_signed_has_a_number_and_ends(authority: Authority) -> None:
    crl = x509.load_der_x509_crl(make_crl(authority, [Revoked(5, NOW)], NOW))
    assert crl.is_signature_valid(key_of(authority))
    assert crl.issuer == authority.certificate.subject
    assert crl.next_update_utc == NOW + LIFE
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number > 0
    identifier = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    subject = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    assert identifier.key_identifier == subject.value.digest


def test_an_entry_has_its_serial_date_and_reason(authority: Authority) -> None:
    revoked = [Revoked(5, NOW, "keyCompromise"), Revoked(6, NOW), Revoked(5, NOW, "superseded")]
    crl = x509.load_der_x509_crl(make_crl(authority, revoked, NOW))
    assert [each.serial_number for each in crl] == [5, 6]  # each once
    entry = crl.get_revoked_certificate_by_serial_number(5)
    assert entry is not None
    assert entry.revocation_date_utc == NOW
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is (
        x509.ReasonFlags.superseded
    )
    bare = crl.get_revoked_certificate_by_serial_number(6)
    assert bare is not None
    assert len(bare.extensions) == 0


def test_numbers_grow_with_time(authority: Authority) -> None:
    later = NOW + dt.timedelta(milliseconds=1)
    numbers = [
        x509.load_der_x509_crl(make_crl(authority, [], at))
        .extensions.get_extension_for_class(x509.CRLNumber)
        .value.crl_number
        for at in (NOW, later)
    ]
    assert numbers[0] < numbers[1] < 2**159  # RFC 5280, section 5.2.3: 20 octets


def test_a_list_can_be_pem(authority: Authority) -> None:
    assert not list(x509.load_pem_x509_crl(make_crl(authority, [], NOW, as_pem=True)))


@pytest.mark.parametrize("reason", ["unspecified", "removeFromCRL", "because", ""])
def test_what_is_no_reason_is_left_out(reason: str) -> None:
    assert reason_flag(reason) is None
