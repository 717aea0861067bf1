"""Requests of devices, whatever they hold."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import AttributeOID
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.csr import CSR_OCTETS, RequestError, authorities, certs_only, read_request
from certs.domain import init_domain, load_domain

NOW = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
ID = "spiffe://desk.example/agent/coder"
KEY = ec.generate_private_key(ec.SECP256R1())
type Key = Any


def request(
    key: Key = KEY,
    *extensions: x509.ExtensionType,
    algorithm: Any = hashes.SHA256(),  # noqa: B008 - immutable
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    for each in extensions:
        builder = builder.add_extension(each, critical=False)
    der: bytes = builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)
    return der


def names(*found: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(found)


def test_a_request_tells_its_key_and_the_name_it_asks_for() -> None:
    csr = read_request(request(KEY, names(x509.UniformResourceIdentifier(ID))))
    spki = KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    digest = hashes.Hash(hashes.SHA256())
    digest.update(spki)
    assert (csr.spki, csr.spki_sha256, csr.uris) == (spki, digest.finalize().hex(), (ID,))


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP384R1()), hashes.SHA384()),
        (ed25519.Ed25519PrivateKey.generate(), None),
    ],
    ids=["P-384", "Ed25519"],
)
def test_keys_that_our_tls_verifies_are_taken(
    key: Key, algorithm: hashes.HashAlgorithm | None
) -> None:
    assert read_request(request(key, algorithm=algorithm)).uris == ()


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP521R1()),
        ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-521", "secp256k1", "RSA"],
)
def test_other_keys_are_refused(key: Key) -> None:
    with pytest.raises(RequestError, match="this kind of key"):
        read_request(request(key))


def test_ed448_is_refused() -> None:
    key = ed448.Ed448PrivateKey.generate()
    with pytest.raises(RequestError, match="this kind of key"):
        read_request(request(key, algorithm=None))


def test_a_request_that_was_changed_is_refused() -> None:
    der = bytearray(request(KEY, names(x509.UniformResourceIdentifier(ID))))
    at = der.index(b"coder")
    der[at : at + 5] = b"admin"
    with pytest.raises(RequestError, match="signed by its own key"):
        read_request(bytes(der))


@pytest.mark.parametrize(
    "extension",
    [
        names(x509.DNSName("bank.example")),
        names(x509.UniformResourceIdentifier(ID), x509.UniformResourceIdentifier(ID)),
        names(x509.UniformResourceIdentifier(ID), x509.RFC822Name("a@desk.example")),
        x509.BasicConstraints(ca=True, path_length=None),
        x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"),
    ],
    ids=["dns", "two", "mail", "ca", "server", "unknown"],
)
def test_a_request_for_more_than_one_spiffe_id_is_refused(extension: x509.ExtensionType) -> None:
    with pytest.raises(RequestError, match="more than one SPIFFE ID"):
        read_request(request(KEY, extension))


def test_a_challenge_password_is_passed_over_and_other_attributes_are_refused() -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    known = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"any")
    other = builder.add_attribute(AttributeOID.UNSTRUCTURED_NAME, b"any")
    signed = [
        each.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
        for each in (known, other)
    ]
    assert read_request(signed[0]).uris == ()
    with pytest.raises(RequestError, match="attributes"):
        read_request(signed[1])


def test_a_request_that_is_too_long_is_not_read() -> None:
    with pytest.raises(RequestError, match="octets"):
        read_request(bytes(CSR_OCTETS + 1))


@given(st.binary(max_size=600))
def test_any_octets_are_refused_with_a_text(octets: bytes) -> None:
    with pytest.raises(RequestError):
        read_request(octets)


_WHOLE = request(KEY, names(x509.UniformResourceIdentifier(ID)))


@settings(deadline=None)
@given(st.integers(0, len(_WHOLE) - 1), st.integers(1, 255))
def test_no_octet_of_a_request_can_be_changed(at: int, by: int) -> None:
    """Either the signature does not hold, or the same is asked for."""
    changed = bytearray(_WHOLE)
    changed[at] ^= by
    try:
        csr = read_request(bytes(changed))
    except RequestError:
        return
    assert csr == read_request(_WHOLE)


def test_authorities_are_a_message_that_openssl_and_others_read(tmp_path: Path) -> None:
    init_domain(tmp_path / "identity", "desk.example", NOW, None)
    domain = load_domain(tmp_path / "identity", None)
    above = authorities(domain, NOW)
    assert above[0] in domain.anchors
    found = pkcs7.load_der_pkcs7_certificates(certs_only(above))
    assert {each.public_bytes(serialization.Encoding.DER) for each in found} == set(above)
    assert len(found) == 2
