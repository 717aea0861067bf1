"""X.509-SVIDs: the short-lived certificates of workloads (X509-SVID standard)."""

import base64
import datetime as dt
from typing import override

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from msgspec import Struct

from certs.errors import IssueError
from certs.mint import Authority, Signer, Wanted
from certs.profile import PROFILES, Profile
from certs.spiffe import workload_id

_SUBJECT = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sallyport")])
_CURVES = (ec.SECP256R1, ec.SECP384R1)


class IssuedSvid(Struct, frozen=True):
    """An X.509-SVID as it goes to its workload; times are Unix time in seconds.

    `chain` is DER, the leaf first and without the root; `key` is PKCS#8 DER, and None where the
    workload kept its own.  `serial` is lower-case hex.
    """

    spiffe_id: str
    serial: str
    chain: tuple[bytes, ...]
    key: bytes | None
    not_before: int
    not_after: int

    @property
    def chain_pem(self) -> str:
        """The chain as PEM (RFC 7468), leaf first."""
        return "".join(_pem("CERTIFICATE", each) for each in self.chain)

    @property
    def key_pem(self) -> str:
        """The key as PEM; empty where we have none."""
        return "" if self.key is None else _pem("PRIVATE KEY", self.key)

    @override
    def __repr__(self) -> str:
        """Show whose it is, and nothing of the key."""
        return f"IssuedSvid({self.spiffe_id}, serial={self.serial}, not_after={self.not_after})"


class SvidIssuer:
    """One intermediate that signs X.509-SVIDs of a trust domain."""

    def __init__(
        self,
        trust_domain: str,
        authority: Authority,
        more: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    ) -> None:
        self._trust_domain = trust_domain
        self.authority = authority
        self._more = more
        self.der = authority.certificate.public_bytes(serialization.Encoding.DER)
        self._from = authority.certificate.not_valid_before_utc
        self._until = authority.certificate.not_valid_after_utc
        self._signer = Signer(authority.certificate.subject, authority.key)

    def issue(
        self, spiffe_id: str, now: dt.datetime, ttl_s: int, profile: Profile, spki: bytes | None
    ) -> IssuedSvid:
        """Return a new X.509-SVID.

        Raises:
            SpiffeError: `spiffe_id` is no workload of this trust domain.
            IssueError: the life is out of bounds, the key is not acceptable, or the time is.
        """
        who = str(workload_id(spiffe_id, self._trust_domain))
        begin, end = self._window(now, ttl_s, profile)
        key = None if spki is not None else ec.generate_private_key(ec.SECP256R1())
        certificate = self._signer.sign(
            Wanted(
                profile=profile,
                subject=_SUBJECT,
                public_key=_acceptable(spki) if key is None else key.public_key(),
                names=(x509.UniformResourceIdentifier(who),),  # X509-SVID, section 2: exactly one
                not_before=begin,
                not_after=end,
                more=self._more,
            )
        )
        return IssuedSvid(
            spiffe_id=who,
            serial=f"{certificate.serial_number:x}",
            chain=(certificate.public_bytes(serialization.Encoding.DER), self.der),
            key=None if key is None else _pkcs8(key),
            not_before=int(begin.timestamp()),
            not_after=int(end.timestamp()),
        )

    def _window(
        self, now: dt.datetime, ttl_s: int, profile: Profile
    ) -> tuple[dt.datetime, dt.datetime]:
        if not profile.least_s <= ttl_s <= profile.most_s:
            raise IssueError(
                f"a life of {ttl_s} s is out of bounds: ask for {profile.least_s} to "
                f"{profile.most_s} s"
            )
        now = now.replace(microsecond=0)  # RFC 5280, section 4.1.2.5: whole seconds
        end = min(now + dt.timedelta(seconds=ttl_s), self._until)
        if not self._from <= now < end:
            raise IssueError(
                f"the intermediate is good from {self._from:%Y-%m-%d} to {self._until:%Y-%m-%d}, "
                f"the clock says {now:%Y-%m-%d}: correct the clock, or `sallyport ca rotate`"
            )
        return max(now - dt.timedelta(seconds=profile.skew_s), self._from), end


def svid_profile(name: str) -> Profile:
    """Return the profile of this name, of those that SVIDs have.

    Raises:
        IssueError: no SVID has it.
    """
    profile = PROFILES.get(name)
    if profile is None or not profile.is_svid:
        raise IssueError(f"no SVID has the profile {name!a}: ask for svid or admin")
    return profile


def _acceptable(
    spki: bytes | None,
) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
    try:
        key = serialization.load_der_public_key(spki or b"")
    except (ValueError, UnsupportedAlgorithm):
        raise IssueError("the public key cannot be read: make a P-256 key") from None
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    raise IssueError("the public key is of a kind that we do not sign: make a P-256 key")


def _pkcs8(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),  # it goes to its workload, never to the disk
    )


def _pem(label: str, der: bytes) -> str:
    text = base64.b64encode(der).decode()
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n"
