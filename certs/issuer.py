"""The certificates that we make: a root for this host, and the leaf of its server.

Nothing stands between the two.  The root signs servers only, and only names of this host: whoever
steals its key can pretend to be localhost, and nobody else.  `now` is an argument, and aware.
"""

import datetime as dt
from ipaddress import IPv4Network, IPv6Network
from typing import override

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from certs.errors import IssueError
from certs.names import Network, outside, permitted, split

ROOT_LIFE = dt.timedelta(days=3652)  # ten years, as mkcert and Caddy
# Renewed when a third is left: scanners warn of less than 60 days, so of failing renewals only.
LEAF_LIFE = dt.timedelta(days=180)
# Clocks of clients that are behind ours; Let's Encrypt dates back by an hour.
ROOT_SKEW, LEAF_SKEW = dt.timedelta(days=1), dt.timedelta(hours=1)
_RENEWED = "make a new one with `sallyport ca init --force`, which every client must be told of"
_SERVERS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


class Pair(Struct, frozen=True):
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @override
    def __repr__(self) -> str:
        """Show whose it is, and nothing of the key."""
        return f"Pair({self.certificate.subject.rfc4514_string()})"


def make_root(names: tuple[str, ...], now: dt.datetime) -> Pair:
    """Return a new root that may sign servers of these names, of localhost and of loopback."""
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # Two roots of one host must not share a name: clients find an issuer by it.
    name = _name(f"Sallyport local CA {identifier.digest.hex()[:8]}")
    subtrees, networks = permitted(names)
    certificate = (
        _builder(name, name, key.public_key())
        .not_valid_before(now - ROOT_SKEW)
        .not_valid_after(now + ROOT_LIFE)
        # RFC 5280, section 4.2.1.9: an authority, with no other below it
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        # RFC 5280, section 4.2.1.3
        .add_extension(_usage(signs=True), critical=True)
        # Not in RFC 5280 for authorities; OpenSSL, NSS, Go and Windows obey it: servers only
        .add_extension(_SERVERS, critical=False)
        # RFC 5280, section 4.2.1.10
        .add_extension(_constraints(subtrees, networks), critical=True)
        # RFC 5280, section 4.2.1.2
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate, key)


def make_leaf(root: Pair, names: tuple[str, ...], now: dt.datetime) -> Pair:
    """Return a certificate with a key of its own for a server of these names.

    Raises:
        IssueError: the root does not permit one of them, or is not valid at `now`.
    """
    check(root.certificate, names, now)
    key = ec.generate_private_key(ec.SECP256R1())
    dns, addresses = split(names)
    spelled = [*map(x509.DNSName, dns), *map(x509.IPAddress, addresses)]
    certificate = (
        # RFC 9525, section 2: clients look at the alternative names; this one is for people
        _builder(root.certificate.subject, _name("Sallyport server"), key.public_key())
        .not_valid_before(max(now - LEAF_SKEW, root.certificate.not_valid_before_utc))
        .not_valid_after(min(now + LEAF_LIFE, root.certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(_SERVERS, critical=False)
        # RFC 5280, section 4.2.1.6
        .add_extension(x509.SubjectAlternativeName(spelled), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        # RFC 5280, section 4.2.1.1
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key()),
            critical=False,
        )
        .sign(root.key, hashes.SHA256())
    )
    return Pair(certificate, key)


def check(root: x509.Certificate, names: tuple[str, ...], now: dt.datetime) -> None:
    """See that a root may sign for these names at `now`.

    Raises:
        IssueError: it may not; the text has every name that it does not permit.
    """
    refused = outside(names, *constraints_of(root))
    if refused:
        raise IssueError(
            f"the local CA does not permit {', '.join(refused)}: listen on another address, or "
            + _RENEWED
        )
    if now >= root.not_valid_after_utc:
        raise IssueError(f"the local CA ended on {root.not_valid_after_utc:%Y-%m-%d}: {_RENEWED}")
    if now < root.not_valid_before_utc:
        raise IssueError(
            f"the local CA begins on {root.not_valid_before_utc:%Y-%m-%d}, the clock says "
            f"{now:%Y-%m-%d}: correct the clock; if it is right now, {_RENEWED}"
        )


def constraints_of(root: x509.Certificate) -> tuple[tuple[str, ...], tuple[Network, ...]]:
    """Return the DNS subtrees and networks that a root is held to; nothing where it has none."""
    try:
        found = root.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return (), ()
    trees = found.permitted_subtrees or []
    values = [each.value for each in trees]
    return (
        tuple(each.value for each in trees if isinstance(each, x509.DNSName)),
        tuple(each for each in values if isinstance(each, IPv4Network | IPv6Network)),
    )


def names_of(leaf: x509.Certificate) -> tuple[str, ...]:
    """Return the DNS names and addresses of a leaf, in its order."""
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(str(each.value) for each in found)


def _constraints(subtrees: tuple[str, ...], networks: tuple[Network, ...]) -> x509.NameConstraints:
    allowed = [*map(x509.DNSName, subtrees), *map(x509.IPAddress, networks)]
    return x509.NameConstraints(permitted_subtrees=allowed, excluded_subtrees=None)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())  # RFC 5280, section 4.1.2.2
    )
