"""A throw-away authority and one server certificate, for a demonstration on loopback.

Both keys live in memory and in the strings that are returned, for as long as the caller keeps
them; nothing trusts the authority unless it is told to.
"""

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

_LIFE = dt.timedelta(hours=1)
_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,  # RFC 5280, section 4.2.1.3
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
_SKEW = dt.timedelta(minutes=5)  # clocks of one host; RFC 5280 leaves it to us


class EphemeralServer(Struct, frozen=True):
    """PEM texts: the authority to trust, and a server's chain and private key."""

    authority: str
    chain: str
    key: str


def ephemeral_server(names: tuple[str, ...], now: dt.datetime) -> EphemeralServer:
    """Return a server certificate for the DNS `names`, valid for an hour from `now` (aware)."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name, name = _name("sallyport demonstration"), _name("sallyport origin")
    root = (
        _builder(root_name, root_name, root_key.public_key(), now)
        # RFC 5280, section 4.2.1.9: an authority says so, and that nothing may be below its leaves
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        # RFC 5280, section 4.2.1.2: whose key this is, for the leaf to name
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), False)
        .add_extension(_SIGNS, critical=True)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        _builder(root_name, name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        # RFC 5280, section 4.2.1.1: the key that signed this
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False
        )
        # RFC 5280, section 4.2.1.6: the names that the certificate is for
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    return EphemeralServer(_pem(root), _pem(leaf) + _pem(root), _key_pem(key))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, now: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFE)
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
