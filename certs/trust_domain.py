"""A trust domain that is ready to issue: the keys that sign, in memory, of one look at the disk."""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import override

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certs.bundle import Bundle, JwtKey
from certs.errors import IssueError
from certs.jwks import make_jwks, make_jwt_jwks
from certs.jwt_svid import Claims, check_jwt, make_jwt
from certs.known_domain import DOMAIN_JSON, REFRESH_HINT_S, Generation, Record, pem_of
from certs.known_jwks import jwt_jwks
from certs.mint import Authority
from certs.profile import SVID_TTL_S
from certs.rotation import due, pruned, signing
from certs.signed_claims import sign_claims
from certs.spiffe import workload_id
from certs.svid import IssuedSvid, SvidIssuer, svid_profile

type Stamp = tuple[int, int, int]

_NONE = (
    "no {} of the trust domain is good at {:%Y-%m-%d %H:%M}: correct the clock; if it is right, "
    "`sallyport ca rotate {}`"
)


class TrustDomain:
    """Issues for one trust domain; made by `certs.domain.load_domain`.

    The roots' keys are not among what it holds: nothing but a rotation needs them.
    """

    def __init__(
        self,
        folder: Path,
        record: Record,
        stamp: Stamp,
        issuers: Mapping[str, SvidIssuer],
        jwt_keys: Mapping[str, ec.EllipticCurvePrivateKey],
    ) -> None:
        self._folder = folder
        self._record = record
        self._stamp = stamp
        self._issuers = dict(issuers)
        self._jwt_keys = dict(jwt_keys)
        self._own: Bundle | None = None

    @override
    def __repr__(self) -> str:
        """Show which one it is, and nothing of its keys."""
        return f"TrustDomain({self.name}, sequence={self.sequence})"

    @property
    def name(self) -> str:
        """The trust domain's name, such as desk.example."""
        return self._record.trust_domain

    @property
    def sequence(self) -> int:
        """The number of our bundle; it grows with each change."""
        return self._record.sequence

    @property
    def anchors(self) -> tuple[bytes, ...]:
        """The roots that others are to believe, as DER, oldest first."""
        return self.bundle.anchors

    @property
    def anchors_pem(self) -> str:
        """The same as PEM."""
        return pem_of(self._record.roots)

    @property
    def bundle(self) -> Bundle:
        """Our own bundle, as one of those that JWT-SVIDs are verified against."""
        if self._own is None:
            self._own = self._made_bundle()
        return self._own

    def issue(
        self,
        spiffe_id: str,
        now: dt.datetime,
        ttl_s: int = SVID_TTL_S,
        *,
        spki: bytes | None = None,
        profile: str = "svid",
    ) -> IssuedSvid:
        """Return a new X.509-SVID; with a key of its own, or for the public key `spki` (DER).

        Raises:
            SpiffeError: `spiffe_id` is no workload of this trust domain.
            IssueError: the life is out of bounds, the key is not acceptable, or the time is.
        """
        issuer = self._issuers[self._signing(now).id]
        return issuer.issue(spiffe_id, now, ttl_s, svid_profile(profile), spki)

    def jwt(self, spiffe_id: str, audience: tuple[str, ...], now: dt.datetime, ttl_s: int) -> str:
        """Return a new JWT-SVID; `ttl_s` as in `certs.profile` (`JWT_TTL_S`).

        Raises:
            SpiffeError: `spiffe_id` is no workload of this trust domain.
            IssueError: the audience or the life is out of bounds, or no key is good at `now`.
        """
        who = workload_id(spiffe_id, self.name)
        kid = self._jwt_signing(now)
        return make_jwt(who, audience, now, ttl_s, kid, self._jwt_keys[kid])

    def sign_claims(self, claims: bytes, typ: str, now: dt.datetime) -> str:
        """Return a JWT of `claims`, a JSON object; `typ` is one of `certs.signed_claims.TYPES`.

        Raises:
            IssueError: it is no such thing, or no key is good at `now`.
        """
        kid = self._jwt_signing(now)
        return sign_claims(claims, typ, now, kid, self._jwt_keys[kid])

    def check_jwt(
        self, token: str, audience: str, now: dt.datetime, bundles: Mapping[str, Bundle]
    ) -> Claims:
        """Return what a JWT-SVID says; `bundles` are those of others, ours is always among them.

        Raises:
            SpiffeError: it is none, is for somebody else, has ended, or nobody vouches for it.
        """
        return check_jwt(token, audience, now, {**bundles, self.name: self.bundle})

    def jwks(self) -> bytes:
        """Return our bundle as a SPIFFE JWKS document."""
        return make_jwks(self._record)

    def jwt_jwks(self) -> bytes:
        """Return the JWT keys alone, as the Workload API hands them out."""
        return make_jwt_jwks(self._record)

    def key_set(self) -> bytes:
        """Return the JWT keys as a resource server wants them (RFC 7517)."""
        return jwt_jwks(self._record)

    def rotate_due(self, now: dt.datetime) -> bool:
        """Return whether `certs.domain.ensure_domain` would change anything."""
        at = now.timestamp()
        return bool(due(self._record, at)) or pruned(self._record, at) != self._record

    def vouches_for(self, svid: IssuedSvid) -> bool:
        """Return whether an SVID's intermediate still counts: not once its root is forgotten."""
        return any(svid.chain[-1] == each.der for each in self._issuers.values())

    def is_stale(self) -> bool:
        """Return whether the folder has changed since this was loaded; one stat(2)."""
        return stamp_of(self._folder) != self._stamp

    def signers(self, now: dt.datetime) -> tuple[Authority, ...]:
        """Return the intermediates whose SVIDs are in use, the one that signs first.

        For CRL and OCSP: what an intermediate signed, it alone can revoke.

        Raises:
            IssueError: none is good at `now`.
        """
        first = self._signing(now).id
        rest = [each.authority for name, each in self._issuers.items() if name != first]
        return (self._issuers[first].authority, *reversed(rest))

    def _made_bundle(self) -> Bundle:
        record = self._record
        roots = (x509.load_pem_x509_certificate(each.public.encode()) for each in record.roots)
        return Bundle(
            record.trust_domain,
            tuple(each.public_bytes(serialization.Encoding.DER) for each in roots),
            tuple(
                JwtKey(each.id, self._jwt_keys[each.id].public_key()) for each in record.jwt_keys
            ),
            refresh_hint_s=REFRESH_HINT_S,
            sequence=record.sequence,
        )

    def _jwt_signing(self, now: dt.datetime) -> str:
        """Return the id of the JWT key that signs at `now`."""
        found = signing(self._record.jwt_keys, now.timestamp())
        if found is None:
            raise IssueError(_NONE.format("JWT key", now, "jwt"))
        return found.id

    def _signing(self, now: dt.datetime) -> Generation:
        found = signing(self._record.intermediates, now.timestamp())
        if found is None:
            raise IssueError(_NONE.format("intermediate", now, "intermediate"))
        return found


def stamp_of(folder: Path) -> Stamp:
    """Return what changes when `domain.json` is replaced; zeros where it is missing."""
    try:
        status = (folder / DOMAIN_JSON).stat()
    except OSError:
        return 0, 0, 0
    return status.st_ino, status.st_mtime_ns, status.st_size
