"""What the library raises for DER that is none: each kind of it is in the tuple."""

import base64

import pytest
from cryptography import x509

from certs.bundle import parse_bundle
from certs.errors import SpiffeError
from certs.unreadable import UNREADABLE
from tests.authority import PrivateAuthority


def of_version_7(pem: str) -> bytes:
    """Return a certificate of X.509's version 7, which there is not (RFC 5280, section 4.1.2.1)."""
    der = base64.b64decode("".join(pem.splitlines()[1:-1]))
    assert der.count(b"\xa0\x03\x02\x01\x02") == 1
    changed = base64.encodebytes(der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x06"))
    return b"-----BEGIN CERTIFICATE-----\n" + changed + b"-----END CERTIFICATE-----\n"


@pytest.fixture
def odd(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    authority = PrivateAuthority(tmp_path_factory.mktemp("authority"))
    return of_version_7(authority.certificate.read_text())


def test_a_version_that_does_not_exist_is_unreadable(odd: bytes) -> None:
    with pytest.raises(UNREADABLE):
        x509.load_pem_x509_certificate(odd)


def test_a_bundle_with_such_a_certificate_is_refused_with_a_text(odd: bytes) -> None:
    with pytest.raises(SpiffeError, match=r"partner\.example"):
        parse_bundle(odd, "partner.example")
