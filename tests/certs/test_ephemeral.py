"""The throw-away authority: what a client checks, and what the certificates do not allow."""

import datetime as dt
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from certs.ephemeral import EphemeralServer, ephemeral_server

NAMES = ("one.example", "two.example")
NOW = dt.datetime(2026, 11, 22, 1, 2, 3, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)

type Verify = Callable[[str, dt.datetime], list[x509.Certificate]]


@pytest.fixture(scope="module")
def server() -> EphemeralServer:
    return ephemeral_server(NAMES, NOW)


@pytest.fixture(scope="module")
def leaf(server: EphemeralServer) -> x509.Certificate:
    return x509.load_pem_x509_certificates(server.chain.encode())[0]


@pytest.fixture(scope="module")
def root(server: EphemeralServer) -> x509.Certificate:
    return x509.load_pem_x509_certificate(server.authority.encode())


@pytest.fixture
def verify(leaf: x509.Certificate, root: x509.Certificate) -> Verify:
    """Verify the leaf as a TLS client does (RFC 5280, section 6; RFC 9525)."""

    def verified(name: str, at: dt.datetime) -> list[x509.Certificate]:
        builder = PolicyBuilder().store(Store([root])).time(at)
        return builder.build_server_verifier(x509.DNSName(name)).verify(leaf, [])

    return verified


@pytest.mark.parametrize("name", NAMES)
def test_the_chain_verifies_for_each_name(verify: Verify, name: str) -> None:
    assert len(verify(name, NOW)) == 2


@pytest.mark.parametrize("name", ["three.example", "x.one.example", "example"])
def test_it_verifies_for_no_other_name(verify: Verify, name: str) -> None:
    with pytest.raises(VerificationError):
        verify(name, NOW)


def test_it_lives_for_an_hour(verify: Verify, leaf: x509.Certificate) -> None:
    assert verify(NAMES[0], NOW + HOUR)
    for at in (NOW + HOUR + dt.timedelta(seconds=1), NOW - dt.timedelta(minutes=6)):
        with pytest.raises(VerificationError):
            verify(NAMES[0], at)
    assert leaf.not_valid_after_utc == NOW + HOUR


def test_each_certificate_has_its_own_key_and_number(
    server: EphemeralServer, leaf: x509.Certificate, root: x509.Certificate
) -> None:
    key = load_pem_private_key(server.key.encode(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert key.public_key() == leaf.public_key() != root.public_key()
    assert leaf.serial_number != root.serial_number


def test_the_leaf_is_a_servers_and_signs_no_other(leaf: x509.Certificate) -> None:
    extensions = leaf.extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_nothing_may_stand_between_the_authority_and_its_leaves(root: x509.Certificate) -> None:
    basic = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert (basic.value.ca, basic.value.path_length) == (True, 0)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.digital_signature) == (True, False)


def test_openssl_takes_all_three_texts(server: EphemeralServer, tmp_path: Path) -> None:
    chain, key = tmp_path / "chain", tmp_path / "key"
    chain.write_text(server.chain)
    key.write_text(server.key)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
    ssl.create_default_context(cadata=server.authority)


def test_the_longest_name_fits() -> None:
    """RFC 5280, appendix A.1: a common name has 64 characters at most, a DNS name 253."""
    longest = ".".join(("a" * 63, "b" * 63, "c" * 63, "d" * 61))
    chain = ephemeral_server((longest,), NOW).chain.encode()
    names = x509.load_pem_x509_certificates(chain)[0].extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == [longest]


def test_two_calls_share_no_key() -> None:
    one, two = (ephemeral_server(NAMES, NOW) for _ in range(2))
    assert one.key != two.key
    assert one.authority != two.authority
