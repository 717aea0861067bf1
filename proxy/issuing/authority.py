"""What the listeners of enrolment and revocation status need of the issuer, as one interface.

`proxy.issuing.issuer` fulfils it; nothing here holds a key.
"""

import logging
from typing import Protocol

from msgspec import Struct

from certs.crl import Revoked
from certs.csr import Csr
from certs.svid import IssuedSvid
from certs.trust_domain import TrustDomain
from proxy.channel import Event
from proxy.config import Settings


class Known(Struct, frozen=True):
    """What is remembered of a certificate that was issued; `not_after` is Unix time in seconds.

    `how` is the way it was asked for: one of `ENROLLED`, or another for the Workload API and
    ourselves.  `spki_sha256` is the lower-case hex digest of its public key.
    """

    serial: int
    spiffe_id: str
    app: str
    spki_sha256: str
    not_after: int
    how: str


BY_TOKEN, BY_OIDC, BY_CERTIFICATE = "join", "oidc", "reenroll"
ENROLLED = frozenset({BY_TOKEN, BY_OIDC, BY_CERTIFICATE})
"""The ways of enrolment: a certificate that came by one of them may be renewed by EST."""


class Authority(Protocol):
    """The issuer, as the listeners see it; call it from the loop's thread only."""

    @property
    def settings(self) -> Settings:
        """The settings of the appliance."""

    @property
    def domain(self) -> TrustDomain:
        """The trust domain as it is now: another object after a rotation."""

    @property
    def log(self) -> logging.Logger:
        """Where what is no audit event is told."""

    def wall(self) -> float:
        """Return Unix time in seconds."""

    async def named(self, app: str) -> tuple[str, ...]:
        """Return the SPIFFE IDs that an app is entitled to; none where there is no such app."""

    async def sign_request(self, csr: Csr, spiffe_id: str, app: str, how: str) -> IssuedSvid:
        """Issue an SVID for the key of `csr`, remember it, and tell audit of it (`issued`).

        Who enrolled, and from where, is told by the caller (`enrolled`).

        Raises:
            CertsError: it cannot be issued; the text says what to do.
        """

    async def known(self, serial: int) -> Known | None:
        """Return what is remembered of a certificate of ours; None where there is none."""

    def revoked_serials(self) -> tuple[Revoked, ...]:
        """Return the certificates that were issued by us, have not ended and are revoked.

        Those whose SPIFFE ID or app is revoked are among them.
        """

    def event(self, event: Event) -> None:
        """Have the appliance write an audit line."""
