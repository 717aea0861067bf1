"""The root and the intermediates of our trust domain.

Both are held to the trust domain by critical name constraints: whoever steals a key can pretend to
be a workload of this trust domain, and no web site, host or mail address for those who trust it.
"""

import datetime as dt
from ipaddress import IPv4Network, IPv6Network

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from certs.mint import Authority, Signer, Wanted
from certs.profile import INTERMEDIATE, ROOT, Profile
from certs.spiffe import SCHEME

# RFC 5280, section 4.2.1.10: an empty DNS name is every name; /0 is every address
_EXCLUDED: tuple[x509.GeneralName, ...] = (
    x509.DNSName(""),
    x509.IPAddress(IPv4Network("0.0.0.0/0")),
    x509.IPAddress(IPv6Network("::/0")),
)


def make_root(trust_domain: str, now: dt.datetime) -> Authority:
    """Return a new root of a trust domain, with a key of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    wanted = _wanted(ROOT, trust_domain, key, now)
    return Authority(Signer(wanted.subject, key).sign(wanted), key)


def make_intermediate(root: Authority, trust_domain: str, now: dt.datetime) -> Authority:
    """Return a new intermediate below `root`; it ends no later than that one."""
    key = ec.generate_private_key(ec.SECP256R1())
    wanted = _wanted(INTERMEDIATE, trust_domain, key, now, below=root.certificate)
    return Authority(Signer(root.certificate.subject, root.key).sign(wanted), key)


def _wanted(
    profile: Profile,
    trust_domain: str,
    key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
    below: x509.Certificate | None = None,
) -> Wanted:
    begin = now - dt.timedelta(seconds=profile.skew_s)
    end = now + dt.timedelta(seconds=profile.life_s)
    return Wanted(
        profile=profile,
        subject=_name(profile, key),
        public_key=key.public_key(),
        # X509-SVID, section 3.2: the trust domain itself, without a path
        names=(x509.UniformResourceIdentifier(f"{SCHEME}{trust_domain}"),),
        not_before=begin if below is None else max(begin, below.not_valid_before_utc),
        not_after=end if below is None else min(end, below.not_valid_after_utc),
        more=((_constraints(trust_domain), True),),
    )


def _constraints(trust_domain: str) -> x509.NameConstraints:
    """RFC 5280, section 4.2.1.10: for URIs, a name without a dot in front is one host."""
    return x509.NameConstraints(
        permitted_subtrees=[x509.UniformResourceIdentifier(trust_domain)],
        excluded_subtrees=_EXCLUDED,
    )


def _name(profile: Profile, key: ec.EllipticCurvePrivateKey) -> x509.Name:
    # Two generations must not share a name: verifiers find an issuer by it.
    digest = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:8]
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sallyport"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Sallyport workload {profile.name} {digest}"),
        ]
    )
