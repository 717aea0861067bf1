"""Certificates made from a profile: the one place where a certificate of ours is signed.

What a profile says is in `certs.profile`; here stands how RFC 5280 and X509-SVID spell it.
"""

import datetime as dt
import secrets
from typing import override

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec import Struct

from certs.profile import PROFILES, Profile, Purpose

_PURPOSES: dict[Purpose, x509.ObjectIdentifier] = {
    "client_auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "server_auth": ExtendedKeyUsageOID.SERVER_AUTH,
}
_SERIAL_OCTETS = 16


class Authority(Struct, frozen=True):
    """The certificate of an authority, and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @override
    def __repr__(self) -> str:
        """Show whose it is, and nothing of the key."""
        return f"Authority({self.certificate.subject.rfc4514_string()})"


class Wanted(Struct, frozen=True):
    """What is to be certified: times are aware, `names` the alternative names."""

    profile: Profile
    subject: x509.Name
    public_key: CertificatePublicKeyTypes
    names: tuple[x509.GeneralName, ...]
    not_before: dt.datetime
    not_after: dt.datetime
    more: tuple[tuple[x509.ExtensionType, bool], ...] = ()


class Signer:
    """An authority that is ready to sign; what is the same in each certificate is made once."""

    def __init__(self, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> None:
        self._issuer = issuer
        self._key = key
        # RFC 5280, section 4.2.1.1
        self._identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())

    @override
    def __repr__(self) -> str:
        """Show whose it is, and nothing of the key."""
        return f"Signer({self._issuer.rfc4514_string()})"

    def sign(self, wanted: Wanted) -> x509.Certificate:
        """Return a new certificate with a random serial number."""
        basic, usage, purposes = _EXTENSIONS[wanted.profile.name]
        builder = (
            x509.CertificateBuilder()
            .issuer_name(self._issuer)
            .subject_name(wanted.subject)
            .public_key(wanted.public_key)
            .serial_number(_serial())
            .not_valid_before(wanted.not_before)
            .not_valid_after(wanted.not_after)
            .add_extension(basic, critical=True)
            .add_extension(usage, critical=True)
            .add_extension(purposes, critical=False)
            # RFC 5280, section 4.2.1.6
            .add_extension(x509.SubjectAlternativeName(wanted.names), critical=False)
            # RFC 5280, section 4.2.1.2
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(wanted.public_key), critical=False
            )
            .add_extension(self._identifier, critical=False)
        )
        for extension, is_critical in wanted.more:
            builder = builder.add_extension(extension, is_critical)
        return builder.sign(self._key, hashes.SHA256())


def _serial() -> int:
    """Return 126 random bits that take 16 octets, always (RFC 5280, section 4.1.2.2)."""
    octets = bytearray(secrets.token_bytes(_SERIAL_OCTETS))
    octets[0] = octets[0] & 0x3F | 0x40
    return int.from_bytes(octets)


type _Extensions = tuple[x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage]


def _extensions(profile: Profile) -> _Extensions:
    is_authority = profile.path_length is not None
    wanted = set(profile.usages)
    return (
        # RFC 5280, section 4.2.1.9
        x509.BasicConstraints(ca=is_authority, path_length=profile.path_length),
        # RFC 5280, section 4.2.1.3; X509-SVID, section 4.3: critical, no keyCertSign in a leaf
        x509.KeyUsage(
            digital_signature="digital_signature" in wanted,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign="key_cert_sign" in wanted,
            crl_sign="crl_sign" in wanted,
            encipher_only=False,
            decipher_only=False,
        ),
        # RFC 5280, section 4.2.1.12.  Not there for authorities; OpenSSL, Go and NSS obey it
        x509.ExtendedKeyUsage([_PURPOSES[each] for each in profile.purposes]),
    )


_EXTENSIONS = {name: _extensions(profile) for name, profile in PROFILES.items()}
