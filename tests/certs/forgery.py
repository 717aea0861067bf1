"""Certificates that nobody should believe, and good ones beside them, for whoever verifies.

    forger = Forger.strict(folder, now)      # our own trust domain, as `certs.domain` makes it
    forger = Forger.loose("desk.example", now)   # somebody's, without name constraints or EKU
    forged = forger.good(); FORGERIES["two-uris"](forger)

`strict` shows what a stolen intermediate of ours can do; `loose` gets past OpenSSL where only the
rules of SPIFFE say no.
"""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from certs.domain import init_domain, load_domain

TRUST_DOMAIN = "desk.example"
OTHER = "other.example"
WHO = f"spiffe://{TRUST_DOMAIN}/agent/coder"
HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)
BOTH = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)


class Forged(Struct, frozen=True):
    """PEM texts: a chain without its root, leaf first; the leaf's key; whom a verifier trusts."""

    chain: str
    key: str
    anchors: str

    @property
    def leaf(self) -> x509.Certificate:
        return x509.load_pem_x509_certificates(self.chain.encode())[0]

    @property
    def ders(self) -> tuple[bytes, ...]:
        """The chain as DER with the anchor last, as a verifying OpenSSL gives it."""
        found = x509.load_pem_x509_certificates((self.chain + self.anchors).encode())
        return tuple(each.public_bytes(serialization.Encoding.DER) for each in found)

    def write(self, folder: Path, name: str = "client") -> tuple[Path, Path, Path]:
        """Write NAME.pem, NAME.key and NAME.ca, and return their paths."""
        paths = folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}.ca"
        for path, text in zip(paths, (self.chain, self.key, self.anchors), strict=True):
            path.write_text(text)
        return paths


class Wish(Struct, frozen=True):
    """A leaf that is right in everything that is not said."""

    uris: tuple[str, ...] = (WHO,)
    others: tuple[x509.GeneralName, ...] = ()
    begins: dt.timedelta = -HOUR
    ends: dt.timedelta = HOUR
    purposes: tuple[x509.ObjectIdentifier, ...] = BOTH
    ca: bool = False
    signs: bool = False
    digital_signature: bool = True
    key: ec.EllipticCurvePrivateKey | None = None


class Forger:
    """Holds the key of an authority and signs anything."""

    def __init__(
        self,
        trust_domain: str,
        now: dt.datetime,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        anchors: str,
    ) -> None:
        self.trust_domain = trust_domain
        self.now = now
        self.certificate = certificate
        self.key = key
        self.anchors = anchors

    @classmethod
    def strict(cls, folder: Path, now: dt.datetime, trust_domain: str = TRUST_DOMAIN) -> "Forger":
        """Take the intermediate of a trust domain that we make in `folder`, or that is there."""
        if not (folder / "domain.json").exists():
            init_domain(folder, trust_domain, now, None)
        domain = load_domain(folder, None)
        authority = domain.signers(now)[0]
        return cls(domain.name, now, authority.certificate, authority.key, domain.anchors_pem)

    @classmethod
    def loose(cls, trust_domain: str, now: dt.datetime) -> "Forger":
        """Make a root and an intermediate that are held to nothing."""
        root_key, key = _key(), _key()
        root = _authority("loose root", root_key, "loose root", root_key, now)
        below = _authority("loose intermediate", key, "loose root", root_key, now)
        return cls(trust_domain, now, below, key, _pem(root))

    @property
    def who(self) -> str:
        return f"spiffe://{self.trust_domain}/agent/coder"

    def good(self, spiffe_id: str = "") -> Forged:
        """Return an SVID that everybody should believe."""
        return self.sign(Wish((spiffe_id or self.who,)))

    def sign(self, wish: Wish) -> Forged:
        """Return what is wished for, whatever it is."""
        key = wish.key or _key()
        names = [*map(x509.UniformResourceIdentifier, wish.uris), *wish.others]
        builder = (
            _builder(self.certificate.subject, "Sallyport", key)
            .not_valid_before(self.now + wish.begins)
            .not_valid_after(self.now + wish.ends)
            .add_extension(
                x509.BasicConstraints(ca=wish.ca, path_length=0 if wish.ca else None),
                critical=True,
            )
            .add_extension(_usage(wish.digital_signature, wish.signs), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        if wish.purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(wish.purposes), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        leaf = builder.sign(self.key, hashes.SHA256())
        return Forged(_pem(leaf) + _pem(self.certificate), _key_pem(key), self.anchors)


def _spelled(uri: str) -> Callable[[Forger], Forged]:
    return lambda forger: forger.sign(Wish((uri.replace("TD", forger.trust_domain),)))


def expired(forger: Forger) -> Forged:
    return forger.sign(Wish((forger.who,), begins=-2 * HOUR, ends=-dt.timedelta(minutes=1)))


def not_yet_valid(forger: Forger) -> Forged:
    return forger.sign(Wish((forger.who,), begins=HOUR, ends=2 * HOUR))


def two_uris(forger: Forger) -> Forged:
    return forger.sign(Wish((forger.who, f"spiffe://{forger.trust_domain}/agent/other")))


def same_uri_twice(forger: Forger) -> Forged:
    return forger.sign(Wish((forger.who, forger.who)))


def no_names(forger: Forger) -> Forged:
    return forger.sign(Wish(()))


def dns_alone(forger: Forger) -> Forged:
    return forger.sign(Wish((), (x509.DNSName(forger.trust_domain),)))


def dns_besides(forger: Forger) -> Forged:
    """X509-SVID, section 2 allows it; the name constraints of our own root do not."""
    return forger.sign(Wish((forger.who,), (x509.DNSName("host.example"),)))


def ca_as_leaf(forger: Forger) -> Forged:
    return forger.sign(Wish((forger.who,), ca=True, signs=True))


def leaf_that_signs(forger: Forger) -> Forged:
    """X509-SVID, section 4.3: a leaf must not set keyCertSign, whatever its basic constraints."""
    return forger.sign(Wish((forger.who,), signs=True))


def no_digital_signature(forger: Forger) -> Forged:
    return forger.sign(Wish((forger.who,), digital_signature=False, signs=True))


def server_only(forger: Forger) -> Forged:
    return forger.sign(Wish((forger.who,), purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)))


def mail_only(forger: Forger) -> Forged:
    return forger.sign(Wish((forger.who,), purposes=(ExtendedKeyUsageOID.EMAIL_PROTECTION,)))


def unknown_issuer(forger: Forger) -> Forged:
    """Signed by somebody else of the same trust domain's name; the anchors are ours."""
    stranger = Forger.loose(forger.trust_domain, forger.now).good()
    return Forged(stranger.chain, stranger.key, forger.anchors)


def self_signed(forger: Forger) -> Forged:
    key = _key()
    own = Forger(forger.trust_domain, forger.now, _lone(key, forger.now), key, forger.anchors)
    forged = own.good()
    return Forged(_first(forged.chain), forged.key, forger.anchors)


def other_trust_domain(forger: Forger) -> Forged:
    """Signed by us in the name of a foreign trust domain: under `strict` a constraint breach."""
    return forger.sign(Wish((f"spiffe://{OTHER}/agent/coder",)))


def below_trust_domain(forger: Forger) -> Forged:
    return forger.sign(Wish((f"spiffe://sub.{forger.trust_domain}/agent/coder",)))


def without_intermediate(forger: Forger) -> Forged:
    forged = forger.good()
    return Forged(_first(forged.chain), forged.key, forged.anchors)


def svid_below_svid(forger: Forger) -> Forged:
    """A workload signs for another one with its own SVID."""
    key = _key()
    mine = forger.sign(Wish((forger.who,), key=key))
    below = Forger(forger.trust_domain, forger.now, mine.leaf, key, forger.anchors)
    theirs = below.good(f"spiffe://{forger.trust_domain}/agent/other")
    return Forged(_first(theirs.chain) + mine.chain, theirs.key, forger.anchors)


FORGERIES: dict[str, Callable[[Forger], Forged]] = {
    "expired": expired,
    "not-yet-valid": not_yet_valid,
    "other-trust-domain": other_trust_domain,
    "below-trust-domain": below_trust_domain,
    "two-uris": two_uris,
    "same-uri-twice": same_uri_twice,
    "no-names": no_names,
    "dns-alone": dns_alone,
    "ca-as-leaf": ca_as_leaf,
    "leaf-that-signs": leaf_that_signs,
    "no-digital-signature": no_digital_signature,
    "server-only": server_only,
    "mail-only": mail_only,
    "unknown-issuer": unknown_issuer,
    "self-signed": self_signed,
    "without-intermediate": without_intermediate,
    "svid-below-svid": svid_below_svid,
    "path-less": _spelled("spiffe://TD"),
    "slash-alone": _spelled("spiffe://TD/"),
    "slash-at-end": _spelled("spiffe://TD/agent/coder/"),
    "empty-segment": _spelled("spiffe://TD/agent//coder"),
    "dot-segment": _spelled("spiffe://TD/agent/../agent/coder"),
    "percent": _spelled("spiffe://TD/agent/%63oder"),
    "percent-nul": _spelled("spiffe://TD/agent/coder%00"),
    "nul": _spelled("spiffe://TD/agent/coder\x00.example"),
    "newline": _spelled("spiffe://TD/agent/coder\n"),
    "upper-scheme": _spelled("SPIFFE://TD/agent/coder"),
    "upper-trust-domain": lambda forger: forger.sign(
        Wish((f"spiffe://{forger.trust_domain.upper()}/agent/coder",))
    ),
    "trailing-dot": _spelled("spiffe://TD./agent/coder"),
    "port": _spelled("spiffe://TD:443/agent/coder"),
    "userinfo": _spelled("spiffe://x@TD/agent/coder"),
    "query": _spelled("spiffe://TD/agent/coder?x=1"),
    "fragment": _spelled("spiffe://TD/agent/coder#x"),
    "https": _spelled("https://TD/agent/coder"),
    "too-long": lambda forger: forger.sign(
        Wish((f"spiffe://{forger.trust_domain}/" + "a" * 2048,))
    ),
}
"""Whatever names nobody.  `dns_besides` is apart: SPIFFE allows it, and `loose` is believed."""

REFUSED_BY_OPENSSL = frozenset(
    {
        "expired",
        "not-yet-valid",
        "server-only",
        "mail-only",
        "unknown-issuer",
        "self-signed",
        "without-intermediate",
        "svid-below-svid",
        "no-digital-signature",
    }
)
"""What a handshake refuses whatever the root is held to; SPIFFE's rules refuse the others."""

BREACHES = frozenset(
    {"other-trust-domain", "below-trust-domain", "dns-alone", "trailing-dot", "userinfo"}
)
"""What a handshake refuses under `strict` besides: breaches of a name constraint of ours."""


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, text)])


def _usage(digital_signature: bool, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(digital_signature, False, False, False, False, signs, signs, False, False)


def _builder(
    issuer: x509.Name, subject: str, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(_name(subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _authority(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
) -> x509.Certificate:
    return (
        _builder(_name(issuer), subject, key)
        .not_valid_before(now - 2 * DAY)
        .not_valid_after(now + 90 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(False, True), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )


def _lone(key: ec.EllipticCurvePrivateKey, now: dt.datetime) -> x509.Certificate:
    return _authority("Sallyport", key, "Sallyport", key, now)


def _first(chain: str) -> str:
    return _pem(x509.load_pem_x509_certificates(chain.encode())[0])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
